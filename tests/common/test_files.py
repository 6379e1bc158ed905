import subprocess
import sys
from pathlib import Path

import pytest

from paths import ROOT
from siamrpn_jax.common import files
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.common.files import replacing


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file_and_its_folders(tmp_path):
    path = tmp_path / "a" / "b" / "result.json"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == path.parent and not path.exists()
        assert temporary.suffix == ".json"  # writers choose the format by it
    assert path.read_text() == "new"
    assert names(path.parent) == ["result.json"]


def test_the_old_file_stays_until_the_end(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with replacing(str(path)) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(error, match="half way"), replacing(path) as temporary:
        temporary.write_text("ne")
        raise error("half way")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.txt"]


def test_a_full_disk_is_reported_with_the_path(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    expected = "cannot write .*result.txt: .*No space left"
    with pytest.raises(OSError, match=expected), replacing(path) as temporary:
        temporary.write_text("ne")
        raise OSError(28, "No space left on device")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.txt"]


def test_a_folder_in_the_way_is_reported_with_the_path(tmp_path):
    path = tmp_path / "result"
    path.mkdir()
    with pytest.raises(OSError, match="cannot write .*result"):
        with replacing(path) as temporary:
            temporary.write_text("new")
    assert names(tmp_path) == ["result"]


def test_nothing_written_is_an_error(tmp_path):
    with pytest.raises(OSError, match="cannot write .*result.txt"):
        with replacing(tmp_path / "result.txt"):
            pass
    assert names(tmp_path) == []


def test_places_that_can_be_written(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    files.check_place(tmp_path / "a/b", "--out")
    files.check_place(tmp_path / "a/b", "--out", is_file=True)
    files.check_place(file, "--out", is_file=True)
    files.check_place(Path("a"), "--out")
    for below in ("", "a", "a/b"):
        with pytest.raises(InputError, match=f"{file}: is no folder, choose another"):
            files.check_place(file / below, "--out")
    with pytest.raises(InputError, match="is a folder, expected the name of a file"):
        files.check_place(tmp_path, "--out", is_file=True)
    monkeypatch.setattr(files.os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match=f"{tmp_path}: may not be written to"):
        files.check_place(tmp_path / "a", "--out")


def test_two_writers_do_not_meet(tmp_path):
    path = tmp_path / "result.txt"
    with replacing(path) as first, replacing(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the last one to finish


def test_a_folder_is_written_by_one_process_at_a_time(tmp_path):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from siamrpn_jax.common.errors import InputError\n"
        "from siamrpn_jax.common.files import lock_folder\n"
        "try:\n"
        "    with lock_folder(Path(sys.argv[1])):\n"
        "        print('locked')\n"
        "except InputError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "new")]

    def other_process() -> str:
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        return run.stdout + run.stderr

    with files.lock_folder(tmp_path / "new"):
        assert "new: another process writes to this folder" in other_process()
    assert other_process() == "locked\n"


def test_what_a_killed_process_left_is_removed(tmp_path):
    left = tmp_path / f".{'0' * 12}-part.safetensors"
    for path in (left, tmp_path / ".hidden", tmp_path / "weights.safetensors"):
        path.touch()
    with files.lock_folder(tmp_path):
        pass
    assert names(tmp_path) == [".hidden", "weights.safetensors"]


def test_a_folder_that_was_only_locked_goes_again(tmp_path):
    with files.lock_folder(tmp_path / "new"):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["a.jpg", "a/b c/d.jpg", "a..b", "..a", "x" * 255])
def test_names_of_files_in_a_folder(tmp_path, name):
    assert files.inside(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize(
    "name",
    ["", "/etc/passwd", "..", "../a", "a/../../b", "a//b", "C:\\a", "..\\a", "a\0b"]
    + ["x" * 256, None, "./a"],
)
def test_names_that_lead_elsewhere(tmp_path, name):
    with pytest.raises(InputError, match="expected the name of a file in"):
        files.inside(tmp_path, name)


def test_a_name_is_no_path():
    assert files.check_name("Jogging-1") == "Jogging-1"
    with pytest.raises(InputError, match="expected a name without a path"):
        files.check_name("a/b")


def test_json_of_others(tmp_path):
    path = tmp_path / "a.json"
    for data in (b'{"a": 1}', b'\xef\xbb\xbf{"a": 1}'):
        path.write_bytes(data)
        assert files.read_json(path) == {"a": 1}
    for data in (b"{", b"\xff", b"[" * 100_000):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"a\.json: is not JSON"):
            files.read_json(path)
    with pytest.raises(InputError, match="none: cannot be read"):
        files.read_json(tmp_path / "none")


def test_checksums_tell_any_change(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_text("1")
    (tmp_path / "d").write_text("1")
    before = files.checksums(tmp_path)
    assert set(before) == {"a/b/c", "d"} and before["d"] == before["a/b/c"]
    (tmp_path / "d").write_text("2")
    assert files.checksums(tmp_path)["d"] != before["d"]

import pytest

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


def test_two_writers_do_not_meet(tmp_path):
    path = tmp_path / "result.txt"
    with replacing(path) as first, replacing(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the last one to finish

"""What a release consists of agrees; ``.ci/release`` refuses it where it does not."""

import re
import shutil
import subprocess
import tomllib

import pytest

import siamrpn_jax
from paths import ROOT

VERSION = siamrpn_jax.__version__
FILES = ("siamrpn_jax/__init__.py", "CITATION.cff", "CHANGELOG.md", ".ci/release")
STEP = '#!/bin/sh\necho "$0 $*" >> ../steps\n'


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A repository that is ready for a release; its steps write down that they ran."""
    if shutil.which("git") is None:
        pytest.skip("there is no git")
    root = tmp_path / "clone"
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes((ROOT / name).read_bytes())
    for name in ("run", "package"):
        (root / ".ci" / name).write_text(STEP)
    for file in (root / ".ci").iterdir():
        file.chmod(0o755)
    changes = (root / "CHANGELOG.md").read_text()
    entries = r"(## \[Unreleased\]\n).*?(?=## \[\d)"
    changes = re.sub(entries, r"\1\n", changes, count=1, flags=re.S)
    (root / "CHANGELOG.md").write_text(changes)
    for key, value in {"AUTHOR": "A", "COMMITTER": "C"}.items():
        monkeypatch.setenv(f"GIT_{key}_NAME", value)
        monkeypatch.setenv(f"GIT_{key}_EMAIL", "a@example.org")
    git(root, "init", "--quiet", "--initial-branch=main")
    commit(root)
    return root


def git(root, *arguments):
    run = subprocess.run(
        ["git", *arguments], cwd=root, check=True, capture_output=True, text=True
    )
    return run.stdout


def commit(root):
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message=All")


def release(root, *arguments):
    return subprocess.run(
        ["bash", ".ci/release", *arguments], cwd=root, capture_output=True, text=True
    )


def test_a_dry_run_only_says_what_it_would_do(clone):
    run = release(clone, VERSION, "--dry-run", "--push", "origin", "--upload")
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [
        "+ .ci/run",
        "+ .ci/package dist",
        f"+ git tag --annotate v{VERSION} --message siamrpn_jax {VERSION}",
        f"+ git push origin HEAD v{VERSION}",
        "+ python3 -m twine upload dist/*",
    ]
    assert not git(clone, "tag") and not (clone.parent / "steps").exists()


@pytest.mark.parametrize("tests", [True, False])
def test_it_runs_the_steps_and_tags_and_sends_nothing(clone, tests):
    run = release(clone, VERSION, *["--skip-tests"] * (not tests))
    assert run.returncode == 0, run.stderr
    assert git(clone, "tag").split() == [f"v{VERSION}"]
    steps = (clone.parent / "steps").read_text().splitlines()
    assert steps == [".ci/run "] * tests + [".ci/package dist"]
    assert "not pushed: git push REMOTE" in run.stdout
    assert "not uploaded: python3 -m twine upload" in run.stdout
    again = release(clone, VERSION)
    assert again.stderr == f"error: there is a tag v{VERSION}\n"


def test_it_pushes_where_it_is_told_to(clone, tmp_path):
    git(tmp_path, "init", "--quiet", "--bare", "remote")
    run = release(clone, VERSION, "--push", str(tmp_path / "remote"))
    assert run.returncode == 0, run.stderr
    assert git(tmp_path / "remote", "tag").split() == [f"v{VERSION}"]


def test_a_step_that_fails_ends_it(clone):
    (clone / ".ci/run").write_text("#!/bin/sh\nexit 3\n")
    commit(clone)
    assert release(clone, VERSION).returncode == 3
    assert not git(clone, "tag")


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        (FILES[0], f'"{VERSION}"', '"9.9.9"', "__init__.py says 9.9.9, expected"),
        (FILES[1], f"version: {VERSION}", "version: 9.9.9", "CITATION.cff says 9.9.9"),
        (FILES[1], "date-released: ", "date-released: 1", "CHANGELOG.md 20"),
        (
            FILES[2],
            f"## [{VERSION}] - ",
            "## [9.9.9] - ",
            "newest entry is '## [9.9.9]",
        ),
        (FILES[2], f"## [{VERSION}] - 2", f"## [{VERSION}] ", "YEAR-MONTH-DAY"),
        (
            FILES[2],
            "## [Unreleased]\n",
            "## [Unreleased]\n- New\n",
            "Unreleased: - New",
        ),
    ],
)
def test_what_does_not_agree_is_refused(clone, file, old, new, problem):
    path = clone / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    commit(clone)
    run = release(clone, VERSION)
    assert run.returncode == 1 and problem in run.stderr
    assert not git(clone, "tag")


def test_a_tree_that_is_not_clean_is_refused(clone):
    (clone / "new").touch()
    assert "not clean" in release(clone, VERSION, "--dry-run").stderr


@pytest.mark.parametrize("arguments", [(), ("--fly",), ("1.2.3", "--push")])
def test_bad_arguments(clone, arguments):
    run = release(clone, *arguments)
    assert run.returncode == 2 and "VERSION [--dry-run]" in run.stderr


def test_versions_that_are_none(clone):
    assert "expected three numbers" in release(clone, "1.2").stderr


def test_help(clone):
    run = release(clone, "--help")
    assert run.returncode == 0 and "set -" not in run.stdout


def test_versions_agree():
    changes = (ROOT / "CHANGELOG.md").read_text()
    newest = re.search(r"^## \[(\d.*?)\] - (.*)$", changes, re.M)
    citation = (ROOT / "CITATION.cff").read_text()
    assert newest and newest[1] == VERSION
    assert f"\nversion: {VERSION}\ndate-released: {newest[2]}\n" in citation


def test_scripts_are_whole():
    for name in ("package", "release"):
        subprocess.run(["bash", "-n", ROOT / ".ci" / name], check=True)


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cuda"])
def test_images_are_built_from_what_is_there(name):
    text = (ROOT / name).read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    let_in = (ROOT / ".dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.M):
        for source in line.split():
            assert (ROOT / source).exists() and f"!{source}" in let_in
    (extras,) = re.findall(r"ARG EXTRAS=(.*)", text)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    (opencv,) = [d for d in project["dependencies"] if d.startswith("opencv-python")]
    assert opencv.replace("python", "python-headless") in text
    assert "\nUSER 1000\n" in text and 'ENTRYPOINT ["siamrpn"]' in text

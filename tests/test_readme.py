import subprocess
import tomllib

from doc_pages import examples
from paths import ROOT

README = (ROOT / "README.md").read_text()


def test_it_is_short():
    assert len(README.splitlines()) <= 130
    code = [line for line in examples(ROOT / "README.md").splitlines() if line.strip()]
    assert len(code) <= 18


def test_requirements_are_those_of_the_package_and_of_training():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["train"]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert wanted == [line for line in lines if line[:1] != "#"]
    assert any(line.startswith("tensorflow-datasets") for line in lines)


def test_ci_runs_the_test_command_of_the_readme():
    script = (ROOT / ".ci/run").read_text()
    for part in ("-m pytest", "pip install"):
        assert part in README and part in script
    assert "'.[dev]'" in README and "'.[dev," in script
    assert subprocess.run(["bash", "-n", ROOT / ".ci/run"], check=False).returncode == 0

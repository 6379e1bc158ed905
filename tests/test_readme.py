import re
import subprocess
import tomllib

from paths import ROOT


def test_python_examples_run(capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    exec(compile("".join(blocks), "README.md", "exec"), {})
    assert "(8, 4)" in capsys.readouterr().out


def test_requirements_are_those_of_the_package_and_of_training():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["train"]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert wanted == [line for line in lines if line[:1] != "#"]
    assert any(line.startswith("tensorflow-datasets") for line in lines)


def test_links_lead_somewhere():
    for name in ("README.md", "ARCHITECTURE.md"):
        text = (ROOT / name).read_text()
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert (ROOT / target).exists(), f"{name}: {target}"


def test_ci_runs_the_test_command_of_the_readme():
    readme, script = (ROOT / "README.md").read_text(), (ROOT / ".ci/run").read_text()
    for part in ("-m pytest", "pip install"):
        assert part in readme and part in script
    assert "'.[dev]'" in readme and "'.[dev," in script
    assert subprocess.run(["bash", "-n", ROOT / ".ci/run"], check=False).returncode == 0

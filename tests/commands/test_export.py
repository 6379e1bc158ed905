import json
import subprocess
import sys
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from jax import export

from siamrpn_jax.commands import export as command
from siamrpn_jax.data.scenes.generated import make_sequence
from siamrpn_jax.model.boxes import iou, ltwh_to_cxcywh
from siamrpn_jax.tracking.step import make_tracker
from siamrpn_jax.weights import load_weights

ALONE = """\
import json, sys
for name in ("siamrpn_jax", "flax", "cv2", "optax", "orbax", "tyro", "safetensors"):
    sys.modules[name] = None  # now `import` of it fails
exec(open("example.py").read())
print("scene")
import numpy as np
clip = np.load("frames.npy")
if {baked}:
    state = json.load(open("{folder}/export.json"))["state"]
    state = {{name: np.float32(value) for name, value in state.items()}}
    kernels = ()
else:
    template, state = init(clip[0], np.load("box.npy"))
    kernels = (template,)
outputs = []
for frame in clip[1:]:
    state, output = step(*kernels, state, frame)
    outputs.append([*state["box"], *output["box"], output["score"]])
np.save("outputs.npy", np.array(outputs))
"""


@pytest.fixture(scope="module")
def scene():
    """Frames of a generated scene, and the target's first box, ``ltwh``."""
    frames, boxes = make_sequence(7, length=6)
    return frames, boxes[0]


@pytest.fixture(scope="module")
def expected(scene):
    """State, box and score as the package finds them."""
    frames, box = scene
    loaded = load_weights("small")
    init, step = make_tracker(
        loaded.model, loaded.variables, config=loaded.tracker_config
    )
    template, state = init(frames[0], ltwh_to_cxcywh(box))
    rows = []
    for frame in frames[1:]:
        state, output = step(template, state, frame)
        rows.append([*state.box, *output.box, output.score])
    return np.array(rows)


def run_alone(folder: Path, printed: str, scene, *, baked: bool):
    """What the example prints and what the scene gives, without the package."""
    frames, box = scene
    work = folder.parent
    (work / "example.py").write_text(printed[printed.index("# pip install") :])
    (work / "alone.py").write_text(ALONE.format(folder=folder, baked=baked))
    np.save(work / "frames.npy", frames)
    np.save(work / "box.npy", ltwh_to_cxcywh(box))
    run = subprocess.run(
        [sys.executable, "-W", "error", "alone.py"],
        cwd=work,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.split("scene")[0].splitlines()
    return lines, np.load(work / "outputs.npy")


def test_any_target_without_the_package(tmp_path, capsys, scene, expected):
    folder = tmp_path / "deep" / "out"
    command.main(["--weights", "small", "--out", str(folder)])
    printed = capsys.readouterr().out
    report = json.loads((folder / "export.json").read_text())
    assert report["frame_size"] == "any"
    assert report["weights"]["licence"].startswith("Apache-2.0")
    assert list(report["platforms"]) == ["cpu", "cuda", "tpu"]
    listed = [name for names in report["platforms"].values() for name in names.values()]
    assert {path.name for path in folder.iterdir()} == {*listed, "export.json"}
    for platform, names in report["platforms"].items():
        for name in names.values():
            assert str(folder / name) in printed
            exported = export.deserialize(bytearray((folder / name).read_bytes()))
            assert exported.platforms == (platform,)
            version = report["calling_convention_version"]
            assert exported.calling_convention_version == version
            frame = next(a for a in exported.in_avals if len(a.shape) == 3)
            assert frame.dtype == np.uint8 and frame.shape[2] == 3

    lines, outputs = run_alone(folder, printed, scene, baked=False)
    # The example's square of 61 pixels, 8 pixels to the right of where it started.
    box = np.array(lines[-1].partition("]")[0].strip("[ ").split(), float)
    assert len(lines) == 8 and iou(box, np.array([251.5, 190.5, 61, 61])) > 0.7
    np.testing.assert_allclose(outputs, expected, atol=1e-3)


def test_one_target_without_the_package(tmp_path, capsys, scene, expected):
    frames, box = scene
    image = tmp_path / "first.png"
    cv2.imwrite(str(image), frames[0][..., ::-1])
    folder = tmp_path / "out"
    target = ["--template-from", str(image), "--box", ",".join(map(str, box))]
    words = ["--weights", "small", "--out", str(folder), "--platforms", "cpu", "cpu"]
    command.main([*words, *target])
    printed = capsys.readouterr().out
    report = json.loads((folder / "export.json").read_text())
    assert report["frame_size"] == [320, 240]
    assert report["platforms"] == {"cpu": {"step": "step_cpu.jax_export"}}
    assert report["state"]["box"] == pytest.approx(ltwh_to_cxcywh(box))

    lines, outputs = run_alone(folder, printed, scene, baked=True)
    assert len(lines) == 9
    np.testing.assert_allclose(outputs, expected, atol=1e-3)


def test_the_network_without_the_package(tmp_path, capsys):
    folder = tmp_path / "out"
    words = ["--weights", "small", "--out", str(folder), "--platforms", "cpu"]
    words += ["--part", "network"]
    command.main(words)
    printed = capsys.readouterr().out
    report = json.loads((folder / "export.json").read_text())
    assert report["platforms"] == {
        "cpu": {n: f"{n}_cpu.jax_export" for n in ("template", "search")}
    }
    assert report["part"] == "network" and report["format_version"] == 1
    calls = [one["call"] for one in report["functions"].values()]
    assert calls == ["kernels = template(z)", "maps = search(kernels, x)"]
    run = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            printed[printed.index("# pip install") :],
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert "'cls_logits': (1, 13, 13, 5, 2)" in run.stdout
    with pytest.raises(SystemExit):
        command.main(words)
    assert "export.json: is there already, choose an" in capsys.readouterr().err


def test_one_frame_size(tmp_path, capsys):
    words = ["--out", str(tmp_path), "--platforms", "cuda", "--frame-size", "64x048"]
    command.main(words)
    report = json.loads((tmp_path / "export.json").read_text())
    assert report["frame_size"] == [64, 48]
    frame = report["functions"]["step"]["inputs"]["frame"]
    assert frame["shape"] == [48, 64, 3] and frame["dtype"] == "uint8"
    printed = capsys.readouterr().out
    assert "np.zeros((9, 48, 64, 3), np.uint8)" in printed and "cuda" in printed
    exported = export.deserialize(
        bytearray((tmp_path / "step_cuda.jax_export").read_bytes())
    )
    wrong = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype),
        jax.tree.unflatten(exported.in_tree, exported.in_avals)[0],
    )
    with pytest.raises(ValueError, match="cuda"):  # not on this platform
        exported.call(*wrong)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--frame-size", "640"], "--frame-size '640': expected width x height"),
        (["--frame-size", "640x0"], "--frame-size '640x0': expected width x height"),
        (["--frame-size", "640x31"], "--frame-size 640x31: expected 32 pixels or more"),
        (["--frame-size=-1x5"], "--frame-size '-1x5': expected width x height"),
        (["--platforms", "cpu", "gpu"], "--platforms gpu: expected some of cpu, cuda"),
        (["--platforms"], "expected some of cpu, cuda, tpu"),
        (
            ["--part", "network", "--frame-size", "64x64"],
            "--part network: --frame-size is of frames, a network takes patches",
        ),
        (
            ["--part", "both", "--template-from", "IMAGE", "--box", "1,2,9,9"],
            "--part both: expected whole with --template-from",
        ),
        (["--weights", "none"], "no weights 'none'"),
        (["--box", "1,2,3,4"], "--template-from and --box: expected both"),
        (["--template-from", "IMAGE"], "--template-from and --box: expected both"),
        (["--template-from", "IMAGE", "--box", "1,2,3"], "expected four numbers"),
        (["--template-from", "IMAGE", "--box", "50,2,3,4"], "outside the frame of 40x"),
        (["--template-from", "IMAGE", "--box", "1,2,0,4"], "w and h above 0"),
        (["--template-from", "none.png", "--box", "1,2,3,4"], "none.png"),
        (
            ["--template-from", "IMAGE", "--box", "1,2,9,9", "--frame-size", "64x48"],
            "--frame-size 64x48: expected 40x30, the size of",
        ),
        (
            ["--template-from", "IMAGE", "--box", "1,2,9,9", "--frame-size", "any"],
            "--frame-size any: expected 40x30, the size of",
        ),
    ],
)
def test_bad_options_are_one_line(tmp_path, capsys, words, message):
    image = tmp_path / "image.png"
    cv2.imwrite(str(image), np.zeros((30, 40, 3), np.uint8))
    words = [str(image) if word == "IMAGE" else word for word in words]
    with pytest.raises(SystemExit) as caught:
        command.main(["--out", str(tmp_path / "out"), *words])
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert message in captured.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("below", ["", "deep/er"])
def test_a_file_in_the_place_of_the_folder(below, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(SystemExit):
        command.main(["--format", "onnx", "--out", str(file / below)])
    message = f"error: {file}: is no folder, choose another --out\n"
    assert capsys.readouterr().err == message


def test_without_flatbuffers(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(SystemExit) as caught:
        command.main(["--out", str(tmp_path / "out")])
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "error: flatbuffers is not installed: pip install 'siamrpn-jax[export]'\n"
    )


def test_help_does_not_load_jax():
    code = (
        "import sys\nfrom siamrpn_jax.commands import export\n"
        "assert 'jax' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_help_is_documented(capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(["--help"])
    assert caught.value.code == 0
    assert "--frame-size" in capsys.readouterr().out

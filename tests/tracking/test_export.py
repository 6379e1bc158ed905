import dataclasses
import sys
from typing import Any

import jax
import numpy as np
import pytest
from jax import export

from siamrpn_jax.common.errors import MissingExtraError
from siamrpn_jax.data.scenes.generated import make_sequence
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.tracking import export as exporting
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.state import Loaded
from siamrpn_jax.tracking.step import make_tracker
from small_models import tiny_model

BOX = np.array([40, 30, 24, 18], np.float32)


@pytest.fixture(scope="module")
def loaded():
    model = SiamRPN(dataclasses.replace(tiny_model(), conv_impl="auto"))
    variables = jax.device_get(model.init_variables(jax.random.key(0)))
    return Loaded(model, variables, TrackerConfig(min_size=4.0), {"licence": "none"})


def clip(height: int, width: int, *, length: int = 4) -> np.ndarray:
    frames, _ = make_sequence(5, length=length, height=height, width=width)
    return frames


def as_dicts(tree: Any) -> Any:
    """The package's classes as dicts of their fields, of those that are there."""
    if isinstance(tree, tuple):
        return tuple(map(as_dicts, tree))
    if not dataclasses.is_dataclass(tree):
        return tree
    present = {name: value for name, value in vars(tree).items() if value is not None}
    return {name: as_dicts(value) for name, value in present.items()}


def through_a_file(exported: export.Exported) -> Any:
    return jax.jit(export.deserialize(exported.serialize()).call)


def assert_close(found: Any, expected: Any) -> None:
    """To 1e-3 pixels; scores and kernels to 1e-4."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-3 if b.max() > 1 else 1e-4)


def test_dicts_hold_what_the_package_computes(loaded):
    frames = clip(60, 80)
    init, step = exporting.make_functions(loaded)
    own_init, own_step = make_tracker(
        loaded.model, loaded.variables, config=loaded.tracker_config
    )
    start, own_start = init(frames[0], BOX), own_init(frames[0], BOX)
    assert_close(start, as_dicts(own_start))
    assert_close(step(*start, frames[1]), as_dicts(own_step(*own_start, frames[1])))


@pytest.mark.parametrize(
    "memory",
    [{"online_frames": 2}, {"second_template": 0.5}, {"distractors": 0.2}],
    ids=lambda memory: next(iter(memory)),
)
def test_a_memory_goes_from_step_to_step(memory):
    model = tiny_model()
    head = dataclasses.replace(model.head, kind="hybrid")
    ratios = dataclasses.replace(model.anchors, ratios=(1.0,))
    network = SiamRPN(dataclasses.replace(model, head=head, anchors=ratios))
    variables = jax.device_get(network.init_variables(jax.random.key(0)))
    config = TrackerConfig(min_size=4.0, online_above=0.0, memory_above=0.0, **memory)
    loaded = Loaded(network, variables, config, {})
    functions = exporting.export_tracker(loaded, platform="cpu", frame_size=(80, 60))
    init, step = map(through_a_file, (functions["init"], functions["step"]))
    own_init, own_step = make_tracker(network, variables, config=config)
    frames = clip(60, 80)
    template, state = init(frames[0], BOX)
    own_template, own_state = own_init(frames[0], BOX)
    for frame in frames[1:]:
        state, output = step(template, state, frame)
        own_state, own_output = own_step(own_template, own_state, frame)
    assert_close((state, output), as_dicts((own_state, own_output)))
    signature = exporting.describe(loaded, functions, weights="tiny")["functions"]
    described = signature["step"]["inputs"]["state"]["memory"]
    assert jax.tree.structure(described, is_leaf=lambda d: "shape" in d) == (
        jax.tree.structure(state["memory"])
    )


def test_any_frame_size_in_one_export(loaded):
    functions = exporting.export_tracker(loaded, platform="cpu")
    init, step = map(through_a_file, (functions["init"], functions["step"]))
    own_init, own_step = make_tracker(
        loaded.model, loaded.variables, config=loaded.tracker_config
    )
    for height, width in ((60, 80), (100, 64)):
        frames = clip(height, width)
        template, state = init(frames[0], BOX)
        own_template, own_state = own_init(frames[0], BOX)
        for frame in frames[1:]:
            state, output = step(template, state, frame)
            own_state, own_output = own_step(own_template, own_state, frame)
            assert_close((state, output), as_dicts((own_state, own_output)))


def test_a_template_baked_in(loaded):
    frames = clip(60, 80)
    init, step = exporting.make_functions(loaded)
    template, state = init(frames[0], BOX)
    functions = exporting.export_tracker(
        loaded, platform="cpu", frame_size=(80, 60), template=template
    )
    assert list(functions) == ["step"]
    baked = through_a_file(functions["step"])
    assert_close(baked(state, frames[1]), step(template, state, frames[1]))


@pytest.mark.parametrize("platform", exporting.CONV_IMPL)
def test_each_platform_has_its_convolutions_and_the_weights(loaded, platform):
    functions = exporting.export_tracker(loaded, platform=platform, frame_size=(80, 60))
    init, _ = exporting.make_functions(loaded)
    frame = jax.ShapeDtypeStruct((60, 80, 3), np.uint8)
    template, state = jax.eval_shape(init, frame, BOX)
    inputs = {"init": 2, "step": len(template) + len(state) + 1}
    for name, exported in functions.items():
        blob = exported.serialize()
        again = export.deserialize(blob)
        assert again.platforms == (platform,)
        assert len(again.in_avals) == inputs[name]
        shapes = {aval.shape: aval.dtype for aval in again.in_avals}
        assert shapes[60, 80, 3] == np.uint8
        weights = sum(x.nbytes for x in jax.tree.leaves(loaded.variables["params"]))
        assert len(blob) > 0.9 * weights
        plain = "stablehlo.convolution" in again.mlir_module()
        # On a CPU, exemplars alone go through plain convolutions, once a target.
        assert plain == (platform != "cpu" or name == "init")


@pytest.mark.parametrize("template", [False, True])
def test_description(loaded, template):
    init, _ = exporting.make_functions(loaded)
    kernels, state = init(clip(60, 80)[0], BOX)
    functions = exporting.export_tracker(
        loaded, platform="tpu", template=kernels if template else None
    )
    report = exporting.describe(
        loaded, functions, weights="some", state=state if template else None
    )
    assert report["weights"] == {"name": "some", "licence": "none"}
    assert report["tracker"]["min_size"] == 4.0
    step = report["functions"]["step"]
    assert step["inputs"]["frame"]["shape"] == ["h", "w", 3]
    assert step["inputs"]["state"]["box"] == step["outputs"]["output"]["box"]
    assert step["outputs"]["output"]["proposals"]["shape"] == [8, 4]
    if template:
        assert step["call"] == "state, output = step(state, frame)"
        assert list(report["functions"]) == ["step"]
        assert report["state"]["box"] == BOX.tolist()
    else:
        assert step["call"] == "state, output = step(template, state, frame)"
        assert list(step["inputs"]) == ["template", "state", "frame"]
        call = report["functions"]["init"]["call"]
        assert call == "template, state = init(frame, box)"
        assert report["state"] is None


def test_files(loaded, tmp_path, monkeypatch):
    functions = exporting.export_tracker(loaded, platform="cpu", frame_size=(80, 60))
    names = exporting.write_functions(tmp_path / "new", {"cpu": functions})
    assert names == {"cpu": {n: f"{n}_cpu.jax_export" for n in ("init", "step")}}
    written = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert written == ["init_cpu.jax_export", "step_cpu.jax_export"]
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(MissingExtraError, match=r"siamrpn-jax\[export\]"):
        exporting.write_functions(tmp_path / "none", {"cpu": functions})
    assert not (tmp_path / "none").exists()

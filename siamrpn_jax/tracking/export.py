"""The tracker as StableHLO files that run with JAX alone, without this package.

Two functions over plain arrays and dicts, the weights baked in::

    template, state = init(frame, box)
    state, output = step(template, state, frame)

or, with one target's template baked in, ``state, output = step(state, frame)``; and the
network alone, from patches to score maps::

    kernels = template(z)
    maps = search(kernels, x)

The dicts hold the fields of ``model.rpn.Template``, ``tracking.state.TrackState``,
``tracking.state.TrackOutput`` and ``model.network.Detection`` under their names, and a
state with a memory one more dict, of ``tracking.memory.Memory``'s. One
file for each function and platform: convolutions take the formulation that is fast
there, whatever machine exports.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jaxlib.version
import numpy as np
from jax import export

import siamrpn_jax
from siamrpn_jax.common import configs
from siamrpn_jax.common.errors import require
from siamrpn_jax.common.files import replacing
from siamrpn_jax.model import fused
from siamrpn_jax.model.config import ConvImpl
from siamrpn_jax.model.network import SiamRPN
from siamrpn_jax.model.rpn import Template
from siamrpn_jax.tracking.memory import Memory
from siamrpn_jax.tracking.online import Learned
from siamrpn_jax.tracking.state import Loaded, TrackState
from siamrpn_jax.tracking.step import make_tracker

Name = Literal["init", "step", "template", "search"]
Arrays = dict[str, Any]

CONV_IMPL: dict[str, ConvImpl] = {"cpu": "winograd", "cuda": "xla", "tpu": "xla"}
"""The formulation of convolutions by platform; its keys are all platforms."""

_SIGNATURES: dict[Name, tuple[list[str], list[str]]] = {
    "init": (["frame", "box"], ["template", "state"]),
    "step": (["template", "state", "frame"], ["state", "output"]),
    "template": (["z"], ["kernels"]),
    "search": (["kernels", "x"], ["maps"]),
}
"""Names of arguments and results; a baked-in template is no argument."""

_MEANINGS = {
    "frame": "RGB image [height, width, 3]",
    "box": "cxcywh in frame pixels: centre x, centre y, width, height",
    "fill": "colour outside the frame: channel mean of the first frame",
    "frame_size": "width and height of the image within a possibly padded frame",
    "score": "0..1, how much the best proposal looks like the target",
    "windowed_score": "the same after penalty and window, by which it won",
    "proposals": "cxcywh in frame pixels, best first",
    "proposal_scores": "their final scores, falling",
    "evidence": "support and margin, of which the confidence is made",
    "confidence": "0..1, probability that the target is still followed",
    "lost": "the confidence says that the target is lost",
    "age": "frames since the first",
    "margin": "running average of the margin",
    "motion": "mean motion of the target's centre, frame pixels a frame",
    "search_shift": "from the box's centre to that of the next search region",
    "search_scale": "how many times as wide and high the next search region is",
    "distractors": "mean kernel of what looks like the target",
    "first": "the kernel that learns, as the first frame made it",
    "kernel": "the kernel that learns: the current one of the classification branch",
    "features": "of the search patches that it learns from",
    "places": "of the target in them, from their middle, in patch pixels",
    "logits": "what the kernel makes of the features",
    "shares": "how much each of them counts",
    "cls_kernel": "detection kernel of the classification branch",
    "reg_kernel": "detection kernel of the regression branch",
    "z": "patch around the target in the first frame, RGB, 0 to 255",
    "x": "patch to search in, RGB, 0 to 255",
    "cls_logits": "by cell and anchor: not the target, the target",
    "reg_deltas": "by cell and anchor: offsets of the box from the anchor",
}

_COORDINATES = (
    "continuous pixels, x to the right, y down; pixel i covers [i, i+1) and has its "
    "centre at i + 0.5; an image of width W spans [0, W]"
)

_COMPATIBILITY = (
    "jax.export: compiles and runs with JAX and jaxlib up to 6 months newer, and up to "
    "3 weeks older, than those that exported, by the dates of their releases"
)


def make_functions(
    loaded: Loaded, *, conv_impl: ConvImpl = "auto"
) -> tuple[
    Callable[[Any, Any], tuple[Arrays, Arrays]],
    Callable[[Arrays, Arrays, Any], tuple[Arrays, Arrays]],
]:
    """The tracker's functions with dicts in place of this package's classes.

    Args:
        loaded: network, weights and tracking constants.
        conv_impl: formulation of the convolutions.

    Returns:
        ``init(frame, box) -> (template, state)`` and ``step(template, state, frame) ->
        (state, output)``; frames are uint8 ``[H, W, 3]`` RGB, boxes ``cxcywh [4]`` in
        frame pixels.
    """
    model = SiamRPN(dataclasses.replace(loaded.model.config, conv_impl=conv_impl))
    config = loaded.tracker_config
    init_track, track_step = make_tracker(model, loaded.variables, config=config)

    def init(frame: Any, box: Any) -> tuple[Arrays, Arrays]:
        template, state = init_track(frame, box)
        return _as_dict(template), _as_dict(state)

    def step(template: Arrays, state: Arrays, frame: Any) -> tuple[Arrays, Arrays]:
        kernels = _as_template(template)
        after, output = track_step(kernels, _as_state(state), frame)
        return _as_dict(after), _as_dict(output)

    return init, step


def export_tracker(
    loaded: Loaded,
    *,
    platform: str,
    frame_size: tuple[int, int] | None = None,
    template: Arrays | None = None,
) -> dict[Name, export.Exported]:
    """Traces the tracker for a platform, which this machine need not have.

    Args:
        loaded: network, weights and tracking constants.
        platform: ``cpu``, ``cuda`` or ``tpu``.
        frame_size: width and height of the frames; None: any, each compiled for when
            it is met first.
        template: the one target to follow, from ``init``; None: any.

    Returns:
        ``init`` and ``step``, or with a template ``step`` alone.
    """
    init, step = make_functions(loaded, conv_impl=CONV_IMPL[platform])
    width, height = frame_size or export.symbolic_shape("w, h")
    frame = jax.ShapeDtypeStruct((height, width, 3), np.uint8)
    box = jax.ShapeDtypeStruct((4,), np.float32)
    some_template, state = jax.eval_shape(init, frame, box)

    def trace(function: Callable, *arguments: Any) -> export.Exported:
        return export.export(jax.jit(function), platforms=[platform])(*arguments)

    if template is not None:
        return {"step": trace(functools.partial(step, template), state, frame)}
    return {
        "init": trace(init, frame, box),
        "step": trace(step, some_template, state, frame),
    }


def make_network_functions(
    loaded: Loaded, *, conv_impl: ConvImpl
) -> tuple[Callable[[Any], Arrays], Callable[[Arrays, Any], Arrays]]:
    """The network without the tracker, with dicts in place of this package's classes.

    Args:
        loaded: network and weights.
        conv_impl: formulation of the convolutions.

    Returns:
        ``template(z) -> kernels`` and ``search(kernels, x) -> maps``; patches are
        float32 ``[1, n, n, 3]``, RGB, 0 to 255.
    """
    config = dataclasses.replace(loaded.model.config, conv_impl=conv_impl)
    model = SiamRPN(config)

    def embed(z: Any) -> Arrays:
        return _as_dict(fused.embed_template(model, loaded.variables, z))

    def detect(kernels: Arrays, x: Any) -> Arrays:
        template = _as_template(kernels)
        return _as_dict(fused.detect(model, loaded.variables, template, x))

    return embed, detect


def patch_shapes(loaded: Loaded) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Shapes of the patches ``z`` and ``x``."""
    config = loaded.model.config
    z, x = (
        jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
        for side in (config.exemplar_size, config.instance_size)
    )
    return z, x


def export_network(loaded: Loaded, *, platform: str) -> dict[Name, export.Exported]:
    """Traces the network alone for a platform, which this machine need not have.

    Returns:
        ``template`` and ``search``.
    """
    embed, detect = make_network_functions(loaded, conv_impl=CONV_IMPL[platform])
    z, x = patch_shapes(loaded)
    kernels = jax.eval_shape(embed, z)
    traced = functools.partial(export.export, platforms=[platform])
    return {
        "template": traced(jax.jit(embed))(z),
        "search": traced(jax.jit(detect))(kernels, x),
    }


def write_functions(
    folder: Path, exported: Mapping[str, Mapping[Name, export.Exported]]
) -> dict[str, dict[Name, str]]:
    """Writes ``init_cpu.jax_export`` and so on.

    Args:
        folder: where to.
        exported: by platform, then by function.

    Returns:
        the names of the files by platform, then by function.

    Raises:
        MissingExtraError: flatbuffers is not installed.
        OSError: naming the file that cannot be written.
    """
    require("flatbuffers", extra="export")
    names: dict[str, dict[Name, str]] = {}
    for platform, functions in exported.items():
        for name, function in functions.items():
            file = f"{name}_{platform}.jax_export"
            with replacing(folder / file) as part:
                part.write_bytes(function.serialize())
            names.setdefault(platform, {})[name] = file
    return names


def describe(
    loaded: Loaded,
    functions: Mapping[Name, export.Exported],
    *,
    weights: str,
    state: Arrays | None = None,
) -> dict[str, Any]:
    """All that the caller of exported functions must know, as JSON values.

    Args:
        loaded: network, weights and tracking constants.
        functions: from ``export_tracker`` and ``export_network``, for any platform.
        weights: the weights' name or path.
        state: of the baked-in target in its first frame.
    """
    some = next(iter(functions.values()))
    return {
        "siamrpn_jax": siamrpn_jax.__version__,
        "jax": jax.__version__,
        "jaxlib": jaxlib.version.__version__,
        "calling_convention_version": some.calling_convention_version,
        "compatibility": _COMPATIBILITY,
        "weights": {
            "name": loaded.card.get("name", weights),
            "licence": loaded.card.get("licence"),
        },
        "tracker": configs.to_json(loaded.tracker_config),
        "coordinates": _COORDINATES,
        "functions": {name: _signature(name, one) for name, one in functions.items()},
        "state": state and {k: np.asarray(v).tolist() for k, v in state.items()},
    }


def example(
    folder: Path, platform: str, frame_size: tuple[int, int], *, baked: bool
) -> str:
    """Python that runs the files of ``folder`` without this package.

    Args:
        folder: where the files are.
        platform: whose files to run.
        frame_size: width and height of the frames it makes up.
        baked: whether the target is baked in.
    """
    width, height = frame_size
    side, top, left = height // 8 + 1, height // 3, width // 3
    text = _BAKED_EXAMPLE if baked else _EXAMPLE
    return text.format(
        folder=str(folder.resolve()),
        platform=platform,
        height=height,
        width=width,
        rows=f"{top}:{top + side}",
        columns=f"{left} + t:{left + side} + t",
        box=[left + side / 2, top + side / 2, side, side],
    )


_EXAMPLE = """\
# pip install jax flatbuffers; boxes: centre x, centre y, width, height in pixels
import jax, numpy as np
from jax import export
load = lambda name: jax.jit(export.deserialize(
    open({folder!r} + f"/{{name}}_{platform}.jax_export", "rb").read()).call)
init, step = load("init"), load("step")
frames = np.zeros((9, {height}, {width}, 3), np.uint8)  # RGB; here: a moving square
for t, frame in enumerate(frames): frame[{rows}, {columns}] = 255
template, state = init(frames[0], np.float32({box}))
for frame in frames[1:]:
    state, output = step(template, state, frame)
    print(np.asarray(output["box"]), float(output["confidence"]))
"""

_BAKED_EXAMPLE = """\
# pip install jax flatbuffers; boxes: centre x, centre y, width, height in pixels
import json, jax, numpy as np
from jax import export
folder = {folder!r}
state = json.load(open(f"{{folder}}/export.json"))["state"]
state = {{name: np.float32(value) for name, value in state.items()}}
blob = open(f"{{folder}}/step_{platform}.jax_export", "rb").read()
step = jax.jit(export.deserialize(blob).call)
for frame in np.zeros((9, {height}, {width}, 3), np.uint8):  # your RGB frames
    state, output = step(state, frame)
    print(np.asarray(output["box"]), float(output["confidence"]))
"""


_NETWORK_EXAMPLE = """\
# pip install jax flatbuffers; patches: RGB, 0 to 255
import jax, numpy as np
from jax import export
load = lambda name: jax.jit(export.deserialize(
    open({folder!r} + f"/{{name}}_{platform}.jax_export", "rb").read()).call)
template, search = load("template"), load("search")
kernels = template(np.zeros((1, {exemplar}, {exemplar}, 3), np.float32))
maps = search(kernels, np.zeros((1, {instance}, {instance}, 3), np.float32))
print({{name: values.shape for name, values in maps.items()}})
"""


def network_example(folder: Path, platform: str, loaded: Loaded) -> str:
    """Python that runs the network of ``folder`` without this package."""
    config = loaded.model.config
    return _NETWORK_EXAMPLE.format(
        folder=str(folder.resolve()),
        platform=platform,
        exemplar=config.exemplar_size,
        instance=config.instance_size,
    )


def _as_dict(node: Any) -> Arrays:
    """The fields of a node that are there, by name; nodes among them as dicts, too."""
    values = {f.name: getattr(node, f.name) for f in dataclasses.fields(node)}
    return {
        name: _as_dict(value) if dataclasses.is_dataclass(value) else value
        for name, value in values.items()
        if value is not None
    }


def _as_template(fields: Arrays) -> Template:
    """The template that ``_as_dict`` made these fields of."""
    return Template(fields["cls_kernel"], fields.get("reg_kernel"))


def _as_state(fields: Arrays) -> TrackState:
    """The state that ``_as_dict`` made these fields of."""
    memory: Any = fields.get("memory")
    if memory is not None:
        learned, target = memory.get("learned"), memory.get("target")
        memory = Memory(
            learned=learned and Learned(**learned),
            target=target and _as_template(target),
            distractors=memory.get("distractors"),
        )
    return TrackState(**{**fields, "memory": memory})


def _signature(name: Name, exported: export.Exported) -> dict[str, Any]:
    """How the function is called, and its arrays, named as in the dicts."""
    arguments, _ = jax.tree.unflatten(exported.in_tree, exported.in_avals)
    results = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    inputs, outputs = _SIGNATURES[name]
    results = results if len(outputs) > 1 else (results,)
    inputs = inputs[-len(arguments) :]
    return {
        "call": f"{', '.join(outputs)} = {name}({', '.join(inputs)})",
        "inputs": dict(map(_describe_arrays, inputs, arguments)),
        "outputs": dict(map(_describe_arrays, outputs, results)),
    }


def _describe_arrays(name: str, tree: Any) -> tuple[str, Any]:
    """Shape, type and meaning of each array; sizes that are free as their letters."""

    def describe_array(path: Any, array: Any) -> dict[str, Any]:
        return {
            "shape": [n if isinstance(n, int) else str(n) for n in array.shape],
            "dtype": str(array.dtype),
            "meaning": _MEANINGS[path[-1].key if path else name],
        }

    return name, jax.tree.map_with_path(describe_array, tree)

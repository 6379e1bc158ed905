"""Section ``track``: one target; the network alone, the whole step, and its parts."""

import dataclasses
import functools
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import cases, exports
from experiments.benchmarks import contestants as who
from experiments.benchmarks.cases import Network
from experiments.benchmarks.session import Contestant, Row, Running, Session
from experiments.benchmarks.torch_tracker import HostTracker
from siamrpn_jax.evaluation.trackers import make_baseline
from siamrpn_jax.model import boxes, fused
from siamrpn_jax.tracking import crops, selection
from siamrpn_jax.tracking import step as tracking
from siamrpn_jax.tracking.config import HEADS

SEARCH_TARGETS = {
    "paper_search_vs_torch": who.TORCH,
    "paper_search_vs_onnxruntime": who.ONNXRUNTIME,
}
STEP_TARGETS = (
    "paper_step_vs_torch",
    "small_step_vs_fastest",
    "small_step_fps",
    "small_step_p50_ms",
    "small_step_p99_ms",
)
EXPORTS = who.ONNXRUNTIME, who.OPENVINO, who.LITERT
"""Runtimes of our own exports."""
_ONE_THREAD = "_1_thread"


def run(session: Session) -> None:
    """The section but for torch.compile."""
    session.expect(*STEP_TARGETS)
    search(session)
    networks = [cases.network(name) for name in session.presets]
    for net in networks:
        _step(session, net)
    if session.threads > 1 and not who.on_gpu():
        _search_on_one_thread(session)
    for net in networks:
        _options(session, net)
        _parts(session, net)
    if not who.on_gpu():
        exports.starts(session)


def compiled(session: Session) -> None:
    """The search branch beside torch.compile."""
    for name in session.presets:
        net = cases.network(name)
        entries = who.searchers(net, 1, threads=session.threads, compiled=True)
        session.race("track", f"{name}, search branch, 1 patch, compiled", entries)


def search(session: Session) -> None:
    """The search branch: a patch's grey levels to logits and offsets."""
    one = _ONE_THREAD if session.threads == 1 else ""
    session.expect(*SEARCH_TARGETS, *(f"{name}{one}" for name in SEARCH_TARGETS))
    for name in session.presets:
        entries = who.searchers(cases.network(name), 1, threads=session.threads)
        case = f"{name}, search branch, 1 patch"
        race = session.race("track", case, entries, seconds=20)
        if name != "paper":
            continue
        for target, other in SEARCH_TARGETS.items():
            session.target(target, race.ratio(other))
            session.target(f"{target}{one}", race.ratio(other))


def _step(session: Session, net: Network) -> None:
    """A frame on the host to a box on the host.

    All look for the first frame's target, so that all see the same patch; the frames
    take turns.
    """
    frames, truth = cases.clip()
    start, exact = truth[0], 10 * who.tolerance()
    entries: list[Contestant] = []

    def ours(name: str, tolerance: float | None = exact, **changes: Any) -> None:
        changed = net.with_config(**changes)
        make = functools.partial(_our_step, changed, frames, start)
        entries.append(Contestant(name, make, tolerance))

    def host(name: str, open_net: Any, **options: Any) -> None:
        open_net = functools.partial(open_net, net, **options)
        make = functools.partial(_host_step, net, frames, start, open_net)
        entries.append(Contestant(name, make, exact))

    ours(who.OURS)
    host(who.TORCH, who.torch_net)
    host(who.ONNXRUNTIME, who.onnx_net, threads=session.threads)
    for runtime in () if who.on_gpu() else EXPORTS:
        options = dict(runtime=runtime, threads=session.threads)
        make = functools.partial(exports.step, net, frames, start, **options)
        entries.append(Contestant(f"our export in {runtime}", make, exact))
    if who.on_gpu():
        host("torch CUDA graph", who.torch_net, how="graph")
        # Another box may win where scores are close: not compared.
        ours("ours bfloat16", None, dtype="bfloat16")
        ours("ours, correlation group", head=cases.with_group(net))
    if net.name == "small":
        for name in ("kcf", "csrt"):
            make = functools.partial(_baseline, name, frames, start)
            entries.append(Contestant(f"OpenCV {name.upper()}", make, None))
    race = session.race(
        "track",
        f"{net.name}, whole step, 640x480 frame to box",
        entries,
    )
    if net.name == "paper":
        session.target("paper_step_vs_torch", race.ratio(who.TORCH))
    if net.name == "small":
        fastest = [race.ratio(f"our export in {runtime}") for runtime in EXPORTS]
        fastest += [race.ratio(name) for name in (who.TORCH, who.ONNXRUNTIME)]
        ratios = [ratio for ratio in fastest if isinstance(ratio, float)]
        session.target("small_step_vs_fastest", max(ratios, default="all are absent"))
        for field in ("p50_ms", "p99_ms"):
            session.target(f"small_step_{field}", race.value(who.OURS, field))
        session.target("small_step_fps", race.value(who.OURS, "rate"))


def _options(session: Session, net: Network) -> None:
    """What fields of ``TrackerConfig`` cost that are off by default."""
    options: dict[str, dict[str, Any]] = {
        who.OURS: {},
        "lost_search_step": {"lost_search": 2.0, "lost_search_step": 0.1},
        "size_confidence": {"size_confidence": 1.0},
        "second_template": {"second_template": 0.3},
    }
    head = net.model.config.head.kind
    if head in HEADS["distractors"]:
        options["distractors"] = {"distractors": 0.2}
        options["both"] = options["second_template"] | options["distractors"]
    if head in HEADS["online_frames"]:
        options["online_frames"] = {"online_frames": 16, "online_above": 0.0}
    frames, truth = cases.clip()
    entries = []
    for name, fields in options.items():
        changed = net._replace(tracker=dataclasses.replace(net.tracker, **fields))
        make = functools.partial(_our_step, changed, frames, truth[0])
        entries.append(Contestant(name, make, None))
    session.race(
        "track", f"{net.name}, whole step with options", entries, compare=False
    )


def _our_step(net: Network, frames: np.ndarray, start: np.ndarray) -> Running:
    init, step = tracking.make_tracker(net.model, net.variables, config=net.tracker)
    template, state = init(frames[0], start)
    turns = itertools.cycle(frames[1:])

    def find(frame: np.ndarray) -> np.ndarray:
        _, output = step(template, state, frame)
        return jax.device_get(output.box)

    return Running(lambda: find(next(turns)), lambda: [find(frames[1])])


def _host_step(
    net: Network, frames: np.ndarray, start: np.ndarray, open_net: Any
) -> Running:
    """The step around another engine; checked on our patch, timed on its own."""
    config = net.model.config
    fill = crops.channel_mean(frames[0])
    z, x = (
        np.array(cases.crop(frame, start, fill, config=config, size=size))
        for frame, size in (
            (frames[0], config.exemplar_size),
            (frames[1], config.instance_size),
        )
    )
    host = HostTracker(config, net.tracker, open_net(z[None]), frames[0], start)
    turns = itertools.cycle(frames[1:])
    return Running(lambda: host.step(next(turns)), lambda: [host.step(frames[1], x)])


def _baseline(name: Any, frames: np.ndarray, start: np.ndarray) -> Running:
    baseline, turns = make_baseline(name), itertools.cycle(frames[1:])
    baseline.init(frames[0], boxes.cxcywh_to_ltwh(start))
    return Running(lambda: baseline.update(next(turns)))


def _parts(session: Session, net: Network) -> None:
    """What our step consists of, each part compiled by itself."""
    frames, truth = cases.clip()
    config, fill = net.model.config, crops.channel_mean(frames[0])
    weights = fused.fuse(net.model, net.variables)
    z, x = jax.device_put(cases.patches(config, 1))
    template = fused.embed_template(net.model, weights, z)
    detect = jax.jit(fused.detect, static_argnums=0)
    detection = detect(net.model, weights, template, x)
    rank = jax.jit(selection.rank_proposals, static_argnames="model")
    frame = jax.device_put(frames[0])
    size = config.instance_size
    last = jax.numpy.full(2, config.anchors.base_size)
    calls = {
        "host to device": lambda: jax.device_put(frames[0]),
        "crop": lambda: cases.crop(frame, truth[0], fill, config=config, size=size),
        "network": lambda: detect(net.model, weights, template, x),
        "ranking": lambda: rank(detection, last, model=net.model, config=net.tracker),
    }
    parts = [
        Contestant.part(name, lambda call=call: jax.block_until_ready(call()))
        for name, call in calls.items()
    ]
    session.race(
        "track", f"{net.name}, parts of our step", parts, compare=False, seconds=4
    )


def _search_on_one_thread(session: Session) -> None:
    """The search branch again, in a process that has one core."""
    session.expect(*(f"{name}{_ONE_THREAD}" for name in SEARCH_TARGETS))
    if session.seconds_left < 20:
        return
    code = "from experiments.benchmarks.command import main; main()"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        options = {
            "threads": 1,
            "rounds": session.plan.rounds,
            "seconds": min(90, session.seconds_left),
            "json": path,
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        command = [sys.executable, "-c", code, "search", *words]
        subprocess.run(
            [*command, "--presets", *session.presets],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        report = json.loads(path.read_text())
    for row in report["rows"]:
        session.add(Row(**row))
    for name, value in report["targets"].items():
        if name.endswith(_ONE_THREAD):
            reason = report["reasons"].get(name, "")
            session.target(name, reason if value is None else value)

"""Section ``many``: several targets at once, the network alone and the whole step."""

import functools
import itertools
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import cases
from experiments.benchmarks import contestants as who
from experiments.benchmarks.cases import Network
from experiments.benchmarks.session import Contestant, Running, Session
from siamrpn_jax.common.released import WEIGHTS
from siamrpn_jax.deploy.exported import ExportedTracker
from siamrpn_jax.model import fused
from siamrpn_jax.model.boxes import cxcywh_to_ltwh, ltwh_to_cxcywh
from siamrpn_jax.tracking import slots as slots_of
from siamrpn_jax.tracking import step as tracking
from siamrpn_jax.tracking.state import Loaded

_RATE = "target-frames/s"


def run(session: Session) -> None:
    """Eight targets."""
    session.expect("many8_vs_torch")
    networks = [cases.network(name) for name in session.presets]
    for net in networks:
        ratio = _network(session, net, 8)
        if net.name == "paper":
            session.target("many8_vs_torch", ratio)
    for net in networks:
        _step(session, net, 8, videos=1)
        _step(session, net, 8, videos=4)


def larger(session: Session) -> None:
    """Sixty-four targets."""
    for net in reversed([cases.network(name) for name in session.presets]):
        _network(session, net, 64)
        _step(session, net, 64, videos=1)


def _network(session: Session, net: Network, count: int) -> float | str:
    """The network alone, batched; every target has its own patch."""
    race = session.race(
        "many",
        f"{net.name}, search branch, {count} targets",
        who.searchers(net, count, threads=session.threads),
        amount=count,
        quantity=_RATE,
        seconds=12,
    )
    return race.ratio(who.TORCH)


def _step(session: Session, net: Network, count: int, *, videos: int) -> None:
    """Frames on the host to boxes on the host, of all targets in one call or singly."""
    frames, truth = cases.clip()
    rng = np.random.default_rng(0)
    moved = truth[0] + rng.uniform(-20, 20, (count, 4)) * (1, 1, 0.2, 0.2)
    stacks = [np.stack([frame] * videos) for frame in frames]

    # With random weights two proposals may be as good as equal: not compared.
    tolerance = 1e-3 if net.name in WEIGHTS else None
    entries: list[Contestant] = []

    def ours(name: str, tolerance: float | None, **changes: Any) -> None:
        changed = net.with_config(**changes)
        make = functools.partial(_track_many, changed, stacks, moved)
        entries.append(Contestant(name, make, tolerance))

    ours(who.OURS, tolerance)
    if videos == 1 and not who.on_gpu() and net.name in WEIGHTS:
        threads = session.threads
        exported = functools.partial(_track_export, net, frames, moved, threads=threads)
        name = "our export in onnxruntime, targets on threads"
        entries.append(Contestant(name, exported, tolerance))
    singly = functools.partial(_track_singly, net, frames, moved)
    entries.append(Contestant("ours, a step for each target", singly, tolerance))
    if who.on_gpu():
        ours("ours bfloat16", None, dtype="bfloat16")
        ours("ours, correlation group", None, head=cases.with_group(net))
    session.race(
        "many",
        f"{net.name}, whole step, {count} targets, videos of 640x480: {videos}",
        entries,
        amount=count,
        quantity=_RATE,
        seconds=6,
    )


def _track_many(net: Network, stacks: list[np.ndarray], starts: np.ndarray) -> Running:
    weights = fused.fuse(net.model, net.variables)
    slots = slots_of.empty_slots(len(starts), model=net.model)
    videos = len(stacks[0])
    for i, box in enumerate(starts):
        video = i % videos
        slots = slots_of.add_target(
            weights, slots, i, stacks[0][video], box, video=video, model=net.model
        )
    turns = itertools.cycle(stacks[1:])

    def find(frames: np.ndarray) -> np.ndarray:
        _, output = slots_of.track_many(
            weights, slots, frames, model=net.model, config=net.tracker
        )
        return jax.device_get(output.box)

    return Running(lambda: find(next(turns)), lambda: [find(stacks[1])])


def _track_export(
    net: Network, frames: np.ndarray, starts: np.ndarray, *, threads: int
) -> Running:
    """What ``load(runtime="onnxruntime")`` does; it goes on from frame to frame."""
    loaded = Loaded(net.model, net.variables, net.tracker, {})
    tracker = ExportedTracker(loaded, "onnxruntime", threads=threads)
    boxes = cxcywh_to_ltwh(np.asarray(starts, np.float64))
    tracker.init(frames[0], boxes)
    turns = itertools.cycle(frames[1:])

    def start_and_find() -> list[np.ndarray]:
        tracker.init(frames[0], boxes)
        return [ltwh_to_cxcywh(tracker.update(frames[1]))]

    return Running(lambda: tracker.update(next(turns)), start_and_find)


def _track_singly(net: Network, frames: np.ndarray, starts: np.ndarray) -> Running:
    init, step = tracking.make_tracker(net.model, net.variables, config=net.tracker)
    targets = [init(frames[0], box) for box in starts]
    turns = itertools.cycle(frames[1:])

    def find(frame: np.ndarray) -> np.ndarray:
        frame = jax.device_put(frame)
        boxes = [step(*target, frame)[1].box for target in targets]
        return np.stack(jax.device_get(boxes))

    return Running(lambda: find(next(turns)), lambda: [find(frames[1])])

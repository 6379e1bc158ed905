"""Section ``data``: what the loader delivers, and what its parts cost."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import cv2
import jax

from siamrpn_jax import crops, presets
from siamrpn_jax.benchmarks import cases
from siamrpn_jax.benchmarks.session import Contestant, Session
from siamrpn_jax.benchmarks.timing import Plan
from siamrpn_jax.data import loader
from siamrpn_jax.data.images import decode_image

_BATCH = 16


def run(session: Session, *, folders: Sequence[Path] = ()) -> None:
    """The whole section."""
    recipe = presets.small()
    config = dataclasses.replace(recipe.data, folders=tuple(map(str, folders)))
    pairs, _ = loader.open_datasets(
        config,
        exemplar_size=recipe.model.exemplar_size,
        instance_size=recipe.model.instance_size,
        augment=recipe.augment,
    )
    for threads in sorted({1, session.threads, 2 * session.threads}):
        _loader(session, pairs, threads, source="folders" if folders else "scenes")
    _parts(session)


def _loader(
    session: Session, pairs: loader.PairDataset, threads: int, *, source: str
) -> None:
    """One stream at a time, without rounds: what it makes ahead would disturb others.

    Its first batches do not count: there images are read and scenes drawn.
    """
    with loader.batches(pairs, batch_size=_BATCH, threads=threads) as stream:
        session.race(
            "data",
            f"small, pairs from {source}, batch {_BATCH}",
            [Contestant.part(f"threads={threads}", lambda: next(stream))],
            amount=_BATCH,
            quantity="pairs/s",
            compare=False,
            plan=Plan(
                rounds=1, turn_seconds=10 * session.plan.turn_seconds, skipped=40
            ),
        )


def _parts(session: Session) -> None:
    """A frame's way into the tracker: decoding on the host, crop on the device."""
    frames, truth = cases.clip(2)
    bgr = cv2.cvtColor(frames[0], cv2.COLOR_RGB2BGR)
    jpeg = cv2.imencode(".jpg", bgr)[1].tobytes()
    frame, fill = jax.device_put(frames[0]), crops.channel_mean(frames[0])
    config = presets.paper().model
    calls = {
        "decode a JPEG of 640x480": lambda: decode_image(jpeg, name="frame"),
        "crop 255x255 on the device": lambda: jax.block_until_ready(
            cases.crop(frame, truth[0], fill, config=config, size=255)
        ),
    }
    parts = [Contestant.part(name, call) for name, call in calls.items()]
    session.race("data", "one frame", parts, compare=False)

"""What 8-bit models are calibrated on: inputs as the models meet them.

For whole trackers from generated scenes: all calls while they are tracked. From a
user's data: training pairs without changes of colour, each as a frame of the patch's
size, with a box whose crop is that frame. The network alone takes the patches of pairs.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.crops.windows import AugmentConfig
from siamrpn_jax.data.pairs.loader import open_datasets
from siamrpn_jax.data.pairs.pairs import DataConfig, PairDataset
from siamrpn_jax.data.scenes.generated import CALIBRATION_SEED, make_sequence
from siamrpn_jax.deploy.runtime import Arrays, Run, Tracker
from siamrpn_jax.model.config import ModelConfig
from siamrpn_jax.tracking.state import Loaded

FRAMES = 12
"""Frames of each scene."""

LEAST_SCENES = 4
"""Ranges of fewer are chance."""

LEAST_PAIRS = 32
"""The same for pairs of a user's data."""

LEAST_TARGETS = 4
"""Sequences, stills and tracks that those pairs are drawn from."""

_SEARCHED = AugmentConfig(search_shift=0.1, search_scale=0.1)
"""How far targets are from where the tracker looks."""

Calls = dict[str, list[Arrays]]
"""Inputs by the model's name, call by call."""


class Calibration(NamedTuple):
    """What models are calibrated on, and how much of it."""

    count: int
    """Generated scenes, or pairs of the folders."""
    folders: tuple[str, ...] = ()
    """The user's data: prepared folders, sequences, stills; none: generated scenes."""

    def check(self) -> None:
        """Raises InputError where this is too little to calibrate on."""
        least = LEAST_PAIRS if self.folders else LEAST_SCENES
        if self.count < least:
            what = "pairs" if self.folders else "scenes"
            raise InputError(
                f"{self.count} {what} to calibrate on, expected {least} or more"
            )

    def describe(self) -> dict[str, Any]:
        """For an export's card."""
        if self.folders:
            return {"calibrated_on_pairs": self.count, "of": list(self.folders)}
        return {"calibrated_on_generated_scenes": self.count}


def record(
    models: Mapping[str, Any], loaded: Loaded, calibration: Calibration
) -> Calls:
    """The inputs of ONNX models on what they are calibrated on.

    Args:
        models: ``init`` and ``step``, ``template`` and ``search``, or all four.
        loaded: what they were made of.
        calibration: what to run them on.

    Raises:
        InputError: too few scenes, pairs, or targets in the folders.
        data.read.images.ImageError: a picture of theirs that cannot be read.
    """
    calibration.check()
    opened = {name: _Recorder(model) for name, model in models.items()}
    config = loaded.model.config
    # As many as there are searches in the scenes.
    count = calibration.count * (1 if calibration.folders else FRAMES - 1)
    if "init" in opened and not calibration.folders:
        _follow_scenes(opened, calibration.count)
    if "template" in opened or calibration.folders:
        dataset = _open_pairs(config, calibration.folders)
        for index in range(count):
            pair = dataset[index]
            if "init" in opened and calibration.folders:
                _search_pair(opened, config, pair.z, pair.x)
            if "template" in opened:
                z, x = (
                    np.ascontiguousarray(patch.transpose(2, 0, 1)[None], np.float32)
                    for patch in (pair.z, pair.x)
                )
                opened["search"].run(opened["template"].run({"z": z}) | {"x": x})
    return {name: one.calls for name, one in opened.items()}


class _Recorder:
    """A model that remembers its inputs."""

    def __init__(self, model: Any):
        self.calls: list[Arrays] = []
        self._run: Run = Tracker([model.SerializeToString()]).models[0]

    def run(self, inputs: Arrays) -> Arrays:
        """Its outputs."""
        self.calls.append(inputs)
        return self._run(inputs)


def _follow_scenes(opened: Mapping[str, _Recorder], scenes: int) -> None:
    tracker = Tracker([])
    tracker.models = [opened[name].run for name in ("init", "step")]
    for scene in range(scenes):
        frames, truth = make_sequence(CALIBRATION_SEED + scene, length=FRAMES)
        tracker.init(frames[0], np.asarray(truth[0], np.float64))
        for frame in frames[1:]:
            tracker.update(frame)


def _search_pair(
    opened: Mapping[str, _Recorder], config: ModelConfig, z: np.ndarray, x: np.ndarray
) -> None:
    """One search, in frames that are the patches."""
    side = config.exemplar_size / (1 + 2 * config.context)

    def middle(patch: np.ndarray) -> np.ndarray:
        return np.array([len(patch) / 2, len(patch) / 2, side, side], np.float32)

    memory = opened["init"].run({"frame": z, "box": middle(z)})
    size = np.array([len(x), len(x)], np.float32)
    there = {"state.box": middle(x), "state.frame_size": size, "frame": x}
    opened["step"].run(memory | there)


def _open_pairs(config: ModelConfig, folders: tuple[str, ...]) -> PairDataset:
    """Pairs of a user's folders, or of generated scenes."""
    data = DataConfig(
        folders=folders, video=0.5, stills=0.5, composites=0.0, validation_fraction=0.0
    )
    dataset, _ = open_datasets(
        data,
        exemplar_size=config.exemplar_size,
        instance_size=config.instance_size,
        augment=_SEARCHED,
        context=config.context,
    )
    pool = dataset.pool
    found = len(pool.tracks) + len(pool.stills) + sum(map(len, dataset.crop_tracks))
    if folders and found < LEAST_TARGETS:
        raise InputError(
            f"{', '.join(folders)}: {found} sequences, stills and tracks to calibrate "
            f"on, expected {LEAST_TARGETS} or more"
        )
    return dataset

"""Adapter to the got10k toolkit, whose experiments cover OTB, GOT-10k, LaSOT and more.

Nothing of the toolkit is imported::

    from got10k.experiments import ExperimentOTB

    ExperimentOTB("data/OTB").run(Got10kTracker(siamrpn_jax.load()))
"""

from collections.abc import Sequence as Items
from pathlib import Path

import numpy as np

from siamrpn_jax.data.read.rows import FROM_ONE
from siamrpn_jax.data.read.sequences import Sequence
from siamrpn_jax.evaluation.runner import OnePassTracker, run_sequence


class Got10kTracker:
    """Lends a tracker to the toolkit's experiments.

    Args:
        tracker: what is run.
        name: the folder of its results.
    """

    is_deterministic = True

    def __init__(self, tracker: OnePassTracker, *, name: str = "siamrpn"):
        self.name = name
        self._tracker = tracker

    def track(
        self, img_files: Items[str], box: np.ndarray, visualize: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Tracks through a sequence.

        Args:
            img_files: its frames.
            box: ``ltwh`` [4] in the first frame. The toolkit counts pixels from 1: the
                tracker gets x and y one lower.
            visualize: passed by the toolkit, ignored.

        Returns:
            Boxes ``ltwh`` [T, 4], counted from 1, and seconds [T].
        """
        del visualize
        boxes = np.full((len(img_files), 4), np.nan)
        boxes[:1] = np.asarray(box) - FROM_ONE
        frames = tuple(Path(file) for file in img_files)
        name = str(frames[0].parent) if frames else "no frames"
        run = run_sequence(self._tracker, Sequence(name, frames, boxes))
        return run.boxes + FROM_ONE, run.seconds

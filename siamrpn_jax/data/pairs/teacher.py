"""A trained tracker as a teacher: where it sees the target of a training pair.

The teacher is NanoTrack by its ONNX files, version 2 or 3, run by OpenCV. It sees the
very patches that the network in training sees, and says for each cell of that network's
score map how likely the target is there, with the knowledge of its own training.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.crops.windows import Window, crop

EXEMPLAR, INSTANCE, STRIDE = 127, 255, 16  # Of NanoTrack, pixels.

VERSIONS = ((48, 16), (96, 15))
"""Channels of features and cells a side of versions 2 and 3."""


class NanoNetworks:
    """The two networks of NanoTrack; not for several threads at once.

    Args:
        files: the backbone and the head.

    Raises:
        InputError: they are missing, or no networks of NanoTrack.
    """

    def __init__(self, files: Sequence[Path]):
        if len(files) != 2:
            raise InputError(
                f"{len(files)} ONNX files of NanoTrack, expected two: BACKBONE HEAD"
            )
        missing = [str(path) for path in files if not path.is_file()]
        if missing:
            raise InputError(f"no such ONNX file of NanoTrack: {', '.join(missing)}")
        try:
            # Its type stubs say that networks have no methods.
            networks: list[Any] = [cv2.dnn.readNetFromONNX(str(path)) for path in files]
            self._backbone, self._head = networks
            blank = np.zeros((INSTANCE, INSTANCE, 3), np.uint8)
            template = self.features(blank[:EXEMPLAR, :EXEMPLAR])
            scores, distances = self.detect(template, blank)
        except cv2.error as error:
            raise InputError(
                f"{files[0]}, {files[1]}: expected ONNX files of NanoTrack's backbone "
                f"and head; OpenCV: {' '.join(error.err.split())}"
            ) from error
        side = scores.shape[-1]
        # OpenCV computes something where the two files are of different versions.
        channels = template.shape[1]
        maps = scores.shape, distances.shape
        expected = (2, side, side), (4, side, side)
        if (channels, side) not in VERSIONS or maps != expected:
            raise InputError(
                f"{files[0]}, {files[1]}: {channels} channels and maps {maps[0]} and "
                f"{maps[1]}, expected the two files of one version of NanoTrack: "
                "48 channels and 16 cells a side, or 96 and 15"
            )
        self.places = (np.arange(side) - side // 2) * float(STRIDE)
        """Cells' centres from the middle of the search patch, pixels, [n]."""

    def features(self, patch: np.ndarray) -> np.ndarray:
        """Features ``[1, C, m, m]`` of an RGB patch of ``EXEMPLAR`` or ``INSTANCE``."""
        self._backbone.setInput(cv2.dnn.blobFromImage(patch, swapRB=True))
        return self._backbone.forward().copy()

    def detect(
        self, template: np.ndarray, patch: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Looks for a target in an RGB search patch.

        Args:
            template: features of the target's exemplar patch.
            patch: ``uint8 [INSTANCE, INSTANCE, 3]``.

        Returns:
            Scores in 0..1 of each cell's being background and target ``[2, n, n]``, and
            distances from its centre to the left, upper, right and lower side of the
            box, pixels, ``[4, n, n]``.
        """
        self._head.setInput(template, "input1")
        self._head.setInput(self.features(patch), "input2")
        logits, distances = self._head.forward(["output1", "output2"])
        logits = logits[0] - logits[0].max(0)
        scores = np.exp(logits)
        return scores / scores.sum(0), distances[0]


class Teacher:
    """Says where the target of a pair is; thread safe and picklable.

    Args:
        files: the ONNX files of NanoTrack's backbone and head.
        exemplar_size: Z, side of the exemplar patches, pixels.
        instance_size: X, side of the search patches, pixels.
        places: of the score map's cells from the middle of the search patch, pixels of
            it, ascending ``[n]``.

    Raises:
        InputError: the files cannot be used, or what the teacher sees of a search patch
            does not fit into one of X pixels.
    """

    def __init__(
        self,
        files: Sequence[str],
        *,
        exemplar_size: int,
        instance_size: int,
        places: np.ndarray,
    ):
        self._files = [Path(file) for file in files]
        self._seen = INSTANCE * exemplar_size / EXEMPLAR
        if not abs(places).max() <= self._seen / 2 <= 1.05 * instance_size / 2:
            raise InputError(
                f"teacher {self._files[0]} sees {self._seen:.0f} pixels a side where "
                f"exemplars have {exemplar_size}, expected at most those of a search "
                f"patch, {instance_size}, and all cells of the score map, which reach "
                f"{abs(places).max():.0f} pixels from its middle"
            )
        self._places = places * EXEMPLAR / exemplar_size
        self._reset()
        self._networks()

    def scores(self, z: np.ndarray, x: np.ndarray) -> np.ndarray:
        """How likely the target of an exemplar lies round each cell of the score map.

        The teacher calls all cells in the middle of the target its own. That it be
        centred in a cell, too, is its score times the centre-ness of the cell in the
        box that the teacher sees from there (FCOS; Tian et al., ICCV 2019, Eq. 3).

        Args:
            z: exemplar patch, RGB ``uint8 [Z, Z, 3]``.
            x: search patch, RGB ``uint8 [X, X, 3]``.

        Returns:
            ``float32 [n, n]`` in 0..1, bilinear between the teacher's cells.
        """
        networks = self._networks()
        z, x = (
            crop(image, Window(len(image) / 2, len(image) / 2, side, side), size)
            for image, side, size in (
                (z, len(z), EXEMPLAR),
                (x, self._seen, INSTANCE),
            )
        )
        (_, scores), distances = networks.detect(networks.features(z), x)
        left, top, right, bottom = np.maximum(distances, 1e-3)
        central = np.minimum(left, right) / np.maximum(left, right)
        central *= np.minimum(top, bottom) / np.maximum(top, bottom)
        scores = scores * np.sqrt(central)
        place = (self._places - networks.places[0]) / STRIDE
        columns, rows = np.meshgrid(place.astype(np.float32), place.astype(np.float32))
        return cv2.remap(scores, columns, rows, cv2.INTER_LINEAR)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_local"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def _reset(self) -> None:
        self._local = threading.local()

    def _networks(self) -> NanoNetworks:
        """The networks of this thread, read when it first asks for them."""
        if not hasattr(self._local, "networks"):
            self._local.networks = NanoNetworks(self._files)
        return self._local.networks

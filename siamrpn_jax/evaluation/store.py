"""Raw results of one-pass evaluations in a folder: written, resumed, and scored again.

Two layouts, see `siamrpn_jax.evaluation.vot_results`: OTB's ``<sequence>.txt``, with
seconds in ``<sequence>_time.txt``, and GOT-10k's ``<sequence>/<sequence>_001.txt``.
``settings.json`` tells how results came about.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from siamrpn_jax.common.configs import differences
from siamrpn_jax.data.read.sequences import Sequence
from siamrpn_jax.evaluation import vot_results
from siamrpn_jax.evaluation.results import (
    ResultError,
    read_otb_results,
    write_json,
    write_otb_results,
)
from siamrpn_jax.evaluation.runner import OnePassTracker, Run, run_sequence

Layout = Literal["otb", "got10k"]
"""How files are named."""

Runs = Mapping[str, tuple[Run, ...]]
"""Name of a sequence -> its runs, at least one."""

SETTINGS = "settings.json"


@dataclasses.dataclass(frozen=True)
class Store:
    """Results of one tracker in a folder."""

    folder: Path
    """Made where it is missing."""
    layout: Layout = "otb"
    """How its files are named."""
    origin: Literal[0, 1] = 1
    """What they count pixels from."""

    def path(self, name: str) -> Path:
        """File with the boxes of a sequence."""
        if self.layout == "got10k":
            return vot_results.vot_run_path(self.folder, name, 1)
        return self.folder / f"{name}.txt"

    def time_path(self, name: str) -> Path:
        """File with the seconds of a sequence."""
        return self.path(name).with_name(f"{name}_time.txt")

    def open(
        self, settings: Mapping[str, Any], *, force: bool, names: list[str]
    ) -> None:
        """Checks what is in the folder before more is added.

        Args:
            settings: JSON values; everything that results depend on.
            force: remove the results of these sequences, whatever they came from.
            names: of the sequences.

        Raises:
            ResultError: there are results, made with other settings or unknown ones.
        """
        kept = self.folder / SETTINGS
        settings = {**settings, "origin": self.origin}
        present = [path for name in names if (path := self.path(name)).is_file()]
        if force:
            for name in names:
                self.path(name).unlink(missing_ok=True)
                self.time_path(name).unlink(missing_ok=True)
        elif present and not kept.is_file():
            raise ResultError(
                f"{self.folder}: has results such as {present[0].name} but no "
                f"{SETTINGS} to tell where they are from; score them by --results-only "
                "or run anew by --force"
            )
        elif present:
            before = json.loads(kept.read_text(encoding="utf-8"))
            changes = differences(before, settings)
            if changes:
                raise ResultError(
                    f"{self.folder}: its results were made with other settings "
                    f"({'; '.join(changes)}); choose another folder or run anew by "
                    "--force"
                )
        write_json(kept, settings)

    def settings(self) -> dict[str, Any]:
        """How the results came about, as `open` wrote it; nothing where it did not."""
        try:
            kept = json.loads((self.folder / SETTINGS).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # other tools have other files of this name
            return {}
        return kept if isinstance(kept, dict) else {}

    def run(self, tracker: OnePassTracker, sequence: Sequence) -> Run:
        """Runs a tracker on a sequence, unless there is a result.

        Returns:
            What the files hold: resumed or not, figures are the same.

        Raises:
            ResultError: the file there has another number of rows than frames.
            siamrpn_jax.common.errors.InputError: as `run_sequence` says.
        """
        name = sequence.name
        if not self.path(name).is_file():
            run = run_sequence(tracker, sequence)
            if self.layout == "got10k":
                vot_results.write_got10k_run(
                    self.folder, name, run.boxes, run.seconds, origin=self.origin
                )
            else:
                vot_results.write_seconds(self.time_path(name), run.seconds)
                write_otb_results(self.path(name), run.boxes, origin=self.origin)
        boxes = read_otb_results(self.path(name), origin=self.origin)
        if len(boxes) != len(sequence.frames):
            raise ResultError(
                f"{self.path(name)}: {len(boxes)} rows for {len(sequence.frames)} "
                f"frames of {name}; run anew by --force"
            )
        return self._as_run(name, boxes)

    def read(self, truths: Mapping[str, np.ndarray]) -> Runs:
        """Reads the results of any tracker.

        Args:
            truths: name of a sequence -> its boxes, NaN where the target is absent.

        Raises:
            ResultError: sequences without results, all named; a line that is no box; or
                more or fewer lines than frames.
        """
        if not self.folder.is_dir():
            raise ResultError(f"{self.folder}: no such folder")
        if self.layout == "got10k":
            frames = {name: len(boxes) for name, boxes in truths.items()}
            found = vot_results.read_got10k_results(
                self.folder, frames, origin=self.origin
            )
        else:
            annotations = {
                name: vot_results.BoxAnnotation(name, boxes, ())
                for name, boxes in truths.items()
            }
            found = {
                name: (boxes,)
                for name, boxes in vot_results.read_box_results(
                    self.folder, annotations, origin=self.origin
                ).items()
            }
        return {
            name: tuple(self._as_run(name, boxes) for boxes in runs)
            for name, runs in found.items()
        }

    def pack(self, path: Path, lengths: Mapping[str, int]) -> None:
        """Writes the zip that GOT-10k's server takes.

        Args:
            path: the file.
            lengths: name of a sequence -> its frames: all that must be there.

        Raises:
            ResultError: results or times are missing.
        """
        vot_results.zip_got10k(path, self.folder, lengths)

    def _as_run(self, name: str, boxes: np.ndarray) -> Run:
        """Seconds are NaN where no file tells them."""
        unknown = np.full(len(boxes), np.nan)
        path = self.time_path(name)
        try:
            seconds = vot_results.read_seconds(path, frames=len(boxes))
        except ResultError:  # other tools have other files of this name
            seconds = unknown
        return Run(boxes, unknown, seconds)

"""Folders of raw results: written, resumed, and scored again.

One-pass results have two layouts, see ``evaluation.results``: OTB's
``<sequence>.txt``, with seconds in ``<sequence>_time.txt``, and GOT-10k's
``<sequence>/<sequence>_001.txt``. VOT's are written by ``evaluation.vot.protocols``.
``open_results`` guards both.
"""

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence as Items
from pathlib import Path
from typing import Any, Literal

import numpy as np

from siamrpn_jax.common.configs import differences
from siamrpn_jax.common.files import check_name, read_json, write_json
from siamrpn_jax.data.read.sequences import Sequence
from siamrpn_jax.evaluation import results
from siamrpn_jax.evaluation.annotations import BoxAnnotation, ResultError
from siamrpn_jax.evaluation.results import read_otb_results, write_otb_results
from siamrpn_jax.evaluation.runner import (
    OnePassTracker,
    Run,
    SequenceTracker,
    run_sequence,
)

Layout = Literal["otb", "got10k"]
"""How files are named."""

Runs = Mapping[str, tuple[Run, ...]]
"""Name of a sequence -> its runs, at least one."""

SETTINGS = "settings.json"


@dataclasses.dataclass(frozen=True)
class ResultStore:
    """One-pass results of one tracker in a folder."""

    folder: Path
    """Made where it is missing."""
    layout: Layout = "otb"
    """How its files are named."""
    origin: Literal[0, 1] = 1
    """What they count pixels from."""

    def path(self, name: str) -> Path:
        """File with the boxes of a sequence."""
        if self.layout == "got10k":
            return results.vot_run_path(self.folder, name, 1)
        return self.folder / f"{name}.txt"

    def time_path(self, name: str) -> Path:
        """File with the seconds of a sequence."""
        return self.path(name).with_name(f"{name}_time.txt")

    def open(
        self, settings: Mapping[str, Any], *, force: bool, names: list[str]
    ) -> None:
        """Opens the folder for results of some sequences; see ``open_results``.

        Args:
            settings: JSON values; everything that results depend on.
            force: remove the results of these sequences, whatever they came from.
            names: of the sequences.
        """
        for name in names:
            check_name(name, error=ResultError)
        times = {self.time_path(name): name for name in names}
        if clash := [name for name in names if self.path(name) in times]:
            raise ResultError(
                f"{self.folder}: sequences {times[self.path(clash[0])]} and {clash[0]} "
                "have one name of a file: expected other names"
            )
        present = [path for name in names if (path := self.path(name)).is_file()]
        if force:
            present += [path for path in times if path.is_file()]
        settings = {**settings, "origin": self.origin}
        open_results(self.folder, settings, present, force=force)

    def settings(self) -> dict[str, Any]:
        """How the results came about, as ``open`` wrote it, or nothing."""
        try:
            return _read_settings(self.folder / SETTINGS)
        except (OSError, ValueError):  # other tools have other files of this name
            return {}

    def run(self, tracker: OnePassTracker | SequenceTracker, sequence: Sequence) -> Run:
        """Runs a tracker on a sequence, unless there is a result.

        Returns:
            What the files hold: resumed or not, figures are the same.

        Raises:
            ResultError: the file there has another number of rows than frames.
            siamrpn_jax.common.errors.InputError: as ``run_sequence`` says.
        """
        name = sequence.name
        if not self.path(name).is_file():
            run = run_sequence(tracker, sequence)
            if self.layout == "got10k":
                results.write_got10k_run(
                    self.folder, name, run.boxes, run.seconds, origin=self.origin
                )
            else:
                results.write_seconds(self.time_path(name), run.seconds)
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
            ResultError: sequences without results, all named; a line that is no box;
                more or fewer lines than frames; or as ``results.check_boxes`` says.
        """
        if not self.folder.is_dir():
            raise ResultError(f"{self.folder}: no such folder")
        if self.layout == "got10k":
            frames = {name: len(boxes) for name, boxes in truths.items()}
            found = results.read_got10k_results(self.folder, frames, origin=self.origin)
        else:
            known = {
                name: BoxAnnotation(name, boxes, ()) for name, boxes in truths.items()
            }
            found = {
                name: (boxes,)
                for name, boxes in results.read_box_results(
                    self.folder, known, origin=self.origin
                ).items()
            }
        results.check_boxes(self.folder, found, truths, origin=self.origin)
        return {
            name: tuple(self._as_run(name, boxes) for boxes in runs)
            for name, runs in found.items()
        }

    def pack(self, path: Path, lengths: Mapping[str, int]) -> None:
        """Writes the zip that the server of GOT-10k, or TrackingNet, takes.

        Args:
            path: the file.
            lengths: name of a sequence -> its frames: all that must be there.

        Raises:
            ResultError: results, or GOT-10k's times, are missing.
        """
        if self.layout == "got10k":
            results.zip_got10k(path, self.folder, lengths)
        else:
            results.zip_files(path, {f"{n}.txt": self.path(n) for n in lengths})

    def _as_run(self, name: str, boxes: np.ndarray) -> Run:
        """Boxes as a run; seconds are NaN where no file holds them."""
        unknown = np.full(len(boxes), np.nan)
        path = self.time_path(name)
        try:
            seconds = results.read_seconds(path, frames=len(boxes))
        except ResultError:  # other tools have other files of this name
            seconds = unknown
        return Run(boxes, unknown, seconds)


def open_results(
    folder: Path, settings: Mapping[str, Any], present: Items[Path], *, force: bool
) -> None:
    """Makes a folder of results, and checks what is in it before more is added.

    ``settings.json`` there says how its results came about: a run is resumed with the
    same settings only. Hold ``lock_folder`` around this and all that is written.

    Args:
        folder: of one tracker, and of one experiment where there are several.
        settings: JSON values; everything that results depend on.
        present: the files of those results that are asked for and are there.
        force: remove these, whatever they came from.

    Raises:
        ResultError: there are results, made with other settings or with unknown ones.
    """
    kept = folder / SETTINGS
    if force:
        for path in present:
            path.unlink()
    elif present and not kept.is_file():
        raise ResultError(
            f"{folder}: has results such as {present[0].name} but no {SETTINGS} that "
            "says where they are from; score them by --results-only or run anew by "
            "--force"
        )
    elif present:
        changes = differences(_read_settings(kept), settings)
        if changes:
            raise ResultError(
                f"{folder}: its results were made with other settings "
                f"({'; '.join(changes)}); choose another folder or run anew by --force"
            )
    write_json(kept, settings)


def _read_settings(path: Path) -> dict[str, Any]:
    """What a file of settings holds; nothing where it is another tool's."""
    kept = read_json(path, error=ResultError)
    return kept if isinstance(kept, dict) else {}

"""The VOT toolkit's own figures of a run, to check ours by.

The toolkit (``pip install 'siamrpn-jax[vot]'``) is GPL: it runs as a program of its own
on files, and is never imported.
"""

import dataclasses
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from siamrpn_jax.common.errors import InputError, MissingExtraError
from siamrpn_jax.common.files import read_json
from siamrpn_jax.evaluation.vot.dataset import VotSequence
from siamrpn_jax.evaluation.vot.metrics import SKIP, VotFigures

TRACKER = "Checked"
"""Name of the tracker in the workspace made for a check."""

TOLERANCE = 1e-6
"""Largest difference that counts as equal."""


@dataclasses.dataclass(frozen=True)
class ToolkitFigures:
    """Figures of the experiment with resets as the toolkit defines them."""

    accuracy: float
    """Mean overlap in 0..1, sequences weighed by their length."""
    failures: float
    """The toolkit's robustness: failures a sequence, weighed by length."""
    eao: float
    """Expected average overlap."""


def check_with_toolkit(
    figures: VotFigures, results: str | Path, sequences: Iterable[VotSequence]
) -> ToolkitFigures:
    """Requires the toolkit's figures of written results to be ours.

    Args:
        figures: of the same results by ``evaluation.vot.metrics.evaluate``, with
            ``convention="toolkit"``.
        results: folder that holds ``<sequence>/<sequence>_001.txt``, ….
        sequences: those that were evaluated; their images are not needed.

    Returns:
        The toolkit's figures.

    Raises:
        InputError: a figure differs by more than ``TOLERANCE``, the figures are of
            another convention, or the toolkit fails.
        siamrpn_jax.common.errors.MissingExtraError: the toolkit is not installed.
    """
    if (figures.convention, figures.overlap) != ("toolkit", "official"):
        raise InputError(
            f"figures of convention {figures.convention!r}, overlap "
            f"{figures.overlap!r}: expected 'toolkit', 'official'"
        )
    theirs = run_toolkit(results, sequences, interval=figures.interval)
    pairs = {
        "accuracy": (figures.accuracy, theirs.accuracy),
        "weighted failures": (figures.weighted_failures, theirs.failures),
        "eao": (figures.eao, theirs.eao),
    }
    bad = [
        f"{name} is {mine!r}, the toolkit's {other!r}"
        for name, (mine, other) in pairs.items()
        if not abs(mine - other) <= TOLERANCE
    ]
    if bad:
        raise InputError(f"{results}: {'; '.join(bad)}")
    return theirs


def check_installed() -> None:
    """Raises MissingExtraError where the toolkit is not installed."""
    if importlib.util.find_spec("vot") is None:
        raise MissingExtraError(
            "vot-toolkit is not installed: pip install 'siamrpn-jax[vot]'"
        )


def run_toolkit(
    results: str | Path, sequences: Iterable[VotSequence], *, interval: tuple[int, int]
) -> ToolkitFigures:
    """Runs ``vot analysis`` on written results.

    Args:
        results: as for ``check_with_toolkit``.
        sequences: as for ``check_with_toolkit``.
        interval: lengths of sequences over which EAO is taken.

    Raises:
        InputError: the toolkit fails, or a sequence has no results.
        siamrpn_jax.common.errors.MissingExtraError: the toolkit is not installed.
    """
    check_installed()
    with tempfile.TemporaryDirectory(prefix="siamrpn-vot-") as folder:
        workspace = Path(folder)
        write_workspace(workspace, results, sequences, interval=interval)
        run_vot("analysis", "--name", "check", TRACKER, workspace=workspace)
        return read_analysis(workspace / "analysis" / "check.json")


def write_workspace(
    workspace: Path,
    results: str | Path,
    sequences: Iterable[VotSequence],
    *,
    interval: tuple[int, int],
) -> None:
    """Writes a workspace of the toolkit that holds results and annotations."""
    names = []
    for sequence in sequences:
        _write_sequence(workspace / "sequences" / sequence.name, sequence)
        names.append(sequence.name)
        source = Path(results) / sequence.name
        if not source.is_dir():
            raise InputError(f"{source}: no such folder of results")
        target = workspace / "results" / TRACKER / "baseline" / sequence.name
        shutil.copytree(source, target)
    (workspace / "sequences" / "list.txt").write_text("\n".join(names) + "\n")
    (workspace / "trackers.ini").write_text(
        f"[{TRACKER}]\nlabel = {TRACKER}\nprotocol = traxpython\ncommand = none\n"
    )
    low, high = interval
    experiment: dict[str, Any] = {
        "type": "supervised",
        "repetitions": 15,
        "skip_initialize": SKIP,
        "analyses": [
            {"type": "supervised_average_ar", "sensitivity": 30},
            {"type": "supervised_eao_score", "low": low, "high": high},
        ],
    }
    stack = {"title": "check", "experiments": {"baseline": experiment}}
    config = {"registry": ["./trackers.ini"], "stack": stack}
    (workspace / "config.yaml").write_text(json.dumps(config))  # JSON is YAML


def run_vot(*arguments: str, workspace: Path) -> str:
    """Runs a command of the toolkit in a workspace; returns what it printed.

    Raises:
        InputError: the command fails; with the end of what it printed.
    """
    command, *rest = arguments
    run = subprocess.run(
        [sys.executable, "-m", "vot", command, "--workspace", str(workspace), *rest],
        env={**os.environ, "VOT_RESULTS_BINARY": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if run.returncode:
        raise InputError(f"vot {' '.join(arguments)} failed: {run.stdout[-2000:]}")
    return run.stdout


def read_analysis(path: str | Path) -> ToolkitFigures:
    """Reads what ``vot analysis`` wrote about one tracker and one experiment."""
    try:
        report = read_json(path)
        (experiment,) = report["results"].values()
        [(accuracy, failures, *_)], [(eao,)] = experiment["results"]
        return ToolkitFigures(float(accuracy), float(failures), float(eao))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not an analysis of the toolkit") from error


def _write_sequence(folder: Path, sequence: VotSequence) -> None:
    folder.mkdir(parents=True)
    lines = [
        ",".join(repr(value) for value in np.asarray(region, np.float64).tolist())
        for region in sequence.regions
    ]
    (folder / "groundtruth.txt").write_text("\n".join(lines) + "\n")
    if sequence.size is None:
        raise InputError(f"{sequence.name}: its frames' size is unknown, expected one")
    width, height = sequence.size
    (folder / "sequence").write_text(
        f"name={sequence.name}\nwidth={width}\nheight={height}\nlength={len(lines)}\n"
        "channels.color=color/%08d.jpg\nfps=30\n"
    )

"""Opens the trackers that a command names: weights, and baselines to compare with."""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from siamrpn_jax.commands.constants import Setting, describe
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.common.released import DEFAULT_WEIGHTS
from siamrpn_jax.deploy import Runtime

if TYPE_CHECKING:  # --help must not wait for JAX
    import numpy as np

    from siamrpn_jax.evaluation.runner import OnePassTracker


class TrackerSpec(NamedTuple):
    """A tracker by its name."""

    name: str
    """What tables and folders call it."""
    source: str
    """Weights, or the name of a baseline."""
    is_baseline: bool
    """Which of both."""
    files: tuple[Path, ...] = ()
    """What the baseline reads, if anything."""
    constants: Setting = MappingProxyType({})
    """Constants of tracking in place of those of the weights."""
    runtime: Runtime = "jax"
    """What computes; baselines have their own."""


def make_tracker_specs(
    weights: Sequence[str],
    trackers: Sequence[str],
    *,
    nano_files: Sequence[Path] = (),
    settings: Sequence[Setting] = ({},),
    runtime: Runtime = "jax",
) -> list[TrackerSpec]:
    """Trackers in the order given: weights, each with each setting, then baselines.

    Args:
        weights: of SiamRPN; the default ones are added where none are given and wanted.
        trackers: ``siamrpn`` and names of baselines; nothing means ``siamrpn``.
        nano_files: NanoTrack's ONNX files, for ``nano``.
        settings: constants of tracking in place of those of the weights.
        runtime: what computes SiamRPN.

    Raises:
        InputError: two have one name, or constants are given and no weights run.
    """
    wanted = not trackers or "siamrpn" in trackers
    weights = list(weights) or [DEFAULT_WEIGHTS] * wanted
    if not weights and any(settings):
        raise InputError(
            "--tracker.*: constants of SiamRPN, but there is only "
            f"{', '.join(trackers)}"
        )
    names = [name_of(source) for source in weights]
    found = [
        TrackerSpec(
            name + describe(setting),
            source,
            False,
            constants=setting,
            runtime=runtime,
        )
        for name, source in zip(names, weights, strict=True)
        for setting in settings
    ]
    files = {"nano": tuple(nano_files)}
    found += [
        TrackerSpec(name, name, True, files.get(name, ()))
        for name in trackers
        if name != "siamrpn"
    ]
    check_names([one.name for one in found])
    return found


def name_of(source: str) -> str:
    """Name of weights: a released name, a file's, or that of a run's folder."""
    path = Path(source)
    if path.suffix != ".safetensors":
        return path.resolve().name if path.is_dir() else path.name
    return path.resolve().parent.name if path.stem == "weights" else path.stem


def check_names(names: Sequence[str]) -> None:
    """Raises ``InputError`` where a name occurs twice."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"several trackers are named {', '.join(twice)}: expected different names"
        )


def check_tracker_specs(specs: Iterable[TrackerSpec]) -> None:
    """Checks weights and constants of all trackers; opening one may take long.

    Raises:
        InputError: as ``siamrpn_jax.load``.
    """
    from siamrpn_jax.api import read

    for one in specs:
        if not one.is_baseline:
            read(one.source, **one.constants)


def open_tracker_spec(spec: TrackerSpec) -> "tuple[OnePassTracker, dict[str, Any]]":
    """Opens a tracker; also returns, as JSON values, all that its results depend on."""
    if spec.is_baseline:
        import cv2

        from siamrpn_jax.evaluation.trackers import BaselineName, make_baseline

        assert spec.source in get_args(BaselineName)
        tracker = make_baseline(spec.source, files=spec.files)  # type: ignore[arg-type]
        settings: dict[str, Any] = {
            "tracker": spec.source,
            "opencv": cv2.__version__,
        }
        if spec.files:
            digests = [sha256(path.read_bytes()) for path in spec.files]
            settings["files"] = [one.hexdigest()[:16] for one in digests]
        return tracker, settings
    from siamrpn_jax.api import load
    from siamrpn_jax.common import configs
    from siamrpn_jax.deploy.exported import ExportedTracker, find_card, read_export
    from siamrpn_jax.weights import load_weights

    tracker = load(spec.source, runtime=spec.runtime, **spec.constants)
    settings = {
        "tracker": "siamrpn",
        "tracker_config": configs.to_json(tracker.config),
    }
    if card := find_card(spec.source):
        about = read_export(card).card
        settings["files"] = {n: one["sha256"] for n, one in about["files"].items()}
    else:
        loaded = load_weights(spec.source)
        settings["weights"] = _digest(loaded.variables)
        settings["model"] = configs.to_json(loaded.model.config)
    if isinstance(tracker, ExportedTracker):
        settings["runtime"] = tracker.runtime
    return tracker, settings


def add_sources(
    rows: Mapping[str, dict[str, Any]],
    specs: Iterable[TrackerSpec],
    truths: "Mapping[str, np.ndarray]",
) -> None:
    """Adds, and prints, on which of the sequences trackers were tuned or trained.

    Args:
        rows: name of a tracker -> its figures; ``tuned_on`` and ``trained_on`` are
            added where there are such sequences.
        specs: the trackers.
        truths: name of a sequence -> its boxes.
    """
    for one in specs:
        if tuned_on := report_tuning(one, truths):
            rows[one.name]["tuned_on"] = tuned_on
        if trained_on := report_training(one, truths):
            rows[one.name]["trained_on"] = trained_on


def report_tuning(spec: TrackerSpec, truths: "Mapping[str, np.ndarray]") -> list[str]:
    """Prints, in a line, which sequences a tracker's constants were chosen on.

    Args:
        spec: a tracker.
        truths: name of a sequence -> its boxes.

    Returns:
        their names; figures on them flatter the tracker.
    """
    if spec.is_baseline:
        return []
    from siamrpn_jax.data.read.sequences import fingerprint
    from siamrpn_jax.weights import cards

    fingerprints = {name: fingerprint(boxes) for name, boxes in truths.items()}
    found = cards.tuned_among(_card_of(spec), fingerprints)
    if found:
        print(
            f"NOTE   {spec.name}: its constants were chosen on {len(found)} of "
            f"these sequences, do not quote its figures on {', '.join(found)}"
        )
    return found


def report_training(spec: TrackerSpec, names: "Iterable[str]") -> list[str]:
    """Prints, in a line, which sequences a tracker's weights were trained on.

    Args:
        spec: a tracker.
        names: of the sequences.

    Returns:
        those that were, by their names and as far as the weights tell; figures on them
        say what the tracker remembers.
    """
    if spec.is_baseline:
        return []
    from siamrpn_jax.weights import cards

    found = cards.trained_among(_card_of(spec), names)
    if found:
        print(
            f"NOTE   {spec.name}: its weights were trained on {len(found)} of these "
            f"sequences by their names, do not quote its figures on {', '.join(found)}"
        )
    return found


def _card_of(spec: TrackerSpec) -> dict[str, Any]:
    """The card of a tracker's weights, of an export that of what was exported."""
    from siamrpn_jax.deploy.exported import find_card, read_export
    from siamrpn_jax.weights import load_weights

    if exported := find_card(spec.source):
        return read_export(exported).card["weights"]
    return load_weights(spec.source).card


def _digest(variables: Any) -> str:
    import jax
    import numpy as np

    digest = sha256()
    for leaf in jax.tree.leaves(variables):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]

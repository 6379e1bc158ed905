"""What ``siamrpn tune`` does: clips, search, confidence, and what is written."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from siamrpn_jax import weights
from siamrpn_jax.commands.tune import Config
from siamrpn_jax.common import configs, provenance
from siamrpn_jax.common.errors import InputError
from siamrpn_jax.common.files import check_place, write_json
from siamrpn_jax.data.crops import reader
from siamrpn_jax.data.read import pool
from siamrpn_jax.data.sampling import check_held_out
from siamrpn_jax.data.scenes import clips
from siamrpn_jax.data.scenes.clips import Clip
from siamrpn_jax.evaluation.ope import metrics
from siamrpn_jax.model import boxes, fused
from siamrpn_jax.tracking import confidence
from siamrpn_jax.tracking import search as settings_search
from siamrpn_jax.tracking.config import TrackerConfig
from siamrpn_jax.tracking.state import Loaded, TrackOutput
from siamrpn_jax.weights import cards

_MIB = 2**20
_ROUND_2 = 0.4  # Reach of the second round, as a share of the first one's.
_STAMPED = ("clips", "settings_tried", "seed", "command", "gain", "gain_apart")
_SHOWN = 8  # Rows of the table on the terminal.
_FIT_FOLLOWED, _FIT_LOST = 0.2, 0.1
"""Overlaps that the confidence is fitted with: at least the first in a followed frame,
below the second in a lost one. They bound frames; ``evaluation.failures`` has bounds of
its own, for whole scenes."""

_JUDGES = ("real", "learned")
MIN_JUDGES = 8
"""Real sequences that a choice of constants needs. On pasted and generated clips, which
move and grow by rules, constants win that cost .06 of AUC on real video."""


def tune(config: Config) -> dict[str, Any]:
    """Does what ``tune.run`` says."""
    out = _out(config)
    loaded = weights.load_weights(config.weights)
    used = read_clips(config)
    _check_unseen(config, loaded, used)
    counts = Counter(clip.source for clip in used)
    print(f"clips: {', '.join(f'{n} {kind}' for kind, n in counts.items())}")
    judges = [clip for clip in used if clip.source in _JUDGES]
    result, tracker = None, loaded.tracker_config
    if len(judges) >= MIN_JUDGES:
        result = search(loaded, judges, settings=config.settings, seed=config.seed)
        print(format_result(result, [clip.source for clip in judges]))
        chosen = dict(zip(settings_search.NAMES, result.chosen.tolist(), strict=True))
        tracker = dataclasses.replace(tracker, **chosen)
    else:
        print(
            f"the constants stay: {len(judges)} real sequences, expected {MIN_JUDGES} "
            "or more; pasted and generated clips do not judge them"
        )
    try:
        fitted = calibrate(loaded, used, tracker)
        print(fitted)
        tracker = dataclasses.replace(tracker, **fitted.fields)
    except InputError as error:  # the search took minutes and stands without
        fitted = None
        print(f"confidence not fitted: {error}")
    report = {
        "weights": config.weights,
        "command": provenance.command_line(),
        "clips": dict(counts),
        "seed": config.seed,
        "quoted": bool(config.sequences),
        **_report_search(result, [clip.source for clip in judges]),
        "confidence": fitted._asdict() if fitted else None,
        "tracker_config": configs.to_json(tracker),
    }
    weights.save_weights(
        out,
        loaded.variables,
        model=loaded.model,
        tracker_config=tracker,
        card=stamp(loaded.card, report, used),
    )
    write_json(out.with_suffix(".json"), report)
    print(f"weights: {out}; settings tried: {out.with_suffix('.json')}")
    return report


def read_clips(config: Config) -> list[Clip]:
    """Real, learned, pasted and generated clips, in this order.

    Raises:
        InputError: folders that cannot be used.
    """
    found = []
    if config.data:
        prepared = [folder for folder in config.data if reader.is_prepared(folder)]
        if prepared:
            raise InputError(
                f"{prepared[0]} is a prepared folder, which holds crops, not frames: "
                "expected the folders that it was made from"
            )
        learned, held_out = pool.open_pools(
            [str(folder) for folder in config.data],
            validation_fraction=config.validation_fraction,
            hold_out=config.hold_out,
            bytes_limit=0,
            decoded_limit=512 * _MIB,
        )
        check_held_out(config.hold_out, held_out.sequences)
        real = clips.pooled_sequences(config.data, held_out)
        found += clips.real_clips(real, length=config.frames)
        known = clips.pooled_sequences(config.data, learned)[: config.learned]
        found += clips.real_clips(known, length=config.frames, source="learned")
    real = clips.read_sequences(config.sequences)
    if config.sequences and not real:
        raise InputError(f"{config.sequences[0]}: holds no sequence")
    found += clips.real_clips(real, length=config.frames)
    if config.data and (len(held_out.stills) or held_out.small):
        found += clips.composite_clips(
            held_out, config.clips, length=config.frames, seed=config.seed
        )
    found += clips.generated_clips(config.clips, length=config.frames, seed=config.seed)
    return found


def _check_unseen(config: Config, loaded: Loaded, used: Sequence[Clip]) -> None:
    """Refuses to judge constants on what the weights learned, as far as they tell."""
    names = [clip.name for clip in used if clip.source == "real"]
    if found := cards.trained_among(loaded.card, names):
        raise InputError(
            f"{config.weights} was trained on {len(found)} of the sequences that would "
            f"judge it: {', '.join(found[:8])}: expected the --validation-fraction and "
            "--hold-out of its training, and sequences of other names (--learned N "
            "takes some of training on purpose)"
        )


class Tried(NamedTuple):
    """Settings and how they did."""

    settings: np.ndarray
    """``[S, P]``, columns as in ``tracking.search.NAMES``."""
    scores: np.ndarray
    """``[S, C]``: success AUC on each clip."""

    def __add__(self, other: "Tried") -> "Tried":
        """Both together."""
        return Tried(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))


class Result(NamedTuple):
    """What the search found."""

    tried: Tried
    """All settings; the current one is the first."""
    gain: tuple[float, float]
    """Gain of the found constants over the current ones, with its standard error."""
    cross_validated: tuple[float, float]
    """The same by two-fold cross-validation: chosen on one fold of the clips and scored
    on the other, mean of both. First round alone: the second one knows all clips."""
    found: Tried
    """The current constants and the found ones."""

    @property
    def support(self) -> float:
        """How far to go from the current constants to the found ones, 0 to 1.

        It is the share of the gain that cross-validation confirms; 0 where the gain is
        not above its standard error.
        """
        gain, error = self.gain
        if gain <= error:
            return 0.0
        return float(np.clip(self.cross_validated[0] / gain, 0, 1))

    @property
    def chosen(self) -> np.ndarray:
        """The constants to take, ``[P]``."""
        current, found = self.found.settings
        return current + self.support * (found - current)


def search(loaded: Loaded, used: Sequence[Clip], *, settings: int, seed: int) -> Result:
    """Tries settings in two rounds, and takes the middle of the plateau.

    Args:
        loaded: network and constants to start from.
        used: the clips.
        settings: to try in each round.
        seed: of the settings.
    """
    sources = [clip.source for clip in used]
    fused_weights = fused.fuse(loaded.model, loaded.variables)
    current = _current(loaded)

    def attempt(tried: np.ndarray, title: str) -> Tried:
        rows = [
            score_settings(loaded, fused_weights, clip, tried)
            for clip in tqdm(used, desc=title, unit="clip", disable=None)
        ]
        scores = np.stack(rows, axis=1)
        best = settings_search.mean_score(scores, sources).max()
        print(f"{title}: {len(tried)} settings, best score {best:.3f}", flush=True)
        return Tried(tried, scores)

    drawn = settings_search.draw_settings(settings, seed=seed)
    wide = attempt(np.concatenate([current, drawn]), "round 1")
    middle = settings_search.choose(*wide, sources).center
    # One more than in the first round stands for the current one: equal shapes.
    near = settings_search.draw_settings(
        settings + 1, seed=seed + 1, middle=middle, reach=_ROUND_2
    )
    tried = wide + attempt(near, "round 2")
    choice = settings_search.choose(*tried, sources)
    second = settings_search.second_fold(sources)
    centers = [
        settings_search.choose(
            wide.settings, wide.scores[:, fold], _of(sources, fold)
        ).center
        for fold in (~second, second)
    ]
    last = attempt(np.stack([current[0], choice.center, *centers]), "check")
    found, scores = choice.center, last.scores[1]
    behind, _ = settings_search.mean_difference(
        tried.scores[choice.best], scores, sources
    )
    if behind > choice.error:  # the plateau has a hollow middle
        found, scores = tried.settings[choice.best], tried.scores[choice.best]
    gain = settings_search.mean_difference(scores, last.scores[0], sources)
    ways = [
        settings_search.mean_difference(
            row[fold], last.scores[0][fold], _of(sources, fold)
        )
        for row, fold in zip(last.scores[2:], (second, ~second), strict=True)
    ]
    cross_validated = np.mean([gain for gain, _ in ways])
    cross_validated_error = np.linalg.norm([error for _, error in ways]) / 2
    both = Tried(np.stack([current[0], found]), np.stack([last.scores[0], scores]))
    return Result(
        tried, gain, (float(cross_validated), float(cross_validated_error)), both
    )


class Calibration(NamedTuple):
    """A fit of the confidence, and how well it separates followed from lost frames."""

    fields: dict[str, float]
    """Fields of ``TrackerConfig``."""
    followed: int
    """Frames with an overlap of at least .2."""
    lost: int
    """Frames with one below .1 or without the target; those between do not count."""
    before: float
    """Area under the ROC curve of the score alone."""
    after: float
    """Area under the curve of the confidence, on the clips that it was fitted to."""
    cross_validated: float
    """That area by two-fold cross-validation over the clips."""

    def __str__(self) -> str:
        """The fit in one line."""
        return (
            f"confidence: {self.followed} frames followed, {self.lost} lost; area "
            f"under the ROC curve {self.after:.3f} (cross-validated over the clips "
            f"{self.cross_validated:.3f}), of the score alone {self.before:.3f}"
        )


def calibrate(
    loaded: Loaded, used: Sequence[Clip], tracker: TrackerConfig
) -> Calibration:
    """Fits the confidence on the clips, each of which is cut to another one's frames.

    Args:
        loaded: the network.
        used: the clips.
        tracker: the constants to track with.

    Raises:
        InputError: no frame is followed.
    """
    evidence, score, followed, second = _watch(
        loaded._replace(tracker_config=tracker), used
    )

    def area(fit: dict[str, float], wanted: np.ndarray) -> float:
        # Neither bias nor sigmoid would change the order.
        slopes = [fit["confidence_support"], fit["confidence_margin"]]
        return confidence.auroc(evidence[wanted] @ slopes, followed[wanted])

    fields = confidence.fit_confidence(evidence, followed)
    ways = [
        area(confidence.fit_confidence(evidence[~fold], followed[~fold]), fold)
        for fold in (second, ~second)
    ]
    return Calibration(
        fields,
        int(followed.sum()),
        int((~followed).sum()),
        confidence.auroc(score, followed),
        area(fields, np.full(len(followed), True)),
        float(np.mean(ways)),
    )


def _watch(
    loaded: Loaded, used: Sequence[Clip]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """By frame: evidence, score, whether followed, whether in the second fold."""
    fused_weights = fused.fuse(loaded.model, loaded.variables)
    setting = _current(loaded)
    second = settings_search.second_fold([clip.source for clip in used])
    parts = []
    for number, clip in enumerate(tqdm(used, desc="confidence", disable=None)):
        other = used[(number + 1) % len(used)]
        cut = clips.with_loss(clip, other, length=max(len(clip.frames) // 2, 1))
        output = track(loaded, fused_weights, cut, setting)
        predicted = boxes.cxcywh_to_ltwh(np.asarray(output.box[:, 0], np.float64))
        overlap = np.nan_to_num(metrics.overlaps(predicted, cut.boxes[1:]))
        clear = (overlap >= _FIT_FOLLOWED) | (overlap < _FIT_LOST)
        columns = (
            np.asarray(output.evidence[:, 0], np.float64),
            np.asarray(output.score[:, 0], np.float64),
            overlap >= _FIT_FOLLOWED,
            np.full(len(overlap), second[number]),
        )
        parts.append(tuple(column[clear] for column in columns))
    evidence, score, followed, fold = map(np.concatenate, zip(*parts, strict=True))
    return evidence, score, followed, fold


def score_settings(
    loaded: Loaded, fused_weights: Any, clip: Clip, settings: np.ndarray
) -> np.ndarray:
    """Success AUC of each setting on a clip, ``[S]``."""
    output = track(loaded, fused_weights, clip, settings)
    predicted = boxes.cxcywh_to_ltwh(np.asarray(output.box, np.float64))
    return np.array(
        [
            metrics.evaluate(np.concatenate([clip.boxes[:1], row]), clip.boxes).auc
            for row in np.moveaxis(predicted, 1, 0)
        ]
    )


def track(
    loaded: Loaded, fused_weights: Any, clip: Clip, settings: np.ndarray
) -> TrackOutput:
    """Outputs ``[T - 1, S, …]`` of settings ``[S, P]`` on a clip."""
    return settings_search.track_frames(
        fused_weights,
        clip.frames,
        boxes.ltwh_to_cxcywh(clip.boxes[0]),
        settings_search.make_settings(loaded.tracker_config, settings),
        model=loaded.model,
    )


def _current(loaded: Loaded) -> np.ndarray:
    """The constants of the weights as a table of one setting, ``[1, P]``."""
    return np.array(
        [[getattr(loaded.tracker_config, name) for name in settings_search.NAMES]]
    )


def _of(sources: Sequence[str], fold: np.ndarray) -> list[str]:
    return [kind for kind, wanted in zip(sources, fold, strict=True) if wanted]


def stamp(
    card: Mapping[str, Any], report: Mapping[str, Any], used: Sequence[Clip]
) -> dict[str, Any]:
    """The card of the new weights: what they were tuned on, and how.

    Sequences of an earlier tuning stay: its constants were among those tried.

    Args:
        card: of the weights that were tuned.
        report: what ``run`` returns.
        used: the clips.
    """
    known = {one["fingerprint"]: one for one in card.get("tuned_on") or []}
    for clip in used:
        if clip.fingerprint:
            mark = {"name": clip.name, "fingerprint": clip.fingerprint}
            known[clip.fingerprint] = mark
    figures = dict(card.get("figures") or {})
    if report["taken"]:  # they were measured with other constants
        figures = {f"before tuning, {name}": value for name, value in figures.items()}
    earlier = card.get("tuning") or {}
    return {
        **card,
        "figures": figures,
        "tuned_on": list(known.values()),
        "tuning": {
            **{name: report[name] for name in _STAMPED},
            "quoted": report["quoted"] or bool(earlier.get("quoted")),
        },
    }


def format_result(result: Result, sources: Sequence[str]) -> str:
    """The best settings, the current one and what was found, as a table."""
    kinds = sorted(set(sources))
    means = settings_search.mean_score(result.tried.scores, sources)
    order = np.argsort(-means, kind="stable")[:_SHOWN]

    def row(name: str, setting: np.ndarray, scores: np.ndarray) -> str:
        by_kind = _by_source(scores, sources)
        cells = [
            *setting,
            settings_search.mean_score(scores, sources),
            *by_kind.values(),
        ]
        return f"{name:10}" + "".join(f"{value:18.3f}" for value in cells)

    head = [*settings_search.NAMES, "score", *kinds]
    lines = [f"{'':10}" + "".join(f"{name:>18}" for name in head)]
    lines += [
        row(f"best {i}", result.tried.settings[k], result.tried.scores[k])
        for i, k in enumerate(order, 1)
    ]
    lines += [
        row(name, *one)
        for name, one in zip(
            ("current", "found"), zip(*result.found, strict=True), strict=True
        )
    ]
    verdict = (
        f"taken: {result.support:.0%} of the way from current to found"
        if result.support
        else "not enough: the current ones stay"
    )
    lines += [
        f"gain {result.gain[0]:+.4f} ± {result.gain[1]:.4f}, cross-validated over two "
        f"folds of the clips {result.cross_validated[0]:+.4f} ± "
        f"{result.cross_validated[1]:.4f}; {verdict}"
    ]
    return "\n".join(lines)


def _by_source(scores: np.ndarray, sources: Sequence[str]) -> dict[str, float]:
    kinds = np.asarray(sources)
    return {str(k): float(scores[kinds == k].mean()) for k in np.unique(kinds)}


def _report_search(result: Result | None, sources: Sequence[str]) -> dict[str, Any]:
    """What was tried and found, JSON-ready; None where nothing was searched for."""
    names = ("current", "found", "gain", "gain_apart")
    if result is None:
        nothing: dict[str, Any] = dict.fromkeys(names)
        return {**nothing, "settings_tried": 0, "taken": False, "tried": []}

    def figures(setting: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
        return {
            **dict(zip(settings_search.NAMES, setting.tolist(), strict=True)),
            "score": float(settings_search.mean_score(scores, sources)),
            **_by_source(scores, sources),
        }

    def gain(pair: tuple[float, float]) -> dict[str, float]:
        return dict(zip(("mean", "standard_error"), pair, strict=True))

    rows = [figures(*one) for one in zip(*result.found, strict=True)]
    gains = gain(result.gain), gain(result.cross_validated)
    return {
        **dict(zip(names, (*rows, *gains), strict=True)),
        "settings_tried": len(result.tried.settings),
        "taken": result.support > 0,
        "support": result.support,
        "tried": [figures(*one) for one in zip(*result.tried, strict=True)],
    }


def _out(config: Config) -> Path:
    """Path of the new weights; checked before anything is run."""
    out = config.out or _default_out(config.weights)
    if out.suffix != ".safetensors":
        raise InputError(f"--out {out}: expected a name with .safetensors")
    for path in (out, out.with_suffix(".json")):
        check_place(path, "--out", is_file=True)
    return out


def _default_out(source: str) -> Path:
    """Beside the old weights; of released ones, in this folder."""
    path = weights.find(source)
    if source in weights.bundled():
        return Path(f"{source}-tuned.safetensors")
    if path.name == weights.FILE_NAME:
        return path.with_name("tuned.safetensors")
    return path.with_name(f"{path.stem}-tuned.safetensors")

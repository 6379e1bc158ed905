"""The tracker's config. No JAX is loaded here: the command line shows these options."""

import dataclasses
from typing import Literal, get_args

from siamrpn_jax.common.errors import InputError, check_range
from siamrpn_jax.model.config import HeadConfig, HeadKind

HEADS = {
    "online_frames": ("hybrid",),
    "second_template": get_args(HeadKind),
    "distractors": ("up_channel", "hybrid"),
}
"""The fields of a config that ask for a memory, and the heads that can use it: kernels
learn where one kernel scores all cells, and distractors are taken away where scores are
linear in their kernel."""


@dataclasses.dataclass(frozen=True)
class TrackerConfig:
    """How a box is chosen among the proposals; each stage can be switched off.

    A ``cross_correlation`` head has no proposals: the box is the best place on the
    score map, in the best of some scales. Of the fields before ``motion``
    it uses two: ``window_influence``, and ``size_lr`` as the share of a new scale.
    """

    center_size: int | None = None
    """g: only the middle g x g cells of the score map compete, at most all; None takes
    all. Odd on a map of odd side, even on one of even side."""
    penalty_k: float = 0.055
    """k of Eq. 13, strength of the penalty on changes of size and ratio; 0: none."""
    window_influence: float = 0.42
    """Share of the cosine window in the final score; 0: none."""
    size_lr: float = 0.295
    """Weight of the new size when the size is smoothed, times score and penalty."""
    size_confidence: float = 0.0
    """How far that weight follows the confidence, too; 0: not at all, 1: times it."""
    voting_iou: float = 1.0
    """The box is the mean of all proposals that overlap the winner by at least this,
    weighted by score and penalty; 1: the winner alone."""
    motion: float = 0.0
    """The search region runs ahead of the target by this share of its mean motion; 0:
    it stays where the target was."""
    top_k: int = 8
    """Number of proposals to report, best first; the first is the winner."""
    nms_iou: float | None = None
    """Report no proposal that overlaps a better one more than this; None: no NMS. The
    winner is the same with and without."""
    scales: int = 3
    """Number of scales that a ``cross_correlation`` head searches; odd."""
    scale_step: float = 1.0375
    """Factor from one of those scales to the next."""
    scale_penalty: float = 0.9745
    """Factor on the responses of all scales but the middle one."""
    min_size: float = 10.0
    """The reported box is never narrower or lower than this many frame pixels."""
    confidence_bias: float = -4.0
    """Confidence is ``sigmoid(bias + support weight * support + margin weight *
    margin)``; see ``confidence_features``."""
    confidence_support: float = 1.1
    """Weight of the support."""
    confidence_margin: float = 0.24
    """Weight of the margin."""
    margin_rate: float = 0.3
    """Share of a new frame in the running average of the margin."""
    lost_below: float = 0.1
    """A target becomes lost where its confidence falls below this."""
    found_above: float = 0.5
    """A lost target is found again where its confidence rises above this."""
    when_lost: Literal["follow", "hold"] = "follow"
    """While lost: follow the best proposal, or hold the box where it was last seen."""
    lost_search: float = 1.0
    """While lost, the width and height of the search region relative to the usual; 1:
    no wider search."""
    lost_search_step: float = 1e4
    """By how many usual widths that region grows a frame until it is so wide; once the
    target is found it has its usual width. The default: at once."""
    online_frames: int | None = None
    """The kernel of the scores keeps learning what tells the target from all else, from
    the first frame and this many of the last ones; None: it stays as the first frame
    made it. For ``hybrid`` heads. See ``tracking.online``."""
    online_above: float = 0.3
    """It learns from frames in which the first frame's kernel has a confidence above
    this."""
    second_template: float | None = None
    """Weight of a second template, the target's mean look in frames that were sure,
    beside the first frame's; None: none is kept. See ``tracking.memory``."""
    distractors: float | None = None
    """How much what looks like the target elsewhere lowers the scores of all that looks
    like it; None: not remembered. For ``up_channel`` and ``hybrid`` heads."""
    memory_rate: float = 0.1
    """Share of a new frame in the mean looks of target and distractors, and in what
    the kernel learns from."""
    memory_above: float = 0.8
    """Frames whose confidence is above this are sure."""

    def __post_init__(self) -> None:
        """Raises InputError on numbers out of range; arrays are not looked at."""
        check_range(self, 1, 1e3, "center_size", "top_k")
        check_range(self, 1, 99, "scales", "online_frames")
        check_range(self, 1, 2, "scale_step")
        if self.scales % 2 == 0:
            raise InputError(f"scales is {self.scales}, expected an odd number")
        check_range(self, 0, 100, "penalty_k", "motion")
        check_range(self, 0, 1, "window_influence", "size_lr", "voting_iou", "nms_iou")
        check_range(self, 0, 1, "margin_rate", "lost_below", "found_above")
        check_range(self, 0, 1, "size_confidence", "second_template", "distractors")
        check_range(self, 0, 1, "online_above", "memory_rate", "memory_above")
        check_range(self, 0, 1, "scale_penalty")
        check_range(self, 0.01, 1e4, "min_size", "lost_search")
        check_range(self, 0, 1e4, "lost_search_step")
        check_range(self, -1e6, 1e6, "confidence_bias")
        check_range(self, -1e6, 1e6, "confidence_support", "confidence_margin")


def check_memory(head: HeadConfig, config: TrackerConfig) -> None:
    """Raises InputError where the config asks for a memory that the head cannot use."""
    for name, heads in HEADS.items():
        value = getattr(config, name)
        if value is not None and head.kind not in heads:
            option = f"--tracker.{name.replace('_', '-')} None"
            raise InputError(
                f"{name} {value}: expected none with a {head.kind} head ({option}); "
                f"heads that can: {', '.join(heads)}"
            )


def find_idle(head: HeadConfig, config: TrackerConfig) -> dict[str, str]:
    """Fields that change nothing beside the others of a config, each with the reason.

    Args:
        head: of the network.
        config: of plain numbers.
    """
    kept = [name for name in HEADS if getattr(config, name) is not None]
    taught, seen = "online_frames" in kept, {*kept} - {"online_frames"}
    idle: dict[str, str] = {}
    if config.lost_search <= 1:
        idle["lost_search_step"] = f"lost_search is {config.lost_search:g}"
    if not taught:
        idle["online_above"] = "online_frames is None"
    if not seen:
        idle["memory_above"] = "second_template and distractors are None"
    if not kept:
        idle["memory_rate"] = f"{', '.join(HEADS)} are None"
    if head.regresses:
        names, what = ("scales", "scale_step", "scale_penalty"), "finds boxes"
    else:
        names, what = ("penalty_k", "size_confidence", "voting_iou"), "finds no boxes"
    return idle | dict.fromkeys(names, f"a {head.kind} head {what}")

"""Pictures that commands write, by running them."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments.pictures.tools import (
    SECOND_BOX,
    Group,
    Image,
    beside,
    read_png,
    shrink,
    siamrpn,
    write_film,
)
from siamrpn_jax.evaluation.vot.generated import write_synthetic
from siamrpn_jax.media.video import Video

WIDTH = 1100
"""Width in pixels of wide pictures."""

TRAINING = (
    *("--model.backbone.widths", "16", "24", "32", "32", "32"),
    *("--model.head.width", "32", "--epochs", "4", "--steps-per-epoch", "150"),
)
"""Options of the run whose curves are shown: a fourteenth of ``small``."""


def make_track(work: Path) -> Mapping[str, Image]:
    """The annotated film and the animation of ``siamrpn track``."""
    film, animation = work / "scene.webm", work / "tracked.webp"
    box, _ = write_film(film)
    pictures = ("--animation", animation, "--animation-width", "280")
    siamrpn(
        *("track", "--video", film, "--box", box, "--box", SECOND_BOX),
        *("--out", work / "tracks", *pictures, "--animation-stride", "4"),
    )
    frames = list(Video(work / "tracks" / "scene.webm"))
    shown = [shrink(frames[index], 360) for index in (0, 36, 72)]
    return {
        "pictures/track_animation.webp": animation,
        "pictures/track_frames.webp": beside(*shown),
    }


def make_inspect(work: Path) -> Mapping[str, Image]:
    """Training pairs of ``siamrpn inspect``."""
    siamrpn("inspect", "--out", work, "--pairs", "200", "--show", "8")
    return {"pictures/inspect_pairs.webp": shrink(read_png(work / "pairs.png"), WIDTH)}


def make_card(work: Path) -> Mapping[str, Image]:
    """The score map and the failures of ``siamrpn card``."""
    siamrpn("card", "--out", work)
    names = "search.webp", "failures.webp"
    return {name: work / name for name in names}


def make_eval(work: Path) -> Mapping[str, Image]:
    """Curves and a strip of ``siamrpn eval --plots``."""
    folder, plots = work / "sequences", work / "plots"
    write_synthetic(work)
    for sequence in sorted(folder.iterdir()):
        if sequence.is_dir():
            shutil.move(sequence / "color", sequence / "img")
    siamrpn(
        *("eval", "--sequences", folder, "--weights", "small", "--tracker", "static"),
        *("--plots", plots),
    )
    curves = beside(*(read_png(plots / f"{n}.png") for n in ("success", "precision")))
    strip = shrink(read_png(plots / "scene104.png"), WIDTH)
    return {
        "pictures/eval_curves.webp": shrink(curves, WIDTH),
        "pictures/eval_strip.webp": strip,
    }


def make_train(work: Path) -> Mapping[str, Image]:
    """Loss curves and unseen scenes of ``siamrpn train``."""
    siamrpn("train", "--out", work / "run", *TRAINING)
    losses = shrink(read_png(work / "run" / "losses.png"), 480)
    strip = read_png(work / "run" / "strip.png")
    middle = strip.shape[1] // 2
    rows = np.concatenate([strip[:, :middle], strip[:, middle : 2 * middle]])
    return {
        "pictures/train_losses.webp": losses,
        "pictures/train_scenes.webp": shrink(rows, WIDTH),
    }


GROUPS = (
    Group(("pictures/track_animation.webp", "pictures/track_frames.webp"), make_track),
    Group(("pictures/inspect_pairs.webp",), make_inspect),
    Group(("search.webp", "failures.webp"), make_card),
    Group(("pictures/eval_curves.webp", "pictures/eval_strip.webp"), make_eval),
    Group(("pictures/train_losses.webp", "pictures/train_scenes.webp"), make_train),
)
"""What these functions make."""

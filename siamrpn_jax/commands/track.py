"""``siamrpn track``: follow targets through a film, write it annotated and as CSV."""

import contextlib
import csv
import dataclasses
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TextIO

import tyro

from siamrpn_jax.commands.constants import Constants, ConstantsOption, single_setting
from siamrpn_jax.commands.errors import ending_cleanly, run_or_exit
from siamrpn_jax.common.errors import InputError, require
from siamrpn_jax.common.released import DEFAULT_WEIGHTS
from siamrpn_jax.deploy import Runtime
from siamrpn_jax.labelling import Format
from siamrpn_jax.labelling.labels import is_class

if TYPE_CHECKING:  # --help must not wait for JAX
    import numpy as np

    from siamrpn_jax.api import Results
    from siamrpn_jax.media.animation import AnimationWriter
    from siamrpn_jax.media.video import Video, VideoWriter

_TABLE = "boxes.csv"

DEFAULT_FPS = 25.0
"""Speed of a film whose source declares none."""

_COLUMNS = ("frame", "object", "x", "y", "w", "h", "score", "confidence", "lost")
"""Columns of boxes.csv; ``lost`` is 0 or 1."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Track one or several targets through a film."""

    video: str
    """Film, folder of images or of a sequence (img/), pattern such as 'frames/*.png',
    or 'camera', which Ctrl-C ends."""
    box: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Target in the first frame as x,y,w,h: top-left corner and size in pixels.
    Once for each target. Without it, the mouse draws one."""
    weights: str = DEFAULT_WEIGHTS
    """Name of released weights, a .safetensors file, a training run's folder, or an
    export for ONNX Runtime or LiteRT."""
    out: Path | None = None
    """Folder for boxes.csv and the annotated film, which are written over; default
    tracks/<video's name>, unless it holds boxes already."""
    format: Literal["webm", "mp4"] = "webm"
    """Annotated film: webm (VP8), or mp4 (H.264; needs siamrpn-jax[video])."""
    animation: Path | None = None
    """Also write a small animated picture for a page, of a short film: its frames are
    held in memory. FILE.webp is smallest; .gif, .png, .avif where OpenCV has them."""
    animation_width: int = 480
    """Width of the animated picture in pixels, or the film's if that is less."""
    animation_stride: int = 2
    """Show one of every N frames in the animated picture."""
    export: tuple[Format, ...] = ()
    """Also write the boxes for other tools, each into a folder of its name: csv; mot
    (MOT 1.1); cvat (for video 1.1); coco (with tracks); yolo (Ultralytics); labelstudio
    (a task); vot (sequences). Frames that they want as images are written, too."""
    names: tuple[str, ...] = ("object",)
    """Class of each target for --export, in the order of the boxes; or one for all."""
    runtime: Runtime = "auto"
    """What computes: jax, onnxruntime (siamrpn-jax[onnx]) or litert, with the same
    boxes but for what kernels learn (base), which they do not in litert. auto: for
    narrow networks such as base and small on a CPU, onnxruntime if it is installed,
    which starts at once and is the faster one there; else jax."""
    constants: ConstantsOption = Constants()


def run(config: Config) -> None:
    """Tracks, and writes ``boxes.csv`` and the annotated film.

    The boxes grow in ``boxes.partial.csv``, which stays where the end does not come.

    Raises:
        InputError: a bad box, video, or weights file; or, once all boxes are written,
            a film, an animation or images of an export that could not be.
        FileNotFoundError: no such video.
    """
    boxes = [parse_box(text) for text in config.box]
    if len(config.names) not in (1, len(boxes) or 1):
        raise InputError(
            f"--names {' '.join(config.names)}: {len(config.names)} for "
            f"{len(boxes) or 1} targets, expected one for each, or one for all"
        )
    if wrong := [name for name in config.names if not is_class(name)]:
        raise InputError(f"--names {wrong[0]!r}, expected words that can be printed")
    constants = single_setting(config.constants)
    if config.format == "mp4":
        require("av", extra="video")  # before anything is compiled

    # Imported here: ``siamrpn track --help`` must not wait for JAX.
    from siamrpn_jax.api import load, track
    from siamrpn_jax.labelling.formats import check_images
    from siamrpn_jax.media.video import Video

    video = Video(config.video)
    frames = iter(video)
    first = next(frames, None)
    if first is None:
        raise InputError(f"{config.video}: no frames")
    out = config.out or _default_folder(video.name)
    targets = boxes or _ask_for_box(first)
    tracker = load(config.weights, runtime=config.runtime, **constants)
    results = track(itertools.chain([first], frames), targets, tracker=tracker)
    film, table = out / f"{video.name}.{config.format}", out / _TABLE
    for path, option in ((film, "--out"), (config.animation, "--animation")):
        if path and path.exists() and path.resolve() == Path(config.video).resolve():
            raise InputError(f"{path}: is the video itself, choose another {option}")
    if config.animation and _is_among(config.animation, video, config.video):
        raise InputError(
            f"{config.animation}: would be one of the frames, choose another "
            "--animation"
        )
    for format in config.export:  # said before an hour of tracking, not after
        if (out / format).exists():
            raise InputError(f"{out / format}: is there already, choose another --out")
        check_images(video.images, format)
    pictures = _open_pictures(config, film, fps=video.fps or DEFAULT_FPS, first=first)
    kept = _Kept()
    followed = kept.passing(results) if config.export else results
    speeds = _write(followed, video, table=table, pictures=pictures)
    print(f"boxes  {table}")
    problems = []
    if config.export:
        size = (first.shape[1], first.shape[0])
        problems += _export(config, out, kept, video, size=size)
    for kind, picture in zip(("film  ", "anim  "), pictures, strict=False):
        if not picture.problem:
            print(f"{kind} {picture.path}")
    print(_speed_line(speeds))
    if problems := [*problems, *(one.problem for one in pictures if one.problem)]:
        raise InputError(f"{'; '.join(problems)}; {table} is whole")


def parse_box(text: str) -> tuple[float, ...]:
    """Reads ``x,y,w,h``.

    Raises:
        InputError: naming the text and what was expected.
    """
    try:
        box = tuple(float(field) for field in re.split(r"[,\s]+", text.strip()))
    except ValueError:
        box = ()
    if len(box) != 4:
        raise InputError(f"--box {text!r}: expected four numbers x,y,w,h")
    return box


def main(argv: list[str] | None = None) -> None:
    """Parses the command line and runs."""
    run_or_exit(lambda: run(tyro.cli(Config, args=argv, prog="siamrpn track")))


def _is_among(path: Path, video: "Video", source: str) -> bool:
    """Whether an image file is one of the frames, or would be the next time."""
    frames = {image.resolve() for image in video.images}
    folders = {image.parent for image in frames} if Path(source).is_dir() else ()
    return path.resolve() in frames or path.resolve().parent in folders


def _default_folder(name: str) -> Path:
    """The folder for what is found in a video of a name.

    Raises:
        InputError: it holds boxes already; another video may have the same name.
    """
    out = Path("tracks", name)
    if (out / _TABLE).exists():
        raise InputError(
            f"{out / _TABLE}: is there already, and may be of another video {name}: "
            f"choose --out; '--out {out}' writes over it"
        )
    return out


def _ask_for_box(frame: "np.ndarray") -> "np.ndarray":
    from siamrpn_jax.media.window import ask_for_box

    return ask_for_box(frame)


class _Picture:
    """A by-product, drawn frame by frame: its faults do not end the tracking."""

    def __init__(self, writer: "VideoWriter | AnimationWriter", size: tuple[int, int]):
        self.path = writer.path
        self.problem = ""
        self._writer, self._size = writer, size

    def write(self, frame: "np.ndarray") -> None:
        """Adds a frame; one of another size is scaled to the first one's."""
        import cv2

        if frame.shape[1::-1] != self._size:
            frame = cv2.resize(frame, self._size, interpolation=cv2.INTER_AREA)
        self._try(lambda: self._writer.write(frame))

    def end(self, error: BaseException | None) -> None:
        """Finishes the file, or removes it after an error."""
        kind = type(error) if error else None
        trace = error.__traceback__ if error else None
        self._try(lambda: self._writer.__exit__(kind, error, trace))

    def _try(self, call: Callable[[], object]) -> None:
        if self.problem:
            return
        try:
            call()
        except Exception as error:  # of OpenCV, FFmpeg, the disk
            self.problem = f"{self.path}: not written ({error})"
            with contextlib.suppress(Exception):
                self._writer.__exit__(type(error), error, error.__traceback__)


def _open_pictures(
    config: Config, film: Path, *, fps: float, first: "np.ndarray"
) -> list[_Picture]:
    """The annotated film, and the animation if it is asked for."""
    from siamrpn_jax.media.animation import AnimationWriter
    from siamrpn_jax.media.video import VideoWriter

    size = (first.shape[1], first.shape[0])
    pictures = []
    if config.animation is not None:  # first: what cannot be is said before a film is
        width, stride = config.animation_width, config.animation_stride
        writer = AnimationWriter(config.animation, fps=fps, width=width, stride=stride)
        pictures.append(_Picture(writer, size))
    return [_Picture(VideoWriter(film, fps=fps, size=size), size), *pictures]


def _write(
    results: Iterator["Results"],
    video: "Video",
    *,
    table: Path,
    pictures: list[_Picture],
) -> list[float]:
    """Writes all files, and returns the milliseconds of each frame.

    Ctrl-C ends what has no end of its own, a camera, and its files are kept.
    """
    from tqdm import tqdm

    speeds: list[float] = []
    with ending_cleanly(), _finishing(pictures):
        results = itertools.chain([next(results)], results)  # a bad box leaves no file
        with _growing(table) as file:
            rows = csv.writer(file)
            rows.writerow(_COLUMNS)
            try:
                for result in tqdm(results, total=video.length, disable=None):
                    rows.writerows(_rows(result))
                    file.flush()
                    drawn = result.plot()
                    for picture in pictures:
                        picture.write(drawn)
                    speeds.append(result.speed_ms)
            except KeyboardInterrupt:
                if video.length is not None or not speeds:
                    raise
    return speeds


class _Kept:
    """The results of all frames without their pictures, for exports."""

    def __init__(self) -> None:
        self.boxes: list[np.ndarray] = []
        self.confidence: list[np.ndarray] = []
        self.lost: list[np.ndarray] = []

    def passing(self, results: Iterator["Results"]) -> Iterator["Results"]:
        """Passes results on, and keeps what is in them."""
        for result in results:
            self.boxes.append(result.boxes_ltwh)
            self.confidence.append(result.confidence)
            self.lost.append(result.lost)
            yield result


def _export(
    config: Config, out: Path, kept: _Kept, video: "Video", *, size: tuple[int, int]
) -> list[str]:
    """Writes what was found in the formats that were asked for; returns problems."""
    import numpy as np

    from siamrpn_jax.labelling.formats import write_labels
    from siamrpn_jax.labelling.labels import LabelledObject, Labels
    from siamrpn_jax.media.frames import Frames
    from siamrpn_jax.media.video import is_live

    boxes, confidence, lost = map(np.stack, (kept.boxes, kept.confidence, kept.lost))
    count, targets = lost.shape
    names = config.names * targets if len(config.names) == 1 else config.names
    keys = np.arange(count) == 0
    objects = tuple(
        LabelledObject(i, name, boxes[:, i], confidence[:, i], lost[:, i], keys)
        for i, name in enumerate(names)
    )
    source, problems = config.video, []
    labels = Labels(video.name, source, size, video.fps, count, objects)
    # What a camera showed is gone.
    frames = None if is_live(source) else Frames(source)
    if frames is not None and len(frames) < count:
        problems.append(
            f"{source}: only {len(frames)} of the {count} frames that were tracked can "
            "be read again, --export has no images"
        )
        frames = None
    for format in config.export:
        folder = out / format
        write_labels(labels, folder, format, frames=frames)
        print(f"{format:<6} {folder}")
    return problems


@contextlib.contextmanager
def _finishing(pictures: list[_Picture]) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        for picture in pictures:
            picture.end(error)
        raise
    for picture in pictures:
        picture.end(None)


@contextlib.contextmanager
def _growing(table: Path) -> Iterator[TextIO]:
    """A file that is called partial until its end; it stays if that does not come."""
    table.parent.mkdir(parents=True, exist_ok=True)
    partial = table.with_suffix(f".partial{table.suffix}")
    try:
        with open(partial, "w", newline="", encoding="utf-8") as file:
            yield file
        os.replace(partial, table)
    except BaseException:
        print(f"boxes so far: {partial}", file=sys.stderr)
        raise


def _rows(result: "Results") -> list[list[object]]:
    targets = zip(
        result.object_ids,
        result.boxes_ltwh,
        result.scores,
        result.confidence,
        result.lost,
        strict=True,
    )
    return [
        [
            result.index,
            number,
            *(f"{v:.3f}" for v in box),
            f"{score:.4f}",
            f"{confidence:.4f}",
            int(lost),
        ]
        for number, box, score, confidence, lost in targets
    ]


def _speed_line(speeds: list[float]) -> str:
    """The speed in a line, without the first two frames, which compile."""
    steady = speeds[2:]
    if not steady:
        return f"frames {len(speeds)}"
    return f"frames {len(speeds)}, {1000 * len(steady) / sum(steady):.1f} frames/s"

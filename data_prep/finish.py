"""The end of a preparation: what all shards together come to."""

import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep.shards import Content, ShardJob
from data_prep.tracks import Rejection
from siamrpn_jax.common.errors import require
from siamrpn_jax.common.files import replacing
from siamrpn_jax.data.crops import format, index
from siamrpn_jax.data.crops.index import Header, Index, Shard
from siamrpn_jax.data.crops.reader import STATE_FOLDER
from siamrpn_jax.data.read.images import is_image

REJECTED_FILE = "rejected.json"
"""All rejections of a dataset, in its folder."""

_MISREADING = 3
"""From this number of videos on, what is rejected in all of them is no accident."""

_KINDS = 5
"""Number of kinds of rejections that are printed."""


@dataclass(frozen=True)
class Summary:
    """What a preparation came to."""

    folder: Path
    videos: int
    """Number of videos (of stills: images), those without any record too."""

    tracks: int
    records: int
    size: int
    """Bytes of all shards."""

    absent: int
    """Annotated frames without a visible target; they are left out."""

    rejections: tuple[Rejection, ...]
    max_bad: float
    """Largest share of rejected records that is accepted, 0 to 1."""

    written: int
    """Records that this run wrote or rejected."""

    seconds: float
    """Seconds that this run took for them."""

    @property
    def rejected(self) -> int:
        """Records lost by all rejections."""
        return sum(rejection.records for rejection in self.rejections)

    @property
    def bad(self) -> float:
        """Their share of all records, 0 to 1."""
        return self.rejected / max(1, self.rejected + self.records)

    @property
    def accepted(self) -> bool:
        """Whether the folder is finished."""
        return self.records > 0 and self.bad <= self.max_bad and not self.misreading

    @property
    def misreading(self) -> "_Kind | None":
        """What was rejected in every video, and so is no damage: a wrong count, say."""
        least = max(self.videos, _MISREADING)
        return next((k for k in self._kinds() if len(k.places) >= least), None)

    def lines(self) -> list[str]:
        """The summary as lines of text."""
        lines = [
            f"{self.tracks:,} tracks, {self.records:,} records, "
            f"{self.size / 1e9:.3g} GB in {self.folder}",
            f"absent: {self.absent:,} annotated frames without a visible target",
            f"rejected: {self.rejected:,} records ({self.bad:.2%})",
        ]
        for kind in self._kinds()[:_KINDS]:
            example = "such as: " if kind.times > 1 else ""
            lines.append(
                f"{kind.records:>10,} records, {kind.times:,} times: "
                f"{example}{kind.file}: {kind.reason}"
            )
        if self.rejections:
            lines.append(f"  all in {self.folder / REJECTED_FILE}")
        if self.written:
            speed = self.written / max(self.seconds, 1e-3)
            lines.append(f"speed: {speed:,.0f} records/s")
        return lines

    def refusal(self) -> str:
        """Why the folder is not finished, and what to do about it."""
        if not self.records:
            return f"{self.folder}: not finished, no record could be written"
        if kind := self.misreading:
            return (
                f"{self.folder}: not finished, the same was rejected in every video, "
                f"which --max-bad does not allow: {kind.file}: {kind.reason}"
            )
        percent = math.ceil(round(self.bad * 100, 9))
        return (
            f"{self.folder}: not finished, {self.bad:.2%} of the records were rejected "
            f"and max_bad is {self.max_bad:.2%}. To accept that, run the same command "
            f"again with --max-bad {percent}%: no shard is made anew"
        )

    def _kinds(self) -> "list[_Kind]":
        """What differs in numbers and quoted text alone is of one kind; worst first."""
        kinds: dict[str, _Kind] = {}
        for rejection in self.rejections:
            key = re.sub(r"[\d.,+-]+|'.*?'", "#", rejection.reason)
            kind = kinds.get(key, _Kind(rejection.file, rejection.reason))
            kinds[key] = kind._replace(
                records=kind.records + rejection.records,
                times=kind.times + 1,
                places=kind.places | {_place(rejection.file)},
            )
        return sorted(kinds.values(), key=lambda kind: (-kind.records, -kind.times))


class _Kind(NamedTuple):
    """Rejections for the same reason."""

    file: str
    """File of the first of them."""

    reason: str
    """Reason of the first of them."""

    records: int = 0
    times: int = 0
    places: frozenset[str] = frozenset()
    """Annotation files, films, and folders of images."""


def _place(file: str) -> str:
    path = Path(file)
    return str(path.parent if is_image(path) else path)


def finish(
    jobs: Sequence[ShardJob],
    contents: Sequence[Content],
    *,
    neighbours: int | None,
    max_bad: float,
    written: int,
    seconds: float,
) -> Summary:
    """Finishes a folder, all shards of which are written.

    ``rejected.json`` is written in any case, and the index last and only if the folder
    is accepted: one that has an index is whole.
    """
    folder = jobs[0].out
    rejections = tuple(r for content in contents for r in content.rejections)
    summary = Summary(
        folder=folder,
        videos=sum(len(job.units) for job in jobs),
        tracks=sum(len(content.names) for content in contents),
        records=sum(len(content.frames) for content in contents),
        size=sum(content.size for content in contents),
        absent=sum(content.absent for content in contents),
        rejections=rejections,
        max_bad=max_bad,
        written=written,
        seconds=seconds,
    )
    with replacing(folder / REJECTED_FILE) as temporary:
        entries = [json.dumps(rejection._asdict()) for rejection in rejections]
        temporary.write_text("[" + ",\n ".join(entries) + "]\n")
    if not summary.accepted:
        index.remove_index(folder)
    else:
        shards = [
            Shard(job.path.name, len(content.frames), content.size)
            for job, content in zip(jobs, contents, strict=True)
        ]
        header = Header(jobs[0].name, jobs[0].crops, neighbours, tuple(shards))
        _write_metadata(folder, header)
        index.write_index(folder, header, _merge(contents))
    return summary


def _merge(contents: Sequence[Content]) -> Index:
    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(content, name) for content in contents])

    videos, video_names = _numbered(v for content in contents for v in content.videos)
    categories, category_names = _numbered(
        category for content in contents for category in content.categories
    )
    return Index(
        starts=np.concatenate([[0], np.cumsum(joined("counts"))]),
        names=tuple(name for content in contents for name in content.names),
        videos=videos,
        video_names=video_names,
        categories=categories,
        category_names=category_names,
        frames=joined("frames"),
        sizes=joined("sizes"),
        scales=joined("scales"),
        visibility=joined("visibility"),
        outlined=joined("outlined"),
    )


def _numbered(names: Iterable[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numbers for names, in the order of their first mention; -1 for an empty one."""
    numbers: dict[str, int] = {}
    column = [numbers.setdefault(name, len(numbers)) if name else -1 for name in names]
    return np.array(column, np.int32), tuple(numbers)


def _write_metadata(folder: Path, header: Header) -> None:
    """Writes what TensorFlow Datasets needs to open the folder."""
    tfds = require("tensorflow_datasets", extra="train")
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder,
        dataset_name=header.name,
        split=format.SPLIT,
        filetype_suffix="array_record",
    )
    split = tfds.core.SplitInfo(
        name=format.SPLIT,
        shard_lengths=[shard.records for shard in header.shards],
        num_bytes=sum(shard.size for shard in header.shards),
        filename_template=template,
    )
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=header.name,
        version=tfds.core.Version(f"{format.FORMAT_VERSION}.0.0"),
        data_dir=str(folder),
        module_name="",
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        features=format.features(header.crops),
        description="Crops around tracked targets, as siamrpn_jax prepares them.",
    )
    info.set_file_format("array_record")
    info.set_splits(tfds.core.splits.SplitDict([split]))
    temporary = folder / STATE_FOLDER / "metadata"
    temporary.mkdir(exist_ok=True)
    info.write_to_directory(temporary)
    for path in temporary.iterdir():
        os.replace(path, folder / path.name)
    temporary.rmdir()

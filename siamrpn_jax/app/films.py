"""The films that the page offers, and the files that belong to each."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from siamrpn_jax.common.errors import InputError
from siamrpn_jax.data.read.images import (
    FILM_SUFFIXES,
    is_film,
    is_hidden,
    is_image,
    natural_sort,
)
from siamrpn_jax.data.read.sequences import FRAME_FOLDERS
from siamrpn_jax.media.video import Video


@dataclass(frozen=True)
class Film:
    """A film or a folder of images."""

    path: Path
    """Where it is, absolute."""
    out: Path
    """The folder for its sessions and exports."""

    @property
    def name(self) -> str:
        """Name of the file or folder, as the page shows it."""
        return self.path.name

    def session_files(self) -> Iterator[Path]:
        """The names that its session may have, in the order in which they are taken."""
        yield self.out / f"{self.name}.session.json"
        for number in range(2, 1000):
            yield self.out / f"{self.name}.session-{number}.json"

    def export_folders(self, format: str) -> Iterator[Path]:
        """The names that an export may have, in the order in which they are taken."""
        folder = self.out / "labels"
        yield folder / f"{self.path.stem}-{format}"
        for number in range(2, 1000):
            yield folder / f"{self.path.stem}-{format}-{number}"


def list_films(source: Path, *, out: Path | None = None) -> tuple[Film, ...]:
    """Finds what there is to label.

    Args:
        source: a film; or a folder, whose films, folders of images, and own images are
            listed.
        out: where sessions and exports go; by default beside each film.

    Raises:
        InputError: there is nothing, naming the place and what was expected; or the
            file is no film, or ``out`` no folder.
    """
    place = out.expanduser().absolute() if out else None
    if place and place.exists() and not place.is_dir():
        raise InputError(f"{out}: is a file, expected a folder for sessions")
    source = source.expanduser().absolute()
    if source.is_file():
        Video(source)  # raises where nothing can be decoded
        paths = [source]
    elif source.is_dir():
        paths = [path for path in [source, *_entries(source)] if _is_film(path)]
    else:
        raise InputError(f"{source}: expected a film, or a folder of films or images")
    if not paths:
        raise InputError(
            f"{source}: holds no film ({', '.join(sorted(FILM_SUFFIXES))}), no images, "
            "and no folder of images"
        )
    return tuple(Film(path, place or path.parent) for path in paths)


def first_free(paths: Iterator[Path]) -> Path:
    """The first path at which there is nothing.

    Raises:
        InputError: all are taken.
    """
    path = None
    for path in paths:
        if not path.exists():
            return path
    raise InputError(f"{path}: this name and all before it are taken")


def _entries(folder: Path) -> list[Path]:
    return natural_sort(path for path in folder.iterdir() if not is_hidden(path.name))


def _is_film(path: Path) -> bool:
    if path.is_file():
        return is_film(path)
    folders = (path / name for name in FRAME_FOLDERS if (path / name).is_dir())
    return any(is_image(file) for folder in folders for file in folder.iterdir())

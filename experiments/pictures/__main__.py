"""Draws the documentation's pictures: ``python -m experiments.pictures [NAME …]``.

Of all groups of pictures or of those that a name is part of. Needs the extras ``dev``
and ``docs``, npm, and Chromium with its driver. Most of the time goes to
``siamrpn train`` and ``siamrpn ablate``.
"""

import argparse
import tempfile
from pathlib import Path

from experiments.pictures import conventions, equations, outputs, pages
from experiments.pictures.tools import Group, save

DOCS = Path(__file__).parents[2] / "docs"

GROUPS: tuple[Group, ...] = (
    *equations.GROUPS,
    *conventions.GROUPS,
    *outputs.GROUPS,
    *pages.GROUPS,
)


def draw(group: Group, docs: Path = DOCS) -> None:
    """Makes the pictures of a group and writes them to the folder of documents."""
    with tempfile.TemporaryDirectory(prefix="siamrpn-pictures-") as folder:
        made = group.make(Path(folder))
        assert set(made) == set(group.names), f"{set(made)}, expected {group.names}"
        for name, image in made.items():
            save(docs / name, image)


def main() -> None:
    """Parses the command line and draws."""
    parser = argparse.ArgumentParser(prog="python -m experiments.pictures")
    parser.description = (__doc__ or "").splitlines()[0]
    parser.add_argument("names", nargs="*", help="parts of the names of pictures")
    wanted = parser.parse_args().names
    for group in GROUPS:
        if not wanted or any(w in name for w in wanted for name in group.names):
            draw(group)


if __name__ == "__main__":
    main()

"""What Markdown files say: their Python examples, headings and links."""

import re
from pathlib import Path

from paths import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
"""The files for users at the root and the pages of the site."""


def examples(path: Path) -> str:
    """The ``python`` blocks of a file, one program; ``py`` blocks are not run."""
    blocks = re.findall(r"^```python\n(.*?)^```", path.read_text(), re.S | re.M)
    return "\n".join(blocks)


def promised(code: str) -> list[str]:
    """The shapes that comments behind ``print`` promise: ``# (4, 4): frames, …``."""
    return re.findall(r"^print\(.*# (\([\d, ]+\))", code, re.M)


def links(path: Path) -> list[tuple[str, str]]:
    """File, empty for the same one, and anchor of each link within the repository."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.S | re.M)
    targets = re.findall(r"\]\((?!\w+:)([^)\s]+)\)", text)
    return [target.partition("#")[::2] for target in targets]


def anchors(path: Path) -> set[str]:
    """Names of the headings of a file and of those that it includes, as GitHub's."""
    text = path.read_text()
    names = set()
    for included in re.findall(r"^```\{include\} (\S+)", text, re.M):
        names |= anchors(path.parent / included)
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return names | {anchor(heading) for heading in headings}


def anchor(heading: str) -> str:
    """What GitHub calls a heading in links."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")

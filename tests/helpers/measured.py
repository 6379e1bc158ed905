"""Measured figures in Markdown, and where they come from."""

import re
from pathlib import Path
from typing import NamedTuple

from doc_pages import anchor

_NUMBER = r"(?<![\w.,/×-])[+-]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)"
_UNIT = (
    r"(?:ms|s|seconds?|min|minutes|hours?|core-hours|px|[KM]i?B|GB|%|"
    r"(?:target-)?frames/s|(?:search )?pairs/s|"
    r"(?:frames|pairs|images|updates) a second|times (?:as|faster|the))(?![\w/])"
)
_SCORE = r"(?<![\w.-])[+-]?\.\d{3}(?!\d)"
_MEASURED = re.compile(
    rf"{_NUMBER}(?: (?:to|and|or) {_NUMBER})?[ \n]{_UNIT}|{_SCORE}", re.M
)
_CELL = re.compile(r"\| *[*~+-]*(?:\d[\d,]*)?\.\d+[* ]*(?=\|)")
_FENCE = re.compile(r"^```.*?^```", re.S | re.M)
_RENDERED = re.compile(r"<!-- figures: .*?<!-- end of figures -->", re.S)
_DATE = re.compile(r"\b20\d\d-\d\d(-\d\d)?\b")
_COMMAND = re.compile(r"`[^`]*\b(?:siamrpn|python)\b [^`]+`|^```(?:bash|text)", re.M)
_LINK = re.compile(r"\]\((?!\w+:)([^)\s]+)\)")


class Section(NamedTuple):
    """A heading with what stands below it, up to the next heading."""

    heading: str
    level: int
    text: str
    """With the fences, without the heading."""
    above: str
    """Texts of the headings that it is under."""

    @property
    def figures(self) -> list[str]:
        """Numbers that somebody measured: with a unit, of three decimals, in tables.

        What ``experiments/figures.py`` renders, and code, is left out.
        """
        text = _FENCE.sub("", _RENDERED.sub("", self.text))
        text = re.sub(r"`(?:[^`\n]|\n(?!\n))*`", "``", text)
        found = [match[0] for match in _MEASURED.finditer(text)]
        found += [match[0].strip("| *") for match in _CELL.finditer(text)]
        return list(dict.fromkeys(map(_spaces, found)))

    @property
    def is_sourced(self) -> bool:
        """Whether a command and a date stand here or in a section above."""
        text = self.text + "\n" + self.above
        return bool(_DATE.search(text) and _COMMAND.search(text))


def sections(path: Path) -> list[Section]:
    """The sections of a file; what it includes is left out."""
    found, parents = [], {}
    for heading, level, text in _split(path.read_text()):
        parents = {at: above for at, above in parents.items() if at < level}
        found.append(Section(heading, level, text, "\n".join(parents.values())))
        parents[level] = text
    return found


def unsourced(path: Path, section: Section) -> list[str]:
    """The figures of a section whose source is neither here nor behind a link."""
    if section.is_sourced:
        return []
    known = " ".join(_spaces(text) for text in _linked(path, section.text))
    return [figure for figure in section.figures if figure not in known]


def _linked(path: Path, text: str) -> list[str]:
    """What stands in the sections behind links that say where figures come from."""
    found = []
    for link in _LINK.findall(text):
        file, _, name = link.partition("#")
        target = path.parent / file if file else path
        if target.suffix == ".md":
            included = re.findall(r"^```\{include\} (\S+)", target.read_text(), re.M)
            for at in [target, *(target.parent / other for other in included)]:
                found += [
                    one.text
                    for one in sections(at)
                    if name in ("", anchor(one.heading)) and one.is_sourced
                ]
    return found


def _split(text: str) -> list[tuple[str, int, str]]:
    """Heading, level and text of each section; the first has none and is empty."""
    found, fenced = [["", 0, ""]], False
    for line in text.splitlines(keepends=True):
        fenced ^= line.startswith("```")
        if line.startswith("#") and not fenced:
            marks, _, heading = line.partition(" ")
            found.append([heading.strip(), len(marks), ""])
        else:
            found[-1][2] += line
    return [(heading, level, text) for heading, level, text in found]


def _spaces(text: str) -> str:
    return " ".join(text.split())

"""Makes the API reference read well: short signatures, comments as they were written.

A field of a config or of a pytree is shown by itself, with its type, its default and
its comment, so the class needs no signature that repeats them all.
"""

import dataclasses
import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

LONGEST_VALUE = 60
"""Characters of a value that is shown whole."""

_ADDED = {"replace", "FORMER"}
"""What Flax adds to each pytree, and where a config remembers its older files."""


def setup(app: Sphinx) -> dict[str, Any]:
    """Connects the functions below to the events of autodoc."""
    app.connect("autodoc-process-docstring", keep_comment, priority=400)
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("autodoc-skip-member", skip_added)
    app.connect("doctree-read", shorten_values)
    app.add_css_file("reference.css")
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def keep_comment(
    app: Sphinx, kind: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Keeps napoleon from taking what stands before a colon for the field's type."""
    if kind in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]  # an empty comment, which is not shown


def shorten_signature(
    app: Sphinx,
    kind: str,
    name: str,
    obj: Any,
    options: Any,
    arguments: str | None,
    returned: str | None,
) -> tuple[str, str | None] | None:
    """No arguments where fields are shown, one signature in the place of overloads."""
    if kind == "class" and (dataclasses.is_dataclass(obj) or hasattr(obj, "_fields")):
        return "", None
    home = getattr(obj, "__module__", None) or ""
    if kind == "function" and home.startswith("siamrpn_jax."):
        source = ModuleAnalyzer.for_module(home)
        source.analyze()
        source.overloads.pop(obj.__name__, None)
    return None


def skip_added(
    app: Sphinx, kind: str, name: str, obj: Any, skip: bool, options: Any
) -> bool | None:
    """Leaves out what is of no use to readers."""
    return True if name in _ADDED else None


def shorten_values(app: Sphinx, doctree: nodes.document) -> None:
    """Types without what is for the command line alone; long values end in "…".

    No address in this machine's memory is shown.
    """
    for node in doctree.findall(addnodes.desc_annotation):
        text = node.astext()
        short = text
        if kind := re.match(r": Annotated\[(.+?), (_ArgConfig|\w+\]$)", text):
            short = f": {kind[1]}"
        elif text.lstrip().startswith("="):
            short = re.sub(r" at 0x[0-9a-f]+", "", text)
            if len(short) > LONGEST_VALUE:
                call = re.match(r"\s*= [\w.]+\(", short)
                cut = short[:LONGEST_VALUE].rstrip()
                short = f"{call[0]}…)" if call else f"{cut} …"
        if short != text:
            node.clear()
            node += nodes.Text(short)

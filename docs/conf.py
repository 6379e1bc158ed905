"""Configuration of the documentation: ``sphinx-build -W docs build/docs``."""

import os
import re
import sys
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util.math import get_node_equation_number

from siamrpn_jax import __version__

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))  # experiments and data_prep, for their docstrings
sys.path.insert(0, str(DOCS / "extensions"))
# Files of the repository that are pages of the site.
PAGES = {
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "SECURITY.md": "security.md",
    "data_prep/README.md": "datasets.md",
    "siamrpn_jax/weights/base.md": "model_card_base.md",
    "siamrpn_jax/weights/small.md": "model_card.md",
}

project = "siamrpn_jax"
author = "The siamrpn_jax authors"
version = release = __version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "reference",
]
exclude_patterns = ["_build"]
html_theme = "sphinx_book_theme"
html_title = "siamrpn_jax"
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
# Pages load nothing from elsewhere: they can be read without a network. Equations are
# MathML, made by `setup` below, in the place of MathJax, which a page would fetch.
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "home_page_in_toc": True,
    "navbar_persistent": [],  # the search field is in the sidebar
    "use_download_button": False,
}
html_show_sphinx = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "amsmath"]
myst_heading_anchors = 3

# Notebooks hold no outputs: the build runs them, and a cell that fails fails it.
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True

autodoc_default_options = {"members": True, "undoc-members": True}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
add_module_names = False
python_display_short_literal_types = True
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"


def setup(app):
    """Registers the renderer of equations, and links that lead to pages of the site."""
    app.add_html_math_renderer(
        "mathml", (_inline_equation, None), (_displayed_equation, None)
    )
    app.connect("source-read", _on_page)
    app.connect("include-read", _on_include)


def _on_page(app, name, content):
    content[0] = _site_links(content[0], DOCS)


def _on_include(app, path, name, content):
    content[0] = _site_links(content[0], (DOCS / path).parent)


def _site_links(text, folder):
    """Markdown of a file in `folder`, with relative links as a page needs them."""

    def rewrite(link):
        file = Path(os.path.normpath(folder / link["file"]))
        name = file.relative_to(ROOT).as_posix() if ROOT in file.parents else None
        page = DOCS / PAGES[name] if name in PAGES else file
        return f"]({os.path.relpath(page, DOCS)}{link['anchor']})"

    return re.sub(r"\]\((?!\w+:)(?P<file>[^)#\s]+)(?P<anchor>[^)\s]*)\)", rewrite, text)


def _inline_equation(translator, node):
    translator.body.append(_mathml(node, display="inline"))
    raise nodes.SkipNode


def _displayed_equation(translator, node):
    translator.body.append(translator.starttag(node, "div", CLASS="math"))
    if node["number"]:
        number = get_node_equation_number(translator, node)
        translator.body.append(f'<span class="eqno">({number})')
        translator.add_permalink_ref(node, "Link to this equation")
        translator.body.append("</span>")
    translator.body.append(_mathml(node, display="block"))
    translator.body.append("</div>\n")
    raise nodes.SkipNode


def _mathml(node, *, display):
    """An equation as MathML; unknown commands are errors, not words of the page."""
    # The converter knows aligned lines by this name alone.
    latex = re.sub(r"\{(align|aligned|split)\}", "{align*}", node.astext())
    text = convert(latex, display=display)
    if unknown := re.findall(r"<m[io]>(\\\w+)", text):
        raise ValueError(f"{node.source}: an equation has {unknown}: {latex}")
    return text

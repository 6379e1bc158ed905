"""Configuration of the documentation: ``sphinx-build -W docs build/docs``."""

import sys
from pathlib import Path

from siamrpn_jax import __version__

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))  # experiments and data_prep, for their docstrings

project = "siamrpn_jax"
author = "The siamrpn_jax authors"
version = release = __version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]
html_theme = "sphinx_book_theme"
html_title = "siamrpn_jax"
# Pages load nothing from elsewhere: they can be read without a network.
html_theme_options = {"use_download_button": False, "home_page_in_toc": True}

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "amsmath"]
myst_heading_anchors = 3

# Notebooks hold no outputs: the build runs them, and a cell that fails fails it.
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 240

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

"""Sphinx configuration: `make docs`, or `sphinx-build -W docs docs/_build/html`."""

import lrla

project = "lrla"
author = "lrla developers"
copyright = "2026, lrla developers"
version = release = lrla.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
templates_path = ["_templates"]
exclude_patterns = ["_build"]

autosummary_generate = True
autodoc_typehints = "none"  # types stand in the docstrings, with units and ranges
numpydoc_show_class_members = False

html_theme = "furo"
html_title = f"lrla {release}"
html_copy_source = False

"""Sphinx configuration: ``python -m sphinx docs docs/_build`` makes a searchable site, offline."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

project = "tracker"
author = "The tracker authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "tracker"
root_doc = "index"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_member_order = "bysource"


def setup(app):
    """Let a colon in an attribute's docstring stand: napoleon would take the words before it for a type."""
    app.connect("autodoc-process-docstring", _shield_first_line, priority=400)


def _shield_first_line(app, what, name, obj, options, lines):
    if what == "attribute" and lines:
        lines.insert(0, "")

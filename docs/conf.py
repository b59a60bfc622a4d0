"""How Sphinx makes the site of these pages: `make docs`.

The pages are plain Markdown, so that they read as well where nobody has built anything. Nothing of the site stands in
them: the navigation is here, and what links out of docs/ is seen to in `_site/outside.py`.

Rejected: mkdocs-material. MkDocs has had no release since 2024, and Material for MkDocs is in maintenance until November 2026;
its successor, zensical, is at 0.1. Sphinx, MyST and Furo are kept, and Sphinx can be strict about every link and anchor.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_site"))

project = "prefork"
author = "The prefork authors"
copyright = author  # noqa: A001 (Sphinx's name for it)
language = "en_GB"

extensions = ["myst_parser", "navigation", "outside", "drawings"]
exclude_patterns = ["_site"]
templates_path = []
myst_enable_extensions = ["html_image"]
myst_heading_anchors = 4
nitpicky = True

NAVIGATION = {
    "Start": ["tour", "migrating"],
    "Guides": ["deploying", "shared", "fork-safety", "embedding", "scaling"],
    "Operate": ["operating", "signals", "hangs-and-scaling", "security"],
    "How it works": ["how-it-works", "http", "design"],
    "Reference": ["options"],
    "Evidence": ["benchmarks", "chaos", "strangers", "REJECTED"],
}

html_theme = "furo"
html_title = "prefork"
html_static_path = ["_site/static"]
html_css_files = ["prefork.css"]
html_show_sphinx = False
html_show_sourcelink = False
html_copy_source = False
html_last_updated_fmt = None
pygments_style = "friendly"
pygments_dark_style = "github-dark"
html_theme_options = {
    "navigation_with_keys": True,
    "light_css_variables": {"color-brand-primary": "#0b6e4f", "color-brand-content": "#0b6e4f"},
    "dark_css_variables": {"color-brand-primary": "#5fd3a6", "color-brand-content": "#5fd3a6"},
}

"""How the site is built: `make docs`."""

from trainscope import __version__

project = "trainscope"
author = "The trainscope authors"
release = __version__
copyright = "2026, the trainscope authors"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "trainscope"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]

autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = True

"""The documentation site: ``python3 dev.py docs`` builds it into build/docs."""

from fmrt import __version__

project = "fmrt"
copyright = "the fmrt authors"  # noqa: A001  # Sphinx's name
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"fmrt {release}"
exclude_patterns = ["conf.py"]
# A link to a heading of another page, or to a page that is gone, fails the build.
myst_heading_anchors = 3
nitpicky = False
autodoc_typehints = "description"
autodoc_member_order = "bysource"
# Docstrings name code in single backticks.
default_role = "code"
# Blocks that no highlighter knows, such as outputs beside their commands.
suppress_warnings = ["misc.highlighting_failure"]

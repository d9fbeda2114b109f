"""The documentation site: ``python3 dev.py docs`` builds it into build/docs."""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))

from notebooks import write_notebooks

from fmrt import __version__

project = "fmrt"
copyright = "the fmrt authors"  # noqa: A001  # Sphinx's name
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"fmrt {release}"
exclude_patterns = ["conf.py", "notebooks.py"]
# A link to a heading of another page, or to a page that is gone, fails the build.
myst_heading_anchors = 3
nitpicky = False
autodoc_typehints = "description"
autodoc_member_order = "bysource"
# Docstrings name code in single backticks.
default_role = "code"
# Blocks that no highlighter knows, such as outputs beside their commands.
suppress_warnings = ["misc.highlighting_failure"]


def setup(app: Sphinx) -> None:
    """Write the guides' notebooks, and lead to them."""
    write_notebooks()
    app.connect("source-read", _with_notebook)


def _with_notebook(_: Sphinx, page: str, source: list[str]) -> None:
    if page.startswith("guides/"):
        title, rest = source[0].split("\n", 1)
        source[0] = (
            f"{title}\n\nThis page as a notebook: {{download}}`{Path(page).name}.ipynb`\n{rest}"
        )

"""The guides as notebooks: ``python docs/notebooks.py`` writes each beside its page."""

from __future__ import annotations

from pathlib import Path

import jupytext
from nbformat import NotebookNode

GUIDES = Path(__file__).parent / "guides"
# Else the language of most blocks would be the notebook's.
_HEADER = """---
jupyter:
  kernelspec: {display_name: Python 3, language: python, name: python3}
---
"""


def notebook(page: Path) -> NotebookNode:
    """A page with each of its blocks as a cell; a shell's ends at the first command that fails."""
    made = jupytext.reads(_HEADER + page.read_text("utf-8"), fmt="md")
    for cell in made.cells:
        if cell.source.startswith("%%sh\n"):
            cell.source = cell.source.replace("%%sh", "%%sh -e", 1)
    return made


def write_notebooks() -> None:
    """Write all of them."""
    for page in sorted(GUIDES.glob("*.md")):
        jupytext.write(notebook(page), page.with_suffix(".ipynb"))


if __name__ == "__main__":
    write_notebooks()

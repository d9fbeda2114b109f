"""Texts of natural length: the docstrings of Python's standard library, in a fixed order."""

from __future__ import annotations

import ast
import functools
import sys
import sysconfig
from pathlib import Path


@functools.cache
def docstrings() -> tuple[str, ...]:
    """Distinct docstrings of four words and more, whitespace collapsed, by file and position."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, None] = {}
    for path in sorted(root.rglob("*.py")):
        if not {"site-packages", "test", "tests"} & set(path.parts):
            found.update(dict.fromkeys(docstrings_of(path)))
    return tuple(found)


def docstrings_of(path: Path) -> list[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return []
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    raw = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
    texts = [" ".join(text.split()) for text in raw if text]
    return [text for text in texts if len(text.split()) >= 4]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text("\n".join(docstrings()) + "\n", encoding="utf-8")

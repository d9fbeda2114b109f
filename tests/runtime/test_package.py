"""The package as a whole: what it exports, and what it never imports."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import fmrt
import fmrt.errors

NEVER = (
    "torch",
    "transformers",
    "sentence_transformers",
    "onnx",
    "onnx_ir",
    "onnxscript",
    "fmrt.export",
    "huggingface_hub",
    "pyarrow",
    "pandas",
    "scipy",
    "PIL",
    "soundfile",
    "soxr",
)


def test_a_process_that_embeds_has_loaded_the_runtime_alone(tiny_bundle: Path) -> None:
    code = (
        "import sys, fmrt\n"
        f"with fmrt.Embedder({str(tiny_bundle)!r}) as e: e.embed(['cat', 'dog'])\n"
        f"print([m for m in {NEVER!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", sorted(set(fmrt.__all__) - {"__version__"}))
def test_everything_public_is_documented(name: str) -> None:
    thing = getattr(fmrt, name)
    assert thing.__doc__
    if inspect.isclass(thing):
        members = vars(thing).items()
        assert not [
            n
            for n, m in members
            if not n.startswith("_")
            and (callable(m) or isinstance(m, (property, classmethod)))
            and not inspect.getdoc(m)
        ]


def test_every_error_is_ours_and_a_builtin_one() -> None:
    errors = [e for _, e in inspect.getmembers(fmrt.errors, inspect.isclass)]
    ours = [e for e in errors if e is not fmrt.FmrtError and not issubclass(e, Warning)]
    for error in ours:
        assert issubclass(error, fmrt.FmrtError)
    plain = {Exception, BaseException, object}
    for error in (e for e in ours if not e.__subclasses__()):
        assert [b for b in error.__mro__ if b.__module__ == "builtins" and b not in plain]


def test_a_name_with_an_underscore_is_used_in_its_own_package_alone() -> None:
    """`a.b._c` is imported by `a.b` and what is in it."""
    (root,) = fmrt.__path__
    wrong = []
    for file in Path(root).rglob("*.py"):
        importer = ".".join(("fmrt", *file.relative_to(root).with_suffix("").parts))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("fmrt"):
                continue
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            private = [name for name in names if "._" in name and not name.endswith("__")]
            wrong += [n for n in private if not importer.startswith(n.partition("._")[0])]
    assert not wrong

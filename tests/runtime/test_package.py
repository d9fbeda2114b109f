"""The package as a whole: what it exports, and what it never imports."""

from __future__ import annotations

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

"""Which extra of fmrt brings which module: the one place that says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fmrt.errors import MissingExtraError

# The modules of each extra's own requirements, as `import` names them.
EXTRAS: dict[str, frozenset[str]] = {
    "parquet": frozenset({"pyarrow"}),
    "image": frozenset({"PIL"}),
    "audio": frozenset({"soundfile", "soxr"}),
    "openvino": frozenset({"openvino"}),
    "quantize": frozenset({"onnx", "onnx_ir", "onnxscript"}),
    "evaluate": frozenset({"matplotlib", "sklearn", "scipy"}),
    "export": frozenset(
        {
            "onnx",
            "onnx_ir",
            "onnxscript",
            "peft",
            "sentence_transformers",
            "sentencepiece",
            "torch",
            "transformers",
        }
    ),
}


@contextmanager
def needing(what: str, extra: str | None = None) -> Iterator[None]:
    """Say which extra brings a module that turns out to be missing.

    Args:
        what: that is being done.
        extra: that it needs in any case, whichever module is missing first.

    Raises:
        MissingExtraError: with the command that installs all that it is known to need. A missing
            module that no extra brings stays a ``ModuleNotFoundError``.
    """
    try:
        yield
    except ModuleNotFoundError as e:
        module = (e.name or "").partition(".")[0]
        brings = [name for name, modules in EXTRAS.items() if module in modules]
        if not brings:
            raise
        wanted = () if extra is None else (extra,)
        found = () if extra in brings else (brings[0],)
        raise MissingExtraError(what, ",".join((*wanted, *found)), module) from e

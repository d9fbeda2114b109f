"""fmrt: export foundation models once, embed anywhere, fast.

``Embedder`` runs a bundle on onnxruntime, without torch or transformers, as ``EmbedOptions`` say.
``embed_to_file`` and ``embed_to_folder`` embed a whole input, and ``search`` searches what they
wrote. ``Segmenter`` runs a bundle that segments images by ``SegmentPrompt``. ``export_model`` makes
a bundle, and ``adopt_onnx`` makes one of ONNX graphs (with the ``export`` extra); ``Bundle`` is one
on disk; ``verify_bundle`` checks one against PyTorch; ``push_bundle`` publishes one, and
``package_bundle`` makes it small. ``evaluate`` tests embeddings on a data set, and ``draw_map``
draws one (with the ``evaluate`` extra).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from fmrt._version import __version__
from fmrt.errors import FmrtError

if TYPE_CHECKING:
    from fmrt._api import (
        adopt_onnx,
        draw_map,
        evaluate,
        export_model,
        package_bundle,
        quantize_bundle,
    )
    from fmrt.bundle.bundle import Bundle
    from fmrt.bundle.push import push_bundle
    from fmrt.data import Reading
    from fmrt.embed_options import EmbedOptions
    from fmrt.embedder import Embedder
    from fmrt.jobs import Embedded, embed_to_file, embed_to_folder
    from fmrt.nearest import Hit, search
    from fmrt.segmentation.engine import Segmentation
    from fmrt.segmentation.prompt import Prompt, SegmentPrompt
    from fmrt.segmenter import Segmenter
    from fmrt.verify import ParityReport, verify_bundle

__all__ = [
    "Bundle",
    "EmbedOptions",
    "Embedded",
    "Embedder",
    "FmrtError",
    "Hit",
    "ParityReport",
    "Prompt",
    "Reading",
    "SegmentPrompt",
    "Segmentation",
    "Segmenter",
    "__version__",
    "adopt_onnx",
    "draw_map",
    "embed_to_file",
    "embed_to_folder",
    "evaluate",
    "export_model",
    "package_bundle",
    "push_bundle",
    "quantize_bundle",
    "search",
    "verify_bundle",
]
# Where each is that is imported when it is asked for, so that the command line starts quickly.
_HOMES = {
    "Bundle": "bundle.bundle",
    "EmbedOptions": "embed_options",
    "Embedded": "jobs",
    "Embedder": "embedder",
    "Hit": "nearest",
    "ParityReport": "verify",
    "Prompt": "segmentation.prompt",
    "Reading": "data",
    "SegmentPrompt": "segmentation.prompt",
    "Segmentation": "segmentation.engine",
    "Segmenter": "segmenter",
    "adopt_onnx": "_api",
    "draw_map": "_api",
    "embed_to_file": "jobs",
    "embed_to_folder": "jobs",
    "evaluate": "_api",
    "export_model": "_api",
    "push_bundle": "bundle.push",
    "package_bundle": "_api",
    "quantize_bundle": "_api",
    "search": "nearest",
    "verify_bundle": "verify",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"fmrt.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

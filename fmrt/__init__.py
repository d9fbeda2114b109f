"""fmrt: export foundation models once, embed anywhere, fast.

``Embedder`` runs a bundle on onnxruntime, without torch or transformers, and ``Segmenter`` one that
segments images by ``Prompt``; ``export_model`` makes one (with the ``export`` extra); ``Bundle`` is
one on disk; ``verify_bundle`` checks one against PyTorch.
"""

from fmrt._api import export_model, quantize_bundle
from fmrt._version import __version__
from fmrt.bundle import Bundle
from fmrt.embedder import Embedder
from fmrt.errors import FmrtError
from fmrt.prompt import Prompt
from fmrt.segment import Segmentation
from fmrt.segmenter import Segmenter
from fmrt.verify import ParityReport, verify_bundle

__all__ = [
    "Bundle",
    "Embedder",
    "FmrtError",
    "ParityReport",
    "Prompt",
    "Segmentation",
    "Segmenter",
    "__version__",
    "export_model",
    "quantize_bundle",
    "verify_bundle",
]

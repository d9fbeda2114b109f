"""fmrt: export foundation models once, embed anywhere, fast.

``Embedder`` runs a bundle on onnxruntime, without torch or transformers; ``export_model`` makes one
(with the ``export`` extra); ``Bundle`` is one on disk; ``verify_bundle`` checks one against PyTorch.
"""

from ._api import export_model
from ._version import __version__
from .bundle import Bundle
from .embedder import Embedder
from .errors import FmrtError
from .verify import ParityReport, verify_bundle

__all__ = [
    "Bundle",
    "Embedder",
    "FmrtError",
    "ParityReport",
    "__version__",
    "export_model",
    "verify_bundle",
]

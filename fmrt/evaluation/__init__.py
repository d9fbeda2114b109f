"""Test embeddings on a data set: ``evaluate`` is ``fmrt.evaluate``. It needs ``fmrt[evaluate]``.

``load`` makes a `Dataset` from a path, ``model`` embeds it, each file of ``tasks`` gives measures,
and ``against`` compares two models by them. Only the public API of the runtime is used.
"""

from fmrt.evaluation.columns import Columns
from fmrt.evaluation.dataset import Dataset, Side
from fmrt.evaluation.kept import judge
from fmrt.evaluation.load import load_dataset
from fmrt.evaluation.report import Evaluation
from fmrt.evaluation.run import evaluate
from fmrt.evaluation.settings import Settings

__all__ = [
    "Columns",
    "Dataset",
    "Evaluation",
    "Settings",
    "Side",
    "evaluate",
    "judge",
    "load_dataset",
]

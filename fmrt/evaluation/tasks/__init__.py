"""The table of tasks. Each task is one file and one row."""

from __future__ import annotations

from fmrt.evaluation.tasks._base import PROMPTS, SEGMENT, Embedded, Found, Task
from fmrt.evaluation.tasks.bitext import BITEXT
from fmrt.evaluation.tasks.checks import CHECKS
from fmrt.evaluation.tasks.clustering import CLUSTERING
from fmrt.evaluation.tasks.few_shot import FEW_SHOT
from fmrt.evaluation.tasks.knn import KNN
from fmrt.evaluation.tasks.pairs import SIMILARITY
from fmrt.evaluation.tasks.probe import PROBE
from fmrt.evaluation.tasks.retrieval import RETRIEVE
from fmrt.evaluation.tasks.segmentation import SEGMENTATION
from fmrt.evaluation.tasks.zero_shot import ZERO_SHOT

__all__ = ["PROMPTS", "SEGMENT", "TASKS", "Embedded", "Found", "Task"]

TASKS = {
    task.name: task
    for task in (
        KNN,
        PROBE,
        FEW_SHOT,
        CLUSTERING,
        ZERO_SHOT,
        SIMILARITY,
        BITEXT,
        RETRIEVE,
        SEGMENTATION,
        CHECKS,
    )
}

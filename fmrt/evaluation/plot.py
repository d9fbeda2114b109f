"""Quality against speed, as a picture."""

from __future__ import annotations

from pathlib import Path

from fmrt.errors import OptionError
from fmrt.evaluation.report import Evaluation

_MEGABYTE = 1e6
_LEAST_AREA = 30.0


def draw(found: Evaluation, file: Path) -> None:
    """Draw the first measure of each task against speed; a mark's area is the file's size.

    Raises:
        OptionError: matplotlib is not there.
    """
    try:
        import matplotlib as mpl  # optional
    except ImportError as e:
        raise OptionError("--plot needs matplotlib: pip install matplotlib") from e
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    tasks = found.models[0].tasks
    figure, axes = plt.subplots(
        1, len(tasks), figsize=(4 * len(tasks), 3.5), layout="constrained", squeeze=False
    )
    for i, (task, axis) in enumerate(zip(tasks, axes[0], strict=True)):
        for model in found.models:
            measure = model.tasks[i].measures[0]
            if measure.value is None:
                continue
            low = measure.value if measure.low is None else measure.low
            high = measure.value if measure.high is None else measure.high
            speed, area = model.cost.items_per_second, (model.cost.file_bytes or 0) / _MEGABYTE
            axis.vlines(speed, low, high, color="#999999")
            axis.scatter([speed], [measure.value], s=max(_LEAST_AREA, area), alpha=0.7)
            axis.annotate(str(model.model["name"]), (speed, measure.value), fontsize=8)
        axis.set_title(f"{task.task}: {task.measures[0].name}")
        axis.set_xlabel("items/s")
    figure.savefig(file, dpi=120)
    plt.close(figure)

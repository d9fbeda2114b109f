"""kNN: the class that most of an item's nearest neighbours have."""

from __future__ import annotations

from sklearn.neighbors import KNeighborsClassifier

from fmrt.evaluation.dataset import LABELLED
from fmrt.evaluation.tasks._base import Embedded, Found, Task
from fmrt.evaluation.tasks._labels import learning_problem, predicted_measures


def _run(embedded: Embedded) -> Found:
    k = embedded.settings.neighbours

    def learner(train, targets, test):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        model = KNeighborsClassifier(min(k, len(train)), metric="cosine", algorithm="brute")
        return model.fit(train, targets).predict(test)

    return Found(predicted_measures(embedded, learner))


KNN = Task(
    name="knn",
    kind=LABELLED,
    about="the class of the nearest items by cosine, without learning",
    run=_run,
    problem=learning_problem,
)

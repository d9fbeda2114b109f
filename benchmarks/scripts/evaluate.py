"""What `fmrt evaluate` adds to `fmrt embed`: ``python -m benchmarks.scripts.evaluate BUNDLE``.

Prints the CPU seconds of both over the same 10,000 short texts, those of scikit-learn within the
evaluation (its import and its learners), and the peak memory of both. CPU seconds hold on a busy
machine as well.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.measuring.corpus import docstrings_of

TEXTS, CLASSES, WORDS = 10_000, 20, 16
# Runs fmrt, and writes to a file how long it and scikit-learn took, and its peak memory.
PROGRAM = """
import json, resource, sys, time
from fmrt.cli import main

spent = []
if sys.argv[2] == "evaluate":
    start = time.process_time()
    from sklearn.cluster import KMeans
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    spent.append(time.process_time() - start)

    def timed(call):
        def run(*args, **options):
            start = time.process_time()
            try:
                return call(*args, **options)
            finally:
                spent.append(time.process_time() - start)
        return run

    for kind, names in (
        (KMeans, ["fit_predict"]),
        (LogisticRegression, ["fit", "predict"]),
        (KNeighborsClassifier, ["fit", "predict"]),
    ):
        for name in names:
            setattr(kind, name, timed(getattr(kind, name)))
code = main(sys.argv[2:])
found = {
    "seconds": time.process_time(),
    "scikit_learn": sum(spent),
    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
}
open(sys.argv[1], "w").write(json.dumps(found))
sys.exit(code)
"""


def main(bundle: str, count: str = str(TEXTS)) -> None:
    """Print the costs of both, and the evaluation without scikit-learn as a part of embedding."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = labelled(folder / "texts.csv", int(count))
        vectors = str(folder / "vectors.npy")
        embed = _cost(folder, "embed", bundle, str(data), "--column", "text", "-o", vectors)
        evaluate = _cost(folder, "evaluate", bundle, str(data))
    ratio = (evaluate["seconds"] - evaluate["scikit_learn"]) / embed["seconds"]
    print(json.dumps({"embed": embed, "evaluate": evaluate, "ratio": ratio}, indent=1))


def labelled(path: Path, count: int) -> Path:
    """Write the first words of docstrings of the standard library; their class is the module."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, str] = {}
    for file in sorted(root.rglob("*.py")):
        if not {"site-packages", "test", "tests"} & set(file.parts):
            module = file.relative_to(root).parts[0].removesuffix(".py")
            for text in docstrings_of(file):
                found.setdefault(" ".join(text.split()[:WORDS]), module)
    largest = {name for name, _ in Counter(found.values()).most_common(CLASSES)}
    own = [(text, name) for text, name in found.items() if name in largest]
    # There are fewer than are asked for: those that come again have a number.
    again = ((f"{text} {turn}", name) for turn in range(1, count) for text, name in own)
    rows = own[:count]
    while len(rows) < count:
        rows.append(next(again))
    with path.open("w", newline="", encoding="utf-8") as written:
        csv.writer(written).writerows([("text", "label"), *rows])
    return path


def _cost(folder: Path, *words: str) -> dict[str, float]:
    file = folder / "cost.json"
    run = [sys.executable, "-c", PROGRAM, str(file), *words]
    subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
    found: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])

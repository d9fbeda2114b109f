"""``fmrt evaluate`` against PyTorch on real texts, and its ranking measures against trec_eval's."""

from __future__ import annotations

import csv
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

import fmrt
from benchmarks.measuring.corpus import _docstrings_of
from fmrt.evaluation.tasks.retrieval import MEASURES, ranking_measures
from tests.export.models import MINILM, TINY, save_tiny

# Top-level packages of the standard library: the class of a docstring.
PACKAGES = [
    "asyncio",
    "email",
    "tkinter",
    "unittest",
    "multiprocessing",
    "xml",
    "logging",
    "importlib",
    "ctypes",
    "http",
]
TREC = {
    "nDCG@10": "ndcg_cut_10",
    "recall@10": "recall_10",
    "recall@100": "recall_100",
    "MRR": "recip_rank",
    "MAP": "map",
}


@given(st.integers(1, 200), st.integers(0, 2**31))
@settings(max_examples=40)
def test_ranking_measures_are_trec_evals(documents: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.permutation(documents).astype(float)
    judged = {f"d{i}": int(g) for i, g in enumerate(rng.integers(-1, 4, documents + 5)) if g}
    for name in list(judged)[:: int(rng.integers(1, 5))]:
        judged[name] = 0
    judged["d0"] = 1
    run = {f"d{i}": float(s) for i, s in enumerate(scores)}
    measures = {"ndcg_cut.10", "recall.10,100", "recip_rank", "map"}
    want = pytrec_eval.RelevanceEvaluator({"q": judged}, measures).evaluate({"q": run})["q"]
    ranked = sorted(run, key=lambda name: -run[name])
    gains = np.array([float(judged.get(name, 0)) for name in ranked])
    found = dict(zip(MEASURES, ranking_measures(gains, judged.values()), strict=True))
    for name, value in found.items():
        assert abs(value - want[TREC[name]]) <= 1e-9, name


def labelled_docstrings(path: Path, each: int) -> Path:
    root = Path(sysconfig.get_paths()["stdlib"])
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "package"])
        for name in PACKAGES:
            files = [p for p in sorted((root / name).rglob("*.py")) if "test" not in p.parts]
            texts = dict.fromkeys(t for p in files for t in _docstrings_of(p))
            writer.writerows((text, name) for text in list(texts)[:each])
    return path


def test_a_tiny_model_keeps_all_that_pytorch_has(tmp_path: Path) -> None:
    model = save_tiny(TINY[0], tmp_path / "model") or tmp_path / "model"
    bundle = fmrt.export_model(model, tmp_path / "bundle")
    data = labelled_docstrings(tmp_path / "docstrings.csv", 6)
    options = {"label": "package", "column": "text", "resamples": 50}
    options |= {"on_too_long": "truncate"}
    found = fmrt.evaluate(
        bundle, data, tasks=["knn", "checks"], against=f"pytorch:{model}", **options
    )
    against = found.models[0].against
    assert against.neighbours_kept.value > 0.99
    assert all(abs(d.difference) < 1e-3 for d in against.differences)
    with pytest.raises(fmrt.FmrtError, match="pytorch:DIRECTORY"):
        fmrt.evaluate(bundle, data, tasks=["knn"], against="pytorch", **options)


@pytest.mark.slow
def test_minilms_probe_is_pytorchs_and_int8_keeps_it(minilm: Path, tmp_path: Path) -> None:
    bundle = fmrt.quantize_bundle(minilm, "int8", out=tmp_path / "bundle")
    data = labelled_docstrings(tmp_path / "docstrings.csv", 100)
    found = fmrt.evaluate(
        bundle,
        data,
        label="package",
        column="text",
        variants=["fp32", "int8"],
        tasks=["probe"],
        against=f"pytorch:{MINILM}",
        on_too_long="truncate",
    )
    for model, most in zip(found.models, (0.001, 0.005), strict=True):
        accuracy = model.against.differences[0]
        assert accuracy.other > 0.8, "the texts are told apart"
        assert abs(accuracy.difference) <= most
        assert not accuracy.told

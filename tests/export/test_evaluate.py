"""``fmrt evaluate`` against PyTorch on real texts, and its ranking measures against trec_eval's."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

import fmrt
from benchmarks.measuring.corpus import docstrings_of
from fmrt.bundle.bundle import Bundle
from fmrt.bundle.manifest import Evaluated, EvaluatedMeasure, Quality
from fmrt.cli import main
from fmrt.errors import ExportError
from fmrt.evaluation.kept import _recorded
from fmrt.evaluation.measures import Difference
from fmrt.evaluation.neighbours import unit
from fmrt.evaluation.plot import draw
from fmrt.evaluation.tasks.retrieval import MEASURES, ranking_measures
from fmrt.export.quantize import SCHEMES
from fmrt.export.quantize.bundle import _good_enough
from fmrt.export.quantize.goal import LADDER, Goal
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
            texts = dict.fromkeys(t for p in files for t in docstrings_of(p))
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
    bundle = fmrt.quantize_bundle(minilm, "int8", out=tmp_path / "bundle", min_cosine=0.99)
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


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny")
    return fmrt.export_model(save_tiny(TINY[0], root / "model"), root / "bundle").path


@pytest.mark.slow
def test_quantize_keeps_what_a_data_set_says(tiny: Path, tmp_path: Path) -> None:
    data = labelled_docstrings(tmp_path / "package.csv", 8)
    with data.open() as file:
        rows = [r for r in csv.reader(file) if len(r[0]) < 300]
    with data.open("w", newline="") as file:
        csv.writer(file).writerows([["text", "label"], *rows[1:]])
    command = ["quantize", str(tiny), "int8", "-o", str(tmp_path / "out"), "--evaluate", str(data)]
    assert main([*command, "--tolerance", "0.5"]) == 0
    found = Bundle.open(tmp_path / "out").variant("int8", "cpu").quality.evaluated
    assert {m.task for m in found.measures} == {"knn", "probe", "few-shot", "clustering"}
    assert found.tolerance == 0.5
    assert all(m.kept for m in found.measures)
    assert main([*command[:4], str(tmp_path / "x"), "--evaluate", str(tmp_path / "none.csv")]) != 0
    assert not (tmp_path / "x").exists()


def test_a_variant_that_loses_is_made_with_less_quantized_and_refused_last(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(tiny)
    quality = Quality(9, 0.99, 0.99, 0, 9, None, "a CPU")

    def made(bundle: Bundle, tower: object, form: object, items: object, cosine: float, *_: object):
        own = bundle.variant("fp32", "cpu")
        # The second is no other graph than the first.
        digits = f"{max(cosine, 0.98):.4f}".replace(".", "")
        return dataclasses.replace(own, sha256=digits.ljust(64, "0"), quality=quality)

    def judge(trial: Bundle, variant: str, base: str, provider: str) -> Evaluated:
        asked.append((trial.variant(variant, provider).sha256[:5], base, provider))
        lost = 0.2 if len(asked) < enough else 0.0
        one = EvaluatedMeasure("probe", "accuracy", 0.9 - lost, 0.9, None, None, not lost)
        return Evaluated("data.csv", "0" * 64, 0.005, (one,))

    monkeypatch.setattr("fmrt.export.quantize.bundle._of_tower", made)
    form = SCHEMES["int8"][0]
    given = ({"text": None}, Goal(LADDER, judge), tiny / ".quantize-test", lambda _: None)
    asked: list[tuple[str, str, str]] = []
    enough = 3
    (variant,) = _good_enough(bundle, form, *given)
    assert asked == [(s, "fp32-cpu", "cpu") for s in ("09800", "09900", "09950")]
    assert variant.quality.evaluated.measures[0].kept
    enough = 99
    with pytest.raises(ExportError, match=r"does not keep what fp32 reaches: probe acc.* -0\.2000"):
        _good_enough(bundle, form, *given)


def test_a_loss_is_kept_within_tolerance_or_untold() -> None:
    def kept(value: float, *, told: bool | None, tolerance: float = 0.005) -> bool:
        found = Difference("t", "m", value, 0.9, value - 0.9, None, None, told)
        return _recorded(found, tolerance).kept

    assert kept(0.896, told=True)
    assert kept(0.95, told=True)
    assert not kept(0.89, told=True)
    assert kept(0.89, told=False)
    assert not kept(0.89, told=None)


@pytest.mark.slow
def test_the_other_model_is_a_variant_a_bundle_or_pytorch(tiny: Path, tmp_path: Path) -> None:
    data = labelled_docstrings(tmp_path / "docstrings.csv", 5)
    shutil.copytree(tiny, tmp_path / "copy")
    options = {"label": "package", "resamples": 50, "on_too_long": "truncate", "tasks": ["knn"]}
    for other in ("fp32", str(tmp_path / "copy"), f"pytorch:{tiny.parent / 'model'}"):
        against = fmrt.evaluate(tiny, data, against=other, **options).models[0].against
        assert {d.name for d in against.differences} >= {"accuracy", "macro F1"}
        assert all(abs(d.difference) < 0.05 for d in against.differences)
        assert against.neighbours_kept.value > 0.95
        assert against.rank_correlation.value > 0.999
        assert "can be told from zero (95%)" in against.verdict


def test_retrieval_is_trec_evals_with_ties_grades_and_queries_without_documents(
    tiny: Path, tmp_path: Path
) -> None:
    texts = ["red cat", "blue dog", "red cat", "a mat", "red cat", "the road", "blue dog", "two"]
    names = [f"d{i}" for i in np.random.default_rng(0).permutation(len(texts))]
    documents = [{"_id": n, "text": t} for n, t in zip(names, texts, strict=True)]
    queries = [{"_id": f"q{i}", "text": t} for i, t in enumerate(["red cat", "dog", "road"])]
    (tmp_path / "qrels").mkdir()
    for name, rows in (("corpus", documents), ("queries", queries)):
        lines = [json.dumps(row) + "\n" for row in rows]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    judged = {"q0": {"d1": 2, "d5": 1, "d0": -1}, "q1": {"d2": 1, "gone": 3}, "q2": {"d3": 0}}
    qrels = [f"{q}\t{d}\t{g}\n" for q, own in judged.items() for d, g in own.items()]
    head = "query-id\tcorpus-id\tscore\n"
    (tmp_path / "qrels/test.tsv").write_text(head + "".join(qrels))
    found = fmrt.evaluate(tiny, tmp_path, tasks=["retrieval"], depth=5)
    with fmrt.Embedder(tiny) as embedder:
        base = unit(embedder.embed_documents([d["text"] for d in documents]))
        asked = unit(np.stack([embedder.embed_query(q["text"]) for q in queries]))
    products = asked @ unit(np.stack([base[texts.index(t)] for t in texts])).T
    run = {}
    for i, row in enumerate(products):
        ranked = sorted(zip(row.tolist(), names, strict=True), reverse=True)[:5]
        run[f"q{i}"] = {name: score for score, name in ranked}
    measures = {"ndcg_cut.10", "recall.10,100", "recip_rank", "map"}
    want = pytrec_eval.RelevanceEvaluator(judged, measures).evaluate(run)
    for name, theirs in TREC.items():
        mean = np.mean([one[theirs] for one in want.values()])
        assert abs(found.models[0].measure("retrieval", name).value - mean) <= 1e-9, name
    assert "1 queries have no relevant document, and count as 0" in found.notes


def test_the_plot_has_quality_against_speed_size_and_memory(tiny: Path, tmp_path: Path) -> None:
    rows = [
        ["text", "label"],
        *([f"{'red cat' if i % 2 else 'two'} {i}", i % 2] for i in range(12)),
    ]
    with (tmp_path / "d.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    found = fmrt.evaluate([tiny, tiny], tmp_path / "d.csv", tasks=["knn"], resamples=20)
    draw(found, tmp_path / "plot.svg")
    drawn = (tmp_path / "plot.svg").read_text()
    for label in ("items/s", "file, MB", "memory, MB", "bundle fp32-cpu"):
        assert drawn.count(f"<!-- {label} -->") == (6 if label.startswith("bundle") else 1), label

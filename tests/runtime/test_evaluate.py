"""``fmrt evaluate``: its measures against their references, its data, and what is wrong with it."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

import fmrt
from fmrt.cli import main
from fmrt.errors import DataError, InputError, MissingExtraError, OptionError
from fmrt.evaluation import Dataset, Settings, Side, load_dataset
from fmrt.evaluation.classification import classification_measures, folds
from fmrt.evaluation.dataset import DOCUMENTS, FIRST, ITEMS, LABELLED, PAIRS, QUERIES, SECOND
from fmrt.evaluation.measures import Measure, differences, measured
from fmrt.evaluation.neighbours import nearest, unit
from fmrt.evaluation.notes import notes_on
from fmrt.evaluation.tasks import TASKS, Embedded
from fmrt.evaluation.tasks.checks import (
    alignment,
    effective_rank,
    mean_cosine,
    skewness,
    uniformity,
)
from fmrt.evaluation.tasks.clustering import clustering_measures
from fmrt.evaluation.tasks.pairs import similarity_measures

EXACT = 1e-9
RNG = np.random.default_rng(0)
CLASSES = ("cat", "dog", "road")
# Texts that the tiny model tells apart by their words, each of them once.
WORDS = {"cat": "cat mat red", "dog": "dog ran blue", "road": "road on two"}


def texts(each: int = 8) -> list[tuple[str, str]]:
    rng = np.random.default_rng(1)
    found: dict[str, str] = {}
    while len(found) < each * len(WORDS):
        label = CLASSES[len(found) % len(CLASSES)]
        words = [*rng.choice(WORDS[label].split(), 5), *rng.choice(["a", "the", "one"], 3)]
        found.setdefault(" ".join(words), label)
    return list(found.items())


def write_csv(path: Path, header: str, rows) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(","))
        writer.writerows(rows)
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "data.csv", "text,label", texts())


def labelled(n: int = 30, classes: int = 3) -> Dataset:
    side = Side([f"text {i}" for i in range(n)], [f"record {i}" for i in range(n)])
    return Dataset("d", LABELLED, {ITEMS: side}, tuple(f"c{i % classes}" for i in range(n)))


def close(got: Measure, want: float) -> None:
    assert abs(got.value - want) <= EXACT, got.name


@given(st.integers(2, 6), st.integers(2, 60), st.integers(0, 2**31))
@settings(max_examples=30)
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_measures_of_classes_are_scikit_learns(classes: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    true, predicted = rng.integers(0, classes, (2, n))
    accuracy, f1, balanced = classification_measures(true, predicted, classes)
    close(accuracy, metrics.accuracy_score(true, predicted))
    close(f1, metrics.f1_score(true, predicted, average="macro"))
    close(balanced, metrics.balanced_accuracy_score(true, predicted))
    v, rand = clustering_measures(true, predicted)
    close(v, metrics.v_measure_score(true, predicted))
    close(rand, metrics.adjusted_rand_score(true, predicted))


def test_measures_of_pairs_are_those_of_their_references() -> None:
    cosines, scores = RNG.normal(size=50), np.round(RNG.normal(size=50), 1)
    spearman, pearson = similarity_measures(cosines, scores)
    close(spearman, stats.spearmanr(cosines, scores).statistic)
    close(pearson, stats.pearsonr(cosines, scores).statistic)
    binary = (scores > 0).astype(float)
    (precision,) = similarity_measures(cosines, binary)
    close(precision, metrics.average_precision_score(binary, cosines))


def test_checks_are_what_their_definitions_say() -> None:
    vectors = unit(RNG.normal(size=(40, 6)) + 0.5)
    x, n = vectors.astype(np.float64), len(vectors)
    squared = ((x[:, None] - x) ** 2).sum(-1)
    apart = ~np.eye(n, dtype=bool)
    targets = np.arange(n) % 3
    same = (targets[:, None] == targets) & apart
    assert abs(uniformity(vectors) - np.log(np.exp(-2 * squared[apart]).mean())) <= EXACT
    assert abs(alignment(vectors, targets) - squared[same].mean()) <= EXACT
    assert abs(mean_cosine(vectors) - (x @ x.T)[apart].mean()) <= EXACT
    singular = np.linalg.svd(x, compute_uv=False)
    entropy = stats.entropy(singular / singular.sum())
    assert abs(effective_rank(vectors) - np.exp(entropy)) <= 1e-8
    counts = RNG.integers(0, 9, 30).astype(float)
    assert abs(skewness(counts) - stats.skew(counts)) <= EXACT


def test_nearest_rows_are_those_of_a_full_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmrt.evaluation.neighbours._BLOCK_ELEMENTS", 100)
    base, queries = unit(RNG.normal(size=(30, 4))), unit(RNG.normal(size=(20, 4)))
    without = RNG.integers(-1, 30, 20)
    products = queries @ base.T
    products[np.flatnonzero(without >= 0), without[without >= 0]] = -np.inf
    want = np.argsort(-products, axis=1, kind="stable")[:, :7]
    assert (nearest(queries, base, 7, not_these=without)[0] == want).all()


def test_an_interval_is_paired_and_covers_the_truth() -> None:
    values = RNG.normal(0.3, 1, 400)
    one = Measure("m", 400, lambda rows: float(values[rows].mean()))
    other = Measure("m", 400, lambda rows: float((values[rows] - 0.01).mean()))
    (found,) = measured([one], 2000, 0)
    error = values.std() / 20
    assert abs(found.high - found.low - 2 * 1.96 * error) < 0.15 * error
    # Far smaller than either interval, and yet told: both see the same items.
    assert differences([("t", one, other)], 200, 0)[0].told
    assert not differences([("t", one, one)], 200, 0)[0].told


def test_equal_items_are_in_one_fold_and_each_item_is_predicted_once() -> None:
    data = labelled(30)
    twice = [*data.sides[ITEMS].items[:15]] * 2
    data = Dataset("d", LABELLED, {ITEMS: Side(twice, twice)}, data.labels[:15] * 2)
    found = folds(data, 5, 0)
    assert sorted(np.concatenate([f.test for f in found])) == list(range(30))
    for fold in found:
        assert not {twice[i] for i in fold.train} & {twice[i] for i in fold.test}
        assert len(fold.train) + len(fold.test) == 30
    assert [f.test.tolist() for f in folds(data, 5, 1)] != [f.test.tolist() for f in found]


def test_a_table_of_texts_is_told_apart_and_a_run_repeats_to_the_digit(
    tiny_bundle: Path, table: Path
) -> None:
    one = fmrt.evaluate(tiny_bundle, table, workers=1, resamples=20)
    two = fmrt.evaluate(tiny_bundle, str(table), workers=2, resamples=20)
    assert [t.task for t in one.models[0].tasks] == [
        "knn",
        "probe",
        "few-shot",
        "clustering",
        "checks",
    ]
    probe = one.models[0].measure("probe", "accuracy")
    assert (probe.value, probe.n) == (1.0, 24)
    assert one.models[0].tasks == two.models[0].tasks
    assert (one.data, one.settings) == (two.data, two.settings)
    other = fmrt.evaluate(tiny_bundle, table, tasks=["few-shot"], seed=1)
    assert other.models[0].tasks[0] != one.models[0].tasks[2]


def test_options_and_keywords_are_the_same(tiny_bundle: Path, table: Path) -> None:
    one = fmrt.evaluate(tiny_bundle, table, tasks=["checks"], truncate_dim=4)
    two = fmrt.evaluate(
        tiny_bundle, table, tasks=["checks"], options=fmrt.EmbedOptions(truncate_dim=4)
    )
    assert one.models[0].dim == 4
    assert one.models[0].tasks == two.models[0].tasks


FORMS = ("csv", "jsonl", "parquet", "folder", "splits")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_items_and_labels(tmp_path: Path, form: str) -> None:
    rows = texts()
    path = tmp_path / f"data.{form}"
    if form == "csv":
        write_csv(path, "text,label", rows)
    elif form == "jsonl":
        path.write_text("".join(json.dumps({"sentence": t, "topic": c}) + "\n" for t, c in rows))
    elif form == "parquet":
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        columns = {"text": [t for t, _ in rows], "class": [c for _, c in rows]}
        pq.write_table(pa.table(columns), path)
    elif form == "folder":
        for i, (text, label) in enumerate(rows):
            (path / label).mkdir(parents=True, exist_ok=True)
            (path / label / f"{i:02}.txt").write_text(text)
    else:
        path.mkdir()
        write_csv(path / "train.csv", "text,label", rows[:12])
        write_csv(path / "test.csv", "text,label", rows[12:])
    data = load_dataset(path, ["text"])
    found = zip(data.sides[ITEMS].items, data.labels, strict=True)
    assert sorted(found) == sorted(rows)
    if form == "splits":
        pairs = zip(data.sides[ITEMS].items, data.split, strict=True)
        assert sorted(pairs) == sorted(
            (t, "train" if i < 12 else "test") for i, (t, _) in enumerate(rows)
        )
    else:
        assert data.split is None
    assert any(str(path) in line for line in data.choices), "what was chosen is said"


def test_a_data_set_that_hugging_face_saved_is_read_without_its_library(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    rows = texts()
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    for split, own in (("train", rows[:12]), ("test", rows[12:])):
        folder = tmp_path / split
        folder.mkdir()
        values = {"text": [t for t, _ in own], "label": [CLASSES.index(c) for _, c in own]}
        with pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink:
            batch = pa.table(values)
            with pa.ipc.new_stream(sink, batch.schema) as writer:
                writer.write_table(batch)
        names = {"label": {"names": list(CLASSES), "_type": "ClassLabel"}}
        (folder / "dataset_info.json").write_text(json.dumps({"features": names}))
        files = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
        (folder / "state.json").write_text(json.dumps(files))
    data = load_dataset(tmp_path, ["text"])
    assert list(zip(data.sides[ITEMS].items, data.labels, strict=True)) == rows
    assert data.split == ("train",) * 12 + ("test",) * 12


def test_digits_come_by_name_as_images() -> None:
    data = load_dataset("digits", ["image"])
    assert len(data.labels) == 1797
    assert data.sides[ITEMS].items[0].shape == (8, 8, 3)
    assert len(data.classes) == 10


def write_beir(root: Path, qrels: str) -> Path:
    (root / "qrels").mkdir(parents=True)
    corpus = [
        {"_id": "d1", "title": "cat", "text": "on the mat"},
        {"_id": "d2", "title": "", "text": "a dog ran"},
        {"_id": "d3", "title": "red", "text": "road"},
    ]
    queries = [{"_id": "q1", "text": "cat mat"}, {"_id": "d2", "text": "dog ran"}]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (root / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n" + qrels)
    return root


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("queries", None, "no such file: '"),
        ("corpus", None, "no such file: '"),
        ("queries", '{"_id": "", "text": "cat"}', "record 1: has no _id"),
        ("corpus", '{"_id": "d1", "title": ["a"], "text": "cat"}', "its title is a list, not text"),
        ("corpus", '{"_id": "z", "text": "cat"}', "no document that was judged in 'test' is in"),
        ("queries", '{"_id": "z", "text": "cat"}', "no query that was judged in 'test' is among"),
        ("corpus", "", "is empty"),
    ],
)
def test_retrieval_data_that_does_not_fit_together_is_named(
    tmp_path: Path, name: str, text: str | None, said: str
) -> None:
    root = write_beir(tmp_path / "beir", "q1\td1\t1\n")
    file = root / f"{name}.jsonl"
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    with pytest.raises((DataError, InputError), match=re.escape(said)):
        load_dataset(root, ["text"])


def test_values_without_names_are_no_data_set(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text("5\n6\n")
    assert "each record must be an object" in error_of(tiny_bundle, tmp_path / "d.jsonl")
    (tmp_path / "d.csv").write_text("image,label\n,a\n")
    with pytest.raises(InputError, match="record 2: it names no file"):
        load_dataset(tmp_path / "d.csv", ["image"])
    rows = [("cat", "dog", 0), ("a", "the", 0), ("cat", "mat", 0)]
    path = write_csv(tmp_path / "p.csv", "sentence1,sentence2,score", rows)
    found = fmrt.evaluate(tiny_bundle, path)
    assert found.skipped == {
        "similarity": "all its scores are 0",
        "bitext": "its pairs have scores, and need not be translations",
    }
    assert "alignment" not in [m.name for m in found.models[0].tasks[0].measures]


def test_retrieval_ranks_documents_by_a_query_with_its_prompt(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    root = write_beir(tmp_path / "beir", "q1\td1\t1\nd2\td3\t2\nd2\td2\t1\nq1\tgone\t0\nx\td1\t1\n")
    found = fmrt.evaluate(tiny_bundle, root)
    assert found.data["items"] == {DOCUMENTS: 3, QUERIES: 2}
    # A document with the query's own identity is not found: of d2's, d3 alone can be.
    assert found.models[0].measure("retrieval", "recall@10").value == pytest.approx((1 + 0.5) / 2)
    assert "1 queries that were judged are not among the queries" in found.notes
    with fmrt.Embedder(tiny_bundle) as embedder:
        query = embedder.embed_query("cat mat")
        documents = embedder.embed_documents(["cat on the mat", "a dog ran", "red road"])
    rank = 1 + int((documents @ query > documents[0] @ query).sum())
    second = found.models[0].measure("retrieval", "MRR")
    assert second.value is not None
    assert second.value * 2 - 1 / rank in {1.0, 0.5}


def test_pairs_with_scores_and_translations(tiny_bundle: Path, tmp_path: Path) -> None:
    rows = [
        ("cat", "cat mat", 5),
        ("dog", "road", 0.5),
        ("red cat", "red cat sat", 4),
        ("a", "a", 5),
    ]
    scored = write_csv(tmp_path / "scored.csv", "sentence1,sentence2,score", rows)
    found = fmrt.evaluate(tiny_bundle, scored)
    assert [t.task for t in found.models[0].tasks] == ["similarity", "checks"]
    plain = write_csv(tmp_path / "plain.csv", "source,target", [row[:2] for row in rows])
    found = fmrt.evaluate(tiny_bundle, plain, tasks=["bitext"])
    assert found.models[0].measure("bitext", "accuracy").value > 0.5


def test_a_variant_is_compared_with_another(
    tiny_bundle: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(tiny_bundle), str(table), "--against", "fp32", "--json"]
    assert main([*command, "--task", "knn,probe,checks", "--resamples", "50"]) == 0
    against = json.loads(capsys.readouterr().out)["models"][0]["against"]
    assert {d["difference"] for d in against["differences"]} == {0.0}
    assert against["neighbours_kept"]["value"] == 1.0
    assert "none of" in against["verdict"]


def test_a_rerun_gives_the_same_digits_however_many_work(
    tiny_bundle: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for workers in ("1", "2", "1"):
        command = ["evaluate", str(tiny_bundle), str(table), "--against", "fp32", "--json"]
        command += ["--task", "knn,clustering,checks"]
        assert main([*command, "--workers", workers, "--seed", "3", "--resamples", "30"]) == 0
        one = json.loads(capsys.readouterr().out)
        assert {"seed", "folds", "resamples"} <= one["settings"].keys()
        assert len(one["data"]["sha256"]) == 64
        for model in one["models"]:
            assert len(model["model"]["manifest_sha256"]) == len(model["model"]["graph_sha256"])
            assert model.pop("cost")["items_per_second"] > 0
        found.append(one)
    assert found[0] == found[1] == found[2]


def test_equal_products_at_the_end_are_those_of_a_full_sort() -> None:
    products = RNG.integers(0, 3, (40, 12)).astype(np.float32)
    for k in (1, 3, 7, 12):
        want = np.argsort(-products, axis=1, kind="stable")[:, :k]
        assert (nearest(products, np.eye(12, dtype=np.float32), k)[0] == want).all()


def test_several_models_are_in_one_table(
    tiny_bundle: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = [str(tiny_bundle), str(tiny_bundle)]
    out = tmp_path / "found.json"
    assert main(["evaluate", *two, str(table), "--task", "knn,checks", "--json", str(out)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("bundle fp32") >= 4
    assert len(json.loads(out.read_text())["models"]) == 2


def error_of(tiny_bundle: Path, data: object, **options: object) -> str:
    with pytest.raises((DataError, InputError, OptionError)) as caught:
        fmrt.evaluate(tiny_bundle, data, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_class_is_said_and_named_tasks_fail(tiny_bundle: Path, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "d.csv", "text,label", [("cat", "x"), ("dog", "x"), ("mat", "x")])
    assert "one label, 'x'" in error_of(tiny_bundle, path, tasks=["probe"])
    found = fmrt.evaluate(tiny_bundle, path)
    assert "one label, 'x'" in found.skipped["probe"]
    assert [t.task for t in found.models[0].tasks] == ["checks"]


def test_labels_alone_are_nothing_to_embed(tiny_bundle: Path, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "d.csv", "label", [("cat",), ("dog",)])
    assert "no column to embed next to" in error_of(tiny_bundle, path)


@pytest.mark.parametrize("value", ["", None, float("nan")])
def test_a_missing_label_is_an_error_or_left_out_and_named(
    tiny_bundle: Path, tmp_path: Path, value: object
) -> None:
    path = tmp_path / "d.jsonl"
    rows = [*texts(), ("cat", value)]
    path.write_text("".join(json.dumps({"text": t, "label": c}) + "\n" for t, c in rows))
    assert "record 25: it has no label" in error_of(tiny_bundle, path)
    found = fmrt.evaluate(tiny_bundle, path, on_error="skip", tasks=["checks"])
    assert found.data["items"] == {ITEMS: 24}
    assert any("record 25" in line for line in found.notes)


def test_an_item_that_cannot_be_embedded_is_named_by_its_place(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    rows = [*texts(), ("a\0b", "cat")]
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps({"text": t, "label": c}) + "\n" for t, c in rows))
    assert "record 25: NUL" in error_of(tiny_bundle, path)
    found = fmrt.evaluate(tiny_bundle, path, on_error="skip", against="fp32", tasks=["knn"])
    assert found.data["items"] == {ITEMS: 24}
    assert found.models[0].measure("knn", "accuracy").n == 24


def test_a_file_that_is_no_text_is_named(tiny_bundle: Path, tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.txt").write_text("cat")
    (tmp_path / "b/2.txt").write_bytes(b"\xff\xfe\xfa")
    assert "b/2.txt' is not UTF-8" in error_of(tiny_bundle, tmp_path)


def test_too_few_items_are_one_line(tiny_bundle: Path, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "d.csv", "text,label", [("cat", "x"), ("dog", "y")])
    said = error_of(tiny_bundle, path)
    assert "no class has two distinct items" in said
    assert "2 items, and three are the least" in said
    path = write_csv(tmp_path / "e.csv", "text,label", [])
    assert "empty" in error_of(tiny_bundle, path)


def test_what_is_wrong_with_labels_and_splits_is_named(tmp_path: Path) -> None:
    rows = [*texts(), ("one", "alone")]
    data = load_dataset(write_csv(tmp_path / "d.csv", "text,label", rows), ["text"])
    assert any("one distinct item" in n and "'alone'" in n for n in notes_on(data))
    again = [(*row, "train") for row in texts()] + [(*texts()[0], "test"), (*texts()[1], "dev")]
    again.append((texts()[2][0], "new", "test"))
    path = write_csv(tmp_path / "e.csv", "text,label,split", again)
    data = load_dataset(path, ["text"])
    notes = " ".join(notes_on(data))
    assert "leakage: 2 test items (100.0%) are in train too: record 26" in notes
    assert "1 equal items have other labels" in notes
    assert "1 classes are in test alone: 'new'" in notes
    assert any("1 items of the split 'validation' are not used" in line for line in data.choices)


def test_what_is_wrong_with_pairs_and_judgements_is_named(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    rows = [("cat", "dog", 1), ("a", "the", 0), ("cat", "dog", 1), ("a", "the", 2)]
    path = write_csv(tmp_path / "p.csv", "sentence1,sentence2,score", rows)
    notes = notes_on(load_dataset(path, ["text"]))
    assert notes[0].startswith("2 pairs are equal to one before: record 4 = record 2")
    assert notes[1:] == ["1 equal pairs have other scores: record 5 = record 3"]
    root = write_beir(tmp_path / "beir", "q1\td1\t1\nq1\td1\t1\nd2\td3\t2\nq1\td1\t0\n")
    assert "record 5: judges 'd1' for 'q1' once more" in error_of(tiny_bundle, root)
    equal = [(f"cat {'on' * (i % 2)}"[:3], "ab"[i % 2]) for i in range(8)]
    found = fmrt.evaluate(tiny_bundle, write_csv(tmp_path / "e.csv", "text,label", equal))
    assert found.models[0].measure("clustering", "V-measure").value == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"label": "nonesuch"}, "no column 'nonesuch'; it has 'text', 'label'"),
        ({"tasks": ["retrieval"]}, "does not do for the task 'retrieval'"),
        ({"tasks": ["nonesuch"]}, "choose from: knn"),
        ({"against": "int3"}, "neither a bundle nor a variant"),
        ({"folds": 1}, "folds=1; give a whole number of at least 2"),
        ({"template": "photo"}, "give a text with one {}"),
        ({"points": [101]}, "points=101; give a whole number of at most 100"),
        ({"on_error": "maybe"}, "choose fail or skip"),
        ({"precision": "binary"}, "evaluate takes float32"),
    ],
)
def test_wrong_options_are_one_line(
    tiny_bundle: Path, table: Path, options: dict[str, object], said: str
) -> None:
    assert said in error_of(tiny_bundle, table, **options)


def test_no_such_data_set_names_those_that_there_are(tiny_bundle: Path) -> None:
    assert "known by name are digits, 20newsgroups" in error_of(tiny_bundle, "nonesuch")
    assert "holds items of modality image" in error_of(tiny_bundle, "digits")
    assert "give a path" in error_of(tiny_bundle, 5)


def test_a_bad_score_is_named(tiny_bundle: Path, tmp_path: Path) -> None:
    rows = [("cat", "dog", 1), ("cat", "mat", "nan")]
    path = write_csv(tmp_path / "d.csv", "sentence1,sentence2,score", rows)
    assert "its score 'nan' is no finite number" in error_of(tiny_bundle, path)


def test_every_task_is_one_row_that_says_when_it_does_not_do() -> None:
    rng = np.random.default_rng(0)
    pair = {n: Side(["a"] * 5, ["r"] * 5) for n in (FIRST, SECOND)}
    for task in TASKS.values():
        data = labelled() if task.kind in (None, LABELLED) else None
        if task.kind == PAIRS:
            scores = None if task.name == "bitext" else np.arange(5.0)
            data = Dataset("p", PAIRS, pair, scores=scores)
        if data is None or task.prompts is not None:
            continue
        assert task.problem(data, ["text"]) is None
        vectors = {
            name: rng.normal(size=(len(side.items), 4)).astype(np.float32)
            for name, side in data.sides.items()
        }
        found = task.run(Embedded(data, vectors, Settings(resamples=5)))
        assert all(np.isfinite(m.value) for m in found.measures)


def test_nothing_of_it_is_imported_unless_asked_for(tiny_bundle: Path) -> None:
    code = (
        "import sys, fmrt\n"
        f"with fmrt.Embedder({str(tiny_bundle)!r}) as e: e.embed(['cat', 'dog'])\n"
        "import fmrt.cli._program\n"
        "print([m for m in ('sklearn', 'scipy', 'fmrt.evaluation') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_the_extra_the_error_names_it(
    tiny_bundle: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.startswith(("fmrt.evaluation", "sklearn"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtraError, match=r"fmrt\[evaluate\]"):
        fmrt.evaluate(tiny_bundle, table)


@pytest.mark.parametrize("name", ["tasks", "against", "variants", "provider", "on_error"])
def test_what_an_option_cannot_be_is_one_clear_error(name: str, tiny_bundle: Path) -> None:
    for value in (1.5, True, b"x", ["nonesuch", 1], {}, object(), np.zeros(3), "a\0b"):
        with pytest.raises(OptionError) as e:
            fmrt.evaluate(tiny_bundle, "nowhere.csv", **{name: value})
        assert "\n" not in str(e.value)
        assert len(str(e.value)) < 400

"""Equal items are computed once, and streams remember in bounded memory."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmrt import Embedder
from fmrt.bundle.bundle import record_of
from fmrt.embedding import disk_cache
from fmrt.embedding.recall import Deduplication, Recent
from fmrt.errors import CacheWarning, DataError, InputError
from fmrt.session.host import HostSession

DIM = 3
windows = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=9), max_size=8)


def vector(key: bytes) -> np.ndarray:
    return np.full(DIM, int(key), np.float32)


@given(windows, st.integers(1, 6), st.integers(1, 3))
def test_every_item_gets_its_vector_however_small_the_memory(windows, places, in_flight) -> None:
    """Windows are looked up ahead of those before them, and completed in order."""
    recent = Recent((DIM,), places * DIM * 4)
    pending: list[tuple[list[bytes], Deduplication]] = []
    for window in [*windows, *([[]] * in_flight)]:
        keys = [str(n).encode() for n in window]
        pending.append((keys, Deduplication(np.arange(len(keys)), keys, [recent])))
        if len(pending) > in_flight:
            check(*pending.pop(0))
    for keys, deduplication in pending:
        check(keys, deduplication)


def check(keys: list[bytes], deduplication: Deduplication) -> None:
    computed = np.full((deduplication.distinct, DIM), -1, np.float32)
    for row, place in zip(deduplication.rows, deduplication.places, strict=True):
        computed[place] = vector(keys[row])
    expected = np.array([vector(key) for key in keys], np.float32).reshape(-1, DIM)
    assert np.array_equal(deduplication.spread(computed), expected)


@pytest.fixture
def computed(monkeypatch) -> list[int]:
    """Rows of each batch that reaches ONNX Runtime."""
    rows: list[int] = []
    run = HostSession.run

    def counting(self, feeds):
        rows.append(len(feeds["input_ids"]))
        return run(self, feeds)

    monkeypatch.setattr(HostSession, "run", counting)
    return rows


def test_equal_texts_of_a_call_are_computed_once(tiny_bundle, computed) -> None:
    texts = ["cat", "red dog", "cat", "Cat", "", "red dog"]  # the tokenizer lowercases
    with Embedder(tiny_bundle, verify=False) as embedder:
        vectors = embedder.embed(texts)
        assert sum(computed) == 3
        alone = np.concatenate([embedder.embed([text]) for text in texts])
    np.testing.assert_allclose(vectors, alone, atol=1e-6)
    assert np.array_equal(vectors[0], vectors[2])


def test_a_stream_remembers_on_request(tiny_bundle, computed) -> None:
    texts = ["cat", "dog", "red mat"] * 10_000  # more than two windows
    with Embedder(tiny_bundle, verify=False) as embedder:
        plain = np.stack(list(embedder.embed_iter(texts)))
        assert sum(computed) == 3 * 4
        computed.clear()
        once = np.stack(list(embedder.embed_iter(texts, dedupe=True)))
        assert sum(computed) == 3
    np.testing.assert_allclose(once, plain, atol=1e-6)


def test_each_duplicate_of_a_bad_text_is_an_error(tiny_bundle, computed) -> None:
    long = "dog " * 40
    bad: list[tuple[str, str]] = []
    with Embedder(tiny_bundle, verify=False) as embedder:
        stream = embedder.embed_items(
            ["cat", long, "cat", long],
            lambda text: text,
            on_too_long="error",
            on_error=lambda item, error: bad.append((item, str(error))),
        )
        assert [window for window, _ in stream] == [["cat", "cat"]]
        assert [error.partition(":")[0] for _, error in bad] == ["item 1", "item 3"]
        with pytest.raises(InputError, match="item 1"):
            embedder.embed(["cat", long], on_too_long="error")


def test_a_cache_outlives_the_process_and_holds_what_was_computed(
    tiny_bundle, computed, tmp_path
) -> None:
    texts = ["cat", "red dog on the mat", "", "a cat"]
    with Embedder(tiny_bundle, cache=tmp_path / "cache") as embedder:
        first = embedder.embed(texts, prompt_name="query")
    computed.clear()
    with Embedder(tiny_bundle, cache=tmp_path / "cache", verify=False) as embedder:
        again = embedder.embed(texts[::-1], prompt_name="query")[::-1]
        assert computed == []
        cut = embedder.embed(texts, prompt_name="query", truncate_dim=4, precision="float16")
        assert computed == []
        more = embedder.embed([*texts, "the road"], prompt_name="query")
        assert sum(computed) == 1
        other = embedder.embed(texts)
        assert sum(computed) == 1 + len(texts)
    assert np.array_equal(first, again)
    assert np.array_equal(first, more[:-1])
    with Embedder(tiny_bundle) as embedder:
        np.testing.assert_allclose(other, embedder.embed(texts), atol=1e-6)
        plain = embedder.embed(texts, prompt_name="query", truncate_dim=4, precision="float16")
        np.testing.assert_allclose(cut, plain, atol=1e-3)
        np.testing.assert_allclose(more[-1], embedder.embed_query("the road"), atol=1e-6)


def test_too_long_texts_are_errors_though_their_beginning_is_cached(tiny_bundle, tmp_path) -> None:
    with Embedder(tiny_bundle, cache=tmp_path, verify=False) as embedder:
        embedder.embed(["dog " * 40], on_too_long="truncate")
        with pytest.raises(InputError, match="42 tokens"):
            embedder.embed(["dog " * 40], on_too_long="error")


HALF = """
import sys
from fmrt import Embedder
with Embedder(sys.argv[1], cache=sys.argv[2], verify=False) as embedder:
    for i in range(1000):
        embedder.embed(["cat " * (i % 7), "dog " * (i % 5), "red " * (i % 11)])
        print("done", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the status of a signal of POSIX")
def test_a_cache_is_shared_by_processes_and_survives_a_kill(tiny_bundle, tmp_path) -> None:
    command = [sys.executable, "-c", HALF, str(tiny_bundle), str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
    processes[0].stdout.readline()
    processes[0].kill()
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [-signal.SIGKILL, 0, 0]
    texts = ["cat " * 3, "red " * 9]
    with Embedder(tiny_bundle, cache=tmp_path, verify=False) as embedder:
        found = embedder.embed(texts)
    with Embedder(tiny_bundle, verify=False) as embedder:
        np.testing.assert_allclose(found, embedder.embed(texts), atol=1e-6)


def test_a_file_that_is_no_cache_is_named(tiny_bundle, tmp_path) -> None:
    with Embedder(tiny_bundle, cache=tmp_path, verify=False) as embedder:
        embedder.embed(["cat"])
    (file,) = tmp_path.glob("*.sqlite")
    file.write_bytes(b"no database " * 1000)
    with pytest.raises(DataError, match=r"cannot use the cache .*remove the file"):
        Embedder(tiny_bundle, cache=tmp_path, verify=False)
    with pytest.raises(DataError, match="cannot use the cache"):
        Embedder(tiny_bundle, cache=file, verify=False)


def filled(bundle: Path, directory: Path, *texts: str) -> Path:
    """The file of a cache that holds the vectors of texts, its log written back."""
    with Embedder(bundle, cache=directory, verify=False) as embedder:
        embedder.embed(texts)
    (file,) = directory.glob("*.sqlite")
    return file


def changed(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        for statement in statements:
            database.execute(statement)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE vectors SET vector = zeroblob(48)",
        "UPDATE vectors SET vector = x'00'",
        "UPDATE vectors SET vector = 'a text'",
        "UPDATE vectors SET vector = 1.5",
        "UPDATE vectors SET vector = (SELECT vector FROM vectors v WHERE v.key != vectors.key)",
        "UPDATE vectors SET checksum = x''",
        "DELETE FROM vectors",
    ],
)
def test_a_row_that_has_changed_is_computed_again(tiny_bundle, computed, tmp_path, change) -> None:
    with Embedder(tiny_bundle, verify=False) as embedder:
        right = embedder.embed(["cat", "the red dog"])
    changed(filled(tiny_bundle, tmp_path, "cat", "the red dog"), change)
    computed.clear()
    counts = []
    for _ in range(2):
        with Embedder(tiny_bundle, cache=tmp_path, verify=False) as embedder:
            found = embedder.embed(["cat", "the red dog"])
        counts.append(sum(computed))
        np.testing.assert_allclose(found, right, atol=1e-6)
    assert 1 <= counts[0] == counts[1] <= 2  # computed once more, and kept then


def test_a_cache_of_another_graph_gives_no_vector(tiny_bundle, tmp_path) -> None:
    file = filled(tiny_bundle, tmp_path / "one", "cat")
    other = shutil.copytree(tiny_bundle, tmp_path / "other")
    values = json.loads((other / "fmrt.json").read_text())
    graph = onnx.load(other / "onnx/model.onnx")
    words = next(i for i in graph.graph.initializer if i.name == "words")
    words.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(words), "words"))
    onnx.save(graph, other / "onnx/model.onnx")
    values["variants"][0] |= dataclasses.asdict(record_of(other / "onnx/model.onnx"))
    (other / "fmrt.json").write_text(json.dumps(values))
    target = filled(other, tmp_path / "two", "dog")
    shutil.copy(file, target)
    with Embedder(other, cache=tmp_path / "two", verify=False) as embedder:
        found = embedder.embed(["cat"])
    with Embedder(other, verify=False) as embedder:
        np.testing.assert_allclose(found, embedder.embed(["cat"]), atol=1e-6)


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE vectors",
        "CREATE TABLE more (a)",
        "CREATE VIEW v AS SELECT 1",
        "CREATE TRIGGER t AFTER INSERT ON vectors BEGIN DELETE FROM vectors; END",
        "ALTER TABLE vectors ADD COLUMN more",
    ],
)
def test_a_database_of_another_form_is_no_cache(tiny_bundle, tmp_path, statement) -> None:
    file = filled(tiny_bundle, tmp_path, "cat")
    changed(file, statement)
    if "DROP" in statement:  # as good as new
        assert filled(tiny_bundle, tmp_path, "cat") == file
        return
    with pytest.raises(DataError, match=r"it is no cache of fmrt; remove the file"):
        Embedder(tiny_bundle, cache=tmp_path, verify=False)


def test_a_cache_of_version_1_is_named_and_not_used(tiny_bundle, tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(disk_cache, "VERSION", 1)
        patch.setattr(disk_cache, "_say_if_there", lambda _: None)
        file = filled(tiny_bundle, tmp_path, "cat")
    changed(file, "DROP TABLE vectors", "CREATE TABLE vectors (key BLOB PRIMARY KEY, vector BLOB)")
    with (
        pytest.warns(CacheWarning, match=r"of an earlier fmrt is not used.*remove it"),
        Embedder(tiny_bundle, cache=tmp_path, verify=False),
    ):
        pass


READ_ONLY = """
import os, sys
from fmrt import Embedder
from fmrt.embedding import disk_cache
with Embedder(sys.argv[1], verify=False):
    pass  # all is imported that the other user may not be able to read
os.setuid(65534)
try:
    with Embedder(sys.argv[1], cache=sys.argv[2], verify=False) as embedder:
        embedder.embed(["cat", "a dog"])
except Exception as e:
    print(type(e).__name__, e)
"""


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="becomes another user")
def test_a_cache_that_cannot_be_written_is_one_line(tiny_bundle) -> None:
    with tempfile.TemporaryDirectory() as place:  # which the other user may enter
        bundle, cache = Path(place, "bundle"), Path(place, "cache")
        shutil.copytree(tiny_bundle, bundle)
        filled(bundle, cache, "cat")
        Path(place).chmod(0o755)
        command = [sys.executable, "-c", READ_ONLY, bundle, cache]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.search(r"^DataError cannot use the cache .*; make (it|the directory) writable", out)


def test_a_group_is_embedded_from_its_own_items_alone(tiny_bundle, computed) -> None:
    items = [(i // 5, ("cat", "red dog on the mat")[i % 2]) for i in range(20)]
    with Embedder(tiny_bundle, verify=False) as embedder:
        grouped = list(
            embedder.embed_items(
                items, lambda item: item[1], group_of=lambda item: item[0], dedupe=True
            )
        )
    assert [[group for group, _ in window] for window, _ in grouped] == [[g] * 5 for g in range(4)]
    assert sum(computed) == 4 * 2

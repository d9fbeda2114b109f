"""How streams end: by an error of the iterable or of an item, by close(), within another stream."""

from __future__ import annotations

import gzip
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

from fmrt import Embedder
from fmrt.bundle.bundle import record_of
from fmrt.cli import main
from fmrt.embedding.scheduler import Workers
from fmrt.errors import ClosedError, InputError, TextTooLongError

WAIT = 20


@pytest.fixture(scope="module")
def embedder(tiny_bundle: Path) -> Iterator[Embedder]:
    with Embedder(tiny_bundle, verify=False) as made:
        yield made


def failing(count: int) -> Iterator[str]:
    for i in range(count):
        yield f"cat {i}"
    raise KeyError("of the caller")


@pytest.mark.parametrize("count", [0, 1, 5, 8192, 15_000, 3 * 8192])
def test_an_iterable_that_fails_gives_what_came_before(embedder, count) -> None:
    found: list[np.ndarray] = []
    with pytest.raises(KeyError, match="of the caller"):
        # extend() keeps what it had of an iterator that fails
        found.extend(embedder.embed_iter(failing(count)))
    assert len(found) == count


@pytest.mark.parametrize(
    ("bad", "error"), [("a\0", InputError), (None, InputError), ("dog " * 40, TextTooLongError)]
)
@pytest.mark.parametrize("place", [0, 3, 9000])
def test_a_bad_item_ends_a_stream_after_what_came_before(embedder, bad, error, place) -> None:
    items = [f"cat {i}" for i in range(9100)]
    items[place] = bad
    found: list[np.ndarray] = []
    with pytest.raises(error, match=f"item {place}:"):
        found.extend(embedder.embed_iter(items, on_too_long="error"))
    right = embedder.embed(items[:place]) if place else np.empty((0, 12))
    np.testing.assert_allclose(np.array(found).reshape(-1, 12), right, atol=1e-6)


def test_a_job_over_a_file_that_is_cut_keeps_its_complete_shards(
    tiny_bundle, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    data = gzip.compress("".join(f"cat {i} dog {i * 7919}\n" for i in range(40_000)).encode())
    Path("a.txt.gz").write_bytes(data[: len(data) // 2])
    job = ["embed", str(tiny_bundle), "a.txt.gz", "-o", "v/", "--shard-rows", "100", "--no-verify"]
    assert main(job) == 1
    err = capsys.readouterr().err
    assert "cannot read 'a.txt.gz'" in err
    assert "are safe in 'v/'" in err
    complete = len(list(Path("v").glob("shard-?????.npy")))
    assert complete > 150
    assert main(job) == 1
    assert f"in {complete} shards are there" in capsys.readouterr().err


def with_a_panic(bundle: Path, to: Path) -> Path:
    """The bundle with a tokenizer whose Rust code panics at the text "q"."""
    copy = Path(shutil.copytree(bundle, to))
    tokenizer = Tokenizer.from_file(str(copy / "tokenizer.json"))
    # An empty match is more than Replace and ByteLevel together can take.
    tokenizer.normalizer = normalizers.Replace(Regex("(?=q)"), "x")
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    old = record_of(copy / "tokenizer.json").sha256
    tokenizer.save(str(copy / "tokenizer.json"))
    new = record_of(copy / "tokenizer.json")
    text = (copy / "fmrt.json").read_text()
    size = (bundle / "tokenizer.json").stat().st_size
    text = text.replace(old, new.sha256).replace(f'"size": {size}', f'"size": {new.size}')
    (copy / "fmrt.json").write_text(text)
    return copy


def test_a_panic_of_the_tokenizer_is_an_error_of_its_text(tiny_bundle, tmp_path, capfd) -> None:
    bundle = with_a_panic(tiny_bundle, tmp_path / "bundle")
    bad: list[str] = []
    with Embedder(bundle, verify=False) as embedder:
        for texts in (["cat", "q", "dog"], ["q"], ["q"] * 3 + ["mat"]):
            stream = embedder.embed_items(
                texts, lambda text: text, on_error=lambda _, e: bad.append(e.reason)
            )
            assert [t for window, _ in stream for t in window] == [t for t in texts if t != "q"]
        assert len(bad) == 5
        assert all(reason.startswith("the tokenizer fails: ") for reason in bad)
        with pytest.raises(InputError, match="item 0: the tokenizer fails"):
            embedder.embed(["q"])
        with pytest.raises(InputError, match="item 1: the tokenizer fails"):
            embedder.embed(["cat", "q"])


def test_close_ends_streams_with_one_error(tiny_bundle, tmp_path) -> None:
    for options in ({}, {"cache": tmp_path}):
        embedder = Embedder(tiny_bundle, verify=False, **options)
        stream = embedder.embed_iter(f"cat {i}" for i in range(50_000))
        next(stream)
        embedder.close()
        with pytest.raises(ClosedError, match="this Embedder is closed; make a new one"):
            list(stream)
        with pytest.raises(ClosedError):
            embedder.embed(["cat"])
        embedder.close()


def test_close_while_threads_embed(tiny_bundle) -> None:
    """Each ends with its vectors or with that error."""
    ends: list[object] = []
    for _ in range(5):
        embedder = Embedder(tiny_bundle, verify=False)
        begun = threading.Barrier(4)

        def work(embedder: Embedder = embedder, begun: threading.Barrier = begun) -> None:
            begun.wait()
            try:
                ends.append(len(embedder.embed([f"cat {i}" for i in range(20_000)])))
            except Exception as e:
                ends.append(type(e))

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        begun.wait()
        embedder.close()
        for thread in threads:
            thread.join(WAIT)
            assert not thread.is_alive()
    assert len(ends) == 15
    assert set(ends) <= {20_000, ClosedError}


def test_an_iterable_may_embed_with_the_same_embedder(embedder) -> None:
    vectors = list(embedder.embed_iter(str(embedder.embed(["cat", t])[0, 0]) for t in "abc"))
    assert len(vectors) == 3


def test_a_loader_may_wait_for_loaders(embedder) -> None:
    """As `embed` does that an image's loader calls: all threads may be such loaders."""
    workers = Workers(2)
    done: list[list[int]] = []

    def load(item: int) -> int:
        return sum(workers.map(lambda x: x * item, range(3)))

    thread = threading.Thread(
        target=lambda: done.append(list(workers.map(load, range(40)))), daemon=True
    )
    thread.start()
    thread.join(WAIT)
    assert done == [[3 * i for i in range(40)]]
    workers.close()

"""The public API on a tiny bundle whose vectors are computed without ONNX Runtime."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fmrt
from fmrt.encode import SIMILARITIES
from fmrt.errors import InputError, OptionError, TextTooLongError, TruncationWarning

from .conftest import DIM, MAX_LENGTH, QUERY_PROMPT, TEXTS, WORDS

LONG = "dog " * 40


@pytest.fixture(scope="module")
def embedder(tiny_bundle: Path):
    with fmrt.Embedder(tiny_bundle, workers=2) as embedder:
        yield embedder


@pytest.fixture(scope="module")
def reference(tiny_bundle: Path):
    return fmrt.Bundle.open(tiny_bundle).reference()


def test_vectors_are_the_reference_ones(embedder, reference) -> None:
    plain = [i for i, p in enumerate(reference.prompts) if not p]
    got = embedder.embed([reference.items[i] for i in plain], on_too_long="truncate")
    assert got.dtype == np.float32
    assert np.allclose(got, reference.embeddings[plain], atol=1e-6)
    assert (embedder.dim, embedder.max_length) == (DIM, MAX_LENGTH)


@given(
    texts=st.lists(st.lists(st.sampled_from([*WORDS, "zzz"]), max_size=14).map(" ".join)),
    batch_tokens=st.sampled_from([1, 7, 64, 512]),
)
@settings(max_examples=40)
def test_a_text_is_the_same_alone_and_in_any_batch(embedder, texts, batch_tokens) -> None:
    together = embedder.embed(texts, batch_tokens=batch_tokens)
    assert together.shape == (len(texts), DIM)
    alone = [embedder.embed([text])[0] for text in texts]
    assert all(np.allclose(a, b, atol=2e-6) for a, b in zip(together, alone, strict=True))


def test_the_stream_gives_the_same_and_reads_lazily(embedder) -> None:
    texts = [f"{a} {b}" for a in WORDS for b in WORDS]
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield texts[(read - 1) % len(texts)]

    stream = embedder.embed_iter(endless())
    first = np.stack([next(stream) for _ in texts])
    stream.close()
    assert np.array_equal(first, embedder.embed(texts))
    assert read < 4 * 8192


def test_prompts(embedder) -> None:
    expected = embedder.embed([QUERY_PROMPT + "cat"])
    for options in ({"prompt_name": "query"}, {"prompt": QUERY_PROMPT}):
        assert np.array_equal(embedder.embed(["cat"], **options), expected)
    assert np.array_equal(embedder.embed_query("cat"), expected[0])
    assert np.array_equal(embedder.embed_documents(["cat"]), embedder.embed(["cat"]))


def test_width_and_precision(embedder) -> None:
    full = embedder.embed(TEXTS, on_too_long="truncate")
    cut = embedder.embed(TEXTS, truncate_dim=5, on_too_long="truncate")
    norms = np.linalg.norm(full[:, :5], axis=1, keepdims=True)
    assert np.allclose(cut, full[:, :5] / norms, atol=1e-6)
    for precision, dtype in (("float16", np.float16), ("int8", np.int8), ("uint8", np.uint8)):
        got = embedder.embed(TEXTS, precision=precision, on_too_long="truncate")
        assert got.dtype == dtype
        assert np.argmax(got[1]) == np.argmax(full[1])
    bits = embedder.embed(TEXTS, precision="binary", on_too_long="truncate")
    assert np.array_equal(np.unpackbits(bits, axis=1)[:, :DIM], full > 0)


def test_truncation_is_reported(embedder) -> None:
    with pytest.warns(TruncationWarning, match=r"1 of 3 texts had .* 16 .* longest 42 tokens"):
        embedder.embed(["cat", LONG, "dog"])
    with pytest.raises(TextTooLongError, match="item 1: 42 tokens"):
        embedder.embed(["cat", LONG], on_too_long="error")
    embedder.embed([LONG], on_too_long="truncate")  # and warnings are errors here


def test_one_text_has_a_way_of_its_own_to_the_same_result(embedder, tmp_path) -> None:
    for options in ({}, {"prompt_name": "query"}, {"truncate_dim": 5}, {"precision": "binary"}):
        (stream,) = embedder.embed_iter(["the red cat"], **options)
        assert np.array_equal(embedder.embed(["the red cat"], **options), stream[None])
    with pytest.warns(TruncationWarning, match=r"1 of 1 texts .* longest 42 tokens") as record:
        embedder.embed([LONG])
    assert [warning.filename for warning in record] == [__file__]
    with pytest.raises(TextTooLongError, match="item 0: 42 tokens"):
        embedder.embed([LONG], on_too_long="error")
    with pytest.raises(InputError, match="item 0: expected a string"):
        embedder.embed([3])
    with fmrt.Embedder(embedder._bundle, cache=tmp_path) as cached:
        first, again = cached.embed(["the red cat"]), cached.embed(["the red cat"])
    assert np.array_equal(first, again)
    assert np.array_equal(first, embedder.embed(["the red cat"]))


class Table:
    """What pandas and polars have in common: iteration gives names of columns."""

    columns = ("text",)

    def __iter__(self):
        return iter(self.columns)


class Column:
    """As one of pyarrow: iteration gives no strings."""

    def __init__(self, values) -> None:
        self.values = values

    def __iter__(self):
        return map(object, self.values)

    def to_pylist(self):
        return list(self.values)


@pytest.mark.parametrize(
    "items",
    [
        tuple,
        lambda texts: (text for text in texts),
        lambda texts: dict.fromkeys(texts).keys(),
        np.array,
        lambda texts: np.array(texts, object),
        deque,
        Column,
        pa.array,
        lambda texts: pa.chunked_array([texts[:1], texts[1:]]),
    ],
)
def test_any_iterable_gives_the_vectors_of_a_list(embedder, items) -> None:
    texts = ["cat", "the red dog", "mat"]
    expected = embedder.embed(texts)
    assert np.array_equal(embedder.embed(items(texts)), expected)
    assert np.array_equal(np.stack([*embedder.embed_iter(items(texts))]), expected)
    assert embedder.embed(items([])).shape == (0, DIM)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_columns_of_tables_are_taken_and_tables_are_not(embedder, library) -> None:
    tables = pytest.importorskip(library)
    texts = ["cat", "the red dog", "mat"]
    expected = embedder.embed(texts)
    assert np.array_equal(embedder.embed(tables.Series(texts)), expected)
    with pytest.raises(InputError, match=r"item 1: .*leave missing values out"):
        embedder.embed(tables.Series(["cat", None]))
    with pytest.raises(InputError, match="a table was passed"):
        embedder.embed(tables.DataFrame({"text": texts}))


def test_names_of_sentence_transformers(embedder) -> None:
    texts = ["cat", "the red dog"]
    expected = embedder.embed(texts)
    options = {"batch_size": 64, "show_progress_bar": False, "convert_to_numpy": True}
    assert np.array_equal(embedder.encode(texts, **options), expected)
    assert np.array_equal(embedder.encode("cat"), expected[0])
    assert embedder.encode([]).shape == (0, DIM)
    assert np.array_equal(embedder.encode_query("cat"), embedder.embed_query("cat"))
    assert np.array_equal(embedder.encode_document(texts), embedder.embed_documents(texts))
    assert np.array_equal(embedder.encode("cat", "query"), embedder.embed_query("cat"))
    cut = embedder.encode(texts, normalize_embeddings=True, truncate_dim=4)
    assert np.array_equal(cut, embedder.embed(texts, normalize=True, truncate_dim=4))
    packed = np.packbits(expected > 0, axis=1)
    assert np.array_equal(embedder.encode(texts, precision="ubinary"), packed)
    signed = embedder.encode(texts, precision="binary")
    assert np.array_equal(signed, (packed.astype(int) - 128).astype(np.int8))
    similar = embedder.similarity(expected, expected[0])
    assert np.allclose(similar, expected @ expected[:1].T, atol=1e-6)
    assert embedder.similarity(expected, expected[:0]).shape == (2, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"convert_to_tensor": True}, "convert_to_tensor=True is not supported: vectors are a Num"),
        ({"output_value": "token_embeddings"}, "output_value='token_embeddings' is not supported"),
        ({"device": "cuda"}, "device='cuda' is not supported: choose provider="),
        ({"batch_size": 0}, "batch_size=0; give a whole number"),
        ({"normalize_embeddings": None}, "normalize_embeddings=None; give True or False"),
        ({"precision": "int4"}, "precision='int4'; choose from"),
    ],
)
def test_what_encode_cannot_do_is_an_error(embedder, options, message) -> None:
    with pytest.raises(OptionError, match=message):
        embedder.encode(["cat"], **options)


def test_similarities(embedder) -> None:
    a, b = np.array([[3.0, 4.0], [1.0, 0.0]]), np.array([[0, 2]], np.int8)
    assert np.allclose(embedder.similarity(a, b), [[0.8], [0]])
    for name, wanted in {"dot": 8, "euclidean": -np.sqrt(13), "manhattan": -5}.items():
        found = SIMILARITIES[name](a.astype(np.float32), b.astype(np.float32))
        assert found[0, 0] == pytest.approx(wanted)
    with pytest.raises(InputError, match="2 and of 3 dimensions"):
        embedder.similarity(a, np.ones((1, 3)))
    with pytest.raises(InputError, match=r"embeddings2=array.* are uint8"):
        embedder.similarity(a, np.ones((1, 2), np.uint8))


def test_tokens_are_counted_before_any_cut(embedder) -> None:
    assert embedder.token_count("the red cat") == 5
    assert embedder.token_count(["the red cat", LONG, ""]) == 5 + 42 + 2
    assert embedder.token_count("cat", prompt_name="query") == 5
    assert embedder.token_count([]) == 0
    with pytest.raises(InputError, match="item 1: expected a string, got int: 5"):
        embedder.token_count(["cat", 5])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one string", "one item was passed, 'one string'; pass a list"),
        (b"cat", "one item was passed, b'cat'; pass a list"),
        (Path("cat"), "pass a list"),
        (None, "expected a list of items, got NoneType: None"),
        (7, "expected a list of items, got int: 7"),
        (np.array("cat"), "expected a list of items, got ndarray"),
        ({"cat", "dog"}, "a set has no order"),
        ({"a": "cat"}, "a dict was passed; pass a list"),
        (Table(), "a table was passed, Table; pass one of its columns"),
        (["cat", 3], "item 1: expected a string, got int: 3"),
        (["cat", None], "item 1: expected a string, got NoneType: None; leave missing values out"),
        (["cat", float("nan")], "item 1: expected a string, got float: nan; leave missing"),
        (["cat", b"dog"], "item 1: expected a string, got bytes: b'dog'; decode it"),
        (["cat", ["a", "dog"]], r"item 1: expected a string, got list: \['a', 'dog'\]; give each"),
        ((t for t in ("cat", 3)), "item 1: expected a string, got int: 3"),
        (np.array([["cat"], ["dog"]]), "item 0: expected a string, got ndarray"),
        (["a\0b"], "item 0: NUL"),
        (["ab", "a\ud800b"], "item 1: lone surrogate"),
        (["cat"] * 9000 + ["a\0b"], "item 9000: NUL"),
    ],
)
def test_bad_texts_are_refused_with_their_position(embedder, texts, message) -> None:
    with pytest.raises(InputError, match=message) as e:
        embedder.embed(texts)
    assert "\n" not in str(e.value)
    assert embedder.embed(["cat"]).shape == (1, DIM)


@pytest.mark.parametrize(
    "options",
    [
        {"prompt_name": "nonesuch"},
        {"precision": "float8"},
        {"truncate_dim": DIM + 1},
        {"truncate_dim": 0},
        {"normalize": False},
        {"batch_tokens": 0},
        {"on_too_long": "ignore"},
    ],
)
def test_bad_options_are_refused_before_a_text_is_read(embedder, options) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        embedder.embed([object()], **options)


def test_empty_and_blank(embedder) -> None:
    assert embedder.embed([]).shape == (0, DIM)
    assert list(embedder.embed_iter([])) == []
    assert np.isfinite(embedder.embed(["", " ", "\t\n"])).all()


def test_many_threads_share_one_embedder(embedder) -> None:
    texts = [" ".join(WORDS[i % 7 : i % 7 + i % 9]) for i in range(300)]
    expected = embedder.embed(texts)
    results: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: results.append(embedder.embed(texts))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert all(np.allclose(r, expected, atol=2e-6) for r in results)


def test_a_closed_embedder_says_so(tiny_bundle) -> None:
    with fmrt.Embedder(tiny_bundle) as embedder:
        pass
    embedder.close()
    with pytest.raises(OptionError, match="closed"):
        embedder.embed(["cat"])
    assert not [t for t in threading.enumerate() if t.name.startswith("fmrt") and not t.is_alive()]


def test_memory_that_an_item_lacks_is_its_own_error(embedder, monkeypatch) -> None:
    engine = embedder._engine(None, ())
    load = engine.preprocess.load

    def short(item: object) -> object:
        if item == "large":
            raise MemoryError
        return load(item)

    monkeypatch.setattr(engine.preprocess, "load", short)
    texts, rejected = ["cat", "large", "dog"], []
    stream = embedder.embed_items(
        texts, str, on_error=lambda item, error: rejected.append((item, str(error)))
    )
    assert [item for window, _ in stream for item in window] == ["cat", "dog"]
    assert rejected == [("large", "item 1: there is not enough memory to decode it")]
    with pytest.raises(InputError, match="item 0: there is not enough memory"):
        embedder.embed(["large"])

"""Tokenizing and padding."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from fmrt.bundle.bundle import record_of
from fmrt.bundle.manifest import TextInput
from fmrt.embedder import Embedder
from fmrt.errors import BundleCorruptError, InputError
from fmrt.preprocess import text as text_module
from fmrt.preprocess.plain_text import plain_tokenizer
from fmrt.preprocess.text import TextPreprocessor, check_text

from .conftest import MAX_LENGTH, VOCABULARY, WORDS, make_tokenizer, token_ids


@pytest.fixture(scope="module")
def preprocess(tiny_bundle: Path) -> TextPreprocessor:
    return TextPreprocessor(tiny_bundle / "tokenizer.json", TextInput(MAX_LENGTH, pad_token_id=7))


texts = st.lists(st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join), min_size=1)


@given(texts)
def test_rows_hold_the_ids_and_padding_is_masked(preprocess, texts) -> None:
    tokens = preprocess.encode(texts)
    rows = np.arange(len(texts))[::-1]
    inputs = tokens.feeds(rows)
    for i, row in enumerate(rows):
        expected = token_ids(texts[row])
        assert inputs["input_ids"][i, : len(expected)].tolist() == expected
        assert (inputs["input_ids"][i, len(expected) :] == 7).all()
        assert inputs["attention_mask"][i].sum() == len(expected)
    whole = [len(text.split()) + 2 for text in texts]
    assert tokens.cut == [length for length in whole if length > MAX_LENGTH]


def test_left_truncation_keeps_the_end_and_the_special_tokens(tiny_bundle: Path) -> None:
    spec = TextInput(4, 0, truncation_side="left")
    left = TextPreprocessor(tiny_bundle / "tokenizer.json", spec)
    cls, sep, the, mat = (VOCABULARY[w] for w in ("[CLS]", "[SEP]", "the", "mat"))
    assert left.encode(["cat sat on the mat"]).ids.tolist() == [cls, the, mat, sep]


@given(
    st.lists(st.integers(0, 40), min_size=1), st.integers(2, 9), st.sampled_from(["left", "right"])
)
def test_truncation_says_how_long_a_text_was(tiny_bundle: Path, words, limit, side) -> None:
    spec = TextInput(limit, 0, truncation_side=side)
    tokens = TextPreprocessor(tiny_bundle / "tokenizer.json", spec).encode(
        ["cat " * n for n in words]
    )
    assert tokens.cut == [n + 2 for n in words if n + 2 > limit]
    assert tokens.lengths.tolist() == [min(n + 2, limit) for n in words]
    assert len(tokens.ids) == tokens.lengths.sum()


def test_a_length_below_the_special_tokens_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(BundleCorruptError, match="max_length 1 leaves no room for the 2 special"):
        TextPreprocessor(tiny_bundle / "tokenizer.json", TextInput(1, 0))


@pytest.fixture(scope="module", params=[True, False], ids=["uncased", "cased"])
def bert(request, tmp_path_factory) -> tuple[Tokenizer, TextPreprocessor]:
    """A tokenizer of BERT's, and what reads its file."""
    pieces = [
        *"abcdefghijklmnopqrstuvwxyzABC019.,!?-'\"[]()<>\\/_~^`",
        "é",
        "中",
        "the",
        "dr",
        "##ead",
    ]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {
        piece: i for i, piece in enumerate([*special, *pieces, *(f"##{p}" for p in "abcdeE")])
    }
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=request.param)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.add_special_tokens(special)
    file = tmp_path_factory.mktemp("bert") / "tokenizer.json"
    tokenizer.save(str(file))
    return tokenizer, TextPreprocessor(file, TextInput(512, 0))


ascii_text = st.text(st.characters(max_codepoint=127, exclude_characters="\0"), max_size=60)
any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
special_text = st.sampled_from(["[SEP]", "[sep]", " [MASK]\n", "[CLS]the", "dread\tThe\r\nDR"])


@given(
    st.lists(st.lists(ascii_text | any_text | special_text, max_size=4).map("".join), min_size=2)
)
def test_plain_texts_have_the_usual_ids(bert, texts) -> None:
    tokenizer, preprocess = bert
    with mock.patch.object(text_module, "MANY_TEXTS", 2):
        tokens = preprocess.encode(texts)
    assert preprocess._quick()
    assert tokens.ids.tolist() == [i for t in texts for i in tokenizer.encode(t).ids]


def test_a_tokenizer_that_looks_for_tokens_in_changed_text_has_no_plain_one(bert) -> None:
    tokenizer, _ = bert
    assert plain_tokenizer(tokenizer) is not None
    other = Tokenizer.from_str(tokenizer.to_str())
    other.add_tokens(["Word"])
    assert plain_tokenizer(other) is None
    assert plain_tokenizer(make_tokenizer()) is None


def test_a_prompts_length_leaves_out_the_closing_token(preprocess) -> None:
    assert preprocess.prompt_length("query: ") == 3
    assert preprocess.prompt_length("") == 0


def test_token_types_reach_the_model(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    special = [(name, VOCABULARY[name]) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:1 [SEP]:1", special_tokens=special
    )
    tokenizer.save(str(tmp_path / "t.json"))
    preprocess = TextPreprocessor(tmp_path / "t.json", TextInput(MAX_LENGTH, 0))
    inputs = preprocess.encode(["cat dog", "cat"]).feeds(np.array([0, 1]))
    assert inputs["token_type_ids"].tolist() == [[0, 1, 1, 1], [0, 1, 1, 0]]


def test_a_text_without_tokens_is_refused(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.post_processor = None
    tokenizer.save(str(tmp_path / "t.json"))
    tokens = TextPreprocessor(tmp_path / "t.json", TextInput(MAX_LENGTH, 0)).encode(["cat", ""])
    assert [*tokens.errors] == [1]
    assert "no tokens" in str(tokens.errors[1])


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(BundleCorruptError, match="not a tokenizer"):
        TextPreprocessor(tmp_path / "t.json", TextInput(MAX_LENGTH, 0))


@given(st.text(st.characters()))
def test_a_text_is_taken_exactly_when_it_is_utf8_without_nul(text) -> None:
    try:
        fine = "\0" not in text and text.encode() is not None
    except UnicodeEncodeError:
        fine = False
    if fine:
        assert check_text(text) == text
    else:
        with pytest.raises(InputError):
            check_text(text)


@pytest.mark.parametrize("stated", [True, False], ids=["stated", "an older bundle"])
def test_an_id_beyond_the_table_is_its_items_error(
    tiny_bundle: Path, tmp_path: Path, stated: bool
) -> None:
    """One such text does not end a run, and is never looked up."""
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    tokenizer.add_tokens(["productx"])
    tokenizer.save(str(bundle / "tokenizer.json"))
    raw = json.loads((bundle / "fmrt.json").read_text())
    raw["files"]["tokenizer.json"] = asdict(record_of(bundle / "tokenizer.json"))
    raw["towers"][0]["input"]["vocab_size"] = len(VOCABULARY) if stated else None
    (bundle / "fmrt.json").write_text(json.dumps(raw))
    items = ["a cat", "buy productx now", "the mat"]
    with Embedder(bundle) as embedder, Embedder(tiny_bundle) as before:
        for given_items in (items, items[1:2], items[1:]):
            with pytest.raises(InputError, match="productx") as e:
                embedder.embed(given_items)
            assert e.value.index == given_items.index(items[1])
        assert np.array_equal(embedder.embed(items[::2]), before.embed(items[::2]))

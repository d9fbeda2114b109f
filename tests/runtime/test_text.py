"""Tokenizing and padding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmrt.errors import BundleCorruptError, InputError
from fmrt.manifest import TextInput
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
        assert tokens.untruncated[row] == len(texts[row].split()) + 2


def test_left_truncation_keeps_the_end_and_the_special_tokens(tiny_bundle: Path) -> None:
    spec = TextInput(4, 0, truncation_side="left")
    left = TextPreprocessor(tiny_bundle / "tokenizer.json", spec)
    cls, sep, the, mat = (VOCABULARY[w] for w in ("[CLS]", "[SEP]", "the", "mat"))
    assert left.encode(["cat sat on the mat"]).ids.tolist() == [cls, the, mat, sep]


def test_a_prompts_length_leaves_out_the_closing_token(preprocess) -> None:
    assert preprocess.prompt_length("query: ") == 3
    assert preprocess.prompt_length("") == 0


def test_token_types_reach_the_model(tmp_path: Path) -> None:
    from tokenizers import processors

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

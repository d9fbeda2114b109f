"""Long texts are cut before they are tokenized, and their tokens stay what they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from fmrt.bundle.manifest import TextInput
from fmrt.errors import InputError, TextTooLongError
from fmrt.preprocess import text as text_module
from fmrt.preprocess.cutting import Cutter
from fmrt.preprocess.runs import Shortener
from fmrt.preprocess.text import TextPreprocessor

SENTENCE = (
    "the quick brown fox jumps over a lazy dog don't it's Paris 2024 1,234.5 naïve café "
    "Größe Straße да привет мир नमस्ते दुनिया ไทย 中文。 文字。 日本語です。カナ 한국어。 مرحبا"
)
WORDS = SENTENCE.split()
CORPUS = [" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))] * 3
GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
MAX_LENGTH = 9


def word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.WordPieceTrainer(vocab_size=250, special_tokens=["[UNK]"], show_progress=False),
    )
    tokenizer.post_processor = processors.TemplateProcessing("[UNK] $A [UNK]", None, [("[UNK]", 0)])
    return tokenizer


def byte_bpe() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=500, show_progress=False, **BYTES)
    )
    return tokenizer


def split_bpe() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(GPT4), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=500, show_progress=False, **BYTES)
    )
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True), "<s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        "<s> $A", None, [("<s>", tokenizer.token_to_id("<s>"))]
    )
    return tokenizer


def unigram(*, split: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=True)
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(
            vocab_size=200, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
        ),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=split)
    return tokenizer


def sentence_bpe() -> Tokenizer:
    """As of Llama and Gemma: no pre-tokenizer at all."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>"], show_progress=False)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.pre_tokenizer = None
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def word_level() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "the": 1, "dog": 2}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def suffix_bpe() -> Tokenizer:
    """As of CLIP: a word's last token is another than the same characters within it."""
    tokenizer = Tokenizer(
        models.BPE(end_of_word_suffix="</w>", unk_token="<unk>", continuing_subword_prefix="")
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False
        ),
    )
    return tokenizer


def with_added(make: Callable[[], Tokenizer]) -> Tokenizer:
    """With tokens that users add: words, several words, and ones that look at what is around."""
    tokenizer = make()
    tokenizer.add_tokens(
        [
            *("[TAG]", "lazy dog", "\n\n", "[TAG][TAG]x"),
            AddedToken("Paris", single_word=True),
            AddedToken("[RAW]", normalized=False, rstrip=True),
        ]
    )
    return tokenizer


def with_digits(make: Callable[[], Tokenizer]) -> Tokenizer:
    tokenizer = make()
    apart = [tokenizer.pre_tokenizer, pre_tokenizers.Digits(individual_digits=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(apart)
    return tokenizer


KINDS = {
    "WordPiece": word_piece,
    "byte-level BPE": byte_bpe,
    "BPE split by a pattern": split_bpe,
    "Unigram": lambda: unigram(split=True),
    "Unigram of whole texts": lambda: unigram(split=False),
    "BPE of whole texts": sentence_bpe,
    "WordLevel": lambda: with_digits(word_level),
    "BPE with ends of words": suffix_bpe,
    "WordPiece with added tokens": lambda: with_added(word_piece),
    "BPE of whole texts with added tokens": lambda: with_added(sentence_bpe),
}


@pytest.fixture(scope="module", params=KINDS)
def files(request, tmp_path_factory) -> dict[str, tuple[Tokenizer, TextPreprocessor]]:
    """A tokenizer that cuts at either side, and what cuts early where a text has ten characters."""
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    KINDS[request.param]().save(str(file))
    made = {}
    with mock.patch.multiple(text_module, LEAST=10, CHARACTERS=1, SHORT=10):
        for side in ("right", "left"):
            tokenizer = Tokenizer.from_file(str(file))
            tokenizer.enable_truncation(MAX_LENGTH, direction=side)
            spec = TextInput(MAX_LENGTH, 0, truncation_side=side)
            made[side] = tokenizer, TextPreprocessor(file, spec)
    return made


pieces = st.one_of(
    st.sampled_from(WORDS),
    st.sampled_from(
        [" ", " ", "  ", "\n", "\t", "\u00a0", "\u3000", "。", ",", "'s", "\u0301", "<mask>", "<s>"]
    ),
    st.sampled_from(["[TAG]", "[RAW]", "[TAG][TAG]x", "lazy dog", "\n\n"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4),
)
# Without a place to cut: one word, a script without spaces, base64.
RUNS = (
    "ab",
    "fox",
    "abcdefghijklmnop",
    "中文字日本語",
    "ab中0+/=",
    "абв",
    "0123456789abcdef",
    "aé\u0301",
    " \n",
    "!?.",
    "+<>=",
    "😀🎉🏽",
)
texts = st.one_of(
    st.sampled_from(RUNS).flatmap(lambda own: st.text(own, min_size=90, max_size=500)),
    st.lists(st.sampled_from(["[TAG]", "[RAW]", "\n\n", "ab", " "]), min_size=40).map("".join),
    st.lists(
        st.tuples(st.sampled_from([*RUNS, *WORDS]), st.integers(1, 300)), min_size=1, max_size=5
    ).map(lambda runs: " ".join(own * n for own, n in runs)),
    st.lists(pieces, min_size=1, max_size=60).map("".join),
    st.lists(pieces, min_size=1, max_size=60).map(" ".join),
)


@pytest.mark.parametrize("side", ["right", "left"])
@given(text=texts, prompt=st.sampled_from(["", "query: "]))
@example(text="the dog " * 40, prompt="")
@example(text="中文。" * 40, prompt="query: ")
def test_tokens_are_those_of_the_whole_text(files, side, text, prompt) -> None:
    tokenizer, preprocess = files[side]
    wanted = tokenizer.encode(prompt + text)
    tokens = preprocess.encode([text, text], prompt)
    if wanted.ids:
        assert tokens.ids[: len(tokens.ids) // 2].tolist() == wanted.ids
        # What is said of a text's length is true.
        alone = Tokenizer.from_str(tokenizer.to_str())
        alone.no_truncation()
        whole = len(alone.encode(prompt + text).ids)
        said = (tokens.cut or tokens.lengths)[0]
        assert said == whole if tokens.counted else said <= whole
        assert (said > MAX_LENGTH) == (whole > MAX_LENGTH)


@pytest.mark.parametrize("side", ["right", "left"])
def test_words_are_places_to_cut(files, side) -> None:
    tokenizer, _ = files[side]
    part, _ = Cutter(tokenizer, left=side == "left").cut("the dog " * 1000, 100)
    assert len(part) <= 100


def test_a_tokenizer_that_may_look_far_is_not_cut_for() -> None:
    far = word_level()
    far.pre_tokenizer = pre_tokenizers.Split(Regex(r".*END|\w+|\s+"), "isolated")
    changed = word_level()
    changed.normalizer = normalizers.Replace(Regex(r"a(.*)b"), "c")
    for tokenizer in (far, changed):
        text = "the dog " * 1000
        assert Cutter(tokenizer, left=False).cut(text, 100) == (text, 0)


@pytest.fixture
def plain(tmp_path: Path) -> TextPreprocessor:
    word_piece().save(str(tmp_path / "tokenizer.json"))
    return TextPreprocessor(tmp_path / "tokenizer.json", TextInput(256, 0))


def test_dropout_is_off(tmp_path: Path) -> None:
    tokenizer = byte_bpe()
    wanted = tokenizer.encode(SENTENCE).ids
    tokenizer.model.dropout = 0.5
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    preprocess = TextPreprocessor(tmp_path / "tokenizer.json", TextInput(256, 0))
    assert preprocess.encode([SENTENCE]).ids.tolist() == wanted


@pytest.mark.parametrize("words", ["the quick brown fox ", "文字", "a", "😀"])
def test_cutting_ten_megabytes_costs_what_a_hundred_kilobytes_cost(plain, words) -> None:
    large = words * (10_000_000 // len(words.encode()) + 1)
    small = large[: len(large) // 100]

    def seconds(text: str) -> float:
        start = time.process_time()
        plain.encode([plain.load(text)])
        return time.process_time() - start

    seconds(small)
    assert min(seconds(large) for _ in range(4)) <= 2 * min(seconds(small) for _ in range(4))


def test_of_giant_words_only_those_that_the_model_takes_are_read(plain) -> None:
    scripts = ("a", "д", "ક", "ก", "가", "😀", "0")
    words = (chr(ord(scripts[i % len(scripts)]) + i // 7 % 9) * 4000 for i in range(1000))
    shortened, made = Shortener.pieces, []

    def counted(self: Shortener, text: str) -> Iterator[str]:
        for piece in shortened(self, text):
            made.append(len(piece))
            yield piece

    with mock.patch.object(Shortener, "pieces", counted):
        tokens = plain.encode([" ".join(words)])
    assert tokens.lengths.tolist() == [256]
    assert sum(made) < 256 * 300  # of 4,000,000 characters


@pytest.mark.parametrize("kind", ["byte-level BPE", "Unigram of whole texts", "BPE of whole texts"])
@pytest.mark.parametrize("run", ["the", "文字", "dGhlIHF1aWNrIGJyb3duIGZveA"])
def test_what_has_no_place_is_cut_too(kind, run, tmp_path: Path) -> None:
    tokenizer = KINDS[kind]()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    tokenizer.enable_truncation(256)
    preprocess = TextPreprocessor(tmp_path / "tokenizer.json", TextInput(256, 0))
    text = run * (2_000_000 // len(run))
    tokens = preprocess.encode([text])
    assert not tokens.errors
    assert tokens.ids.tolist() == tokenizer.encode(text[:100_000]).ids
    assert not tokens.counted


def test_a_long_text_is_counted_as_far_as_it_was_read(plain) -> None:
    tokens = plain.encode(["the dog " * 100_000], on_too_long="error")
    assert isinstance(tokens.errors[0], TextTooLongError)
    assert str(tokens.errors[0]).startswith("at least ")
    assert not tokens.counted


def test_what_cannot_be_cut_and_is_long_is_refused(tmp_path: Path) -> None:
    tokenizer = word_level()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r".*END|\w+|\s+"), "isolated")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    preprocess = TextPreprocessor(tmp_path / "tokenizer.json", TextInput(256, 0))
    tokens = preprocess.encode(["a" * 300_001, "the dog", "a" * 300_000, "\U0001f600" * 75_001])
    assert list(tokens.errors) == [0, 3]
    assert "300,001 characters, and the limit is 300,000 bytes" in str(tokens.errors[0])
    assert "75,001 characters" in str(tokens.errors[3])
    assert tokens.lengths[1:3].tolist() == [3, 1]


def test_a_long_text_is_checked_where_it_is_read(plain) -> None:
    for bad in ("\0", "\ud800"):
        tokens = plain.encode([bad + "the dog " * 10_000, "the dog"])
        assert isinstance(tokens.errors[0], InputError)
        assert "position 0" in str(tokens.errors[0])
    assert np.array_equal(tokens.lengths[1:], plain.encode(["the dog"]).lengths)

"""Texts to token ids, and rows of ids to padded model inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from fmrt.errors import BundleCorruptError, InputError, OptionError, TextTooLongError

OnTooLong = Literal["truncate-and-warn", "truncate", "error"]

# A text this long is a file that was never split: tokenizing it all takes minutes and memory.
MAX_CHARACTERS = 1_000_000


@dataclass(frozen=True)
class Tokens:
    """Token ids of some texts, unpadded.

    Attributes:
        ids: all texts' ids one after the other, int64 ``[sum(lengths)]``.
        type_ids: their token types, same shape, or None when all are 0.
        lengths: tokens of each text, int64 ``[n]``.
        untruncated: tokens of each text before it was cut, int64 ``[n]``.
    """

    ids: NDArray[np.int64]
    type_ids: NDArray[np.int64] | None
    lengths: NDArray[np.int64]
    untruncated: NDArray[np.int64]


class TextPreprocessor:
    """Tokenizes as the model's Hugging Face tokenizer does, without transformers.

    Args:
        tokenizer_file: a ``tokenizer.json``.
        max_length: most tokens of a text, special tokens included.
        pad_token_id: fills ``input_ids`` behind the last token.
        truncation_side: ``right`` or ``left``, the end that is cut.

    Raises:
        BundleCorruptError: the file is not a tokenizer.
    """

    def __init__(
        self,
        tokenizer_file: Path,
        max_length: int,
        pad_token_id: int,
        truncation_side: str = "right",
    ) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        except Exception as e:  # tokenizers raises bare Exception
            raise BundleCorruptError(f"{tokenizer_file} is not a tokenizer: {e}") from e
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._max_length = max_length
        self._pad_token_id = pad_token_id
        self._side = truncation_side
        self._has_types = any(self._tokenizer.encode("a").type_ids)

    def __call__(
        self, texts: Sequence[str], prompt: str = "", on_too_long: str = "truncate"
    ) -> Tokens:
        """Tokenize checked texts (see `check_text`), with ``prompt`` in front of each.

        Raises:
            TextTooLongError: over ``max_length`` tokens under ``on_too_long="error"``.
            InputError: a text that has no tokens at all.
        """
        prompted = [prompt + text for text in texts] if prompt else list(texts)
        encodings = self._tokenizer.encode_batch_fast(prompted)
        untruncated = np.fromiter(map(len, encodings), np.int64, len(encodings))
        if untruncated.size and untruncated.min() == 0:
            index = int(untruncated.argmin())
            raise InputError("the tokenizer gives no tokens for it; remove the text", index)
        for i in np.flatnonzero(untruncated > self._max_length):
            if on_too_long == "error":
                raise TextTooLongError(
                    f"{untruncated[i]:,} tokens, and the model takes {self._max_length:,}; "
                    "shorten it or allow truncation",
                    int(i),
                )
            encodings[i] = self._truncated(prompted[i])
        return self._gather(encodings, untruncated)

    def prompt_length(self, prompt: str) -> int:
        """Tokens that ``prompt`` takes at a text's start, without a closing special token.

        As sentence-transformers counts it for pooling with ``include_prompt=False``: the prompt
        alone is tokenized, and a special token at its end does not count.
        """
        if not prompt:
            return 0
        ids = self._tokenizer.encode(prompt).ids
        added = self._tokenizer.get_added_tokens_decoder()
        closes = bool(ids) and ids[-1] in added and added[ids[-1]].special
        return len(ids) - int(closes)

    def pad(
        self, tokens: Tokens, rows: NDArray[np.int64], starts: NDArray[np.int64]
    ) -> dict[str, NDArray[np.int64]]:
        """Model inputs of some rows, right-padded, each int64 ``[rows, longest]``.

        Args:
            tokens: all texts.
            rows: which of them.
            starts: offset of each text's ids in ``tokens.ids``, int64 ``[n]``.
        """
        lengths = tokens.lengths[rows]
        shape = (len(rows), int(lengths.max()))
        attention_mask = (np.arange(shape[1]) < lengths[:, None]).astype(np.int64)
        inputs = {
            "input_ids": np.full(shape, self._pad_token_id, np.int64),
            "attention_mask": attention_mask,
            "token_type_ids": np.zeros(shape, np.int64),
        }
        for i, (start, length) in enumerate(zip(starts[rows], lengths, strict=True)):
            inputs["input_ids"][i, :length] = tokens.ids[start : start + length]
            if tokens.type_ids is not None:
                inputs["token_type_ids"][i, :length] = tokens.type_ids[start : start + length]
        return inputs

    def _truncated(self, text: str) -> Encoding:
        """Cut the text's own tokens, then add the special ones, as Hugging Face tokenizers do."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        room = self._max_length - self._tokenizer.num_special_tokens_to_add(is_pair=False)
        encoding.truncate(room, direction=self._side)
        return self._tokenizer.post_process(encoding, add_special_tokens=True)

    def _gather(self, encodings: list[Encoding], untruncated: NDArray[np.int64]) -> Tokens:
        lengths = np.minimum(untruncated, self._max_length)
        total = int(lengths.sum())
        ids = np.fromiter((i for e in encodings for i in e.ids), np.int64, total)
        types = None
        if self._has_types:
            types = np.fromiter((i for e in encodings for i in e.type_ids), np.int64, total)
        return Tokens(ids, types, lengths, untruncated)


def check_text(text: object) -> str:
    """Return ``text``, or raise when no model should see it.

    Raises:
        InputError: not a string, a NUL character, a lone surrogate (invalid UTF-8), or longer than
            a million characters.
    """
    if not isinstance(text, str):
        raise InputError(f"expected a string, got {type(text).__name__}")
    if len(text) > MAX_CHARACTERS:
        raise InputError(
            f"{len(text):,} characters, and the limit is {MAX_CHARACTERS:,}; "
            "split it into documents"
        )
    if "\0" in text:
        raise InputError(f"NUL character at position {text.index(chr(0))}; remove it")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as e:
            raise InputError(f"lone surrogate (invalid UTF-8) at position {e.start}") from e
    return text


def check_on_too_long(value: str) -> None:
    """Raise unless ``value`` is one of `OnTooLong`.

    Raises:
        OptionError: it is not.
    """
    if value not in get_args(OnTooLong):
        raise OptionError(f"on_too_long={value!r}; choose from: {', '.join(get_args(OnTooLong))}")

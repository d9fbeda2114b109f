"""Texts to token ids, and rows of ids to padded model inputs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, chain, compress, islice
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from fmrt.arrays import Feeds
from fmrt.bundle.manifest import TextInput
from fmrt.errors import BundleCorruptError, InputError, TextTooLongError, quoted
from fmrt.options import text_problem
from fmrt.preprocess.plain_text import is_plain, plain_tokenizer
from fmrt.preprocess.tokenizing import TokenizerFailedError, failing
from fmrt.system import native
from fmrt.system.archive import BundleFile

if TYPE_CHECKING:
    from fmrt.preprocess.cutting import Cutter, Whole

# Characters that are tokenized of a longer text, at first: for each token that the model takes, and
# at least.
CHARACTERS, LEAST = 8, 8192
# By what that grows while these are not enough, at least and at most; and to how many times what
# would be enough, from the tokens that it gave.
GROWTH, MOST_GROWTH, MARGIN = 2, 8, 1.25
# Most bytes of texts that are tokenized at a time, and so of one text: each takes up to 600 bytes,
# as a token of its own. The most that normalizers make of a character are the 33 bytes of U+FDFA.
AT_A_TIME = 300_000
LARGEST, LARGEST_BYTES = "\ufdfa", 33
# Most characters that are counted of a text, and that a part of one may have at first.
MAX_CHARACTERS = 1_000_000
# A text of so many bytes is tokenized whole before its runs are looked for.
SHORT = 131_072
# A second tokenizer is made for so many texts at once: that takes 0.1 s, once.
MANY_TEXTS = 4096
# Texts that are counted at a time.
COUNTED = 1024
# What tables put where there is no value, by the name of its type.
MISSING = frozenset({"NAType", "NaTType"})


_ids_of = attrgetter("ids")
_type_ids_of = attrgetter("type_ids")


class Tokens(NamedTuple):
    """Token ids of some texts, unpadded.

    Attributes:
        ids: All texts' ids one after the other, int64 ``[sum(lengths)]``.
        type_ids: The token types, of the same shape, or None when all are 0.
        lengths: The number of tokens of each text, int64 ``[n]``.
        starts: The offset of each text's ids, int64 ``[n]``.
        cut: The number of tokens that each text which was cut had before; of one that was cut
            before it was tokenized, those of its part that are sure.
        errors: The texts that cannot be embedded, by row.
        pad_token_id: The id that fills ``input_ids`` after the last token.
        counted: Whether no text was cut before it was tokenized.
    """

    ids: NDArray[np.int64]
    type_ids: NDArray[np.int64] | None
    lengths: NDArray[np.int64]
    starts: NDArray[np.int64]
    cut: Sequence[int]
    errors: Mapping[int, InputError]
    pad_token_id: int
    counted: bool

    def feeds(self, rows: NDArray[np.int64]) -> Feeds:
        """Model inputs of some rows, right-padded, each int64 ``[rows, longest]``."""
        if len(self.lengths) == len(rows) == 1:  # a query is not to wait for what batches need
            ids = self.ids[None]
            types = np.zeros(ids.shape, np.int64) if self.type_ids is None else self.type_ids[None]
            ones = np.ones(ids.shape, np.int64)
            return {"input_ids": ids, "attention_mask": ones, "token_type_ids": types}
        lengths = self.lengths[rows][:, None]
        columns = np.arange(int(lengths.max()))
        mask = columns < lengths
        # After its end, a row reads its last token again, which the padding replaces.
        places = self.starts[rows][:, None] + np.minimum(columns, lengths - 1)
        types = np.zeros(mask.shape, np.int64) if self.type_ids is None else self.type_ids[places]
        return {
            "input_ids": np.where(mask, self.ids[places], self.pad_token_id),
            "attention_mask": mask.astype(np.int64),
            "token_type_ids": types * mask,
        }

    def keys(self, rows: NDArray[np.int64]) -> list[bytes]:
        """The token ids, and the token types after them."""
        own = self._bytes(self.ids, rows)
        if self.type_ids is None:
            return own
        return [i + t for i, t in zip(own, self._bytes(self.type_ids, rows), strict=True)]

    def _bytes(self, values: NDArray[np.int64], rows: NDArray[np.int64]) -> list[bytes]:
        data = values.tobytes()
        starts, lengths = self.starts[rows] * values.itemsize, self.lengths[rows] * values.itemsize
        ends = (starts + lengths).tolist()
        return [data[start:end] for start, end in zip(starts.tolist(), ends, strict=True)]


class TextPreprocessor:
    """Tokenizes as the model's Hugging Face tokenizer does, without transformers.

    Args:
        tokenizer_file: A ``tokenizer.json``.
        spec: The manifest's numbers.

    Raises:
        BundleCorruptError: The file is not a tokenizer, or the special tokens that it adds are
            more than ``max_length``.

    Attributes:
        vocab_size: The number that all token ids that the graph knows are below; None if the
            tokenizer has no others.
    """

    unit = "text"
    parallel = False
    dedupe = True
    window_weight = 8_000_000  # bytes
    stride = 1

    def __init__(self, tokenizer_file: BundleFile, spec: TextInput) -> None:
        try:
            with failing():
                self._tokenizer = Tokenizer.from_buffer(tokenizer_file.read_bytes())
                if getattr(self._tokenizer.model, "dropout", None):
                    self._tokenizer.model.dropout = None  # for training: it draws tokens at random
                self._tokenizer.no_padding()
                self._tokenizer.enable_truncation(spec.max_length, direction=spec.truncation_side)
                self._special_tokens = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        except TokenizerFailedError as e:
            raise BundleCorruptError(f"{tokenizer_file} is not a tokenizer: {e}") from e
        if spec.max_length < self._special_tokens:
            raise BundleCorruptError(
                f"max_length {spec.max_length} leaves no room for the {self._special_tokens} "
                f"special tokens of {tokenizer_file}"
            )
        self._spec = spec
        self.vocab_size = spec.vocab_size
        self.limit = spec.max_length
        self.padded = spec.padded
        # None until many texts come; then empty, or the quicker tokenizer.
        self._plain: list[Tokenizer] | None = None
        self._has_types = self._gives_types()

        self._left = spec.truncation_side == "left"
        self._reach = min(max(LEAST, CHARACTERS * spec.max_length), MAX_CHARACTERS)
        self._most = max(AT_A_TIME, 2 * self._reach)  # what the model takes, it gets

    def _gives_types(self) -> bool:
        try:
            with failing():
                return any(self._tokenizer.encode("a").type_ids)
        except TokenizerFailedError:  # which then is an item's error
            return False

    def load(self, item: object) -> str:
        """Check one text, see `check_text`; of a long one `encode` checks what it tokenizes."""
        if isinstance(item, str) and len(item) > self._reach:
            return item
        return check_text(item)

    def weight(self, loaded: str) -> int:
        """Bytes of a text in memory."""
        return sys.getsizeof(loaded)

    def encode(
        self, loaded: Sequence[str], prompt: str = "", on_too_long: str = "truncate"
    ) -> Tokens:
        """Tokenize checked texts, with ``prompt`` before each.

        A text over ``max_length`` tokens is cut, or an error under ``on_too_long="error"``; one
        without any token, or with one that the model does not know, is an error. A long text is
        cut before, where that leaves the tokens that the model takes as they are.
        """
        try:
            with failing():
                return self._tokens(loaded, prompt, on_too_long)
        except TokenizerFailedError:
            failed = {
                row: e for row, text in enumerate(loaded) if (e := self._failure(text, prompt))
            }
            rest = ["" if row in failed else text for row, text in enumerate(loaded)]
            with failing():
                tokens = self._tokens(rest, prompt, on_too_long)
            return tokens._replace(errors={**tokens.errors, **failed})

    def _failure(self, text: str, prompt: str) -> InputError | None:
        """Why the tokenizer fails for a text; None where it does not."""
        try:
            with failing():
                self._tokens([text], prompt, "truncate")
        except TokenizerFailedError as e:
            return InputError(str(e))
        return None

    def _tokens(self, loaded: Sequence[str], prompt: str, on_too_long: str) -> Tokens:
        errors: dict[int, InputError] = {}
        parts = self._parts(loaded, prompt, errors)
        texts = [prompt + text for text in loaded] if prompt else list(loaded)
        for row in errors:
            texts[row] = ""
        for row, part in parts.items():
            texts[row] = part.text
        many = len(texts) >= MANY_TEXTS
        groups: list[_Ids] = []
        untruncated: list[int] = []
        for rows in _groups(texts):
            part_of = texts[rows.start : rows.stop]
            encodings = native.call(self._encoded, part_of, many=many)
            for row in rows if parts else ():
                if row in parts:
                    encodings[row - rows.start] = self._enough(
                        encodings[row - rows.start], row, prompt, parts, errors
                    )
            untruncated += map(self._untruncated, encodings)
            groups.append(self._gather(encodings, rows.start, errors))
        for row, part in parts.items():
            if row not in errors:
                untruncated[row] -= part.unsure
        self._check(untruncated, parts, errors, on_too_long)
        counted = not parts or all(part.reach is None for part in parts.values())
        return _joined(groups, untruncated, errors, self._spec, counted=counted)

    def _parts(
        self, loaded: Sequence[str], prompt: str, errors: dict[int, InputError]
    ) -> dict[int, _Part]:
        """What to tokenize of the long texts, by row; ``errors`` takes those that cannot be."""
        parts: dict[int, _Part] = {}
        for row, text in enumerate(loaded):
            if len(text) > self._reach:
                try:
                    parts[row] = self._part(self._cutter.whole(text), prompt)
                except InputError as e:
                    errors[row] = e
        return parts

    def _part(self, source: Whole, prompt: str, reach: int | None = None) -> _Part:
        """A part of a text, or all of it, with the prompt.

        Args:
            source: The text.
            prompt: What comes before it.
            reach: The number of characters to take, about, or more; None for the first part.

        Raises:
            InputError: The text is refused by `check_text`, or is too long to be tokenized as a
                whole.
        """
        first = reach is None
        reach = self._first(source) if reach is None else reach
        part = self._start(source, prompt, reach) if first else None
        if part is not None:
            return part.checked(prompt, left=self._left)
        # Where the first part was not enough, it may have been a run that is one token.
        if not source.is_shorter and self._is_long(source.text):
            source = self._cutter.shortened(source.text)
            reach = self._first(source)
        elif first:
            reach *= GROWTH
        while part is None and self._fits(source, reach) and len(source.near(reach + 1)) > reach:
            part = self._start(source, prompt, reach)
            reach *= GROWTH
        part = part or _Part(source.near(self._most + 1), None, 0, source)
        if _bytes_of(part.text) > self._most:
            raise InputError(
                f"{len(source.text):,} characters, and the limit is {self._most:,} bytes of a text "
                "that cannot be cut without a change to its tokens; split it into documents"
            )
        return part.checked(prompt, left=self._left)

    @staticmethod
    def _is_long(text: str) -> bool:
        return len(text) > SHORT or _bytes_of(text) > SHORT

    def _first(self, source: Whole) -> int:
        """The characters of a text that are taken at first."""
        reach = self._reach
        while not self._fits(source, reach) and reach > LEAST:
            reach //= 2
        return reach

    def _fits(self, source: Whole, reach: int) -> bool:
        """Whether so many characters may be tokenized at a time."""
        text = source.near(reach)
        return _bytes_of(text[-reach:] if self._left else text[:reach]) <= self._most

    def _start(self, source: Whole, prompt: str, reach: int) -> _Part | None:
        """About ``reach`` characters of a text, where it can be cut there."""
        text = source.near(reach + self._cutter.reach)
        if len(text) <= reach:
            return None
        part, unsure = self._cutter.cut(text, reach, prompt)
        return None if len(part) == len(text) else _Part(part, reach, unsure, source)

    @cached_property
    def _cutter(self) -> Cutter:
        from fmrt.preprocess.cutting import Cutter  # start-up stays quick

        return Cutter(self._tokenizer, left=self._left)

    def _enough(
        self,
        encoding: Encoding,
        row: int,
        prompt: str,
        parts: dict[int, _Part],
        errors: dict[int, InputError],
    ) -> Encoding:
        """The tokens of a larger part of a text, until they are as many as the model takes."""
        while (part := parts[row]).reach is not None:
            sure = self._untruncated(encoding) - part.unsure
            if sure > self._spec.max_length:
                break
            times = MARGIN * self._spec.max_length / max(1, sure)
            try:
                reach = int(part.reach * min(max(times, GROWTH), MOST_GROWTH))
                parts[row] = self._part(part.source, prompt, reach)
            except InputError as e:
                errors[row] = e
                break
            encoding = self._tokenizer.encode(parts[row].text)
        return encoding

    def _check(
        self,
        untruncated: Sequence[int],
        parts: Mapping[int, _Part],
        errors: dict[int, InputError],
        on_too_long: str,
    ) -> None:
        """Put texts of no token, and too long ones if asked for, to ``errors``."""
        limit = self._spec.max_length
        if 0 in untruncated:
            nothing = InputError("the tokenizer gives no tokens for it; remove the text")
            for row in (row for row, count in enumerate(untruncated) if not count):
                errors.setdefault(row, nothing)
        if on_too_long != "error":
            return
        for row, count in enumerate(untruncated):
            if count <= limit:
                continue
            least = "at least " if row in parts and parts[row].reach is not None else ""
            errors.setdefault(
                row,
                TextTooLongError(
                    f"{least}{count:,} tokens, and the model takes {limit:,}; "
                    "shorten it or allow truncation"
                ),
            )

    def shown(self, length: int) -> str:
        """E.g. ``256 tokens``."""
        return f"{length:,} tokens"

    def constants(self, prompt: str) -> Feeds:
        """``prompt_length``, int64 ``[1]``, for models whose pooling leaves the prompt out."""
        if self._spec.include_prompt:
            return {}
        return {"prompt_length": np.array([self.prompt_length(prompt)])}

    def prompt_length(self, prompt: str) -> int:
        """Tokens that ``prompt`` takes at a text's start, without a closing special token.

        As sentence-transformers counts it for pooling with ``include_prompt=False``: the prompt
        alone is tokenized, and a special token at its end does not count.
        """
        if not prompt:
            return 0
        with failing():
            ids = self._tokenizer.encode(prompt).ids
        added = self._tokenizer.get_added_tokens_decoder()
        closes = bool(ids) and ids[-1] in added and added[ids[-1]].special
        return len(ids) - int(closes)

    def token_count(self, texts: Iterable[object], prompt: str) -> int:
        """Tokens of texts together, each with ``prompt`` before it and with special tokens, uncut.

        Raises:
            InputError: An item that is no text.
        """
        uncut = Tokenizer.from_str(self._tokenizer.to_str())
        uncut.no_truncation()
        checked = self._checked(texts, prompt)
        total = 0
        while part := list(islice(checked, COUNTED)):
            total += sum(map(len, uncut.encode_batch_fast(part)))
        return total

    def _checked(self, texts: Iterable[object], prompt: str) -> Iterator[str]:
        for index, text in enumerate(texts):
            try:
                whole = check_text(text)
            except InputError as e:
                raise e.at(index) from None
            if len(whole) > MAX_CHARACTERS:
                stated = f"{len(whole):,} characters, and at most {MAX_CHARACTERS:,} are counted"
                raise InputError(stated, index)
            yield prompt + whole

    def _quick(self) -> list[Tokenizer]:
        """The quicker tokenizer, if there is one; without a lock, which a fork might find held."""
        if self._plain is None:
            found = plain_tokenizer(self._tokenizer)
            self._plain = [] if found is None else [found]
        return self._plain

    def _encoded(self, prompted: list[str], *, many: bool) -> list[Encoding]:
        if len(prompted) == 1:  # without threads, which would take longer to start than this
            return [self._tokenizer.encode(prompted[0])]
        if not many or not self._quick():
            return self._tokenizer.encode_batch_fast(prompted)
        plain = list(map(is_plain, prompted))
        (tokenizer,) = self._quick()
        quick = iter(tokenizer.encode_batch_fast(list(compress(prompted, plain))))
        others = [text for text, is_so in zip(prompted, plain, strict=True) if not is_so]
        usual = iter(self._tokenizer.encode_batch_fast(others))
        return [next(quick if is_so else usual) for is_so in plain]

    def _untruncated(self, encoding: Encoding) -> int:
        """Tokens before truncation; what was cut off is in pieces with special tokens each."""
        if len(encoding) < self._spec.max_length:
            return len(encoding)
        return len(encoding) + sum(
            len(piece) - self._special_tokens for piece in encoding.overflowing
        )

    def _gather(
        self,
        encodings: list[Encoding],
        start: int,
        errors: dict[int, InputError],
    ) -> _Ids:
        """The ids of texts of which the first is row ``start``."""
        if self._spec.pad_to_max_length:
            for encoding in encodings:
                encoding.pad(self._spec.max_length, pad_id=self._spec.pad_token_id)
        total = sum(map(len, encodings))
        ids = np.fromiter(chain.from_iterable(map(_ids_of, encodings)), np.int64, total)
        if self.vocab_size is not None and total and int(ids.max()) >= self.vocab_size:
            for row, error in self._beyond(encodings, self.vocab_size):
                errors.setdefault(start + row, error)
        types = None
        if self._has_types:
            found = chain.from_iterable(map(_type_ids_of, encodings))
            types = np.fromiter(found, np.int64, total)
        return _Ids(ids, types)

    def _beyond(self, encodings: list[Encoding], size: int) -> Iterator[tuple[int, InputError]]:
        """Texts with a token id that the graph does not know, by row."""
        for row, encoding in enumerate(encodings):
            beyond = next((token for token in encoding.ids if token >= size), None)
            if beyond is not None:
                token = self._tokenizer.id_to_token(beyond)
                reason = (
                    f"its token {token!r} has id {beyond}, and the model knows ids below {size}"
                )
                yield row, InputError(f"{reason}; remove that word, or mend the tokenizer")

    def last_token(self) -> Feeds:
        """Model inputs of the tokenizer's last token id alone, each int64 ``[1, length]``."""
        added = self._tokenizer.get_added_tokens_decoder()
        last = max([self._tokenizer.get_vocab_size() - 1, *added])
        ids = np.full((1, self.limit if self._spec.pad_to_max_length else 1), last, np.int64)
        ones = np.ones_like(ids)
        return {"input_ids": ids, "attention_mask": ones, "token_type_ids": ones - 1}


class _Part(NamedTuple):
    """What is tokenized of a long text.

    Attributes:
        text: The text with the prompt, if that is not cut off.
        reach: The number of characters that were asked for, or None for the whole text.
        unsure: The number of tokens that are not those of the whole text, see `Cutter.cut`.
        source: What the part is of.
    """

    text: str
    reach: int | None
    unsure: int
    source: Whole

    def checked(self, prompt: str, *, left: bool) -> _Part:
        """The part with the prompt before it, unless the text's start is cut off.

        Raises:
            InputError: The part is refused by `check_text`.
        """
        try:
            check_text(self.text)
        except InputError:
            check_text(self.source.text)  # which says where in the whole text that is
            raise
        return self if left and self.reach is not None else self._replace(text=prompt + self.text)


class _Ids(NamedTuple):
    """Some texts, as `Tokens` has them."""

    ids: NDArray[np.int64]
    types: NDArray[np.int64] | None


def _groups(texts: Sequence[str]) -> Iterator[range]:
    """Rows of texts that are tokenized at a time."""
    start = total = 0
    for row, text in enumerate(texts):
        size = _bytes_of(text)
        if total + size > AT_A_TIME and row > start:
            yield range(start, row)
            start, total = row, 0
        total += size
    yield range(start, len(texts))


def _bytes_of(text: str) -> int:
    """About the bytes of a text in UTF-8, as normalizers leave it."""
    if text.isascii():
        return len(text)
    return len(text.encode(errors="surrogatepass")) + LARGEST_BYTES * text.count(LARGEST)


def _joined(
    groups: Sequence[_Ids],
    untruncated: Sequence[int],
    errors: Mapping[int, InputError],
    spec: TextInput,
    *,
    counted: bool,
) -> Tokens:
    ids, types = groups[0]
    if len(groups) > 1:
        ids = np.concatenate([group.ids for group in groups])
        found = [group.types for group in groups if group.types is not None]
        types = np.concatenate(found) if found else None
    # Lists until here: for one text, each function of NumPy would take longer than all of this.
    limit = spec.max_length
    cut = [count for count in untruncated if count > limit]
    lengths = [min(count, limit) for count in untruncated] if cut else untruncated
    if spec.pad_to_max_length:
        lengths = [limit] * len(untruncated)
    starts = np.fromiter(accumulate(lengths, initial=0), np.int64, len(lengths))
    seen = np.fromiter(lengths, np.int64, len(lengths))
    return Tokens(ids, types, seen, starts, cut, errors, spec.pad_token_id, counted)


def check_text(text: object, start: int = 0) -> str:
    """Return ``text``, or raise when no model should see it.

    Args:
        text: The text, which may be anything.
        start: The number of characters that come before it.

    Raises:
        InputError: The value is not a string, or has a NUL character or a lone surrogate (invalid
            UTF-8).
    """
    if not isinstance(text, str):
        raise InputError(
            f"expected a string, got {type(text).__name__}: {quoted(text)}{_fix(text)}"
        )
    problem = text_problem(text, start)
    if problem is not None:
        raise InputError(problem)
    return text


def _fix(item: object) -> str:
    """What to do about an item that is no string."""
    if item is None or isinstance(item, float) or type(item).__name__ in MISSING:
        return "; leave missing values out, or give an empty text"
    if isinstance(item, bytes):
        return "; decode it"
    return "; give each text as an item of its own" if isinstance(item, list | tuple) else ""

"""A tokenizer with some of its tokens: which others those need, and their new ids.

A text that needs none of the dropped tokens is split as before. WordPiece takes the longest token
that fits, which is there. BPE takes the first merge of its list that applies, and each merge that
led to a kept token is kept with its parts. Unigram takes the most probable pieces, and their
probabilities stay.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from fmrt.errors import ExportError

KINDS = ("WordPiece", "BPE", "Unigram", "WordLevel")
# The tokens of single bytes, in models that fall back to these.
BYTE_TOKENS = frozenset(f"<0x{byte:02X}>" for byte in range(256))


def vocabulary(data: Mapping[str, Any]) -> dict[str, int]:
    """Every token of a ``tokenizer.json`` with its id, added ones too.

    Raises:
        ExportError: The tokenizer is of another kind.
    """
    model = data["model"]
    if model.get("type") not in KINDS:
        raise ExportError(
            f"the vocabulary of a tokenizer of kind {model.get('type')!r} cannot be cut; it can be "
            f"of: {', '.join(KINDS)}"
        )
    if isinstance(model["vocab"], list):
        found = {piece: i for i, (piece, _) in enumerate(model["vocab"])}
    else:
        found = dict(model["vocab"])
    return found | {token["content"]: token["id"] for token in data.get("added_tokens") or ()}


def closed(data: Mapping[str, Any], needed: Iterable[int]) -> list[int]:
    """Ids to keep, ascending, so that texts of the needed ones are split as before.

    Args:
        data: The content of ``tokenizer.json``.
        needed: The ids that texts need.
    """
    ids = vocabulary(data)
    model = data["model"]
    kept = {*needed, *(token["id"] for token in data.get("added_tokens") or ())}
    kept |= {ids[token] for token in _always(data) if token in ids}
    if model["type"] == "BPE":
        _add_parts(model, ids, kept)
    return sorted(kept)


def _always(data: Mapping[str, Any]) -> Iterator[str]:
    """Tokens that any text may need: the unknown one, and those of single bytes."""
    model = data["model"]
    if model["type"] == "Unigram":
        if model.get("unk_id") is not None:
            yield model["vocab"][model["unk_id"]][0]
        # What an unknown character costs follows from the least probable piece.
        yield min(model["vocab"], key=lambda entry: float(entry[1]))[0]
    elif model.get("unk_token"):
        yield model["unk_token"]
    if model.get("byte_fallback"):
        yield from BYTE_TOKENS
    if model["type"] == "BPE" and _of_bytes(data):
        suffix = model.get("end_of_word_suffix") or ""
        for token in model["vocab"]:
            if len(token.removesuffix(suffix)) == 1:
                yield token


def _of_bytes(data: Mapping[str, Any]) -> bool:
    """Whether a text becomes bytes before it becomes tokens."""
    return any(part.get("type") == "ByteLevel" for part in _parts(data))


def _parts(node: object) -> Iterator[Mapping[str, Any]]:
    """Every normalizer and pre-tokenizer, those in sequences too."""
    if isinstance(node, Mapping):
        for name in ("normalizer", "pre_tokenizer"):
            yield from _parts(node.get(name))
        yield node
        for name in ("normalizers", "pretokenizers"):
            yield from (part for one in node.get(name) or () for part in _parts(one))


def _add_parts(model: Mapping[str, Any], ids: Mapping[str, int], kept: set[int]) -> None:
    """Add the parts that kept tokens are merged from, and theirs."""
    ways: dict[int, list[tuple[int, int]]] = {}
    for first, second, merged in _merges(model):
        if merged in ids and first in ids and second in ids:
            ways.setdefault(ids[merged], []).append((ids[first], ids[second]))
    left = list(kept)
    while left:
        for pair in ways.get(left.pop(), ()):
            new = set(pair) - kept
            kept |= new
            left += new


def _merges(model: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    prefix = model.get("continuing_subword_prefix") or ""
    for merge in model["merges"]:
        first, second = merge.split(" ") if isinstance(merge, str) else merge
        yield first, second, first + second.removeprefix(prefix)


def cut(data: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """The content of a ``tokenizer.json`` with the kept ids alone, numbered anew in their order."""
    new = {old: i for i, old in enumerate(kept)}
    found: dict[str, Any] = copy.deepcopy(dict(data))
    model = found["model"]
    if isinstance(model["vocab"], list):
        model["vocab"] = [e for i, e in enumerate(model["vocab"]) if i in new]
        if model.get("unk_id") is not None:
            model["unk_id"] = new[model["unk_id"]]
    else:
        if "merges" in model:
            own = {token for token, i in model["vocab"].items() if i in new}
            merges = zip(model["merges"], _merges(model), strict=True)
            model["merges"] = [merge for merge, parts in merges if own.issuperset(parts)]
        model["vocab"] = {token: new[i] for token, i in model["vocab"].items() if i in new}
    for token in found.get("added_tokens") or ():
        token["id"] = new[token["id"]]
    if found.get("padding"):
        found["padding"]["pad_id"] = new[found["padding"]["pad_id"]]
    _renumber(found.get("post_processor"), new)
    return found


def _renumber(processor: dict[str, Any] | None, new: Mapping[int, int]) -> None:
    """Put new ids into what adds special tokens."""
    if not processor:
        return
    for one in processor.get("processors") or ():
        _renumber(one, new)
    for token in (processor.get("special_tokens") or {}).values():
        token["ids"] = [new[i] for i in token["ids"]]
    for name in ("sep", "cls"):
        if isinstance(processor.get(name), list):
            text, old = processor[name]
            processor[name] = [text, new[old]]


def unreachable(data: Mapping[str, Any], tokenizer: Tokenizer) -> set[int]:
    """Ids of tokens that no text can have: BERT's normalizer or its splits take them apart.

    Empty for tokenizers of other kinds.
    """
    model = data["model"]
    kinds = [(data.get(part) or {}).get("type") for part in ("normalizer", "pre_tokenizer")]
    if model.get("type") != "WordPiece" or kinds != ["BertNormalizer", "BertPreTokenizer"]:
        return set()
    added = {token["content"] for token in data.get("added_tokens") or ()}
    prefix = model.get("continuing_subword_prefix") or "##"
    return {
        i
        for token, i in model["vocab"].items()
        if token not in added
        and token != model.get("unk_token")
        and not _reachable(token, prefix, tokenizer)
    }


def _reachable(token: str, prefix: str, tokenizer: Tokenizer) -> bool:
    inside = token.startswith(prefix) and len(token) > len(prefix)
    # A word that begins with a letter goes on with what the token holds.
    words = [f"a{token.removeprefix(prefix)}"] if inside else []
    return any(
        [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)] == [word]
        for word in [*words, token]
        for text in [tokenizer.normalizer.normalize_str(word)]
    )

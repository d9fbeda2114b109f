"""A quicker tokenizer, of the same token ids, for texts of nothing but printable ASCII."""

from __future__ import annotations

import json
import re

from tokenizers import Tokenizer

_BEYOND = re.compile(r"[^\t\n\r -~]")


def is_plain(text: str) -> bool:
    """Whether a text has printable ASCII, spaces, tabs and line ends alone."""
    return _BEYOND.search(text) is None


def plain_tokenizer(tokenizer: Tokenizer) -> Tokenizer | None:
    """What gives plain texts (`is_plain`) the ids that ``tokenizer`` gives them, or None.

    BERT's normalizer drops control characters, sets Chinese characters apart, takes accents away
    and lowers case, which is 40% of the time of tokenizing. In a plain text only case is left to
    lower. Line ends are its spaces, as BERT's pre-tokenizer splits at both. Added tokens must be
    looked for in the raw text, as special ones are, since what they meet is then the same.
    """
    spec = json.loads(tokenizer.to_str())
    normalizer = spec["normalizer"] or {}
    splits = (spec["pre_tokenizer"] or {}).get("type") == "BertPreTokenizer"
    raw = not any(token["normalized"] for token in spec["added_tokens"])
    if normalizer.get("type") != "BertNormalizer" or not splits or not raw:
        return None
    spec["normalizer"] = {"type": "Lowercase"} if normalizer["lowercase"] else None
    return Tokenizer.from_str(json.dumps(spec))

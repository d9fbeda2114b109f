"""Reference texts and the vectors that PyTorch gives them, one text at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from fmrt.bundle.bundle import Reference
from fmrt.export.quiet import quiet

# Longest reference text. A model of 8,192 or 32,768 tokens would need minutes for a full one, here
# and in every verification.
LONGEST = 2048

SENTENCES = (
    "a",
    "The cat sat on the mat.",
    "How do I reset my password?",
    "Embedding models map a text to a point, and texts with like meaning to points nearby.",
    "Water boils at 100 degrees Celsius at sea level, and at about 71 degrees on Mount Everest.",
    "def mean(values):\n    return sum(values) / len(values)",
    '{"name": "fmrt", "version": 1, "tags": ["onnx", "embedding"]}',
    "https://example.org/a/b?c=d&e=f#g",
    "SHOUTING TEXT, lower text, MiXeD TeXt 1234567890 !?.,;:-_()[]{}<>@#$%^&*",
    "naïve café, Ångström, Straße, fiancée, İstanbul",
    "e\u0301 o\u0308 n\u0303 (combining marks)",
    "日本語の文章を埋め込みます。",
    "中文句子也可以嵌入。",
    "Предложение на русском языке.",
    "هذه جملة باللغة العربية.",
    "זהו משפט בעברית.",
    "यह हिन्दी में एक वाक्य है।",
    "emoji 😀 👩‍👩‍👧 🇩🇪 👍🏽",
    "zero\u200bwidth, no\u00a0break, soft\u00adhyphen, \ufeffbyte order mark",
    "  leading and trailing spaces  ",
    "tabs\tand\nnew lines\r\n",
    "\U0001d4d4\U0001d4f6\U0001d4eb\U0001d4ee\U0001d4ed",
)
BLANKS = ("", " ", "\n\t ")
PARAGRAPH = (
    "A river begins where rain and snow gather on high ground. It runs downhill, joins other "
    "streams, cuts valleys into rock, carries sand and silt, and at last meets a lake or the sea. "
)


def reference_texts(
    count: Callable[[str], int], max_length: int, prompts: Iterable[str]
) -> list[tuple[str, str]]:
    """Texts and the prompt before each.

    Blank texts, one word, scripts of many languages, code, the model's prompts, and texts of
    exactly, just under and over the maximum length (those only up to 2,048 tokens).

    Args:
        count: A function that gives the number of a text's tokens.
        max_length: The largest number of tokens of a text.
        prompts: The prompts of the model.
    """
    # A tokenizer without special tokens gives none for a blank text, and no model embeds that.
    items = [
        (text, "") for text in (*BLANKS, *SENTENCES, *_long_texts(max_length, count)) if count(text)
    ]
    for prompt in dict.fromkeys(p for p in prompts if p):
        items += [(SENTENCES[1], prompt), (SENTENCES[3], prompt)]
    return items


def embed_references(
    count: Callable[[str], int],
    max_length: int,
    prompts: Iterable[str],
    embed: Callable[[str, str], NDArray[np.float32]],
) -> Reference:
    """Embed the reference texts in PyTorch, each alone, so that no padding has a part in it.

    Args:
        count: A function that gives the number of a text's tokens.
        max_length: The largest number of tokens of a text.
        prompts: The prompts of the model.
        embed: A function that gives the vector of a text and its prompt.
    """
    items = reference_texts(count, max_length, prompts)
    with torch.no_grad(), quiet():
        rows = [embed(text, prompt) for text, prompt in items]
    return Reference(
        items=[text for text, _ in items],
        prompts=[prompt for _, prompt in items],
        lengths=np.array([min(count(prompt + text), max_length) for text, prompt in items]),
        embeddings=np.stack(rows).astype(np.float32),
    )


def token_counter(tokenizer: PreTrainedTokenizerFast) -> Callable[[str], int]:
    """Counts a text's tokens, however many; the tokenizer neither cuts nor pads any more."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return lambda text: len(backend.encode(text).ids)


def _long_texts(max_length: int, count: Callable[[str], int]) -> list[str]:
    """Prose of just the maximum length, and over it; or of `LONGEST` tokens."""
    words = PARAGRAPH.split()
    limit = min(max_length, LONGEST)
    fitting, low, high = "", 1, limit
    while low <= high:
        middle = (low + high) // 2
        text = " ".join(words[i % len(words)] for i in range(middle))
        if count(text) <= limit:
            fitting, low = text, middle + 1
        else:
            high = middle - 1
    over = " ".join([fitting, PARAGRAPH, PARAGRAPH])
    return [fitting, over] if max_length <= LONGEST else [fitting]

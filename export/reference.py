"""Reference items and the vectors that PyTorch gives them, one text at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from fmrt.bundle import HeadReference, Reference
from fmrt.export.quiet import quiet
from fmrt.export.source import TextSource
from fmrt.manifest import Tower
from fmrt.reference import TOWERS, declared

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
    """Texts and the prompt in front of each.

    Blank texts, one word, scripts of many languages, code, the model's prompts, and texts of
    exactly, just under and over the maximum length (those only up to 2,048 tokens).

    Args:
        count: gives a text's tokens.
        max_length: of the model, in tokens.
        prompts: of the model.
    """
    # A tokenizer without special tokens gives none for a blank text, and no model embeds that.
    items = [
        (text, "") for text in (*BLANKS, *SENTENCES, *_long_texts(max_length, count)) if count(text)
    ]
    for prompt in dict.fromkeys(p for p in prompts if p):
        items += [(SENTENCES[1], prompt), (SENTENCES[3], prompt)]
    return items


def make_reference(source: TextSource) -> Reference:
    """Embed the reference items in PyTorch, each alone, so that no padding has a part in it."""
    count = _counter(source)
    items = reference_texts(count, source.max_length, source.model.prompts.values())
    lengths = [min(count(prompt + text), source.max_length) for text, prompt in items]
    with quiet():
        rows = [_embed(source, text, prompt) for text, prompt in items]
    return Reference(
        [text for text, _ in items],
        [prompt for _, prompt in items],
        np.array(lengths, np.int64),
        np.stack(rows).astype(np.float32),
    )


def write_references(
    references: Mapping[str, Reference],
    heads: Mapping[str, HeadReference],
    towers: Sequence[Tower],
    path: Path,
) -> None:
    """Write ``reference.safetensors``: the reference of each modality and of each head's task.

    The towers' options go there too, so that the runtime finds one that has changed since.
    """
    tensors: dict[str, NDArray[np.generic]] = {}
    metadata = {TOWERS: declared(towers)}
    for modality, reference in references.items():
        # safetensors takes an array's memory as it lies.
        tensors[f"{modality}.embeddings"] = np.ascontiguousarray(reference.embeddings)
        tensors[f"{modality}.lengths"] = reference.lengths
        entries: list[dict[str, str]] = []
        for i, (item, prompt) in enumerate(zip(reference.items, reference.prompts, strict=True)):
            if isinstance(item, str):
                entries.append({"text": item, "prompt": prompt})
            else:
                name = f"{modality}.item.{i}"
                tensors[name] = np.frombuffer(item, np.uint8)
                entries.append({"bytes": name})
        metadata[modality] = json.dumps(entries)
    for task, head in heads.items():
        metadata[task] = json.dumps(head.items)
        tensors.update({f"{task}.{name}": values for name, values in head.outputs.items()})
    path.write_bytes(save(tensors, metadata=metadata))


def _embed(source: TextSource, text: str, prompt: str) -> NDArray[np.float32]:
    vector: NDArray[np.float32] = source.model.encode(text, prompt=prompt, show_progress_bar=False)
    return vector


def _counter(source: TextSource) -> Callable[[str], int]:
    tokenizer = source.model.tokenizer.backend_tokenizer
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text).ids)


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

"""The model that a page embeds its queries with, and the programs that run it in a browser."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrt.bundle.bundle import Bundle, Reference
from fmrt.bundle.manifest import TextInput, Variant
from fmrt.embed_options import DEFAULTS
from fmrt.embedding.request import for_texts, prompt_text
from fmrt.encode import QUERY
from fmrt.errors import DataError, OptionError
from fmrt.verify import QUICK_TOKENS, TOLERANCES

# The packages of npm that the page holds, in the tested versions, and the files that it needs.
PACKAGES = ("onnxruntime-web@1.30.0", "@huggingface/tokenizers@0.2.0")
_FILES = {
    "ort": "onnxruntime-web/dist/ort.wasm.bundle.min.mjs",
    "wasm": "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm",
    "tokenizers": "@huggingface/tokenizers/dist/tokenizers.min.mjs",
}
_TOKENIZERS = ("BPE", "Unigram", "WordPiece")
# A browser's strings end at half a GiB, and base64 adds a third.
MOST_BYTES = 300_000_000
_SAME = 0.999


@dataclass(frozen=True)
class QueryModel:
    """A model of texts that is put into a page.

    Attributes:
        about: The facts that the page's program must know about it.
        parts: The content of its files, and of those that run it, by name.
    """

    about: Mapping[str, Any]
    parts: Mapping[str, bytes]


def query_model(package: str | Path, drawn: Bundle, node_modules: str | Path) -> QueryModel:
    """Read a package for a page, and the files that run it.

    Args:
        package: A bundle with a tower for texts. Of its variants, the one that the CPU takes is
            used.
        drawn: The bundle whose vectors are on the map.
        node_modules: The folder into which npm has installed `PACKAGES`.

    Raises:
        BundleError: The package cannot be used.
        DataError: The package is too large, or the packages of npm are missing.
        OptionError: The package is of another model than the map, one of the bundles embeds no
            texts, or the page cannot follow its prompt or its kind of tokenizer.
    """
    bundle = Bundle.open(package)
    for one, name in ((bundle, "package"), (drawn, "bundle")):
        if "text" not in one.manifest.modalities:
            raise OptionError(
                f"{name}={str(one.path)!r}; it embeds no texts, and a query in the page is a text"
            )
    variant = bundle.variant(None, "cpu", "text")
    size = variant.size + sum(record.size for record in variant.external.values())
    if size > MOST_BYTES:
        raise DataError(
            f"the graph of {str(package)!r} has {size / 1e6:,.0f} MB, and a page takes "
            f"{MOST_BYTES / 1e6:.0f}: make a package of a smaller variant, as --variant int8"
        )
    reference = bundle.reference("text")
    _check_same(reference, drawn, package)
    about = _about(bundle, variant, reference)
    parts = {**_files(bundle, variant), **_runtime(Path(node_modules))}
    return QueryModel(about, parts)


def _check_same(reference: Reference, drawn: Bundle, package: str | Path) -> None:
    """Compare PyTorch's vectors of the texts that both bundles hold."""
    others = drawn.reference("text")
    row_of = {key: i for i, key in enumerate(zip(others.prompts, others.items, strict=True))}
    keys = zip(reference.prompts, reference.items, strict=True)
    pairs = [(i, row_of[key]) for i, key in enumerate(keys) if key in row_of]
    rows = np.array(pairs, np.int64).reshape(-1, 2)
    a, b = reference.embeddings[rows[:, 0]], others.embeddings[rows[:, 1]]
    if not pairs or a.shape != b.shape or _cosines(a, b).min() < _SAME:
        raise OptionError(
            f"package={str(package)!r}; it is of another model than the map: make it with "
            f"fmrt package {drawn.path}"
        )


def _cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    found: NDArray[np.float64] = (a.astype(np.float64) * b).sum(axis=1) / lengths
    return found


def _about(bundle: Bundle, variant: Variant, reference: Reference) -> dict[str, Any]:
    tower = bundle.manifest.tower("text")
    spec = tower.input
    assert isinstance(spec, TextInput)  # noqa: S101  # the tower of texts
    prompt = prompt_text(tower, for_texts(bundle, DEFAULTS, {}, QUERY))
    if prompt and not spec.include_prompt:
        raise OptionError(
            f"package={str(bundle.path)!r}; its model leaves the prompt of a query out of pooling, "
            "which a page cannot do"
        )
    folder = PurePosixPath(variant.file).parent
    return {
        "name": f"{bundle.path.name} {variant.name}",
        "output": tower.embedding_output,
        "prompt": prompt,
        "longest": spec.max_length,
        "padding": spec.pad_token_id if spec.pad_to_max_length else None,
        "external": [
            (f"external{i}", str(PurePosixPath(name).relative_to(folder)))
            for i, name in enumerate(variant.external)
        ],
        "checks": _checks(reference, include_prompt=spec.include_prompt),
        "least": TOLERANCES[variant.precision].min_cosine,
    }


def _checks(reference: Reference, *, include_prompt: bool) -> list[dict[str, Any]]:
    """Some short texts with PyTorch's vectors. The page embeds them before it answers."""
    plain = sorted(
        (int(length), row, prompt + item)
        for row, (prompt, item, length) in enumerate(
            zip(reference.prompts, reference.items, reference.lengths, strict=True)
        )
        if isinstance(item, str) and (include_prompt or not prompt)
    )
    totals = np.cumsum([length for length, _, _ in plain])
    few = [one for one, total in zip(plain, totals, strict=True) if total <= QUICK_TOKENS]
    return [
        {"text": text, "vector": [round(float(x), 6) for x in reference.embeddings[row]]}
        for _, row, text in few or plain[:1]
    ]


def _runtime(folder: Path) -> dict[str, bytes]:
    missing = [name for name in _FILES.values() if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"there is no {str(folder / missing[0])!r}, which embeds queries in a page: run npm "
            f"install {' '.join(PACKAGES)}, or say where they are with --node-modules"
        )
    return {key: (folder / name).read_bytes() for key, name in _FILES.items()}


def _files(bundle: Bundle, variant: Variant) -> dict[str, bytes]:
    tokenizer = bundle.file("tokenizer.json").read_bytes()
    kind = json.loads(tokenizer)["model"].get("type")
    if kind not in _TOKENIZERS:
        raise OptionError(
            f"package={str(bundle.path)!r}; its tokenizer is of kind {kind!r}, and a page knows "
            f"{', '.join(_TOKENIZERS)}"
        )
    graph, *external = bundle.checked_graph(variant).records
    return {
        "tokenizer": tokenizer,
        "graph": graph.read_bytes(),
        **{f"external{i}": file.read_bytes() for i, file in enumerate(external)},
    }

"""The model card of a bundle, ``README.md``: what it is, what was measured, how others use it.

What fmrt writes stands between two marks. When variants are added or measured again, that part is
written again, and the front matter and all that a user wrote around it stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fmrt.bundle.bundle import Bundle
from fmrt.bundle.card_recipes import recipes
from fmrt.bundle.manifest import NOBODY, OWN_GRAPH, PYTORCH, Manifest, Tower, Variant
from fmrt.system.whole_file import write_whole

CARD_FILE = "README.md"
BEGIN, END = "<!-- fmrt: begin -->", "<!-- fmrt: end -->"
# Stands for the repository's id in a card that was not pushed.
PLACEHOLDER = "ORG/NAME"
# The hub's task of a bundle, by its modalities.
PIPELINES = {
    ("text",): "sentence-similarity",
    ("image",): "image-feature-extraction",
    ("audio",): "feature-extraction",
    ("text", "image"): "zero-shot-image-classification",
    ("text", "audio"): "feature-extraction",
}
TAGS = {
    ("text",): ("transformers.js", "sentence-transformers", "sentence-similarity"),
    ("image",): ("transformers.js",),
    ("audio",): (),
    ("text", "image"): ("transformers.js",),
    ("text", "audio"): ("zero-shot-audio-classification",),
}
SEGMENTATION = "mask-generation"
_ERRORS = {
    PYTORCH: "The errors are the distance from PyTorch's vectors over reference items.",
    OWN_GRAPH: "The errors are the distance from the fp32 graph's own vectors, not PyTorch's.",
    NOBODY: "No errors were measured, as there is no reference.",
}


def front_matter(manifest: Manifest, stated: Mapping[str, Any]) -> dict[str, Any]:
    """The card's metadata.

    Args:
        manifest: The bundle's manifest.
        stated: Facts about the source: ``license``, ``base_model``, ``language`` and such.
    """
    tags = ["onnx", "feature-extraction", *TAGS[manifest.modalities], manifest.model_type]
    return {
        **stated,
        "library_name": "fmrt",
        "pipeline_tag": SEGMENTATION if manifest.heads else PIPELINES[manifest.modalities],
        "tags": list(dict.fromkeys(tags)),
    }


def write_card(bundle: Bundle, stated: Mapping[str, Any]) -> None:
    """Write the card of a new bundle; ``stated`` is as for `front_matter`."""
    from huggingface_hub import ModelCardData  # start-up stays quick

    data = ModelCardData(**front_matter(bundle.manifest, stated))
    head = f"---\n{data.to_yaml()}\n---\n"
    _write(bundle.path, f"{head}\n{_marked(bundle, PLACEHOLDER)}")


def renew_card(bundle: Bundle) -> None:
    """Write the part between the marks again, if there is a card with them."""
    path = bundle.path / CARD_FILE
    if path.is_file():
        text = read_card(path)
        renewed = card_for(bundle, text, PLACEHOLDER)
        if renewed != text:
            _write(bundle.path, renewed)


def read_card(path: Path) -> str:
    """Text of a card; bytes that are not UTF-8 come through, as `card_bytes` writes them."""
    return path.read_bytes().decode(errors="surrogateescape")


def card_bytes(text: str) -> bytes:
    """A card's text as a file has it."""
    return text.encode(errors="surrogateescape")


def card_for(bundle: Bundle, text: str, repository: str) -> str:
    """Return a card's text with the part between the marks as it is now.

    Args:
        bundle: The card's bundle.
        text: The card's text; one without the marks is returned as it is.
        repository: The hub id that its examples name.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        return text
    return before + _marked(bundle, repository).rstrip("\n") + after


def _write(directory: Path, text: str) -> None:
    write_whole(directory / CARD_FILE, card_bytes(text))


def _marked(bundle: Bundle, repository: str) -> str:
    manifest = bundle.manifest
    source = manifest.source
    at = f" at revision `{source.revision}`" if source.revision else ""
    more = "".join(f", with the adapter `{a.model}` times {a.weight:g}" for a in source.adapters)
    sections = [
        BEGIN,
        f"# {source.model.rsplit('/', 1)[-1]}, in ONNX",
        f"`{source.model}`{at}{more}, {_made(manifest)}",
        _table(("", ""), _facts(manifest)),
        "## Graphs",
        _table(
            ("variant", "file", "runs on", "precision", "size", "max abs error", "mean cosine",
             "worst cosine"),
            map(_graph, manifest.graphs),
        ),
        _ERRORS[manifest.reference],
        *_quantization(manifest),
        "## Use it",
        *(f"### {recipe.title}\n\n```{recipe.language}\n{recipe.code}\n```"
          for recipe in recipes(bundle, repository)),
        END,
    ]  # fmt: skip
    return "\n\n".join(sections) + "\n"


def _made(manifest: Manifest) -> str:
    """The rest of a sentence about the model, and what was verified of it."""
    version = manifest.fmrt_version
    if manifest.unverified is not None:
        return (
            f"whose ONNX graphs, made by another tool, were adopted by fmrt {version}. They are "
            f"{manifest.unverified}."
        )
    return (
        f"exported by fmrt {version} to ONNX graphs that end in the embedding. Each was checked "
        "against PyTorch with ONNX Runtime before this card was written; `fmrt verify` does it "
        "again."
    )


def _facts(manifest: Manifest) -> list[Sequence[str]]:
    facts: list[Sequence[str]] = [
        ("architecture", f"`{manifest.model_type}`"),
        ("dimensions", str(manifest.dim)),
    ]
    if manifest.matryoshka_dims:
        facts.append(("shorter lengths", ", ".join(map(str, manifest.matryoshka_dims))))
    for tower in manifest.towers:
        facts += _tower(tower)
    return facts


def _tower(tower: Tower) -> list[Sequence[str]]:
    unit = ", then unit length" if tower.normalize else ""
    facts: list[Sequence[str]] = [(f"{tower.modality}: pooling", tower.pooling + unit)]
    if tower.longest_text:
        facts.append(("text: longest", f"{tower.longest_text:,} tokens"))
    prompts = getattr(tower.input, "prompts", {})
    facts += [(f"prompt `{n}`", f"`{text!r}`") for n, text in prompts.items() if text]
    return facts


def _graph(variant: Variant) -> Sequence[str]:
    parity, size = variant.parity, variant.size + sum(r.size for r in variant.external.values())
    measured = (
        ("not measured", "", "")
        if parity is None
        else (
            f"{parity.max_abs_error:.1e}",
            f"{parity.mean_cosine:.6f}",
            f"{parity.min_cosine:.6f}",
        )
    )
    provider = "all" if variant.provider == "any" else variant.provider
    what = (f"`{variant.name}`", f"`{variant.file}`", provider, variant.precision)
    return (*what, f"{size / 1e6:,.1f} MB", *measured)


def _quantization(manifest: Manifest) -> list[str]:
    rows = [
        (
            f"`{v.name}`",
            f"{v.quality.items:,}",
            f"{v.quality.mean_cosine:.6f}",
            f"{v.quality.min_cosine:.6f}",
            "" if v.quality.speed is None else f"{v.quality.speed:.2f} on {v.quality.cpu}",
        )
        for v in manifest.graphs
        if v.quality is not None
    ]
    if not rows:
        return []
    header = ("variant", "items", "mean cosine", "worst cosine", "times fp32's speed")
    words = "Cosines with the fp32 vectors, over items that no choice was made on."
    return ["## Quantization", words, _table(header, rows)]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in lines)

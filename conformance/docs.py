"""``docs/models.md``, from the registries of the tests and the outcomes of the conformance run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from conformance.outcome import OUT, REFUSED, UNTESTED, VERIFIED, Outcome
from conformance.results import Results
from conformance.scope import model_types
from tests.export.audio import AUDIO
from tests.export.models import DECODERS, ENCODERS
from tests.export.reference import FILE_ERROR, TEXT_ERROR
from tests.export.sam import MODELS as SEGMENTERS
from tests.export.test_adapter import TARGETS
from tests.export.test_towers import TOWERS
from tests.export.vision import VISION

DOCS = Path(__file__).parents[1] / "docs/models.md"
MODALITIES = {"text": "text", "image": "pixels", "audio": "audio"}
FAMILIES = "test_families.py"
# What transformers' messages go on with, behind the reason.
ADVICE = (
    "; those that are",
    "For more information",
    " but it was not found",
    " If you were trying",
)


@dataclass(frozen=True)
class Row:
    """A family of the support table, as its tests have it."""

    family: str
    model_type: str
    pooling: str
    raw: str
    tolerance: float
    tests: str


def rows() -> list[Row]:
    """One for each model type that the tests compare with PyTorch, in the order of the tests."""
    text, image, sound = "strings", "image files", "sound files"
    prompts = "image files, points, boxes"
    all_rows = [
        *(Row("Text encoder", t.model_type, "mean", text, TEXT_ERROR, FAMILIES) for t in ENCODERS),
        *(Row("Decoder", t.model_type, "last token", text, TEXT_ERROR, FAMILIES) for t in DECODERS),
        *(
            Row("Vision", t.model_type, t.pooling, image, FILE_ERROR, "test_vision.py")
            for t in VISION
        ),
        *(
            Row("Segmentation", name, "mean; masks", prompts, TEXT_ERROR, "test_segment.py")
            for name in SEGMENTERS
        ),
        *(Row("Audio", t.model_type, t.pooling, sound, FILE_ERROR, "test_audio.py") for t in AUDIO),
        *(
            Row("Two towers", name, "projection", _two(name), FILE_ERROR, "test_towers.py")
            for name in TOWERS
        ),
        *(
            Row("LoRA on", name, "the base's", text, TEXT_ERROR, "test_adapter.py")
            for name in TARGETS
        ),
    ]
    return list({(row.family, row.model_type): row for row in all_rows}.values())


def _two(model_type: str) -> str:
    return f"strings, {'sound' if model_type == 'clap' else 'image'} files"


def render(results: Results) -> str:
    """The page."""
    return TEMPLATE.format(
        support="\n".join(map(_support_row, rows())),
        version=results.transformers,
        counts=_counts(results.outcomes),
        refused=_reasons(results.outcomes, (REFUSED, UNTESTED)),
        outside=_reasons(results.outcomes, (OUT,)),
        verified=_verified(results.outcomes),
    )


def _support_row(row: Row) -> str:
    cells = (
        row.family,
        f"`{row.model_type}`",
        row.pooling,
        row.raw,
        f"{row.tolerance:g}",
        f"`{row.tests}`",
    )
    return f"| {' | '.join(cells)} |"


def _counts(outcomes: Mapping[str, Outcome]) -> str:
    lines = ["| input | model types | verified | |", "|---|---|---|---|"]
    inside = [o for o in outcomes.values() if o.status != OUT]
    for modality, name in MODALITIES.items():
        lines.append(_count(name, [o for o in inside if o.modality == modality]))
    lines.append(_count("**all**", inside))
    waiting = [name for name in model_types() if name not in outcomes]
    if waiting:
        lines.append(f"| not run yet | {len(waiting)} | | |")
    return "\n".join(lines)


def _count(name: str, outcomes: Iterable[Outcome]) -> str:
    counted = Counter(o.status for o in outcomes)
    total = counted.total()
    return f"| {name} | {total} | {counted[VERIFIED]} | {counted[VERIFIED] / max(total, 1):.0%} |"


def _reasons(outcomes: Mapping[str, Outcome], statuses: tuple[str, ...]) -> str:
    """Reasons with the model types they hold for, the most frequent first."""
    of: dict[str, list[str]] = {}
    for o in outcomes.values():
        if o.status in statuses:
            of.setdefault(_general(o), []).append(o.model_type)
    ordered = sorted(of.items(), key=lambda item: (-len(item[1]), item[0]))
    lines = [f"| {_cell(reason)} | {', '.join(sorted(types))} |" for reason, types in ordered]
    return "\n".join(["| reason | model types |", "|---|---|", *lines])


def _general(o: Outcome) -> str:
    """The reason without what is particular to a model type: its name, numbers, other kinds."""
    reason = re.split("|".join(ADVICE), o.reason)[0]
    reason = re.sub(rf"\b{re.escape(o.model_type)}\b model", "model", reason)
    reason = re.sub(r"\(fp32: max abs error.*?\)", "", reason)
    return reason if o.status != UNTESTED else f"no tiny model could be made: {reason}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").strip().rstrip(".")


def _verified(outcomes: Mapping[str, Outcome]) -> str:
    lines = ["| input | model types |", "|---|---|"]
    for modality, name in MODALITIES.items():
        types = [
            t for t, o in sorted(outcomes.items()) if (o.modality, o.status) == (modality, VERIFIED)
        ]
        lines.append(f"| {name} | {', '.join(types)} |")
    return "\n".join(lines)


TEMPLATE = """# Models

This page is written by `python -m conformance --docs` from the tests' own registries and from
`conformance/results.json`; a test fails when it is stale.

## Families under test

For each of these, raw input goes through the torch-free runtime and is compared with PyTorch and
Hugging Face's own preprocessing, one item at a time, on a seeded tiny model of the architecture.
The tolerance is the largest error of a component relative to the largest component; every item's
cosine is at least 0.99999; items together equal items alone; their number, lengths and sizes are
not those of the conversion. Decoders are compared with mean and last-token pooling, and padded on
either side. The pooling is the default of a directory that states none; a sentence-transformers
directory's own modules come first.

| family | model type | pooling | compared input | tolerance | tests/export/ |
|---|---|---|---|---|---|
{support}

sentence-transformers directories (Dense, LayerNorm, Normalize, prompts, both forms of the files)
are in `test_modules.py`; EmbeddingGemma's and Qwen3-Embedding's form in `test_embedding_models.py`;
adapters in `test_adapter.py`; a real model, all-MiniLM-L6-v2, in `test_minilm.py`.

A directory whose first module is a StaticEmbedding (model2vec) becomes a look-up and a mean.
One whose first module is CLIP or its like becomes two towers, normalized if a module says so. A
SentencePiece model without a `tokenizer.json` is converted.

Rerankers (CrossEncoder, `ForSequenceClassification`) and other heads for tasks, SparseEncoders and
ColBERT models are refused by name; `--pooling MODE` exports the model beneath. What a hostile or
broken directory gives is in `test_directories.py`.

## Every other model type

Any model type that transformers' `AutoModel` knows and that takes text, pixels or audio alone is
tried the same way. It is accepted only if the exported graph gives PyTorch's vectors, and refused
with the reason otherwise; nothing is left behind then. `python -m conformance` makes a tiny
random model of every such type (transformers {version}), with a real tokenizer, image processor or
feature extractor, and exports it as `fmrt export` does:

{counts}

Encoder-decoders give their encoder. A model that padding changes (FNet, block-sparse attention) is
run on texts of one length at a time. Image types are run behind ViT's image processor: whether a
checkpoint's own processor can be run without torch is checked when it is exported. Sparse attention
that attends to the 2,048 best positions is tried on texts that have fewer, as most have.

### Verified

{verified}

### Refused

{refused}

### Out of scope

These take more than one kind of input, or give something other than an embedding.

{outside}
"""

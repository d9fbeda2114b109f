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
# What transformers' messages go on with after the reason.
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

This page says which model types fmrt exports, and how that is known. Read it to see whether your
model works. A model type is the `model_type` of a model's `config.json`. `python -m conformance
--docs` writes this page from the tests' own tables and from `conformance/results.json`, and a
test fails if it is out of date.

In short, these work:

- **texts**: encoders such as BERT, RoBERTa, ModernBERT and T5, and decoders such as Qwen3, Llama
  and Gemma 3, padded on either side,
- **images**: ViT, DINOv2, DINOv3, SigLIP, ConvNeXt, ResNet and others, models of timm, and plain
  torch checkpoints of ResNets through `python -m fmrt.export.resnet`,
- **sounds**: wav2vec2, HuBERT, WavLM, Whisper, AST, Parakeet and others,
- **texts with images or sounds**: CLIP, SigLIP and CLAP,
- **segmentation**: SAM, SAM-HQ and SAM 2,
- **adapters**: LoRA, rsLoRA and DoRA, also several with weights,
- directories of sentence-transformers, in their old and new form, with Transformer, Pooling
  (every mode, and several), Dense, LayerNorm and Normalize modules and with prompts.

## Families under test

For each of these families, a test compares the torch-free runtime with PyTorch and with Hugging
Face's own preprocessing. It starts from raw input and uses a tiny model of the architecture with
seeded random weights.

- PyTorch embeds one item at a time. The runtime embeds items together and alone, and both must be
  equal.
- The number, lengths and sizes of the items are not those of the conversion.
- The tolerance is the largest error of a component, relative to the largest component. Every
  item's cosine is at least 0.99999.
- Decoders are compared with mean and last-token pooling, and with padding on either side.
- The column "pooling" gives the default of a directory that states none. The modules of a
  sentence-transformers directory come first.

| family | model type | pooling | compared input | tolerance | tests/export/ |
|---|---|---|---|---|---|
{support}

Other tests are in `test_modules.py` (sentence-transformers' Dense, LayerNorm and Normalize
modules, prompts, both forms of the files), `test_embedding_models.py` (the form of EmbeddingGemma
and Qwen3-Embedding), `test_adapter.py` (adapters) and `test_minilm.py` (a real model,
all-MiniLM-L6-v2).

If a directory's first module is a StaticEmbedding (model2vec), its graph is a look-up and a mean.
If the first module is CLIP or a model like it, the bundle has two towers, which are normalized if
a module says so. A SentencePiece model without a `tokenizer.json` is converted.

fmrt refuses rerankers (CrossEncoder, `ForSequenceClassification`), other heads for tasks,
SparseEncoders and ColBERT models, and says which one it found. `--pooling MODE` exports the model
beneath. `test_directories.py` shows what a hostile or broken directory gives.

## Every other model type

fmrt tries any model type that transformers' `AutoModel` knows and that takes text, pixels or
audio alone. It accepts the model only if the exported graph gives PyTorch's vectors. Otherwise it
refuses the model with the reason, and writes nothing. `python -m conformance` does this
for every such type of transformers {version}. It makes a tiny random model with a real tokenizer,
image processor or feature extractor, and exports it as `fmrt export` does:

{counts}

- Encoder-decoders give their encoder.
- A model whose vectors change with padding (FNet, block-sparse attention) gets batches of texts
  of one length.
- Image types are tried with ViT's image processor. Whether the runtime can replace a checkpoint's
  own processor is checked when that checkpoint is exported.
- Sparse attention to the 2,048 best positions is tried on texts that have fewer positions, as
  most have.

### Verified

{verified}

### Refused

{refused}

### Out of scope

These types take more than one kind of input, or give something other than an embedding.

{outside}
"""

"""The card of a package: what it takes and what it is worth, measured on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tokenizers import Tokenizer

from fmrt._version import __version__
from fmrt.bundle.bundle import Bundle
from fmrt.bundle.manifest import Variant
from fmrt.embedding.engine import Engine
from fmrt.errors import OptionError
from fmrt.export.quantize.items import own_items
from fmrt.footprint import Footprint, measure_footprint
from fmrt.preprocess import TOKENIZER_FILE
from fmrt.session import runtime_version
from fmrt.system.cores import available_cores, cpu_name
from fmrt.verify import check, measure

CARD, VALUES = "PACKAGE.md", "PACKAGE.json"
MB = 1e6
# Items that are embedded one by one for the time of one.
TIMED = 8
QUERIES = (
    "how to read a file line by line",
    "what is the capital of Mongolia",
    "restart a service after it failed",
    "difference between a list and a tuple",
    "cheap flights to Lisbon in May",
    "why does bread rise",
    "reset my password",
    "symptoms of iron deficiency",
)


@dataclass(frozen=True)
class Row:
    """What was measured of one variant.

    Attributes:
        variant: The name of the variant.
        modality: The modality of its tower.
        footprint: The memory and time of a process that embeds with it.
        reference_cosine: The mean cosine with PyTorch's vectors of the reference items.
        worst_cosine: The worst of these.
        items: The number of held-out items; of texts, those that need no dropped token.
        mean_cosine: The mean cosine of their vectors with the whole bundle's in fp32; None where
            that has no such variant, or there are no such items.
    """

    variant: str
    modality: str
    footprint: Footprint
    reference_cosine: float
    worst_cosine: float
    items: int
    mean_cosine: float | None


def write_card(made: Bundle, source: Bundle, place: Path, say: Callable[[str], None]) -> None:
    """Measure every variant that the CPU runs, and write the card into the package's folder.

    Args:
        made: The package, as a folder.
        source: The bundle that it was made of.
        place: The package as it will be used: the folder, or the single file.
        say: A function that takes the card's lines.
    """
    variants = [v for v in made.manifest.variants if v.provider in ("any", "cpu")]
    rows = [_row(made, source, variant, place) for variant in variants]
    total = sum(path.stat().st_size for path in _files(place))
    values = {
        "bytes": total,
        "cpu": cpu_name(),
        "cores": available_cores(),
        "onnxruntime": runtime_version(),
        "fmrt": __version__,
        "source": source.manifest.source.model,
        "variants": [asdict(row) for row in rows],
    }
    lines = list(_lines(rows, total))
    (made.path / VALUES).write_text(json.dumps(values, indent=1) + "\n", "utf-8")
    head = f"# Package of {Path(source.manifest.source.model).name}\n\n"
    (made.path / CARD).write_text(head + "\n".join(f"- {line}" for line in lines) + "\n", "utf-8")
    for line in lines:
        say(line)


def _files(place: Path) -> Iterable[Path]:
    return [place] if place.is_file() else (p for p in place.rglob("*") if p.is_file())


def _lines(rows: list[Row], total: int) -> Iterable[str]:
    yield f"{total / MB:.2f} MB on disk"
    for row in rows:
        found = row.footprint
        peak = "unknown" if found.peak_bytes is None else f"{found.peak_bytes / MB:.0f} MB"
        yield (
            f"{row.variant} of {row.modality}s: peak resident memory {peak} of a whole process, "
            f"{found.query_ms:.1f} ms a query on one thread, first vector after "
            f"{found.first_seconds:.2f} s"
        )
        against = (
            ""
            if row.mean_cosine is None
            else f", {row.mean_cosine:.6f} with fp32 over {row.items} held-out items"
        )
        yield (
            f"{row.variant} of {row.modality}s: mean cosine {row.reference_cosine:.6f} with "
            f"PyTorch over the reference items, worst {row.worst_cosine:.6f}{against}"
        )
    yield (
        f"measured with onnxruntime {runtime_version()} on {cpu_name()}, "
        f"{available_cores()} cores to use"
    )


def _row(made: Bundle, source: Bundle, variant: Variant, place: Path) -> Row:
    modality = variant.modality
    reference = made.reference(modality)
    items = QUERIES if modality == "text" else reference.items[:TIMED]
    footprint = measure_footprint(place, variant.name, modality, items)
    engine = Engine(made, variant.name, modality=modality)
    try:
        parity = check(engine, reference).parity
        held_out = _held_out(modality)
        if modality == "text":
            held_out = _kept(made, source, held_out)
        cosine = _against(engine, source, modality, held_out) if held_out else None
    finally:
        engine.close()
    return Row(
        variant.name,
        modality,
        footprint,
        parity.mean_cosine,
        parity.min_cosine,
        len(held_out),
        cosine,
    )


def _held_out(modality: str) -> list[object]:
    try:
        return own_items(modality).held_out
    except OptionError:  # a Python without its library's source
        return []


def _kept(made: Bundle, source: Bundle, texts: list[object]) -> list[object]:
    """Texts with the same tokens as in the whole bundle: the others say nothing of the graph."""
    old, new = (Tokenizer.from_buffer(b.file(TOKENIZER_FILE).read_bytes()) for b in (source, made))
    return [t for t in texts if old.encode(str(t)).tokens == new.encode(str(t)).tokens]


def _against(engine: Engine, source: Bundle, modality: str, items: list[object]) -> float | None:
    """The mean cosine with the whole bundle's fp32 vectors."""
    if not any((v.modality, v.precision) == (modality, "fp32") for v in source.manifest.variants):
        return None
    whole = Engine(source, modality=modality)
    try:
        return measure(engine.vectors(items), whole.vectors(items)).mean_cosine
    finally:
        whole.close()

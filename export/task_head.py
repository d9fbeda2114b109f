"""Heads of a bundle: their graphs written, and checked against PyTorch with the runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from fmrt.bundle import Bundle
from fmrt.errors import ExportError
from fmrt.export.graph_file import write_graph
from fmrt.export.part import HeadPart
from fmrt.export.rewrite import optimize_for_cpu
from fmrt.export.trace import trace
from fmrt.manifest import Head, Manifest, Parity, Variant
from fmrt.segment import SegmentEngine
from fmrt.verify import ParityReport, check_head

Report = Callable[[str], None]


def write_head(part: HeadPart, model_type: str, directory: Path, opset: int | None) -> Head:
    """Convert a head, and write its portable graph and the one for the CPU.

    Raises:
        ExportError: it cannot be converted.
    """
    graph = trace(part, model_type, opset)
    part.finish(graph)
    variants = [write_graph(graph, directory, _variant(part, "fp32", "", "any"))]
    optimize_for_cpu(graph)
    variants.append(write_graph(graph, directory, _variant(part, "fp32-cpu", "_cpu", "cpu")))
    return dataclasses.replace(part.head, variants=tuple(variants))


def _variant(part: HeadPart, name: str, suffix: str, provider: str) -> Variant:
    file = f"onnx/{part.stem}{suffix}.onnx"
    return Variant(name, file, provider, "fp32", "", 0, part.head.modality)


def verified_heads(bundle: Bundle, say: Report) -> Manifest:
    """The manifest with the parity of each variant of a head; as for towers, a bad one is left out.

    Raises:
        ExportError: a portable graph does not give PyTorch's outputs.
    """
    heads = tuple(_verified(bundle, head, say) for head in bundle.manifest.heads)
    return dataclasses.replace(bundle.manifest, heads=heads)


def _verified(bundle: Bundle, head: Head, say: Report) -> Head:
    kept: list[Variant] = []
    for variant in head.variants:
        reports = check_head(SegmentEngine(bundle, decoder=variant.name), bundle)
        verdict = f"{variant.name} ({head.task}): " + "; ".join(map(_said, reports))
        if all(report.passed for report in reports):
            kept.append(dataclasses.replace(variant, parity=_worst(reports)))
            say(f"verified {verdict}")
        elif variant.provider == "any":
            raise ExportError(f"the graph does not give PyTorch's outputs ({verdict}); no bundle")
        else:
            (bundle.path / variant.file).unlink()
            say(f"left out {verdict}: not PyTorch's outputs")
    return dataclasses.replace(head, variants=tuple(kept))


def _said(report: ParityReport) -> str:
    output = report.modality.rsplit(maxsplit=1)[-1]
    return f"{output} max abs error {report.parity.max_abs_error:.1e}"


def _worst(reports: Sequence[ParityReport]) -> Parity:
    """The worst of each figure over a head's outputs."""
    found = [report.parity for report in reports]
    return Parity(
        max(parity.max_abs_error for parity in found),
        min(parity.mean_cosine for parity in found),
        min(parity.min_cosine for parity in found),
    )

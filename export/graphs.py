"""Writes the graphs of a part: the portable one, and those for one execution provider."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from fmrt.bundle.manifest import TaskHead, Variant
from fmrt.export.choices import Report
from fmrt.export.graph_file import add_form, unwritten, write_graph
from fmrt.export.part import HeadPart, Part, TowerPart
from fmrt.export.rewrite import graphs_for_cuda, optimize_for_cpu
from fmrt.export.rewrite.half import HALF_TYPES, to_half
from fmrt.export.trace import TRANSFORMERS, trace

NOT_REWRITTEN = "no graph pass finds its pattern: the portable graph is left for the CPU"


@dataclass(frozen=True)
class GraphWriter:
    """Traces parts, and writes their graphs into a bundle.

    Attributes:
        directory: The directory of the bundle.
        model_type: The model type for messages.
        opset: The ONNX opset version, or None for the converter's own default.
        exporter: The package that converts.
        say: A function that takes lines for the user.
        cuda: Whether towers get graphs for GPUs.
    """

    directory: Path
    model_type: str
    opset: int | None
    exporter: str
    say: Report
    cuda: bool

    def tower(self, part: TowerPart) -> list[Variant]:
        """Write a tower's graphs.

        Raises:
            ExportError: It cannot be converted.
        """
        graph = trace(part, self.model_type, self.opset, self.exporter)
        written = [self._portable(graph, part), *(self._for_cuda(graph, part) if self.cuda else ())]
        found = optimize_for_cpu(graph, part.tower.embedding_output, part.tower.longest_text)
        if self.exporter == TRANSFORMERS:
            return [*written, self._for_cpu(graph, part)]
        # The passes were made for the graphs of the other exporter.
        applied = [name for name, count in found.items() if count]
        if not applied:
            self.say(NOT_REWRITTEN)
            return written
        self.say(f"rewritten for the CPU: {', '.join(applied)}")
        return [*written, self._for_cpu(graph, part)]

    def head(self, part: HeadPart) -> TaskHead:
        """Write a head's graphs.

        Raises:
            ExportError: It cannot be converted.
        """
        graph = trace(part, self.model_type, self.opset, self.exporter)
        part.finish(graph)
        portable = self._portable(graph, part)
        optimize_for_cpu(graph)
        return dataclasses.replace(part.head, variants=(portable, self._for_cpu(graph, part)))

    def _portable(self, graph: ir.Model, part: Part) -> Variant:
        return self._write(graph, unwritten("fp32", part.stem, "", "any", part.modality))

    def _for_cpu(self, graph: ir.Model, part: Part) -> Variant:
        return self._write(graph, unwritten("fp32-cpu", part.stem, "_cpu", "cpu", part.modality))

    def _for_cuda(self, portable: ir.Model, part: TowerPart) -> list[Variant]:
        """Write the graphs for GPUs; the portable one stays as it is."""
        written: dict[str, Variant] = {}
        embedding = part.tower.embedding_output
        precisions = ("fp32", *HALF_TYPES)
        for precision, form, graph in graphs_for_cuda(portable, precisions, embedding):
            if precision in HALF_TYPES:
                to_half(graph, precision)
            if precision in written:
                written[precision] = add_form(graph, self.directory, written[precision], form)
            else:
                written[precision] = self._first_form(graph, part, precision, form)
        return list(written.values())

    def _first_form(self, graph: ir.Model, part: Part, precision: str, form: str) -> Variant:
        name, suffix = f"{precision}-cuda", f"_{precision}_cuda"
        blank = unwritten(name, part.stem, suffix, "cuda", part.modality, precision)
        blank = dataclasses.replace(blank, form=form)
        return write_graph(graph, self.directory, blank, mapped=True)

    def _write(self, graph: ir.Model, variant: Variant) -> Variant:
        return write_graph(graph, self.directory, variant)

"""Runs graphs over raw items in ONNX Runtime: their embeddings, and any tensor inside."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from fmrt.arrays import Floats, Rows
from fmrt.bundle.bundle import Bundle
from fmrt.bundle.manifest import Tower
from fmrt.embedding.scheduler import plan_batches
from fmrt.export.rewrite.graph.walking import present
from fmrt.preprocess import make_preprocessor
from fmrt.session import SLOW_CPU_FUSIONS
from fmrt.system.cores import available_cores

Batch = tuple[NDArray[np.int64], dict[str, NDArray[Any]]]
BATCH_TOKENS = 1024
# Activations of one tensor that are kept, in rows and in bytes.
ROWS, BYTES = 12288, 96 << 20


class Probe:
    """One tower's preprocessing with a fixed list of items, and a prompt before each.

    Attributes:
        lengths: The lengths of the items as the scheduler counts them, int64 ``[n]``.
        padded: Whether items of different lengths may share a batch.
    """

    def __init__(
        self, bundle: Bundle, tower: Tower, items: Sequence[object], prompt: str = ""
    ) -> None:
        self._tower = tower
        preprocess = make_preprocessor(bundle, tower)
        loaded = [preprocess.load(item) for item in items]
        encoded = self._encoded = preprocess.encode(loaded, prompt, "truncate")
        self._constants = preprocess.constants(prompt)
        # Without padding: the activations of padding are no one's.
        batches = plan_batches(encoded.lengths, BATCH_TOKENS, longest_padded=0)
        self._batches: list[Batch] = [(rows, self._feeds(rows)) for rows in batches]
        self._count = len(items)
        self.lengths = encoded.lengths
        self.padded = preprocess.padded

    def _feeds(self, rows: Rows) -> dict[str, NDArray[Any]]:
        return {**self._encoded.feeds(rows), **self._constants}

    def vectors(self, model: ir.Model) -> Floats:
        """Embeddings of the items, ``[n, ...]``, in their order."""
        out: Floats | None = None
        name = self._tower.embedding_output
        for (rows, _), values in self._run(model, [name]):
            if out is None:
                out = np.empty((self._count, *values[name].shape[1:]), np.float32)
            out[rows] = values[name]
        return present(out)

    def rows(self, model: ir.Model, names: Sequence[str]) -> dict[str, Floats]:
        """A random but fixed sample of the last-axis rows of some tensors, each ``[n, K]``."""
        rng = np.random.default_rng(0)
        found: dict[str, list[Floats]] = {name: [] for name in names}
        share = 1 / max(1, len(self._batches))
        for _, values in self._run(model, names):
            for name, value in values.items():
                flat = value.reshape(-1, value.shape[-1])
                most = max(8, int(2 * share * min(ROWS, BYTES // (4 * flat.shape[1]))))
                if len(flat) > most:
                    flat = flat[rng.permutation(len(flat))[:most]]
                found[name].append(flat.astype(np.float32))
        return {name: _sample(np.concatenate(parts), rng) for name, parts in found.items()}

    def largest(self, model: ir.Model, names: Sequence[str]) -> dict[str, float]:
        """Largest absolute value of some tensors."""
        found = dict.fromkeys(names, 0.0)
        for _, values in self._run(model, names):
            for name, value in values.items():
                found[name] = max(found[name], float(np.abs(value).max(initial=0.0)))
        return found

    def runs(
        self, model: ir.Model, names: Sequence[str], batches: Sequence[Rows]
    ) -> Iterator[Mapping[str, Floats]]:
        """Some tensors of other batches, padded as the runtime does."""
        for _, values in self._run(model, names, [(rows, self._feeds(rows)) for rows in batches]):
            yield values

    def values(self, model: ir.Model, names: Sequence[str]) -> Mapping[str, NDArray[Any]]:
        """Some tensors, of the first batch alone."""
        return next(self._run(model, names))[1]

    def _run(
        self, model: ir.Model, names: Sequence[str], batches: Sequence[Batch] | None = None
    ) -> Iterator[tuple[Batch, Mapping[str, Floats]]]:
        with tempfile.TemporaryDirectory() as folder:
            session = _session(_exposed(model, names), Path(folder))
            inputs = {i.name for i in session.get_inputs()}
            inputs |= {i.name for i in session.get_overridable_initializers()}
            for batch in self._batches if batches is None else batches:
                feeds = {name: value for name, value in batch[1].items() if name in inputs}
                yield batch, dict(zip(names, session.run(list(names), feeds), strict=True))


def _sample(rows: Floats, rng: np.random.Generator) -> Floats:
    most = min(ROWS, BYTES // (4 * rows.shape[1]))
    return rows[rng.permutation(len(rows))[:most]]


def _exposed(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """The graph with more outputs."""
    there = {value.name for value in model.graph.outputs}
    if there.issuperset(names):
        return model
    model = model.clone()
    values = {v.name: v for node in model.graph for v in node.outputs}
    model.graph.outputs.extend(values[name] for name in names if name not in there)
    return model


def _session(model: ir.Model, folder: Path) -> ort.InferenceSession:
    path = folder / "model.onnx"
    ir.save(model, path, external_data="model.onnx_data")
    options = ort.SessionOptions()
    options.intra_op_num_threads = available_cores()
    options.enable_mem_pattern = False
    options.log_severity_level = 4
    return ort.InferenceSession(
        path, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW_CPU_FUSIONS
    )

"""The passes of the CPU variant apply where they should, and change no vector."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from export.load import load_model
from export.rewrite import optimize_for_cpu
from export.source import Overrides
from export.trace import trace
from tests.export.models import TINY, Tiny, save_tiny

# How often each pass applies to two layers. MPNet's attention has a position bias and a form of its
# own, ModernBERT's rotates queries and keys, Llama's is causal; ModernBERT's and Llama's linear
# layers have no bias.
APPLIED = {
    "bert": {
        "simplify_attention": 4,
        "fuse_attention": 2,
        "fuse_unmasked_attention": 0,
        "projections_to_gemm": 12,
    },
    "distilbert": {
        "simplify_attention": 4,
        "fuse_attention": 2,
        "fuse_unmasked_attention": 0,
        "projections_to_gemm": 12,
    },
    "mpnet": {
        "simplify_attention": 0,
        "fuse_attention": 0,
        "fuse_unmasked_attention": 0,
        "projections_to_gemm": 12,
    },
    "modernbert": {
        "simplify_attention": 4,
        "fuse_attention": 0,
        "fuse_unmasked_attention": 0,
        "projections_to_gemm": 0,
    },
    "llama": {
        "simplify_attention": 4,
        "fuse_attention": 0,
        "fuse_unmasked_attention": 0,
        "projections_to_gemm": 0,
    },
}
SHAPES = [(1, 1), (1, 9), (3, 40)]


def run(graph: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    model = ir.to_proto(graph).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def traced(tiny: Tiny, directory: Path, pooling: str | None = None) -> ir.Model:
    loaded = load_model(str(save_tiny(tiny, directory)), None, "cpu", Overrides(pooling))
    (part,) = loaded.parts()
    return trace(part, loaded.model_type, None)


@pytest.mark.parametrize("kind", APPLIED)
def test_passes_apply_and_keep_the_vectors(kind: str, tmp_path: Path) -> None:
    tiny = next(t for t in TINY if t.model_type == kind)
    graph = traced(tiny, tmp_path)
    fast = graph.clone()
    applied = optimize_for_cpu(fast)
    never = {"fuse_unmasked_attention": 0, "compute_pooled_token_alone": 0}
    assert applied == never | APPLIED[kind]
    assert sum(node.op_type == "Gemm" for node in fast.graph) == applied["projections_to_gemm"]
    assert [v.name for v in fast.graph.outputs] == [v.name for v in graph.graph.outputs]
    rng = np.random.default_rng(0)
    for (batch, length), padded in itertools.product(SHAPES, (True, False)):
        lengths = rng.integers(1, length + 1, batch)
        lengths[0] = length
        if not padded:
            lengths[:] = length
        mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
        feeds = {i.name: np.zeros((batch, length), np.int64) for i in graph.graph.inputs}
        feeds["input_ids"] = rng.integers(5, 100, (batch, length))
        feeds["attention_mask"] = mask
        (hidden, want), (fast_hidden, got) = run(graph, feeds), run(fast, feeds)
        assert np.abs(got - want).max() <= 2e-6 * max(1.0, np.abs(want).max())
        tokens = mask.astype(bool)
        assert np.abs(fast_hidden[tokens] - hidden[tokens]).max() <= 1e-5

    never = {"fuse_unmasked_attention": 0, "compute_pooled_token_alone": 0}
    assert applied == never | APPLIED[kind]


# Matrix products that the pass leaves with one token, of the last layer: queries, output, the
# feed-forward part and the fused attention, or the two products of one that is not fused.
POOLED = {
    ("bert", "cls"): 5,
    ("bert", "lasttoken"): 5,
    ("bert", "mean"): 0,
    # Its gated part is split in two, which the pass does not follow: the last product alone.
    ("modernbert", "cls"): 1,
    ("llama", "lasttoken"): 7,
    ("qwen3", "lasttoken"): 7,
    ("gemma3_text", "lasttoken"): 7,
}


@pytest.mark.parametrize(("kind", "pooling"), POOLED)
def test_the_last_layer_of_the_pooled_token_alone(kind: str, pooling: str, tmp_path: Path) -> None:
    tiny = next(t for t in TINY if t.model_type == kind)
    graph = traced(tiny, tmp_path, pooling)
    fast = graph.clone()
    count = POOLED[kind, pooling]
    assert optimize_for_cpu(fast, "sentence_embedding")["compute_pooled_token_alone"] == count
    assert len(fast.graph.outputs) == (1 if count else 2)
    rng = np.random.default_rng(0)
    for batch, length in SHAPES:
        lengths = rng.integers(1, length + 1, batch)
        lengths[0] = length
        feeds = {i.name: np.zeros((batch, length), np.int64) for i in graph.graph.inputs}
        feeds["input_ids"] = rng.integers(5, 100, (batch, length))
        feeds["attention_mask"] = (np.arange(length) < lengths[:, None]).astype(np.int64)
        want, got = run(graph, feeds)[1], run(fast, feeds)[-1]
        assert np.abs(got - want).max() <= 2e-6 * max(1.0, np.abs(want).max())


def test_a_batch_of_padding_alone_gives_no_nan(tmp_path: Path) -> None:
    graph = traced(TINY[0], tmp_path)
    optimize_for_cpu(graph)
    feeds = {i.name: np.zeros((2, 5), np.int64) for i in graph.graph.inputs}
    assert all(np.isfinite(out).all() for out in run(graph, feeds))


def test_a_graph_without_the_patterns_stays_as_it_is() -> None:
    x = ir.val("x", dtype=ir.DataType.FLOAT, shape=["n", 4])
    node = ir.node("Relu", [x])
    graph = ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 20})
    model = ir.Model(graph, ir_version=10)
    assert set(optimize_for_cpu(model).values()) == {0}
    assert [n.op_type for n in model.graph] == ["Relu"]

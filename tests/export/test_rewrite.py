"""The passes of the CPU variant apply where they should, and change no vector."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from fmrt.export.load import load_model
from fmrt.export.rewrite import ATTEND, POOL, SIMPLIFY, optimize_for_cpu
from fmrt.export.rewrite.graph.masks import masking_of
from fmrt.export.rewrite.passes import Pipeline
from fmrt.export.text.source import Overrides
from fmrt.export.trace import trace
from tests.export.models import TINY, save_tiny

# How often each pass applies to two layers, in the order of `optimize_for_cpu`. The linear layers
# of all below MPNet have no bias.
PASSES = (
    "simplify_attention",
    "fuse_rms_norm",
    "compute_pooled_token_alone",
    "fuse_attention",
    "projections_to_gemm",
)
APPLIED = {
    "bert": (4, 0, 0, 2, 12),
    "distilbert": (4, 0, 0, 2, 12),
    "mpnet": (2, 0, 0, 2, 12),
    "t5": (4, 5, 0, 2, 0),
    "modernbert": (4, 0, 0, 2, 0),
    "nomic_bert": (4, 0, 0, 2, 0),
    "llama": (4, 5, 0, 2, 0),
    "mistral": (4, 5, 0, 2, 0),
    "qwen3": (4, 9, 0, 2, 0),
    "gemma3_text": (4, 13, 0, 2, 0),
}
# The fused operators of two layers, one a branch: those of a window are blocks, or a bias.
FUSED = {
    "bert": {"MultiHeadAttention": 2, "Attention": 2},
    "mpnet": {"MultiHeadAttention": 0, "Attention": 2},
    "t5": {"MultiHeadAttention": 0, "Attention": 2},
    "modernbert": {"MultiHeadAttention": 2, "Attention": 2, "RotaryEmbedding": 4},
    "nomic_bert": {"MultiHeadAttention": 2, "Attention": 2, "RotaryEmbedding": 4},
    "llama": {"GroupQueryAttention": 4, "RotaryEmbedding": 4},
    "mistral": {"GroupQueryAttention": 4, "RotaryEmbedding": 4},
    "qwen3": {"GroupQueryAttention": 4, "RotaryEmbedding": 4},
    "gemma3_text": {"MultiHeadAttention": 2, "Attention": 2, "RotaryEmbedding": 4},
}
QUICK = ("bert", "mpnet", "t5", "modernbert", "qwen3")
# The longest are above what flash attention starts at.
SHAPES = [(1, 1), (1, 9), (3, 40), (2, 300)]
POSITIONS = {"max_position_embeddings": 320}


def session(graph: ir.Model) -> ort.InferenceSession:
    model = ir.to_proto(graph).SerializeToString()
    return ort.InferenceSession(model, providers=["CPUExecutionProvider"])


def run(graph: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    return session(graph).run(None, feeds)


@functools.cache
def traced(kind: str, pooling: str | None = None) -> ir.Model:
    """A portable graph, traced once; tests that change it clone it."""
    tiny = next(t for t in TINY if t.model_type == kind)
    tiny = dataclasses.replace(tiny, config={**tiny.config, **POSITIONS})
    with tempfile.TemporaryDirectory() as place:
        path = save_tiny(tiny, Path(place))
        loaded = load_model(str(path), None, "cpu", Overrides(pooling))
        (part,) = loaded.parts()
        return trace(part, loaded.model_type, None)


def masks(batch: int, length: int) -> Iterator[np.ndarray]:
    """Attention masks: no padding, on the right, on the left, and tokens left out anywhere."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, length + 1, (batch, 1))
    lengths[0] = length
    positions = np.arange(length)
    some = rng.integers(0, 2, (batch, length))
    some[:, 0] = 1
    for mask in (positions >= 0, positions < lengths, positions >= length - lengths, some):
        yield np.broadcast_to(mask, (batch, length)).astype(np.int64)


def feeds_of(graph: ir.Model, mask: np.ndarray) -> dict[str, np.ndarray]:
    feeds = {i.name: np.zeros(mask.shape, np.int64) for i in graph.graph.inputs}
    feeds["input_ids"] = np.random.default_rng(1).integers(5, 80, mask.shape)
    return {**feeds, "attention_mask": mask}


def operators(model: ir.Model) -> Counter[str]:
    """The nodes of the graph and its branches."""
    return Counter(node.op_type for node in ir.traversal.RecursiveGraphIterator(model.graph))


@pytest.mark.parametrize(
    "kind", [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in APPLIED]
)
def test_passes_apply_and_keep_the_vectors(kind: str) -> None:
    graph = traced(kind)
    fast = graph.clone()
    applied = optimize_for_cpu(fast)
    assert applied == dict(zip(PASSES, APPLIED[kind], strict=True))
    found = operators(fast)
    assert found["Gemm"] == applied["projections_to_gemm"]
    assert {name: found[name] for name in FUSED.get(kind, {})} == FUSED.get(kind, {})
    assert [v.name for v in fast.graph.outputs] == [v.name for v in graph.graph.outputs]
    before, after = session(graph), session(fast)
    for mask in itertools.chain.from_iterable(masks(*shape) for shape in SHAPES):
        feeds = feeds_of(graph, mask)
        (hidden, want), (fast_hidden, got) = before.run(None, feeds), after.run(None, feeds)
        assert np.abs(got - want).max() <= 4e-6 * max(1.0, np.abs(want).max())
        tokens = mask.astype(bool)
        largest = max(1.0, np.abs(hidden[tokens]).max())
        assert np.abs(fast_hidden[tokens] - hidden[tokens]).max() <= 1e-5 * largest


# Matrix products that the pass leaves with one token, of the last layer: queries, the two of
# attention, output, and the feed-forward part.
POOLED = {
    ("bert", "cls"): 6,
    ("bert", "mean"): 0,
    # Its queries, keys and values are one product, for all tokens.
    ("modernbert", "cls"): 5,
    ("llama", "lasttoken"): 7,
    ("mistral", "lasttoken"): 7,
    ("qwen3", "lasttoken"): 7,
    ("gemma3_text", "lasttoken"): 7,
}


@pytest.mark.parametrize(
    ("kind", "pooling"),
    [k if k[0] in QUICK else pytest.param(*k, marks=pytest.mark.slow) for k in POOLED],
)
def test_the_last_layer_of_the_pooled_token_alone(kind: str, pooling: str) -> None:
    graph = traced(kind, pooling)
    fast = graph.clone()
    count = POOLED[kind, pooling]
    assert optimize_for_cpu(fast, "sentence_embedding")["compute_pooled_token_alone"] == count
    assert len(fast.graph.outputs) == (1 if count else 2)
    before, after = session(graph), session(fast)
    for mask in itertools.chain.from_iterable(masks(*shape) for shape in SHAPES):
        feeds = feeds_of(graph, mask)
        want, got = before.run(None, feeds)[1], after.run(None, feeds)[-1]
        assert np.abs(got - want).max() <= 4e-6 * max(1.0, np.abs(want).max())


@pytest.mark.parametrize(
    ("kind", "pooling"), [("modernbert", None), ("qwen3", "lasttoken"), ("gemma3_text", None)]
)
def test_nothing_as_large_as_all_scores_is_computed_for_long_texts(
    kind: str, pooling: str | None
) -> None:
    graph = traced(kind, pooling).clone()
    length = graph.graph.inputs[0].shape[1]

    def squares() -> list[str | None]:
        """Values outside of branches that have the sequence twice."""
        values = [v for node in graph.graph for v in node.outputs if v.shape is not None]
        return [v.name for v in values if list(v.shape).count(length) > 1]

    assert squares()
    optimize_for_cpu(graph, "sentence_embedding")
    assert not squares()


def test_texts_that_are_never_long_have_one_path() -> None:
    graph = traced("bert")
    fast = graph.clone()
    optimize_for_cpu(fast, longest=256)
    found = operators(fast)
    assert (found["Attention"], found["If"], found["MultiHeadAttention"]) == (2, 0, 0)
    for mask in masks(3, 40):
        feeds = feeds_of(graph, mask)
        assert np.abs(run(graph, feeds)[1] - run(fast, feeds)[1]).max() <= 4e-6


@pytest.mark.parametrize("kind", ["bert", "modernbert", "qwen3"])
def test_a_batch_of_padding_alone_gives_no_nan(kind: str) -> None:
    graph = traced(kind).clone()
    optimize_for_cpu(graph)
    feeds = {i.name: np.zeros((2, 5), np.int64) for i in graph.graph.inputs}
    assert all(np.isfinite(out).all() for out in run(graph, feeds))


def test_a_bias_out_of_products_is_no_mask_and_is_not_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = ir.val("x", dtype=ir.DataType.FLOAT, shape=["b", 1, "s", "s"])
    product = ir.node("MatMul", [x, x])
    bias = ir.node("Neg", product.outputs)
    bias.outputs[0].name = "bias"
    graph = ir.Graph([x], bias.outputs, nodes=[product, bias], name="main", opset_imports={"": 20})
    # Long texts through layers would fill the memory.
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *_: pytest.fail("it was tried"))
    assert masking_of(ir.Model(graph, ir_version=10), "bias") is None


def test_a_graph_without_the_patterns_stays_as_it_is() -> None:
    x = ir.val("x", dtype=ir.DataType.FLOAT, shape=["n", 4])
    node = ir.node("Relu", [x])
    graph = ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 20})
    model = ir.Model(graph, ir_version=10)
    assert set(optimize_for_cpu(model).values()) == {0}
    assert [n.op_type for n in model.graph] == ["Relu"]


def test_a_pass_in_the_wrong_place_is_refused() -> None:
    with pytest.raises(ValueError, match="fuse_attention needs PLAIN_ATTENTION"):
        Pipeline((ATTEND, SIMPLIFY))
    with pytest.raises(ValueError, match="compute_pooled_token_alone cannot read FUSED_ATTENTION"):
        Pipeline((SIMPLIFY, ATTEND, POOL))


def test_a_debug_log_says_what_each_pass_did(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", logger="fmrt.export.rewrite.passes"):
        applied = optimize_for_cpu(ir.Model(ir.Graph([], [], nodes=[]), ir_version=10))
    lines = [record.getMessage().split()[0] for record in caplog.records]
    assert lines == list(applied)

"""The passes of the CPU variant apply where they should, and change no vector."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from export.load import load_model
from export.rewrite import masks as masks_of_graphs
from export.rewrite import optimize_for_cpu
from export.rewrite.row_blocks import feed_forward_in_blocks, join_blocks
from export.source import Overrides
from export.trace import trace
from fmrt.session import count_products
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
# Only where an item may be long.
BLOCKS = "feed_forward_in_blocks"
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
QUICK = ("bert", "mpnet", "t5", "modernbert", "qwen3", "gemma3_text")
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
    """Of the graph and its branches."""
    return Counter(node.op_type for node in ir.traversal.RecursiveGraphIterator(model.graph))


@pytest.mark.parametrize(
    "kind", [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in APPLIED]
)
def test_passes_apply_and_keep_the_vectors(kind: str) -> None:
    graph = traced(kind)
    fast = graph.clone()
    applied = optimize_for_cpu(fast)
    assert applied == {**dict(zip(PASSES, APPLIED[kind], strict=True)), BLOCKS: 0}
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
    [k if k[0] in QUICK[:5] else pytest.param(*k, marks=pytest.mark.slow) for k in POOLED],
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
    monkeypatch.setattr(masks_of_graphs, "_session", lambda _: pytest.fail("it was tried"))
    assert masks_of_graphs.masking_of(ir.Model(graph, ir_version=10), "bias") is None


def test_a_graph_without_the_patterns_stays_as_it_is() -> None:
    x = ir.val("x", dtype=ir.DataType.FLOAT, shape=["n", 4])
    node = ir.node("Relu", [x])
    graph = ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 20})
    model = ir.Model(graph, ir_version=10)
    assert set(optimize_for_cpu(model).values()) == {0}
    assert [n.op_type for n in model.graph] == ["Relu"]


# Around one block and two, and with rows left over.
ROWS = (1, 511, 512, 513, 1023, 1024, 1025, 1537, 2049)
WIDTH, WIDE = 8, 24
Nodes = list[ir.Node]


class Drawing:
    """A graph made node by node, with random weights."""

    def __init__(self, shape: list[str | int]) -> None:
        self.x = ir.val("x", dtype=ir.DataType.FLOAT, shape=shape)
        self.nodes: Nodes = []
        self.weights: list[ir.Value] = []

    def node(self, op_type: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        return self.nodes_of(op_type, *inputs, **attributes)[0]

    def nodes_of(
        self, op_type: str, *inputs: ir.Value, outputs: int = 1, **attributes: int
    ) -> list[ir.Value]:
        self.nodes.append(ir.node(op_type, inputs, attributes, num_outputs=outputs))
        for value in self.nodes[-1].outputs:
            value.name = f"v{len(self.nodes)}_{value.index()}"
        return list(self.nodes[-1].outputs)

    def weight(self, *shape: int) -> ir.Value:
        name = f"w{len(self.weights)}"
        content = np.random.default_rng(len(self.weights)).standard_normal(shape).astype(np.float32)
        value = ir.val(name, dtype=ir.DataType.FLOAT, const_value=ir.tensor(content, name=name))
        value.shape = ir.Shape(shape)
        self.weights.append(value)
        return value

    def gemm(self, x: ir.Value, features: int, columns: int) -> ir.Value:
        return self.node("Gemm", x, self.weight(features, columns), self.weight(columns))

    def product(self, x: ir.Value, features: int, columns: int) -> ir.Value:
        return self.node("MatMul", x, self.weight(features, columns))

    def model(self, *outputs: ir.Value) -> ir.Model:
        for value in outputs:
            value.dtype = ir.DataType.FLOAT
        graph = ir.Graph(
            [self.x],
            outputs,
            nodes=self.nodes,
            initializers=self.weights,
            name="drawn",
            opset_imports={"": 23},
        )
        return ir.Model(graph, ir_version=10)


def plain(draw: Drawing, x: ir.Value) -> ir.Value:
    return draw.gemm(draw.node("Gelu", draw.gemm(x, WIDTH, WIDE)), WIDE, WIDTH)


def behind_norm(draw: Drawing, x: ir.Value) -> ir.Value:
    normal = draw.node("LayerNormalization", x, draw.weight(WIDTH), axis=len(x.shape or ()) - 1)
    inside = draw.node("Relu", draw.product(normal, WIDTH, WIDE))
    return draw.node("Add", x, draw.product(inside, WIDE, WIDTH))


def gated(draw: Drawing, x: ir.Value) -> ir.Value:
    gate = draw.product(x, WIDTH, WIDE)
    gate = draw.node("Mul", gate, draw.node("Sigmoid", gate))
    inside = draw.node("Mul", gate, draw.product(x, WIDTH, WIDE))
    return draw.node("Add", draw.product(inside, WIDE, WIDTH), x)


def packed(draw: Drawing, x: ir.Value) -> ir.Value:
    both = draw.product(x, WIDTH, 2 * WIDE)
    gate, up = draw.nodes_of("Split", both, outputs=2, axis=-1, num_outputs=2)
    return draw.product(draw.node("Mul", draw.node("Gelu", gate), up), WIDE, WIDTH)


def bodies(model: ir.Model) -> list[list[str]]:
    scans = [node for node in model.graph if node.op_type == "Scan"]
    return [[node.op_type for node in s.attributes["body"].as_graph()] for s in scans]


@pytest.mark.parametrize("form", [plain, behind_norm, gated, packed])
def test_blocks_of_rows_keep_every_bit(form: Callable[[Drawing, ir.Value], ir.Value]) -> None:
    draw = Drawing(["rows", WIDTH])
    # Twice, the second of what the first gives.
    whole = draw.model(form(draw, form(draw, draw.x)))
    cut = whole.clone()
    assert feed_forward_in_blocks(cut, 2048) == 2
    # Nothing is left outside, and no weight is there twice.
    names = [node.op_type for node in whole.graph]
    assert bodies(cut) == [names[: len(names) // 2]] * 2
    assert not {"Gemm", "MatMul", "Mul", "Gelu"} & {node.op_type for node in cut.graph}
    floats = [v.name for v in cut.graph.initializers.values() if v.dtype == ir.DataType.FLOAT]
    assert sorted(floats) == sorted(v.name for v in draw.weights)
    before, after = session(whole), session(cut)
    for rows in ROWS:
        x = np.random.default_rng(rows).standard_normal((rows, WIDTH)).astype(np.float32)
        (want,), (got,) = before.run(None, {"x": x}), after.run(None, {"x": x})
        assert np.array_equal(want, got), rows


def test_operations_in_blocks_are_counted(tmp_path: Path) -> None:
    draw = Drawing(["rows", WIDTH])
    whole = draw.model(gated(draw, draw.x))
    cut = whole.clone()
    feed_forward_in_blocks(cut, 4096)
    feeds = [{"x": np.ones((rows, WIDTH), np.float32)} for rows in (100, 3072)]
    for name, model in (("whole", whole), ("cut", cut)):
        ir.save(model, tmp_path / name)
    output = str(whole.graph.outputs[0].name)
    want, got = (count_products(tmp_path / name, output, feeds) for name in ("whole", "cut"))
    assert [one.flops for one in got] == [one.flops for one in want]
    assert sorted(got[0].weights) == sorted(want[0].weights)
    # As many rows, in six blocks.
    parts = [(rows // 6, *sizes) for rows, *sizes in want[1].weights] * 6
    assert sorted(got[1].weights) == sorted(parts)


def test_rows_on_a_grid_are_put_into_blocks_too() -> None:
    draw = Drawing(["images", "height", 20, WIDTH])
    whole = draw.model(behind_norm(draw, draw.x))
    cut = whole.clone()
    assert feed_forward_in_blocks(cut, 2048) == 1
    for images, height in ((1, 3), (2, 40), (3, 7), (1, 77)):
        x = np.random.default_rng(0).standard_normal((images, height, 20, WIDTH))
        feeds = {"x": x.astype(np.float32)}
        (want,), (got,) = run(whole, feeds), run(cut, feeds)
        assert np.array_equal(want, got)


def over_rows(draw: Drawing, x: ir.Value) -> ir.Value:
    inside = draw.node("Softmax", draw.product(x, WIDTH, WIDE), axis=0)
    return draw.product(inside, WIDE, WIDTH)


def transposed(draw: Drawing, x: ir.Value) -> ir.Value:
    inside = draw.node("Gelu", draw.product(x, WIDTH, WIDE))
    turned = draw.node("Transpose", draw.node("Transpose", inside))
    return draw.product(turned, WIDE, WIDTH)


def narrow(draw: Drawing, x: ir.Value) -> ir.Value:
    return draw.gemm(draw.node("Gelu", draw.gemm(x, WIDTH, WIDTH)), WIDTH, WIDTH)


def by_position(draw: Drawing, x: ir.Value) -> ir.Value:
    inside = draw.node("Add", draw.product(x, WIDTH, WIDE), draw.weight(16, WIDE))
    return draw.product(inside, WIDE, WIDTH)


@pytest.mark.parametrize("form", [over_rows, transposed, narrow, by_position])
def test_what_is_no_work_on_rows_alone_stays(form: Callable[[Drawing, ir.Value], ir.Value]) -> None:
    draw = Drawing(["rows", WIDTH])
    model = draw.model(form(draw, draw.x))
    before = ir.to_proto(model)
    assert feed_forward_in_blocks(model, 2048) == 0
    assert ir.to_proto(model) == before


def test_what_others_read_stays_outside_of_blocks() -> None:
    draw = Drawing(["rows", WIDTH])
    up = draw.gemm(draw.x, WIDTH, WIDE)
    model = draw.model(draw.gemm(draw.node("Gelu", up), WIDE, WIDTH), up)
    assert feed_forward_in_blocks(model, 2048) == 0


# Feed-forward parts of two layers; the last one of one token is not worth it.
CUT = {"bert": 2, "t5": 2, "modernbert": 2, "gemma3_text": 2, "qwen3": 1, "phi3": 1, "mixtral": 0}


@pytest.mark.parametrize(
    "kind", [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in CUT]
)
def test_layers_of_long_texts_are_computed_in_blocks(kind: str) -> None:
    pooling = "lasttoken" if kind in ("qwen3", "phi3", "mixtral") else None
    graph = traced(kind, pooling)
    whole, cut = graph.clone(), graph.clone()
    assert optimize_for_cpu(whole, "sentence_embedding", 1024)[BLOCKS] == 0
    assert optimize_for_cpu(cut, "sentence_embedding", 2048)[BLOCKS] == CUT[kind]
    joined = ir.from_proto(ir.to_proto(cut))
    assert join_blocks(joined) == CUT[kind]
    assert not bodies(joined)
    sessions = [session(model) for model in (whole, cut, joined)]
    for shape in ((1, 9), (4, 256), (5, 205), (8, 260)):
        for mask in itertools.islice(masks(*shape), 2):
            feeds = feeds_of(graph, mask)
            want, got, back = (s.run(["sentence_embedding"], feeds)[0] for s in sessions)
            assert np.array_equal(want, got)
            assert np.array_equal(want, back)


@pytest.mark.parametrize("longest", [None, 256, 1024])
def test_graphs_of_short_texts_stay_the_same_to_the_byte(longest: int | None) -> None:
    model = traced("modernbert").clone()
    optimize_for_cpu(model, longest=1024)
    before = ir.to_proto(model).SerializeToString()
    assert feed_forward_in_blocks(model, longest) == 0
    assert ir.to_proto(model).SerializeToString() == before

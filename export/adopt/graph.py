"""Reads a stranger's graph, and binds its inputs and outputs to those that the runtime knows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    InlinePass,
    RemoveUnusedNodesPass,
)

from fmrt.bundle.checked import place_inside
from fmrt.bundle.manifest import Tower
from fmrt.errors import BundleCorruptError, ExportError, first_cause, quoted
from fmrt.export.adopt.layout import TOWERS
from fmrt.export.graph_file import EXTERNAL_DATA_BYTES
from fmrt.export.loading.directory import check_regular
from fmrt.export.quiet import quiet
from fmrt.session.onnx_files import MalformedGraphError, external_locations

STATES, EMBEDDING = "last_hidden_state", "sentence_embedding"
POOLED = "pooler_output"
# What a graph may give of an item that is no text: states, and vectors of the model's own.
OF_MEDIA = (POOLED, "image_embeds", "audio_embeds")
TOKENS = ("input_ids", "attention_mask", "token_type_ids")
IDS, MASK, TYPES = TOKENS
POSITIONS = "position_ids"
PAST = ("past_key_values.", "past_key.", "past_value.", "past.")
# The names that tools give a token's state, the best first.
STATE_NAMES = (STATES, "token_embeddings", "hidden_states")
# Operators of ONNX Runtime itself; a graph of others needs a library of its author's.
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
OPSETS = range(11, 25)
FOUR_BITS = frozenset({"MatMulNBits", "MatMulBnb4", "GatherBlockQuantized"})
EIGHT_BITS = ("Integer", "Quantize", "QLinear", "QAttention", "QGemm")
FLOATS = {ir.DataType.FLOAT16: "fp16", ir.DataType.BFLOAT16: "bf16"}
PAST_RANK = 4


@dataclass(frozen=True)
class Adopted:
    """A graph with inputs of tokens and outputs by our names.

    Attributes:
        model: The graph.
        precision: The precision of its weights.
        standard: Whether all its operators are ONNX's own, and so run on any provider.
        bound: What was bound, for the user.
    """

    model: ir.Model
    precision: str
    standard: bool
    bound: tuple[str, ...]

    @property
    def opset(self) -> int:
        """The version of ONNX's operators."""
        return int(self.model.opset_imports.get("", 1))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return tuple(str(value.name) for value in self.model.graph.outputs)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return tuple(str(value.name) for value in self.model.graph.inputs)


@dataclass(frozen=True)
class TowerNames:
    """One tower of a model of two, in the graphs of tools.

    Attributes:
        modality: The modality of its items.
        main: Its main input, such as ``pixel_values``.
        vectors: The outputs that may be its items' vectors, the best first.
        other: The main input of the other tower.
        one_length: Whether all texts are filled up to one length, which a graph may take alone.
    """

    modality: str
    main: str
    vectors: tuple[str, ...]
    other: str
    one_length: bool = False


def read_graph(path: Path, root: Path, main: str = IDS, tower: TowerNames | None = None) -> Adopted:
    """Read a graph and bind its inputs and outputs.

    Args:
        path: The graph's file.
        root: The directory that its files must lie in.
        main: The main input of the model, such as ``pixel_values``.
        tower: The tower that is cut out of the graph; default the graph is that of one tower.

    Raises:
        ExportError: It cannot be read, is another model's, or needs what the runtime has not.
    """
    model = _loaded(path, root)
    try:
        InlinePass()(model)
        ClearMetadataAndDocStringPass()(model)
        _check_names(model, path)
        _check_operators(model, path)
        if tower is not None:
            _cut_out(model, path, tower)
        precision = _precision(model)
        one_length = tower is not None and tower.one_length
        bound = [*_bind_inputs(model, path, one_length=one_length)] if main == IDS else []
        if main != IDS:
            _check_media_inputs(model, path, main)
        vectors = tower.vectors if tower else (EMBEDDING,) if main == IDS else OF_MEDIA
        bound += _bind_outputs(model, path, vectors)
    except ExportError:
        raise
    except Exception as e:  # whatever a malformed graph provokes
        raise ExportError(f"{path} cannot be read as a graph: {first_cause(e)}") from e
    domains = {node.domain for node in model.graph.all_nodes()}
    return Adopted(model, precision, domains <= {"", "ai.onnx"}, tuple(bound))


def _loaded(path: Path, root: Path) -> ir.Model:
    check_regular(path)
    try:
        place_inside(root, str(path.relative_to(root)))
        for location in external_locations(path):
            _check_place(path, root, location)
        with quiet():  # what is wrong with a graph, ONNX Runtime says
            model = ir.load(path)
        if _bytes(model) < EXTERNAL_DATA_BYTES:
            ir.external_data.load_to_model(model)
    except BundleCorruptError as e:
        raise ExportError(
            f"{path} is a link to outside of {root}; put the file itself there"
        ) from e
    except MalformedGraphError as e:
        raise ExportError(f"{path} is no ONNX graph that fmrt reads: {e}") from e
    except ExportError:
        raise
    except Exception as e:  # of protobuf, and of whatever reads an initializer
        raise ExportError(f"{path} cannot be read as a graph: {first_cause(e)}") from e
    opset = int(model.opset_imports.get("", 1))
    if opset not in OPSETS:
        raise ExportError(
            f"{path} has opset {opset}; fmrt adopts {OPSETS.start} to {OPSETS.stop - 1}: export it "
            "again with a newer one"
        )
    return model


def _bytes(model: ir.Model) -> int:
    values = model.graph.initializers.values()
    return sum(value.const_value.nbytes for value in values if value.const_value is not None)


def _check_place(path: Path, root: Path, location: str) -> None:
    """Raise unless a file of weights lies in the directory."""
    outside = ExportError(f"{path} reads {quoted(location)}, a file outside of {root}")
    if Path(location).is_absolute() or "\\" in location:
        raise outside
    name = os.path.normpath(path.parent.relative_to(root) / location)
    if name.startswith(".."):
        raise outside
    try:
        place_inside(root, name)
    except BundleCorruptError as e:
        raise outside from e
    if not (root / name).is_file():
        raise ExportError(f"{path} reads its weights from {quoted(location)}, which is not there")


def _check_names(model: ir.Model, path: Path) -> None:
    """Raise where a name is no text: onnx_ir reads it as bytes, and cannot write it."""
    nodes = [*model.graph.all_nodes()]
    used = [value for node in nodes for value in (*node.inputs, *node.outputs)]
    values = [*model.graph.inputs, *model.graph.initializers.values(), *used]
    names = [value.name for value in values if value is not None]
    names += [name for node in nodes for name in (node.name, node.op_type, *node.attributes)]
    if not all(name is None or isinstance(name, str) for name in names):
        raise ExportError(f"{path} cannot be read as a graph: a name is not UTF-8")


def _check_operators(model: ir.Model, path: Path) -> None:
    for node in model.graph.all_nodes():
        if node.domain not in DOMAINS:
            raise ExportError(
                f"{path} has the operator {quoted(node.op_type)} of {quoted(node.domain)}, which "
                "ONNX Runtime does not have"
            )


def _precision(model: ir.Model) -> str:
    """The lowest precision that operators or weights are in."""
    operators = {node.op_type for node in model.graph.all_nodes()}
    weights: dict[ir.DataType | None, int] = {}
    for value in model.graph.initializers.values():
        count = int(np.prod(value.shape.numpy())) if value.shape is not None else 0
        weights[value.dtype] = weights.get(value.dtype, 0) + count
    if operators & FOUR_BITS or weights.keys() & {ir.DataType.INT4, ir.DataType.UINT4}:
        return "int4"
    if any(part in operator for operator in operators for part in EIGHT_BITS):
        return "int8"
    floats = {kind: weights.get(kind, 0) for kind in (ir.DataType.FLOAT, *FLOATS)}
    return FLOATS.get(max(floats, key=floats.__getitem__), "fp32")


def _cut_out(model: ir.Model, path: Path, tower: TowerNames) -> None:
    """Leave of a graph what gives a tower's vectors, in place.

    Raises:
        ExportError: The graph lacks the tower's input, or its vectors.
    """
    graph = model.graph
    names = [str(value.name) for value in graph.inputs]
    if tower.main not in names:
        named = path.name.startswith(TOWERS[tower.modality])
        swapped = "; were the files of the two towers swapped?"
        raise ExportError(
            f"{path} takes {', '.join(names) or 'nothing'}, and the {tower.modality} tower takes "
            f"{tower.main}{swapped if named and tower.other in names else ''}"
        )
    outputs = {str(value.name): value for value in graph.outputs}
    vector = next((outputs[name] for name in tower.vectors if name in outputs), None)
    if vector is None:
        raise ExportError(
            f"{path} gives {', '.join(outputs)}, and not {' or '.join(tower.vectors)}, the vector "
            f"in the space of both towers: export the {tower.modality} tower with its projection"
        )
    graph.outputs.clear()
    graph.outputs.append(vector)
    RemoveUnusedNodesPass()(model)
    kept = TOKENS if tower.main == IDS else (tower.main,)
    for value in list(graph.inputs):
        if not value.uses() and value.name not in kept:
            graph.inputs.remove(value)


def _bind_inputs(model: ir.Model, path: Path, *, one_length: bool) -> Iterator[str]:
    """Bind the inputs that the runtime does not feed, and say which."""
    graph = model.graph
    inputs = {str(value.name): value for value in graph.inputs}
    if IDS not in inputs:
        raise ExportError(
            f"{path} takes {', '.join(inputs) or 'nothing'}, and no input_ids: fmrt adopts models "
            "of texts; export others from PyTorch with fmrt export"
        )
    _check_shape(inputs[IDS], path, 1 if one_length else 2)
    if MASK not in inputs:
        graph.inputs.append(_tokens(MASK, inputs[IDS].shape))
        inputs[MASK] = graph.inputs[-1]
    for name in TOKENS:
        if name in inputs:
            _take(graph, inputs[name], ir.DataType.INT64)
    for name, value in inputs.items():
        if name in TOKENS or name in graph.initializers:
            continue
        _bind(graph, value, path)
        graph.inputs.remove(value)
        yield f"{name}: {_what(name)}"


def _check_media_inputs(model: ir.Model, path: Path, main: str) -> None:
    """Raise unless a graph takes images or sounds as the runtime feeds them."""
    graph = model.graph
    inputs = {str(value.name): value for value in graph.inputs}
    if main not in inputs:
        raise ExportError(
            f"{path} takes {', '.join(inputs) or 'nothing'}, and its configuration is that of a "
            f"model that takes {main}; name the model that it was made from with --model"
        )
    shape = inputs[main].shape
    if shape is not None and len(shape) and isinstance(shape[0], int):
        raise ExportError(
            f"{path} takes a batch of fixed size {shape[0]}: export it again with axes that vary"
        )
    for name, value in inputs.items():
        if name in graph.initializers:
            continue
        if name not in (main, MASK):
            raise ExportError(
                f"{path} takes the input {quoted(name)}, which fmrt has nothing to feed with"
            )
        _take(graph, value, ir.DataType.FLOAT if name == main else ir.DataType.INT64)


def bind_to(model: ir.Model, tower: Tower) -> None:
    """Give a graph the tower's inputs and outputs, in place."""
    graph = model.graph
    found = {str(value.name): value for value in graph.inputs}
    for name in tower.inputs:
        if name not in found:
            graph.inputs.append(_tokens(name, found[IDS].shape))
    if TYPES in found and TYPES not in tower.inputs:
        zeros = ir.node("Sub", [found[IDS], found[IDS]])
        found[TYPES].replace_all_uses_with(zeros.outputs[0])
        graph.inputs.remove(found[TYPES])
        graph.insert_before(next(iter(graph)), [zeros])
    for value in list(graph.outputs):
        if value.name not in tower.outputs:
            graph.outputs.remove(value)


def bind_mask(model: ir.Model, main: str) -> None:
    """Let a graph of sounds of one length see all of them, in place."""
    graph = model.graph
    inputs = {str(value.name): value for value in graph.inputs}
    ends = [ir.node("Constant", [], {"value": ir.tensor(np.array([n]))}) for n in (0, 2)]
    whole = ir.node("Shape", [inputs[main]])
    sizes = ir.node("Slice", [whole.outputs[0], *(end.outputs[0] for end in ends)])
    ones = ir.node("ConstantOfShape", sizes.outputs, {"value": ir.tensor(np.array([1]))})
    _prepend(graph, [*ends, whole, sizes, ones])
    inputs[MASK].replace_all_uses_with(ones.outputs[0])
    graph.inputs.remove(inputs[MASK])


def _what(name: str) -> str:
    return "counted from a text's first token" if name == POSITIONS else "empty"


def _check_shape(ids: ir.Value, path: Path, axes: int) -> None:
    """Raise unless the first axes of the tokens vary."""
    sizes = [] if ids.shape is None else list(ids.shape)[:axes]
    names = ("a batch of fixed size {}", "texts of exactly {} tokens")
    for size, what in zip(sizes, names, strict=False):
        if isinstance(size, int):
            raise ExportError(
                f"{path} takes {what.format(size)}: export it again with axes that vary"
            )


def _tokens(name: str, shape: ir.Shape | None) -> ir.Value:
    return ir.Value(name=name, shape=shape, type=ir.TensorType(ir.DataType.INT64))


def _take(graph: ir.Graph, value: ir.Value, kind: ir.DataType) -> None:
    """Let an input be of the type that the runtime feeds, whatever the graph computes with."""
    if value.dtype in (None, kind):
        value.dtype = kind
        return
    cast = ir.node("Cast", [value], {"to": int(value.dtype)})
    value.replace_all_uses_with(cast.outputs[0])
    cast.replace_input_with(0, value)
    value.dtype = kind
    _prepend(graph, [cast])


def _prepend(graph: ir.Graph, nodes: Sequence[ir.Node]) -> None:
    first = next(iter(graph), None)
    if first is None:
        graph.extend(nodes)
    else:
        graph.insert_before(first, nodes)


def _bind(graph: ir.Graph, value: ir.Value, path: Path) -> None:
    """Compute an input from the mask, where it is one that a text alone decides."""
    name = str(value.name)
    if name == POSITIONS:
        nodes = _positions(graph, value)
    elif name.startswith(PAST) and value.shape is not None and len(value.shape) == PAST_RANK:
        nodes = _empty_past(graph, value, path)
    else:
        raise ExportError(
            f"{path} takes the input {quoted(name)}, which fmrt has nothing to feed with; export "
            "it again for feature extraction, without a cache"
        )
    _prepend(graph, nodes)
    value.replace_all_uses_with(nodes[-1].outputs[0])


def _positions(graph: ir.Graph, value: ir.Value) -> list[ir.Node]:
    """Positions from 0 at a text's first token, as decoders of transformers count them."""
    mask = next(i for i in graph.inputs if i.name == MASK)
    axis, one, zero = (_int(n) for n in (1, 1, 0))
    counted = ir.node("CumSum", [mask, axis.outputs[0]])
    moved = ir.node("Sub", [counted.outputs[0], one.outputs[0]])
    least = ir.node("Max", [moved.outputs[0], zero.outputs[0]])
    kind = value.dtype or ir.DataType.INT64
    return [axis, one, zero, counted, moved, least, ir.node("Cast", least.outputs, {"to": kind})]


def _empty_past(graph: ir.Graph, value: ir.Value, path: Path) -> list[ir.Node]:
    """Keys or values of no token, ``[batch, heads, 0, head size]``."""
    shape = list(value.shape or ())
    if not isinstance(shape[1], int) or not isinstance(shape[3], int):
        raise ExportError(f"{path} takes {quoted(value.name)} of unknown sizes; export it again")
    ids = next(i for i in graph.inputs if i.name == IDS)
    whole = ir.node("Shape", [ids])
    first = ir.node("Constant", [], {"value": ir.tensor(np.array([0], np.int64))})
    batch = ir.node("Gather", [whole.outputs[0], first.outputs[0]])
    rest = ir.node("Constant", [], {"value": ir.tensor(np.array([shape[1], 0, shape[3]]))})
    sizes = ir.node("Concat", [batch.outputs[0], rest.outputs[0]], {"axis": 0})
    kind = (value.dtype or ir.DataType.FLOAT).numpy()
    content = ir.tensor(np.zeros(1, kind))
    filled = ir.node("ConstantOfShape", sizes.outputs, {"value": content})
    return [whole, first, batch, rest, sizes, filled]


def _int(number: int) -> ir.Node:
    return ir.node("Constant", [], {"value": ir.tensor(np.array(number, np.int64))})


def _bind_outputs(model: ir.Model, path: Path, vectors: Sequence[str]) -> Iterator[str]:
    """Keep the states and an item's vectors, under our names and in float32."""
    graph = model.graph
    outputs = {str(value.name): value for value in graph.outputs}
    states = next((outputs[name] for name in STATE_NAMES if name in outputs), None)
    kept = [(STATES, states), *((name, outputs.get(name)) for name in vectors)]
    found = [(name, value) for name, value in kept if value is not None]
    if not found:
        raise ExportError(
            f"{path} gives {', '.join(outputs)}, and neither {', '.join(STATE_NAMES)} nor "
            f"{', '.join(vectors)}: it is for another task; export it again for feature extraction"
        )
    graph.outputs.clear()
    for name, value in found:
        graph.outputs.append(_float32(graph, value, name))
    left = [name for name in outputs if name not in (*STATE_NAMES, *vectors)]
    if left:
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        yield f"output {left[0]}{more}: left out"


def _float32(graph: ir.Graph, value: ir.Value, name: str) -> ir.Value:
    """The value under another name, in float32."""
    if value.dtype not in (None, ir.DataType.FLOAT) or value.producer() is None:
        cast = ir.node("Cast", [value], {"to": int(ir.DataType.FLOAT)})
        graph.append(cast)
        cast.outputs[0].shape, value = value.shape, cast.outputs[0]
        value.dtype = ir.DataType.FLOAT
    claim(graph, value, name)
    return value


def claim(graph: ir.Graph, value: ir.Value, name: str) -> None:
    """Name a value, and give another one that has the name a new one."""
    for node in graph:
        for other in node.outputs:
            if other.name == name and other is not value:
                other.name = f"adopted.{name}"
    if value.name != name:
        value.name = name

"""Directories of other tools' graphs: a bundle that embeds, or one line and nothing left."""

from __future__ import annotations

import json
import os
import random
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("sentence_transformers")

import fmrt

# Loaded before a case is measured.
import fmrt.export.adopt.bundle
import fmrt.export.adopt.media
import fmrt.export.adopt.text
from tests.attack.fuzz import Budget, attack
from tests.attack.mutate import ODD_VALUES, mutated_bytes, mutated_json
from tests.runtime import conftest as tiny

# The libraries take longer to load than a quick run has.
pytestmark = pytest.mark.slow

GRAPH, WEIGHTS, SECRET = "model.onnx", "weights.bin", b"a secret outside of the directory"
# torch reads directories slowly.
MOST_SECONDS = 30.0
CONFIGURATION = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "vocab_size": len(tiny.VOCABULARY),
    "hidden_size": tiny.DIM,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
TOKENIZER = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "model_max_length": 64,
}
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]
POOLING = {"word_embedding_dimension": tiny.DIM, "pooling_mode_mean_tokens": True}
PROMPTS = {"prompts": {"query": "query: "}, "default_prompt_name": None}
LOCATIONS = (
    *("../secret", "/etc/passwd", "", ".", "..", "/", "a/../../secret", "./weights.bin", "x" * 300),
    *("..\\secret", "weights.bin\0", "\ud800", "folder", "link", "pipe", "config.json", "//secret"),
)
SIZES = ("0", "-1", "8", "99999999999999999999", "x", "", "1e9", "4096")
NAMES = (
    *("model_quantized.onnx", "onnx/model.onnx", "model_O2.onnx", "decoder.onnx", "_.onnx"),
    *("a\nb.onnx", "é.onnx", ".onnx", "model.onnx_data", "onnx/model_q4.onnx", "x" * 240 + ".onnx"),
)
ODD_CONTENTS = (
    *(b"", b"[" * 100_000, b"{}", b"[]", b"null", b"\xff\xfe", b"<html></html>", bytes(1 << 20)),
)
TARGETS = ("../secret", "/dev/zero", "/dev/null", "nowhere", ".", "..", "/etc/passwd")


@dataclass(frozen=True)
class Directory:
    """Files of a directory, what its links lead to, its pipes, and the options of the command."""

    files: Mapping[str, bytes]
    links: Mapping[str, str] = field(default_factory=dict)
    pipes: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


def whole(graph: bytes) -> Directory:
    """A directory that is adopted."""
    stated = {
        "config.json": CONFIGURATION,
        "tokenizer_config.json": TOKENIZER,
        "modules.json": MODULES,
        "1_Pooling/config.json": POOLING,
        "config_sentence_transformers.json": PROMPTS,
    }
    files = {name: json.dumps(value).encode() for name, value in stated.items()}
    files["tokenizer.json"] = tiny.make_tokenizer().to_str().encode()
    return Directory({**files, GRAPH: graph})


def some_directory(original: Directory, generator: random.Random) -> Directory:
    case = original
    for _ in range(generator.choice((1, 1, 1, 2))):
        case = generator.choice(CHANGES)(generator, case)
    options: dict[str, Any] = {"record_reference": generator.random() < 0.5}
    if generator.random() < 0.1:
        options["pooling"] = generator.choice(("cls", "mean", "max+cls", "lasttoken"))
    return replace(case, options=options)


def _json(generator: random.Random, case: Directory) -> Directory:
    """A value of a JSON file."""
    name = generator.choice([name for name in case.files if name.endswith(".json")])
    try:
        value = json.loads(case.files[name])
    except (ValueError, RecursionError):
        return case
    if isinstance(value, dict) and value and generator.random() < 0.4:
        changed = {**value, generator.choice(sorted(value)): generator.choice(ODD_VALUES)}
    else:
        changed = mutated_json(generator, value)
    return _with(case, name, json.dumps(changed).encode())


def _bytes(generator: random.Random, case: Directory) -> Directory:
    name = generator.choice(sorted(case.files))
    odd = (
        b"",
        b"[" * 100_000,
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"<html></html>",
        bytes(1 << 20),
    )
    if generator.random() < 0.3:
        return _with(case, name, generator.choice(odd))
    return _with(case, name, mutated_bytes(generator, case.files[name]))


def _graph(generator: random.Random, case: Directory) -> Directory:
    """A fact of the graph: names, types, sizes, operators, opset."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(case.files.get(GRAPH, b""))
    except Exception:
        return case
    change = generator.choice((_sizes, _value, _node, _opset, _external, _external, _function))
    change(generator, model)
    more = {WEIGHTS: generator.randbytes(generator.choice((0, 8, 4096)))}
    changed = _with(case, GRAPH, model.SerializeToString())
    return replace(changed, files={**changed.files, **more})


def _sizes(generator: random.Random, model: Any) -> None:
    for tensor in model.graph.initializer[:1]:
        tensor.dims[:] = generator.choice(
            ([], [0], [-1], [1 << 40], [1 << 40, 1 << 40], [20, 12, 1], [2**31], [5, 48])
        )
        if generator.random() < 0.3:
            tensor.data_type = generator.choice((0, 2, 8, 10, 16, 22, 23, 99, -1))


def _value(generator: random.Random, model: Any) -> None:
    values = [*model.graph.input, *model.graph.output]
    if not values:
        return
    value = generator.choice(values)
    way = generator.random()
    if way < 0.4:
        value.name = generator.choice(("", "x", "labels", "position_ids", "past.0", "é", "a\nb"))
    elif way < 0.6:
        value.ClearField("type")
    elif way < 0.8:
        value.type.tensor_type.elem_type = generator.choice((0, 1, 7, 8, 10, 99))
    else:
        size = value.type.tensor_type.shape.dim.add()
        size.dim_value = generator.choice((0, 1, -1, 1 << 40))


def _node(generator: random.Random, model: Any) -> None:
    if not model.graph.node:
        return
    node = generator.choice(model.graph.node)
    way = generator.random()
    if way < 0.2:
        model.graph.node.remove(node)
    elif way < 0.4:
        model.graph.node.append(node)
    elif way < 0.6:
        node.op_type = generator.choice(("", "Loop", "If", "Identity", "NoSuch", "ConstantOfShape"))
    elif way < 0.7:
        node.domain = generator.choice(("x", "com.microsoft", "ai.onnx.ml", "\n"))
    elif way < 0.9 and node.input:
        node.input[0] = generator.choice(("", "nowhere", node.output[0] if node.output else "x"))
    else:
        whole = onnx.GraphProto()
        whole.CopyFrom(model.graph)
        inner = node.attribute.add()
        inner.name, inner.type = generator.choice(("body", "axis", "value")), 5
        inner.g.CopyFrom(whole)


def _opset(generator: random.Random, model: Any) -> None:
    if model.opset_import:
        model.opset_import[0].version = generator.choice((-1, 0, 9, 11, 13, 17, 24, 25, 1 << 40))
    if generator.random() < 0.3:
        model.ir_version = generator.choice((0, 3, 13, 1 << 40))
    if generator.random() < 0.2:
        del model.opset_import[:]


def _external(generator: random.Random, model: Any) -> None:
    for tensor in model.graph.initializer[: generator.choice((1, 2))]:
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        keys = [("location", generator.choice((*LOCATIONS, WEIGHTS, WEIGHTS)))]
        stated = (key for key in ("offset", "length") if generator.random() < 0.4)
        keys += [(key, generator.choice(SIZES)) for key in stated]
        for key, value in keys:
            entry = tensor.external_data.add()
            entry.key = key
            if value.isprintable() or "\ud800" not in value:
                entry.value = value


def _function(generator: random.Random, model: Any) -> None:
    """A function that calls itself, or that does nothing."""
    function = model.functions.add()
    function.name, function.domain = "own", generator.choice(("own", "", "com.microsoft"))
    function.input.append("a")
    function.output.append("b")
    node = function.node.add()
    node.op_type, node.domain = generator.choice(("own", "Identity")), function.domain
    node.input.append("a")
    node.output.append("b")
    if model.graph.node:
        model.graph.node[-1].op_type, model.graph.node[-1].domain = "own", function.domain


def _places(generator: random.Random, case: Directory) -> Directory:
    """A file that is a link, a pipe, a folder or missing, or a link beside the files."""
    name = generator.choice(sorted(case.files))
    rest = {n: data for n, data in case.files.items() if n != name}
    way = generator.random()
    if way < 0.5:
        target = generator.choice((*TARGETS, Path(name).name))
        return replace(case, files=rest, links={**case.links, name: target})
    if way < 0.7:
        return replace(case, files=rest, pipes=(*case.pipes, name))
    if way < 0.8:
        return replace(case, files={**rest, f"{name}/inner": b"x"})
    if way < 0.9:
        return replace(case, files=rest)
    return replace(case, links={**case.links, "link": generator.choice(TARGETS)}, pipes=("pipe",))


def _names(generator: random.Random, case: Directory) -> Directory:
    """The graph under another name, or once more."""
    data = case.files.get(GRAPH, b"")
    files = {name: content for name, content in case.files.items() if name != GRAPH}
    kept = files if generator.random() < 0.5 else {**files, GRAPH: data}
    return replace(case, files={**kept, generator.choice(NAMES): data})


def _weights(generator: random.Random, case: Directory) -> Directory:
    """Something that has the name of PyTorch's weights."""
    name = generator.choice(("model.safetensors", "pytorch_model.bin", "adapter_model.safetensors"))
    header = b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    contents = (
        b"",
        generator.randbytes(64),
        (2**62).to_bytes(8, "little"),
        len(header).to_bytes(8, "little") + header,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.",
    )
    return _with(case, name, generator.choice(contents))


def _with(case: Directory, name: str, content: bytes) -> Directory:
    return replace(case, files={**case.files, name: content})


CHANGES: tuple[Callable[[random.Random, Directory], Directory], ...]
CHANGES = (_json, _json, _bytes, _graph, _graph, _graph, _places, _names, _weights)


def adopted(case: Directory) -> None:
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = Path(name)
        (root / "secret").write_bytes(SECRET * 100)
        place, out = root / "in", root / "out"
        lay_out(case, place)
        try:
            fmrt.adopt_onnx(place, out, **case.options)
        except BaseException:
            assert not out.exists(), "something is left"
            raise
        finally:
            left = {entry.name for entry in root.iterdir()}
            assert left <= {"secret", "in", "out"}, left
        for file in (path for path in out.rglob("*") if path.is_file()):
            assert SECRET not in file.read_bytes(), file
        with fmrt.Embedder(out, verify=bool(case.options["record_reference"])) as embedder:
            vectors = embedder.embed(["the red cat", "dog " * 90], on_too_long="truncate")
        assert np.isfinite(vectors).all()


def lay_out(case: Directory, place: Path) -> None:
    place.mkdir()
    for name, content in case.files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_dir():  # of a change before
            path.write_bytes(content)
    (place / "folder").mkdir()
    for name in (*case.links, *case.pipes):
        path = place / name
        if not os.path.lexists(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if name in case.links:
                path.symlink_to(case.links[name])
            else:
                os.mkfifo(path)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Directory:
    path = tmp_path_factory.mktemp("graph") / GRAPH
    rng = np.random.default_rng(0)
    words = rng.standard_normal((len(tiny.VOCABULARY), tiny.DIM)).astype(np.float32)
    tiny.write_graph(path, words, rng.standard_normal((2, tiny.DIM)).astype(np.float32))
    return whole(path.read_bytes())


def test_the_directory_itself_is_adopted(original: Directory) -> None:
    adopted(replace(original, options={"record_reference": True}))


def test_adopt(budget: Budget, original: Directory) -> None:
    make = partial(some_directory, original)
    attack(adopted, make, budget, most_seconds=MOST_SECONDS)

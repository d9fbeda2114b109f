"""ONNX graphs that other tools made become a bundle, or are refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

import fmrt
from fmrt.cli import main
from fmrt.errors import ExportError, OptionError, UnverifiedWarning, VerificationError
from fmrt.export.adopt.joining import make_head
from fmrt.export.quiet import quiet
from fmrt.export.rewrite import optimize_for_cpu
from fmrt.export.text.pooling import POOLINGS, make_pooling, pool
from tests.export.models import ENCODERS, save_tiny
from tests.export.test_heads import Backbone

TEXTS = ["a short text", "another text, somewhat longer than the first", "x"]
CONFIGURATION = ("config.json", "tokenizer.json", "tokenizer_config.json")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with quiet():
        return save_tiny(ENCODERS[0], tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def exported(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "bundle"
    fmrt.export_model(model, out)
    return out


@pytest.fixture
def graph(exported: Path) -> onnx.ModelProto:
    """A graph as other tools make them: it ends in the tokens' states."""
    found = onnx.load(exported / "onnx" / "model.onnx")
    del found.graph.output[1]
    return found


def lay_out(place: Path, model: Path, graph: onnx.ModelProto, file: str = "model.onnx") -> Path:
    (place / file).parent.mkdir(parents=True, exist_ok=True)
    for name in CONFIGURATION:
        shutil.copyfile(model / name, place / name)
    onnx.save(graph, place / file)
    return place


def embedded(bundle: fmrt.Bundle | Path, **options: str) -> np.ndarray:
    with fmrt.Embedder(bundle, **options) as embedder:
        return embedder.embed(TEXTS)


@pytest.mark.parametrize("file", ["model.onnx", "onnx/model.onnx", "onnx/model_O2.onnx"])
@pytest.mark.parametrize("external", [None, "weights of my own.bin"])
def test_an_adopted_graph_gives_the_models_vectors(
    file: str, external: str | None, model: Path, exported: Path, graph, tmp_path: Path
) -> None:
    if external is not None:
        onnx.external_data_helper.convert_model_to_external_data(graph, location=external)
    place = lay_out(tmp_path / "in", model, graph, file)
    assert external is None or (place / file).with_name(external).is_file()
    bundle = fmrt.adopt_onnx(place, tmp_path / "out", model=model)
    assert np.abs(embedded(bundle) - embedded(exported)).max() <= 1e-5
    assert all(report.passed for report in fmrt.verify_bundle(bundle))
    assert bundle.manifest.reference == "pytorch"


def test_options_are_the_exports(model: Path, graph, tmp_path: Path) -> None:
    place = lay_out(tmp_path / "in", model, graph)
    options = {"pooling": "max+cls", "normalize": True, "max_length": 12}
    bundle = fmrt.adopt_onnx(place, tmp_path / "a", model=model, **options)
    exported = fmrt.export_model(model, tmp_path / "b", **options)
    assert bundle.manifest.towers == exported.manifest.towers
    assert np.abs(embedded(bundle) - embedded(exported)).max() <= 1e-5


def test_other_weights_are_refused(model: Path, graph, tmp_path: Path) -> None:
    table = next(i for i in graph.graph.initializer if len(i.dims) == 2 and i.dims[0] > 100)
    values = numpy_helper.to_array(table)
    other = numpy_helper.from_array(np.ascontiguousarray(values[::-1]), table.name)
    table.CopyFrom(other)
    with pytest.raises(ExportError, match=r"does not give the vectors of .*worst cosine"):
        fmrt.adopt_onnx(lay_out(tmp_path / "in", model, graph), tmp_path / "out", model=model)
    assert not (tmp_path / "out").exists()


def test_a_graph_with_an_input_that_it_lacks_is_refused_in_one_line(
    model: Path, graph, tmp_path: Path, capsys
) -> None:
    del graph.graph.input[-1]
    place = lay_out(tmp_path / "in", model, graph)
    assert main(["adopt", str(place), str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "ONNX Runtime does not load the graph" in said


def test_without_weights_every_command_says_unverified(
    model: Path, graph, tmp_path: Path, capsys
) -> None:
    place, out, texts = lay_out(tmp_path / "in", model, graph), tmp_path / "out", tmp_path / "t.txt"
    texts.write_text("a\nb\n")
    said = "unverified: no reference"
    assert main(["adopt", str(place), str(out)]) == 0
    assert capsys.readouterr().err.count(said) == 1
    assert main(["embed", str(out), str(texts), "-o", str(tmp_path / "v.npy")]) == 0
    assert capsys.readouterr().err.count(said) == 1
    assert main(["verify", str(out)]) == 1
    assert "--record-reference" in capsys.readouterr().err
    assert said in (out / "README.md").read_text()
    with pytest.warns(UnverifiedWarning, match=said):
        bundle = fmrt.Bundle.open(out)
    with pytest.raises(VerificationError, match="--model MODEL"):
        bundle.reference()


def test_a_recorded_reference_is_what_variants_are_compared_with(
    model: Path, graph, tmp_path: Path
) -> None:
    place, out = lay_out(tmp_path / "in", model, graph), tmp_path / "out"
    with pytest.warns(UnverifiedWarning, match="its fp32 graph's own"):
        bundle = fmrt.adopt_onnx(place, out, record_reference=True)
    assert all(report.passed for report in fmrt.verify_bundle(bundle))
    with pytest.warns(UnverifiedWarning, match="its fp32 graph's own"):
        quantized = fmrt.quantize_bundle(out, "fp16")
    assert {v.precision for v in quantized.manifest.variants} == {"fp32", "fp16"}
    assert quantized.manifest.reference == "graph"


Edit = Callable[[Path, onnx.ModelProto], None]


def _fixed(axis: int) -> Edit:
    def edit(_: Path, graph: onnx.ModelProto) -> None:
        for value in graph.graph.input:
            value.type.tensor_type.shape.dim[axis].dim_value = 3

    return edit


def _custom(_: Path, graph: onnx.ModelProto) -> None:
    graph.graph.node[0].domain = "somebody.else"


def _another_input(_: Path, graph: onnx.ModelProto) -> None:
    graph.graph.input.append(helper.make_tensor_value_info("labels", TensorProto.INT64, [1]))


def _logits(_: Path, graph: onnx.ModelProto) -> None:
    node = next(n for n in graph.graph.node if n.output[0] == graph.graph.output[0].name)
    node.output[0] = graph.graph.output[0].name = "logits"


def _old(_: Path, graph: onnx.ModelProto) -> None:
    graph.opset_import[0].version = 9


def _reads(location: str) -> Edit:
    def edit(place: Path, graph: onnx.ModelProto) -> None:
        (place.parent / "secret").write_bytes(bytes(1 << 20))
        (place / "link").symlink_to(place.parent / "secret")
        tensor = graph.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", location

    return edit


BAD_GRAPHS = {
    "fixed batch": (_fixed(0), "a batch of fixed size 3: export it again"),
    "fixed length": (_fixed(1), "texts of exactly 3 tokens: export it again"),
    "custom operator": (_custom, "operator .* of 'somebody.else'"),
    "unknown input": (_another_input, "takes the input 'labels'"),
    "logits": (_logits, "gives logits, and neither last_hidden_state"),
    "old opset": (_old, "opset 9; fmrt adopts 11 to 24"),
    "weights above": (_reads("../secret"), "a file outside of"),
    "absolute weights": (_reads("/etc/passwd"), "a file outside of"),
    "linked weights": (_reads("link"), "a file outside of"),
    "missing weights": (_reads("nowhere"), "which is not there"),
}


@pytest.mark.parametrize("case", BAD_GRAPHS)
def test_a_bad_graph_is_one_line(case: str, model: Path, graph, tmp_path: Path, capsys) -> None:
    edit, message = BAD_GRAPHS[case]
    place = tmp_path / "in"
    place.mkdir()
    edit(place, graph)
    for name in CONFIGURATION:
        shutil.copyfile(model / name, place / name)
    (place / "model.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(ExportError, match=message):
        fmrt.adopt_onnx(place, tmp_path / "out")
    assert main(["adopt", str(place), str(tmp_path / "out"), "-q"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) in (["in"], ["in", "secret"])


def _no_tokenizer(place: Path) -> None:
    (place / "tokenizer.json").unlink()


def _two(place: Path) -> None:
    shutil.copyfile(place / "model.onnx", place / "decoder.onnx")


def _two_lines(place: Path) -> None:
    shutil.copyfile(place / "model.onnx", place / "a\nb.onnx")


def _architectures(place: Path) -> None:
    stated = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**stated, "architectures": [7]}))


def _layers(place: Path) -> None:
    stated = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**stated, "num_hidden_layers": 2**31}))


def _two_folders(place: Path) -> None:
    (place / "onnx").mkdir()
    (place / "onnx" / "model.onnx").write_bytes((place / "model.onnx").read_bytes() + b"\0")


def _no_graph(place: Path) -> None:
    (place / "model.onnx").unlink()


def _bundle(place: Path) -> None:
    (place / "fmrt.json").write_text("{}")


def _no_configuration(place: Path) -> None:
    (place / "config.json").unlink()


def _corrupt(place: Path) -> None:
    content = (place / "model.onnx").read_bytes()
    (place / "model.onnx").write_bytes(content[: len(content) // 2])


def _page(place: Path) -> None:
    (place / "model.onnx").write_bytes(b"<html>not found</html>")


def _empty(place: Path) -> None:
    (place / "model.onnx").write_bytes(b"")


def _name_in_latin_1(place: Path) -> None:
    content = (place / "model.onnx").read_bytes()
    name = onnx.load_from_string(content).graph.initializer[0].name.encode()
    (place / "model.onnx").write_bytes(content.replace(name, b"\xff" + name[1:]))


def _prompts(place: Path) -> None:
    stated = {"prompts": {"query": ["query: "]}}
    (place / "config_sentence_transformers.json").write_text(json.dumps(stated))


BAD_DIRECTORIES = {
    _no_tokenizer: "has no tokenizer: .* --model",
    _two: "holds graphs of 2 models .decoder.onnx, model.onnx.; give the file",
    _two_lines: r"holds graphs of 2 models .a\\nb.onnx, model.onnx.",
    _architectures: r"architectures is \[7\], and must be a list of names",
    _layers: "states num_hidden_layers 2147483648: no model has so many",
    _two_folders: "holds graphs of 2 models .model.onnx, onnx/model.onnx.",
    _no_graph: "holds no ONNX graph",
    _bundle: "is a bundle already",
    _no_configuration: "has no config.json; .* --model",
    _corrupt: "no ONNX graph that fmrt reads: it is cut short",
    _page: "no ONNX graph that fmrt reads",
    _empty: "no ONNX graph that fmrt reads: it is empty",
    _name_in_latin_1: "cannot be read as a graph: .*name",
    _prompts: r"the prompt 'query' is \['query: '\], not a text",
}


@pytest.mark.parametrize("edit", BAD_DIRECTORIES, ids=lambda edit: edit.__name__.strip("_"))
def test_a_bad_directory_is_one_line(edit, model: Path, graph, tmp_path: Path) -> None:
    place = lay_out(tmp_path / "in", model, graph)
    edit(place)
    with pytest.raises(ExportError, match=BAD_DIRECTORIES[edit]):
        fmrt.adopt_onnx(place, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_sibling_that_cannot_be_adopted_is_left_out_with_the_reason(
    model: Path, graph, tmp_path: Path
) -> None:
    place = lay_out(tmp_path / "in", model, graph)
    (place / "model_q4.onnx").write_bytes(b"")
    said: list[str] = []
    bundle = fmrt.adopt_onnx(place, tmp_path / "out", model=model, report=said.append)
    assert any(line.startswith("left out") and "model_q4.onnx" in line for line in said)
    assert {v.precision for v in bundle.manifest.variants} == {"fp32"}


def test_options_that_make_no_sense(model: Path, graph, exported: Path, tmp_path: Path) -> None:
    place = lay_out(tmp_path / "in", model, graph)
    with pytest.raises(ExportError, match="has no weights of PyTorch"):
        fmrt.adopt_onnx(place, tmp_path / "out", model=place)
    with pytest.raises(OptionError, match="--record-reference is for graphs without weights"):
        fmrt.adopt_onnx(place, tmp_path / "out", model=model, record_reference=True)
    with pytest.raises(OptionError, match="pooling 'best'"):
        fmrt.adopt_onnx(place, tmp_path / "out", pooling="best")


@pytest.mark.parametrize("asked", ["optimum", "best"])
def test_an_exporter_that_cannot_be_had_is_one_line(
    asked: str, model: Path, tmp_path: Path
) -> None:
    reasons = {
        "optimum": "needs optimum-onnx with transformers 4, and transformers 5",
        "best": "choose",
    }
    with pytest.raises(OptionError, match=f"exporter '{asked}'.*{reasons[asked]}"):
        fmrt.export_model(model, tmp_path / "out", exporter=asked)


def test_the_manifest_says_which_exporter_ran(exported: Path) -> None:
    assert fmrt.Bundle.open(exported).manifest.exporter == "transformers"


def test_a_branch_may_not_return_a_value_from_outside(tmp_path: Path) -> None:
    """As torch's converter of traces writes a squeeze."""
    model = onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["": 18]>
        g (float[n, 3] x, bool c) => (float[n, 3] y) {
            z = Relu(x)
            y = If (c) <
                then_branch = t () => (float[n, 3] a) { a = Identity(z) },
                else_branch = e () => (float[n, 3] b) { b = Neg(z) }
            >
        }""")
    rewritten = ir.from_proto(model)
    optimize_for_cpu(rewritten)
    ir.save(rewritten, tmp_path / "model.onnx")
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    x = np.ones((2, 3), np.float32)
    assert np.array_equal(session.run(None, {"x": x, "c": np.array(True)})[0], x)


@pytest.mark.parametrize("opset", [11, 13, 14, 17, 18, 20])
def test_a_head_is_the_same_in_every_opset(opset: int, tmp_path: Path) -> None:
    modes = tuple(POOLINGS)
    modules = [Backbone(), make_pooling(8, modes), Normalize()]
    source = SimpleNamespace(
        model=modules,
        pooling_modes=modes,
        transformer=SimpleNamespace(auto_model=SimpleNamespace(config=None)),
        pooling=SimpleNamespace(include_prompt=False),
    )
    ir.save(make_head(source, 8, opset), tmp_path / "head.onnx")
    session = ort.InferenceSession(tmp_path / "head.onnx", providers=["CPUExecutionProvider"])
    states = torch.randn(3, 7, 8)
    mask = (torch.arange(7) < torch.tensor([7, 3, 4])[:, None]).long()
    want = torch.nn.functional.normalize(pool(modes, states, mask, 2))
    feeds = {"last_hidden_state": states.numpy(), "attention_mask": mask.numpy()}
    got = session.run(None, {**feeds, "prompt_length": np.array([2])})[0]
    np.testing.assert_allclose(got, want.numpy(), atol=1e-6)
    assert isinstance(modules[1], Pooling)

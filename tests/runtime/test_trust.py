"""A bundle is data from a stranger: what it may not be, read, or give."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors import safe_open
from safetensors.numpy import save_file

import fmrt
from fmrt import Embedder
from fmrt.bundle.bundle import Bundle, record_of
from fmrt.bundle.manifest import REFERENCE_FILE, Manifest
from fmrt.bundle.reference import TOWERS, declared
from fmrt.cli import main
from fmrt.errors import (
    BundleCorruptError,
    BundleError,
    FmrtError,
    GraphError,
    InputError,
    OptionError,
)
from fmrt.session.creation import session_options
from fmrt.session.device import Device, DeviceSession
from fmrt.session.multi_device import MultiDeviceSession
from fmrt.session.onnx_files import external_locations
from fmrt.session.providers import CPU

from .conftest import DIM, VOCABULARY
from .test_device import on_cpu_memory

GRAPH = "onnx/model.onnx"
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="no FIFOs, devices and links for all")


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_bundle, tmp_path / "bundle")


def edit(bundle: Path, change: Callable[[dict], object]) -> None:
    raw = json.loads((bundle / "fmrt.json").read_text())
    change(raw)
    (bundle / "fmrt.json").write_text(json.dumps(raw))


def renamed(bundle: Path, name: str) -> None:
    edit(bundle, lambda m: m["variants"][0].update(file=name))


def with_graph(bundle: Path, model: onnx.ModelProto) -> None:
    onnx.save(model, bundle / GRAPH)
    own = dataclasses.asdict(record_of(bundle / GRAPH))
    edit(bundle, lambda m: m["variants"][0].update(own))


def with_reference(bundle: Path, change: Callable[[dict, dict], object]) -> None:
    path = bundle / REFERENCE_FILE
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(metadata, tensors)
    save_file(tensors, path, metadata)
    own = dataclasses.asdict(record_of(path))
    edit(bundle, lambda m: m["files"].update({REFERENCE_FILE: own}))


@pytest.mark.parametrize(
    "name",
    [
        "../model.onnx",
        "onnx/../../model.onnx",
        "onnx/./model.onnx",
        "onnx//model.onnx",
        "/etc/model.onnx",
        "C:/model.onnx",
        "C:model.onnx",
        "//host/share/model.onnx",
        "\\\\host\\share\\model.onnx",
        "onnx\\model.onnx",
        "~/model.onnx\n",
        "onnx/model.onnx:stream.onnx",
        "NUL.onnx",
        "onnx/com1.onnx",
        "aux/model.onnx",
        "onnx/model.onnx ",
        "onnx./model.onnx",
        "onnx/*.onnx",
        "onnx/mödel.onnx",
        "onnx/model\0.onnx",
        "",
        "x" * 300 + ".onnx",
        "onnx/model.ort",
    ],
)
def test_a_name_that_is_no_file_of_the_bundle_is_refused(bundle: Path, name: str) -> None:
    record = {"sha256": "0" * 64, "size": 1}
    places = {
        r"variants\[0\]\.file": lambda m: m["variants"][0].update(file=name),
        r"variants\[0\]\.external": lambda m: m["variants"][0].update(external={name: record}),
        r"files": lambda m: m["files"].update({name: record}),
    }
    before = (bundle / "fmrt.json").read_text()
    for place, change in places.items():
        if name.endswith(".ort") and place[-4:] != "file":
            continue
        edit(bundle, change)
        with pytest.raises(BundleCorruptError, match=rf"fmrt\.json: {place}.* must "):
            Bundle.open(bundle)
        (bundle / "fmrt.json").write_text(before)


def test_names_that_differ_in_case_are_refused(bundle: Path) -> None:
    edit(bundle, lambda m: m["files"].update({"Tokenizer.json": m["files"]["tokenizer.json"]}))
    with pytest.raises(BundleCorruptError, match=r"'tokenizer.json' and 'Tokenizer.json'"):
        Bundle.open(bundle)


@POSIX
def test_a_link_out_of_the_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    (bundle / GRAPH).rename(tmp_path / "elsewhere.onnx")
    (bundle / GRAPH).symlink_to("../../elsewhere.onnx")
    with pytest.raises(BundleCorruptError, match=r"model.onnx is a link out of the bundle, to /"):
        Embedder(bundle)
    (tmp_path / "elsewhere.onnx").rename(bundle / "inside.onnx")
    (bundle / GRAPH).unlink()
    (bundle / GRAPH).symlink_to("../inside.onnx")
    Embedder(bundle).close()


@POSIX
def test_the_cache_of_the_hub_is_a_bundle_of_links(bundle: Path, tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--a--b/snapshots/abc", tmp_path / "models--a--b/blobs"
    blobs.mkdir(parents=True)
    for file in [path for path in bundle.rglob("*") if path.is_file()]:
        place = snapshot / file.relative_to(bundle)
        place.parent.mkdir(parents=True, exist_ok=True)
        blob = blobs / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copy(file, blob)
        place.symlink_to(os.path.relpath(blob, place.parent))
    Embedder(snapshot).close()


def odd_manifests() -> dict[str, Callable[[Path], object]]:
    return {
        "a FIFO": os.mkfifo,
        "a device": lambda path: path.symlink_to("/dev/zero"),
        "a folder": lambda path: path.mkdir(),
        "a loop": lambda path: path.symlink_to(path),
        "deep": lambda path: path.write_text("[" * 200_000),
        "large": lambda path: path.write_text(" " * (5 << 20)),
        "twice a key": lambda path: path.write_text('{"dim": 1, "dim": 2}'),
        "no UTF-8": lambda path: path.write_bytes(b'{"\xff": 1}'),
        "a long number": lambda path: path.write_text('{"schema_version": ' + "9" * 9999 + "}"),
    }


@POSIX
@pytest.mark.parametrize("kind", odd_manifests() if sys.platform != "win32" else [])
def test_what_is_no_manifest_is_refused_at_once(bundle: Path, kind: str) -> None:
    (bundle / "fmrt.json").unlink()
    odd_manifests()[kind](bundle / "fmrt.json")
    with pytest.raises(BundleCorruptError, match=r"fmrt\.json"):
        Bundle.open(bundle)


CONTRADICTIONS = {
    "towers[0].input.default_prompt_name": lambda t: t["input"].update(default_prompt_name="x"),
    "towers[0].embedding_output": lambda t: t.update(embedding_output="x"),
    "towers[0].inputs": lambda t: t.update(inputs=["attention_mask"]),
    "towers[0].outputs": lambda t: t.update(outputs=["sentence_embedding"] * 2),
    "towers[0].grid": lambda t: t.update(grid=[2, 2]),
    "towers[0].input.max_length": lambda t: t["input"].update(
        pad_to_max_length=True, max_length=10**6
    ),
}


@pytest.mark.parametrize("where", CONTRADICTIONS)
def test_values_that_contradict_each_other_are_refused(bundle: Path, where: str) -> None:
    edit(bundle, lambda m: CONTRADICTIONS[where](m["towers"][0]))
    with pytest.raises(BundleCorruptError) as e:
        Bundle.open(bundle)
    assert f"fmrt.json: {where} " in str(e.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["towers"][0]["inputs"].append("pixels"), "has not an input 'pixels'"),
        (lambda m: m["towers"][0]["inputs"].pop(), "needs an input 'token_type_ids'"),
        (
            lambda m: m["towers"][0].update(outputs=["x"], embedding_output="x"),
            "gives nothing as 'x'",
        ),
        (lambda m: m.update(dim=5, matryoshka_dims=[]), r"\[9, 12\], and must be F32 \[9, 5\]"),
    ],
)
def test_values_that_contradict_the_graph_are_refused(bundle, change, message) -> None:
    edit(bundle, change)
    with pytest.raises(BundleError, match=message):
        Embedder(bundle)


def test_more_outputs_than_items_are_an_error_and_fewer_are_not_repeated(bundle: Path) -> None:
    edit(bundle, lambda m: m.update(dim=5, matryoshka_dims=[]))
    for items in (["cat"], ["cat", "dog"] * 40):
        with (
            Embedder(bundle, verify=False) as embedder,
            pytest.raises(GraphError, match=r"\[\d+, 12\]"),
        ):
            embedder.embed(items)
    model = onnx.load(bundle / GRAPH)
    node = model.graph.node[-1]
    node.input[0] = "first"
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "zero"))
    model.graph.node.insert(-1, helper.make_node("Gather", ["mean", "zero"], ["first"], axis=0))
    model.graph.node.sort(key=lambda n: n.op_type == "LpNormalization")
    edit(bundle, lambda m: m.update(dim=DIM))
    with_graph(bundle, model)
    repeated = pytest.raises(GraphError, match=r"gives \[1, 12\] .* says \[2, 12\]")
    with Embedder(bundle, verify=False) as embedder, repeated:
        embedder.embed(["the cat", "the dog"])


def external(model: onnx.ModelProto, location: str, *, in_node: bool = False) -> onnx.ModelProto:
    """The words' vectors in another file."""
    tensor = next(t for t in model.graph.initializer if t.name == "words")
    if in_node:
        model.graph.initializer.remove(tensor)
        constant = helper.make_node("Constant", [], ["words"], value=tensor)
        model.graph.node.insert(0, constant)
        tensor = model.graph.node[0].attribute[0].t
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    return model


@pytest.mark.parametrize("in_node", [False, True])
def test_weights_that_no_hash_covers_are_refused(bundle: Path, in_node: bool) -> None:
    model = onnx.load(bundle / GRAPH)
    assert external_locations(bundle / GRAPH) == frozenset()
    data = next(t for t in model.graph.initializer if t.name == "words").raw_data
    (bundle / "onnx/words.bin").write_bytes(data)
    with_graph(bundle, external(model, "words.bin", in_node=in_node))
    assert external_locations(bundle / GRAPH) == {"words.bin"}
    with pytest.raises(BundleCorruptError, match=r"reads 'words.bin', which fmrt.json does not"):
        Embedder(bundle)
    record = dataclasses.asdict(record_of(bundle / "onnx/words.bin"))
    edit(bundle, lambda m: m["variants"][0].update(external={"onnx/words.bin": record}))
    if not in_node:  # ONNX Runtime takes no constant from another file
        Embedder(bundle).close()
    (bundle / "onnx/words.bin").write_bytes(data[::-1])
    with pytest.raises(BundleCorruptError, match=r"words.bin is corrupt"):
        Embedder(bundle)


@pytest.mark.parametrize(
    "location", ["../../secret", "/etc/passwd", "*/_ORT_MEM_ADDR_/*", "Words.bin", "x/../words.bin"]
)
def test_weights_are_in_the_listed_files_alone(bundle: Path, location: str) -> None:
    data = b"\0" * 4 * DIM * len(VOCABULARY)
    (bundle / "onnx/words.bin").write_bytes(data)
    with_graph(bundle, external(onnx.load(bundle / GRAPH), location))
    record = dataclasses.asdict(record_of(bundle / "onnx/words.bin"))
    edit(bundle, lambda m: m["variants"][0].update(external={"onnx/words.bin": record}))
    with pytest.raises(BundleCorruptError, match=r"which fmrt\.json does not list"):
        Embedder(bundle)


def test_compiled_code_in_a_graph_is_refused(bundle: Path) -> None:
    model = onnx.load(bundle / GRAPH)
    model.graph.node.append(
        helper.make_node("EPContext", [], ["x"], domain="com.microsoft", ep_cache_context="/x")
    )
    with_graph(bundle, model)
    with pytest.raises(BundleCorruptError, match="EPContext"):
        Embedder(bundle)


def test_a_file_that_changes_after_its_check_is_refused(bundle: Path) -> None:
    def read(path: Path) -> bytes:
        path.write_bytes(path.read_bytes()[::-1])
        return path.read_bytes()

    opened = Bundle.open(bundle)
    checked = opened.checked_graph(opened.variant())
    assert checked.use(Path.read_bytes) == (bundle / GRAPH).read_bytes()
    os.utime(bundle / GRAPH)  # another time, the same content
    checked.use(Path.read_bytes)
    with pytest.raises(BundleCorruptError, match="SHA-256 has changed"):
        checked.use(read)


REFERENCES = {
    "no items": lambda m, _: m.update(text="[]"),
    "no metadata": lambda m, _: m.pop("text"),
    "NaN": lambda _, t: t["text.embeddings"].fill(np.nan),
    "all zero": lambda _, t: t["text.embeddings"].fill(0),
    "too few lengths": lambda _, t: t.update({"text.lengths": t["text.lengths"][:2].copy()}),
    "a wrong type": lambda _, t: t.update({"text.lengths": t["text.lengths"].astype("f8")}),
    "an image": lambda m, _: m.update(text='[{"bytes": "x"}]'),
}


@pytest.mark.parametrize("kind", REFERENCES)
def test_a_reference_file_that_proves_nothing_is_refused(bundle: Path, kind: str) -> None:
    with_reference(bundle, REFERENCES[kind])
    with pytest.raises(BundleCorruptError, match=r"reference.safetensors cannot be used"):
        Embedder(bundle)
    assert main(["verify", str(bundle)]) == 1


@pytest.mark.parametrize("kept", [False, True])
def test_options_that_were_not_exported_are_refused(bundle: Path, kept: bool) -> None:
    """A prompt always: an older file keeps no options, but an item with each prompt."""
    towers = Manifest.read(bundle).towers
    if kept:
        with_reference(bundle, lambda meta, _: meta.update({TOWERS: declared(towers)}))
    Embedder(bundle).close()
    before = (bundle / "fmrt.json").read_text()
    changes = {"prompts": {"query": "x: "}}
    changes |= {"max_length": 15, "truncation_side": "left", "padded": False} if kept else {}
    for name, value in changes.items():
        edit(bundle, lambda m: m["towers"][0]["input"].update({name: value}))  # noqa: B023
        with pytest.raises(BundleCorruptError, match=f"fmrt.json: .*{name if kept else 'query'}"):
            Embedder(bundle)
        (bundle / "fmrt.json").write_text(before)


def test_a_pinned_bundle_is_the_one_or_none(bundle: Path, capsys) -> None:
    pin = hashlib.sha256((bundle / "fmrt.json").read_bytes()).hexdigest()
    Embedder(bundle, sha256=pin.upper()).close()
    Embedder.from_pretrained(str(bundle), sha256=pin).close()
    assert main(["info", str(bundle)]) == 0
    assert f"SHA-256 {pin}" in capsys.readouterr().out
    opened = Bundle.open(bundle)
    edit(bundle, lambda m: m.update(model_type="other"))
    for load in (Embedder, Embedder.from_pretrained):
        with pytest.raises(BundleCorruptError, match="this is another bundle"):
            load(str(bundle), sha256=pin)
    Embedder(opened, sha256=pin).close()
    with pytest.raises(OptionError, match="sha256='abc'; give 64 digits"):
        Embedder(bundle, sha256="abc")
    for command in (["info"], ["verify"]):
        assert main([*command, str(bundle), "--sha256", pin]) == 1


def not_a_number(bundle: Path, word: str = "red") -> None:
    """A graph that divides by zero for one word."""
    model = onnx.load(bundle / GRAPH)
    tensor = next(t for t in model.graph.initializer if t.name == "words")
    words = numpy_helper.to_array(tensor).copy()
    words[VOCABULARY[word]] = np.inf
    tensor.CopyFrom(numpy_helper.from_array(words, "words"))
    with_graph(bundle, model)

    def without(meta: dict, tensors: dict) -> None:
        entries = json.loads(meta["text"])
        rows = [i for i, entry in enumerate(entries) if word not in entry["text"]]
        meta["text"] = json.dumps([entries[i] for i in rows])
        for name in tensors:
            tensors[name] = tensors[name][rows].copy()

    with_reference(bundle, without)


def test_a_vector_of_no_numbers_is_its_items_error(bundle: Path, tmp_path: Path, capsys) -> None:
    not_a_number(bundle)
    items = ["a cat", "a red cat", "the dog"] * 30
    with Embedder(bundle) as embedder:
        for given, index in ((items, 1), (items[1:2], 0)):
            with pytest.raises(InputError, match="NaN or infinity") as e:
                embedder.embed(given, precision="int8")
            assert e.value.index == index
        failed: list[int] = []
        kept = [
            item
            for window, vectors in embedder.embed_items(
                enumerate(items),
                lambda pair: pair[1],
                on_error=lambda pair, _: failed.append(pair[0]),
            )
            for item, vector in zip(window, vectors, strict=True)
            if np.isfinite(vector).all()
        ]
    assert failed == list(range(1, 90, 3))
    assert [i for i, _ in kept] == [i for i in range(90) if i % 3 != 1]
    text, out = tmp_path / "t.txt", tmp_path / "v.npy"
    text.write_text("\n".join(items[:3]))
    arguments = ["embed", str(bundle), str(text), "-o", str(out), "--precision", "int8"]
    assert main(arguments) == 1
    assert "line 2" in (said := capsys.readouterr().err), said
    assert "NaN" in said
    assert not out.exists()
    main([*arguments, "--on-error", "skip"])
    assert np.load(out).shape == (2, DIM)


def test_no_vector_of_no_numbers_is_kept_or_remembered(bundle: Path, tmp_path: Path) -> None:
    not_a_number(bundle)
    for _ in range(2):
        with Embedder(bundle, cache=tmp_path / "cache") as embedder:
            with pytest.raises(InputError, match="NaN"):
                embedder.embed(["cat", "red"])
            assert np.isfinite(embedder.embed(["cat"], dedupe=True)).all()


def test_half_precision_that_overflows_is_refused(bundle: Path) -> None:
    from fmrt.embedding.postprocess import PRECISIONS

    with pytest.raises(OptionError, match="precision='float16' holds numbers up to 65,504"):
        PRECISIONS["float16"].encode(np.full((2, 3), 1e5, np.float32), 1.0)


def test_what_the_runtime_raises_is_ours(bundle: Path) -> None:
    """A graph that fails for texts of more than three tokens."""
    model = onnx.load(bundle / GRAPH)
    words = next(t for t in model.graph.initializer if t.name == "types")
    words.CopyFrom(numpy_helper.from_array(np.zeros((1, DIM), np.float32), "types"))
    one = numpy_helper.from_array(np.array([1], np.int64), "one")
    model.graph.initializer.append(one)
    model.graph.node[1].input[1] = "ones"
    model.graph.node.insert(0, helper.make_node("Add", ["token_type_ids", "one"], ["ones"]))
    with_graph(bundle, model)
    with Embedder(bundle, verify=False) as embedder, pytest.raises(GraphError, match="cannot run"):
        embedder.embed(["cat"])
    with pytest.raises(FmrtError):
        Embedder(bundle)
    assert not all(r.passed for r in fmrt.verify_bundle(Bundle.open(bundle)))


def test_an_output_that_is_no_float_is_refused(bundle: Path) -> None:
    model = onnx.load(bundle / GRAPH)
    output = model.graph.output[1]
    model.graph.node[-1].output[0] = "floats"
    model.graph.node.append(
        helper.make_node("Cast", ["floats"], ["sentence_embedding"], to=TensorProto.STRING)
    )
    output.CopyFrom(
        helper.make_tensor_value_info("sentence_embedding", TensorProto.STRING, ["b", DIM])
    )
    with_graph(bundle, model)
    with pytest.raises(GraphError, match=r"gives tensor\(string\) as 'sentence_embedding'"):
        Embedder(bundle)


def test_no_vector_of_no_numbers_passes_on_any_of_several_devices(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three devices over CPU memory, as tests of devices have them."""
    not_a_number(bundle)
    several = MultiDeviceSession([on_cpu_memory(bundle) for _ in range(3)])
    monkeypatch.setattr("fmrt.embedding.engine.open_session", lambda *_: several)
    with Embedder(bundle) as embedder:
        items = ["a cat", "a red cat", "the dog"] * 30
        with pytest.raises(InputError, match="NaN or infinity") as e:
            embedder.embed(items, batch_tokens=16)
        assert e.value.index == 1
        assert np.isfinite(embedder.embed(["a cat", "the dog"] * 30, batch_tokens=16)).all()
    with pytest.raises(GraphError, match="has not an input 'x'"):
        several.check_inputs(["input_ids", "attention_mask", "token_type_ids", "x"])


def test_a_device_checks_its_output_and_says_what_fails(bundle: Path) -> None:
    session = CPU.start(bundle / GRAPH, session_options())
    with pytest.raises(GraphError, match="gives nothing as 'x'"):
        DeviceSession(session, "x", Device("cpu", 0))
    ids = np.full((1, 8), 10**6)
    feeds = {"input_ids": ids, "attention_mask": ids, "token_type_ids": ids}
    with pytest.raises(GraphError, match=r"cannot run the graph: .*out of data bounds"):
        on_cpu_memory(bundle).run(feeds)

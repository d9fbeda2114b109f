"""Quantized variants: close to fp32, the same in any batch, and added all or not at all."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fmrt
import fmrt.export.quantize.bundle as quantizing
from benchmarks.scripts.saturation import largest_error, rounded
from fmrt.bundle.checked import record_of
from fmrt.cli import main
from fmrt.errors import ExportError, FmrtError, OptionError, QuantizationError, VariantNotFoundError
from fmrt.export import export_model
from fmrt.export.quantize import SCHEMES, int8, named_schemes, quantize_bundle
from fmrt.export.quantize.int4 import BLOCK, round_blocks
from fmrt.export.quantize.int8 import Loss, sensitive
from fmrt.export.quantize.items import given_items, own_items
from fmrt.export.quantize.loud import spare_loud_features
from fmrt.export.quantize.recipe import TINY as TINY_SCALE
from fmrt.export.quantize.recipe import ZEROS, Recipe
from fmrt.export.quantize.rounding import LARGEST, round_weights
from fmrt.export.quantize.sites import find_sites
from fmrt.export.rewrite.graph.walking import constant
from fmrt.options import OPTIONS
from fmrt.verify import TOLERANCES, measure
from tests.export.audio import AUDIO, save_audio
from tests.export.models import DECODERS, ENCODERS, TEXTS, Tiny, save_tiny
from tests.export.vision import VISION, save_vision

LINES = [
    f"{a} {b} number {i}" for i in range(12) for a in ("one", "a red") for b in ("cat", "tree")
]
ALL = ("fp16-cpu", "fp16-cuda", "fp16-portable", "int8-cpu", "q8", "q4", "bf16", "w8")
ON_CPU = ("fp16-cpu", "fp16-portable", "int8-cpu", "q8", "q4", "w8")
# A random model of 32 features, whose few numbers are all outliers.
LOW = 0.9


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calibration") / "texts.txt"
    path.write_text("\n".join([*LINES, *filter(None, TEXTS)]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    fmrt.export_model(save_tiny(Tiny("bert", "wordpiece"), folder / "model"), folder / "bundle")
    return folder / "bundle"


@pytest.fixture(scope="module")
def bundle(plain: Path, lines: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("quantized") / "bundle"
    shutil.copytree(plain, copy)
    fmrt.quantize_bundle(copy, list(SCHEMES), min_cosine=LOW, calibration=lines)
    return copy


def files(directory: Path) -> dict[str, bytes]:
    paths = (p for p in directory.rglob("*") if p.is_file())
    return {str(p.relative_to(directory)): p.read_bytes() for p in paths}


def embed(bundle: Path, variant: str, texts: list[str], **options: int) -> np.ndarray:
    with fmrt.Embedder(bundle, variant=variant) as embedder:
        return embedder.embed(texts, on_too_long="truncate", **options)


@settings(max_examples=60)
@given(
    weight=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 13), st.integers(1, 4)),
        elements=st.floats(-1e3, 1e3, width=32),
    ),
    moments=st.booleans(),
)
def test_no_pair_of_weights_can_saturate_16_bits(weight: np.ndarray, moments: bool) -> None:
    rows = np.random.default_rng(0).standard_normal((40, len(weight))).astype(np.float32)
    rounded, scale = round_weights(weight, rows.T @ rows if moments else None)
    assert np.isfinite(scale).all()
    assert (scale > 0).all()
    wide = rounded.astype(np.int64)
    if len(wide) % 2:
        wide = np.vstack([wide, np.zeros_like(wide[:1])])
    first, second = wide[::2], wide[1::2]
    # The largest and the smallest sum that activations from 0 to 255 can make.
    assert (255 * (np.maximum(first, 0) + np.maximum(second, 0))).max() <= 32767
    assert (255 * (np.minimum(first, 0) + np.minimum(second, 0))).min() >= -32768


def test_rounding_for_the_products_beats_rounding_to_nearest() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((500, 8)) @ rng.standard_normal((8, 64))).astype(np.float32)
    weight = rng.standard_normal((64, 32)).astype(np.float32)

    def error(moments: np.ndarray | None) -> float:
        rounded, scale = round_weights(weight, moments)
        assert np.abs(rounded).max() <= LARGEST
        return float(np.square(rows @ (rounded * scale - weight)).mean())

    assert error(rows.T @ rows) < 0.5 * error(None)


@settings(max_examples=60)
@given(
    rows=hnp.arrays(np.float32, (3, 8), elements=st.floats(-(2.0**99), 2.0**99, width=32)),
    zero=st.sampled_from(ZEROS),
)
def test_rows_of_any_size_are_within_half_a_step(rows: np.ndarray, zero: int) -> None:
    recipe = Recipe(zero, None, np.zeros(8, np.float32), np.ones(8, np.float32), 0.0)
    seen = recipe.quantized(rows)
    step = np.maximum(rows.max(1) / (255 - zero), np.maximum(-rows.min(1) / zero, TINY_SCALE))
    assert (np.abs(seen - rows) <= 0.51 * step[:, None]).all()


@settings(max_examples=20)
@given(
    weight=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 70), st.integers(1, 3)),
        elements=st.floats(-100, 100, width=32),
    )
)
def test_4_bit_blocks_are_what_onnx_runtime_reads(weight: np.ndarray) -> None:
    features, columns = weight.shape
    packed, scale = round_blocks(weight)
    x = ir.val("x", ir.DataType.FLOAT, ["n", features])
    names = {"blocks": packed, "scales": scale}
    values = {n: ir.val(n, const_value=ir.tensor(a, name=n)) for n, a in names.items()}
    attributes = {"K": features, "N": columns, "bits": 4, "block_size": BLOCK}
    node = ir.node("MatMulNBits", [x, *values.values()], attributes, domain="com.microsoft")
    imports = {"": 21, "com.microsoft": 1}
    graph = ir.Graph([x], node.outputs, nodes=[node], opset_imports=imports)
    for name, value in values.items():
        graph.initializers[name] = value
    model = ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    seen = session.run(None, {"x": np.eye(features, dtype=np.float32)})[0]
    for start in range(0, features, BLOCK):
        rows = slice(start, start + BLOCK)
        error, most = (
            np.square(w - weight[rows]).sum(0) for w in (seen[rows], nearest(weight[rows]))
        )
        assert (error <= most * 1.001 + 1e-6).all()


def nearest(block: np.ndarray) -> np.ndarray:
    """Each column rounded to -8 to 7 steps, of which its largest number is -8."""
    block = block.astype(np.float64)
    largest = np.take_along_axis(block, np.abs(block).argmax(0)[None], 0)
    step = np.where(largest == 0, 1, largest / -8)
    return np.clip(np.round(block / step), -8, 7) * step


def test_each_scheme_adds_its_verified_variants(plain: Path, bundle: Path) -> None:
    manifest = fmrt.Bundle.open(bundle).manifest
    added = {v.name: v for v in manifest.variants if v.quality is not None}
    assert tuple(added) == ALL
    for variant in added.values():
        quality = variant.quality
        assert quality is not None
        assert quality.mean_cosine >= LOW
        assert (quality.speed is None) == (variant.provider == "cuda")
        assert variant.tolerance is not None
        assert variant.parity is not None
        assert variant.tolerance.max_abs_error >= 1.5 * variant.parity.max_abs_error
        assert variant.tolerance.min_cosine <= TOLERANCES[variant.precision].min_cosine
    changed = {"fmrt.json", "config.json", "README.md"}  # they list what was added
    before = {n: b for n, b in files(plain).items() if n not in changed}
    after = files(bundle)
    assert {n: after[n] for n in before} == before
    assert main(["verify", str(bundle)]) == 0


@pytest.mark.parametrize("variant", ON_CPU)
def test_a_vector_does_not_depend_on_its_batch(bundle: Path, variant: str) -> None:
    texts = [*TEXTS, *LINES[:20], "x " * 64, "again again again again"]
    together = embed(bundle, variant, texts)
    alone = np.concatenate([embed(bundle, variant, [text]) for text in texts])
    assert np.isfinite(together).all()
    assert np.abs(together - alone).max() <= 1e-6
    fp32 = embed(bundle, "fp32", texts)
    assert measure(together, fp32).mean_cosine >= LOW


def test_int8_attends_by_one_path_and_so_takes_padded_batches(bundle: Path) -> None:
    manifest = fmrt.Bundle.open(bundle).manifest
    assert all(v.padded for v in manifest.variants)
    one = [node.op_type for node in ir.load(bundle / "onnx/model_int8_cpu.onnx").graph]
    assert "If" not in one
    assert one.count("Attention") == 2


def test_padding_that_matters_keeps_batches_to_one_length(
    plain: Path, lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(plain, copy)
    monkeypatch.setattr(quantizing, "SAME", -1.0)
    made = quantize_bundle(copy, ["int8", "fp16"], min_cosine=LOW, calibration=lines)
    apart = {v.name for v in made.manifest.variants if not v.padded}
    assert apart == {"int8-cpu", "q8"}


def test_what_is_rounded_is_compared_bit_by_bit(tmp_path: Path, lines: Path) -> None:
    """One query over all keys, as before CLS pooling, adds them in an order of their number.

    Vectors may all be the same nevertheless: few values are at the edge of a step.
    """
    model = save_tiny(Tiny("bert", "wordpiece"), tmp_path / "model")
    out = fmrt.export_model(model, tmp_path / "bundle", pooling="cls")
    made = quantize_bundle(out.path, ["int8"], min_cosine=LOW, calibration=lines)
    assert {v.name for v in made.manifest.variants if not v.padded} == {"int8-cpu"}


def test_norms_add_the_biases_of_products_with_a_scale_a_row(bundle: Path) -> None:
    graph = ir.load(bundle / "onnx/model_int8_cpu.onnx").graph
    adds = [node for node in graph if node.op_type == "Add"]
    assert adds
    constants = [constant(value) for node in adds for value in node.inputs]
    assert not [array for array in constants if array is not None]


def test_bf16_is_the_portable_graph_and_taken_only_when_asked_for(bundle: Path) -> None:
    variants = {v.name: v for v in fmrt.Bundle.open(bundle).manifest.variants}
    found = variants["bf16"]
    assert (found.file, found.sha256) == (variants["fp32"].file, variants["fp32"].sha256)
    assert (found.provider, found.checked_on) == ("openvino", "openvino")
    with fmrt.Embedder(bundle, provider="openvino") as embedder:
        assert embedder.variant == "fp32"
    with pytest.raises(VariantNotFoundError, match="bf16"):
        fmrt.Embedder(bundle, variant="bf16")
    with fmrt.Embedder(bundle, provider="openvino", variant="bf16") as embedder:
        near = embedder.embed(LINES, on_too_long="truncate")
    exact = embed(bundle, "fp32", LINES)
    assert ((near * exact).sum(1) > 0.999 * np.linalg.norm(near, axis=1)).all()


def test_4_bit_weights_are_mapped(bundle: Path) -> None:
    variant = fmrt.Bundle.open(bundle).variant("q4")
    assert set(variant.external) == {"onnx/model_q4.onnx_data"}
    config = json.loads((bundle / "config.json").read_text())
    assert config["transformers.js_config"]["use_external_data_format"] == {"model_q4.onnx": 1}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_extreme_batches_give_finite_vectors(bundle: Path, data: st.DataObject) -> None:
    """Rows of padding alone, one token, one token repeated, the maximum length."""
    rows, length = data.draw(st.sampled_from([(1, 1), (3, 2), (2, 64), (5, 7)]))
    mask = data.draw(hnp.arrays(np.int64, (rows, length), elements=st.integers(0, 1)))
    token = data.draw(st.integers(0, 200))
    ids = np.where(data.draw(st.booleans()), token, np.arange(rows * length) % 200)
    feeds = {
        "input_ids": np.broadcast_to(ids.reshape(-1)[: rows * length], rows * length).reshape(
            rows, length
        )
        if ids.size > 1
        else np.full((rows, length), token, np.int64),
        "attention_mask": mask,
        "token_type_ids": np.zeros((rows, length), np.int64),
    }
    for name in ON_CPU:
        for out in _session(bundle, name).run(None, feeds):
            assert np.isfinite(out).all()


_SESSIONS: dict[tuple[Path, str], ort.InferenceSession] = {}


def _session(bundle: Path, name: str) -> ort.InferenceSession:
    if (bundle, name) not in _SESSIONS:
        file = fmrt.Bundle.open(bundle).variant(name).file
        _SESSIONS[bundle, name] = ort.InferenceSession(
            bundle / file, providers=["CPUExecutionProvider"]
        )
    return _SESSIONS[bundle, name]


def test_a_precision_stands_for_the_providers_own_variant(bundle: Path) -> None:
    opened = fmrt.Bundle.open(bundle)
    assert opened.variant().precision == "fp32"
    assert opened.variant("int8").name == "int8-cpu"
    assert opened.variant("fp16", "cuda").name == "fp16-cuda"
    assert opened.variant("int8", "cuda").name == "q8"


def test_the_portable_8_bit_graph_has_standard_operators_alone(bundle: Path) -> None:
    model = ir.load(bundle / "onnx/model_quantized.onnx")
    assert {node.domain for node in model.graph} == {""}
    assert not find_sites(model)


def test_what_misses_the_target_leaves_the_bundle_as_it_was(plain: Path, lines: Path) -> None:
    before = files(plain)
    with pytest.raises(QuantizationError, match=r"int4 reaches a mean cosine.*--min-cosine") as e:
        quantize_bundle(plain, ["int4"], min_cosine=0.9999, calibration=lines)
    assert files(plain) == before
    assert (e.value.added, [*e.value.refused]) == ((), ["q4"])


def test_what_passed_stays_when_another_does_not(
    plain: Path, lines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(plain, copy)
    options = ["--min-cosine", "0.9999", "--calibration", str(lines)]
    assert main(["quantize", str(copy), "q4,float16", *options]) == 3
    out, err = capsys.readouterr()
    assert re.search(
        r"error: int4 reaches .*; added: fp16-cpu, fp16-cuda, fp16-portable$", err.strip()
    )
    assert "next:" not in out
    names = [v.name for v in fmrt.Bundle.open(copy).manifest.variants]
    assert names[-3:] == ["fp16-cpu", "fp16-cuda", "fp16-portable"]
    assert main(["verify", str(copy)]) == 0


def test_an_export_stays_when_a_quantized_variant_does_not_pass(
    lines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_tiny(Tiny("bert", "wordpiece"), tmp_path / "model")
    options = ["--quantize", "int4,fp16", "--min-cosine", "0.9999", "--calibration", str(lines)]
    assert main(["export", str(model), str(tmp_path / "out"), *options]) == 3
    assert "is exported, but int4 reaches" in capsys.readouterr().err
    assert fmrt.Bundle.open(tmp_path / "out").variant("fp16-cpu")
    with pytest.raises(QuantizationError) as e:
        fmrt.export_model(
            model, tmp_path / "two", quantize="int4", min_cosine=0.9999, calibration=lines
        )
    assert e.value.path == tmp_path / "two"
    assert "fp32-cpu" in e.value.added
    assert [*e.value.refused] == ["q4"]


@pytest.mark.parametrize(
    ("given", "schemes"),
    [
        ("q8", ["int8"]),
        ("int8-cpu, Q4,4bit", ["int8", "int4"]),
        (["float16", "quantized", "int8"], ["fp16", "int8"]),
    ],
)
def test_names_that_people_see_are_schemes(given: str | list[str], schemes: list[str]) -> None:
    assert named_schemes(given) == schemes


def test_products_are_kept_until_the_target_is_met(
    plain: Path, lines: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(plain, copy)
    quantize_bundle(copy, ["int8"], min_cosine=0.9, calibration=lines)
    reached = fmrt.Bundle.open(copy).variant("int8-cpu").quality
    assert reached is not None
    harder = 1 - (1 - reached.mean_cosine) * 0.7
    quantize_bundle(copy, ["int8"], min_cosine=harder, calibration=lines)
    better = fmrt.Bundle.open(copy).variant("int8-cpu").quality
    assert better is not None
    assert 0 == reached.kept < better.kept < better.products
    assert better.mean_cosine >= harder
    assert [v.name for v in fmrt.Bundle.open(copy).manifest.variants].count("int8-cpu") == 1


@pytest.mark.parametrize(
    ("loud", "kept"),
    [
        ({}, []),  # all lose as much as is their part
        ({90: 9.0}, [90]),
        ({90: 9.0, 12: 5.0}, [90, 12]),
        # These are more than 4% of the work.
        ({90: 9.0, 12: 5.0, 13: 4.0, 14: 8.0, 15: 6.0, 16: 7.0}, [90, 14, 16, 15]),
    ],
)
def test_products_that_lose_far_more_than_their_part_are_kept(
    loud: dict[int, float], kept: list[int]
) -> None:
    losses = [Loss(("x", i), 1e-6 * loud.get(i, 1.0), 1000) for i in range(100)]
    losses.sort(key=lambda loss: -loss.rate)
    assert sensitive(losses) == [("x", i) for i in kept]


def test_one_of_the_products_that_share_a_tensor_can_be_kept(
    plain: Path, lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(plain, copy)
    monkeypatch.setattr(int8, "FINE", LOW)
    monkeypatch.setattr(int8, "sensitive", lambda losses: [min(loss.product for loss in losses)])
    quantize_bundle(copy, ["q8"], min_cosine=LOW, calibration=lines)
    opened = fmrt.Bundle.open(copy)
    for name, op_type in (("int8-cpu", "MatMulIntegerToFloat"), ("q8", "MatMulInteger")):
        variant = opened.variant(name)
        nodes = [node.op_type for node in ir.load(copy / variant.file).graph]
        assert variant.quality is not None
        assert variant.quality.kept == 1
        assert nodes.count(op_type) == variant.quality.products - 1
    assert main(["verify", str(copy)]) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("signal", ["KILL", "INT"])
def test_a_stopped_run_leaves_the_bundle_as_it_was(
    plain: Path, lines: Path, tmp_path: Path, signal: str
) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(plain, copy)
    before = files(copy)
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from fmrt.export import quantize_bundle\n"
        # A shell that runs tests in the background leaves SIGINT ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        # When the first finished file is about to take its place.
        f"Path.replace = lambda *_: os.kill(os.getpid(), signal.SIG{signal})\n"
        "quantize_bundle(sys.argv[1], ['fp16'], calibration=sys.argv[2])"
    )
    command = [sys.executable, "-c", code, str(copy), str(lines)]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
    kept = {n: b for n, b in files(copy).items() if not n.startswith(".quantize-")}
    assert kept == before
    quantize_bundle(copy, ["fp16"], calibration=lines)
    assert not list(copy.glob(".quantize-*"))


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_kill_loses_nothing_that_was_reported(plain: Path, lines: Path, tmp_path: Path) -> None:
    """It comes with the first line after a variant was reported as verified."""
    copy = tmp_path / "bundle"
    shutil.copytree(plain, copy)
    code = (
        "import os, signal, sys\n"
        "from fmrt.export import quantize_bundle\n"
        "said = []\n"
        "def report(line):\n"
        "    if said: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    said.extend([line] if line.startswith('verified fp16-cpu') else [])\n"
        "quantize_bundle(sys.argv[1], ['fp16'], calibration=sys.argv[2], report=report)"
    )
    command = [sys.executable, "-c", code, str(copy), str(lines)]
    assert subprocess.run(command, check=False).returncode == -9
    assert fmrt.Bundle.open(copy).manifest.variants[-1].name == "fp16-cpu"
    assert main(["verify", str(copy)]) == 0


def test_quantizing_imports_no_torch(plain: Path, lines: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(plain, copy)
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'sentence_transformers'): sys.modules[name] = None\n"
        "from fmrt.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "quantize", str(copy), "fp16,int8"]
    command += ["--min-cosine", "0.9", "--calibration", str(lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "int8-cpu" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["int9"], "unknown quantization 'int9'; did you mean int"),
        (["uint8"], "unknown quantization 'uint8'; did you mean int8? choose from: fp16, int8"),
        (["q8,xyz"], "unknown quantization 'xyz'; choose from: fp16, int8, int4"),
        ([","], "no quantization named"),
        (["int8", "--min-cosine", "2"], "min_cosine=2.0; give a number between 0 and 1"),
        (["int8", "--calibration", "none.txt"], "give a text a line"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    plain: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    before = files(plain)
    assert main(["quantize", str(plain), *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert files(plain) == before


WRONG = (1.5, float("nan"), -1, 0, 10**30, True, "", "nonesuch", "a\0b", b"x", [1], {}, object())


@pytest.mark.parametrize("call", [export_model, quantize_bundle])
def test_what_an_option_cannot_be_is_one_clear_error(call: Callable, plain: Path) -> None:
    """``device`` and ``revision`` are names that torch and the hub judge."""
    before = files(plain)
    names = [n for n in inspect.signature(call).parameters if n not in ("bundle", "model", "out")]
    assert set(names) - {"schemes", "quantize", "adapter"} <= set(OPTIONS)
    target = (plain, plain / "fmrt.json") if call is export_model else (plain, ["int4"])
    for name in names:
        for value in WRONG:
            if name == "schemes":
                arguments, options = (plain, value), {}
            else:
                arguments, options = target, {name: value}
            # Where the value is possible, the target is none, or the cosine cannot be had.
            rest = {} if call is export_model else {"min_cosine": 0.99999999}
            with pytest.raises(FmrtError) as e:
                call(*arguments, **{**rest, **options})
            assert "\n" not in str(e.value)
    assert files(plain) == before


def test_own_texts_are_split_without_overlap() -> None:
    items = own_items("text")
    assert len(items.calibration) > 512
    assert len(items.held_out) == 128
    assert not set(items.calibration) & set(items.held_out)


class Rows:
    """Calibration rows of one tensor, as a probe gives them."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows

    def rows(self, _: ir.Model, names: list[str]) -> dict[str, np.ndarray]:
        assert names
        return dict.fromkeys(names, self._rows)


def gelu_graph(bias: np.ndarray, products: str, activation: str = "Gelu") -> ir.Model:
    """``Gelu(x W + bias) V + c`` by Gemm or by MatMul and Add, of 32 and 256 features."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    constants = {
        "W": rng.standard_normal((32, 256)).astype(np.float32) / 6,
        "bias": bias,
        "V": rng.standard_normal((256, 32)).astype(np.float32) / 16,
        "c": np.ones(32, np.float32),
    }

    def product(x: str, weight: str, added: str, y: str) -> list[onnx.NodeProto]:
        if products == "Gemm":
            return [helper.make_node("Gemm", [x, weight, added], [y])]
        first = helper.make_node("MatMul", [x, weight], [f"{y}_0"])
        return [first, helper.make_node("Add", [f"{y}_0", added], [y])]

    nodes = [*product("x", "W", "bias", "h"), helper.make_node(activation, ["h"], ["g"])]
    graph = helper.make_graph(
        [*nodes, *product("g", "V", "c", "y")],
        "gelu",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 32])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 20)]
    return ir.from_proto(helper.make_model(graph, opset_imports=opset, ir_version=10))


@pytest.mark.parametrize("products", ["Gemm", "MatMul"])
def test_loud_features_are_computed_beside_the_others(products: str) -> None:
    x = np.random.default_rng(1).standard_normal((64, 32)).astype(np.float32)
    loud = np.zeros(256, np.float32)
    loud[7] = 60
    model = gelu_graph(loud, products)
    inside = model.clone()
    hidden = next(node.outputs[0] for node in inside.graph if node.op_type == "Gelu")
    inside.graph.outputs.append(hidden)
    want, rows = run_model(inside, x)
    assert rows.max() > 50
    assert spare_loud_features(Rows(rows), model) == 1
    np.testing.assert_allclose(run_model(model, x)[0], want, rtol=0, atol=1e-4)
    first, second = find_sites(model)
    (last,) = second.linears
    assert [linear.weight.shape for linear in first.linears] == [(32, 256)]
    assert not last.weight[7].any()
    even = gelu_graph(np.zeros(256, np.float32), products)
    assert spare_loud_features(Rows(np.abs(np.tile(x, 8))), even) == 0
    without = gelu_graph(loud, products, "Relu")
    assert spare_loud_features(Rows(rows), without) == 0


def run_model(model: ir.Model, x: np.ndarray) -> list[np.ndarray]:
    content = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


def test_own_texts_are_of_several_kinds_and_languages() -> None:
    """Calibration on English documentation alone rounds talk, code and other languages worse."""
    items = own_items("text")
    texts = [str(text) for text in (*items.calibration, *items.held_out)]
    assert len(set(texts)) == len(texts)
    assert sum(text.startswith(("def ", "@")) for text in items.calibration) > 50
    assert {"you never listen to me", "今日はとても良い天気ですね。散歩に行きましょう。"} <= set(
        texts
    )


def test_too_few_lines_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "few.txt"
    path.write_text("a\nb\n", encoding="utf-8")
    with pytest.raises(OptionError, match="2 items; give 16 or more"):
        given_items(path, "text")


@pytest.mark.parametrize(
    "model_type",
    ["modernbert", *(pytest.param(t, marks=pytest.mark.slow) for t in ("qwen3", "gemma3_text"))],
)
def test_fused_decoders_and_windows_take_the_same_schemes(
    model_type: str, lines: Path, tmp_path: Path
) -> None:
    tiny = next(t for t in (*ENCODERS, *DECODERS) if t.model_type == model_type)
    model = save_tiny(tiny, tmp_path / "model")
    options = {"min_cosine": LOW, "calibration": lines}
    out = fmrt.export_model(model, tmp_path / "bundle", quantize=[*SCHEMES], **options)
    assert [v.name for v in out.manifest.variants if v.quality is not None] == [*ALL]
    # By windows, and by the operator of causal attention.
    assert {v.name for v in out.manifest.variants if not v.padded} == {"int8-cpu"}
    texts = [*TEXTS, *LINES[:9], "one red cat " * 15]
    for variant in ON_CPU:
        together = embed(out.path, variant, texts)
        alone = np.concatenate([embed(out.path, variant, [text]) for text in texts])
        assert np.abs(together - alone).max() <= 1e-5 * max(1.0, np.abs(alone).max())


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["image", "audio"])
def test_images_and_sounds_take_the_same_schemes(modality: str, tmp_path: Path) -> None:
    save, tiny = (save_vision, VISION[0]) if modality == "image" else (save_audio, AUDIO[0])
    model = save(tiny, tmp_path / "model")
    out = fmrt.export_model(model, tmp_path / "bundle", quantize=["fp16", "int8"], min_cosine=LOW)
    names = [v.name for v in out.manifest.variants if v.quality is not None]
    assert names == ["fp16-cpu", "fp16-cuda", "fp16-portable", "int8-cpu", "q8"]
    with fmrt.Embedder(out, variant="int8") as embedder:
        assert embedder.variant == "int8-cpu"
        items = own_items(modality).held_out[:5]
        together = embedder.embed(items)
        alone = np.concatenate([embedder.embed([item]) for item in items])
    assert np.abs(together - alone).max() <= 1e-5 * max(1.0, np.abs(alone).max())


@pytest.mark.slow
def test_a_refusal_names_the_sound_that_pytorch_makes_zero(tmp_path: Path) -> None:
    """A random HuBERT has no biases: silence is zero in PyTorch and in fp16, but not in int8."""
    hubert = next(tiny for tiny in AUDIO if tiny.name == "hubert")
    out = fmrt.export_model(save_audio(hubert, tmp_path / "model"), tmp_path / "bundle")
    quantize_bundle(out.path, ["fp16"])
    before = files(out.path)
    why = r"int8-cpu fails.* worst cosine 0\.0+, of sound 5 of the reference.* is zero, .*fp16"
    with pytest.raises(QuantizationError, match=why):
        quantize_bundle(out.path, ["int8"], min_cosine=LOW)
    assert files(out.path) == before


@pytest.mark.slow
def test_a_refusal_counts_the_choices_of_experts_that_rounding_changes(tmp_path: Path) -> None:
    experts = next(tiny for tiny in DECODERS if tiny.model_type == "gpt_oss")
    out = fmrt.export_model(save_tiny(experts, tmp_path / "model"), tmp_path / "bundle")
    why = r"q4 fails.* worst cosine 0\.\d+, of the text '.*Rounding changes [1-9]\d* of its \d+ cho"
    with pytest.raises(ExportError, match=why):
        quantize_bundle(out.path, ["int4"], min_cosine=0.5)


def test_half_precision_survives_values_beyond_its_range(plain: Path, tmp_path: Path) -> None:
    """A residual stream of a hundred thousand: the nodes that see it stay in float32."""
    copy = tmp_path / "bundle"
    shutil.copytree(plain, copy)
    opened = fmrt.Bundle.open(copy)
    manifest = json.loads((copy / "fmrt.json").read_text())
    model = ir.load(copy / "onnx/model.onnx")
    norm = next(n for n in model.graph if n.op_type == "LayerNormalization")
    source = norm.inputs[0]
    factor = ir.tensor(np.array(1e5, np.float32), name="factor")
    value = ir.val("factor", const_value=factor, dtype=ir.DataType.FLOAT, shape=[])
    model.graph.initializers["factor"] = value
    scaled = ir.node("Mul", [source, value])
    scaled.outputs[0].type, scaled.outputs[0].shape = source.type, source.shape
    model.graph.insert_before(norm, scaled)
    norm.replace_input_with(0, scaled.outputs[0])
    ir.save(model, copy / "onnx/model.onnx")
    record = fmrt.bundle.bundle.record_of(copy / "onnx/model.onnx")
    for variant in manifest["variants"]:
        if variant["file"] == "onnx/model.onnx":
            variant.update(dataclasses.asdict(record))
    (copy / "fmrt.json").write_text(json.dumps(manifest))
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(LINES))
    quality = quantize_bundle(copy, ["fp16"], calibration=texts).manifest.variants[-1].quality
    assert quality is not None
    assert quality.min_cosine > 0.999
    assert opened.manifest.variants[-1].quality is None


@pytest.mark.parametrize("features", [5, 64, 383])
def test_integer_products_are_exact_on_this_cpu(features: int) -> None:
    """With VNNI they always are; without it, because the pairs are limited."""
    assert {largest_error(rounded(features), rows) for rows in (1, 3, 64)} == {0}


@pytest.mark.slow
def test_weights_that_overflow_are_refused_without_warnings(
    plain: Path, lines: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(plain, copy)
    raw = json.loads((copy / "fmrt.json").read_text())
    for variant in raw["variants"]:
        model = ir.load(copy / variant["file"])
        for value in model.graph.initializers.values():
            if value.const_value.dtype == ir.DataType.FLOAT and len(value.shape) == 2:
                weights = value.const_value.numpy().copy()
                weights[0, :4] = 3e38, -3e38, 3e38, 1e38
                value.const_value = ir.tensor(weights, name=value.name)
        ir.save(model, copy / variant["file"])
        record = record_of(copy / variant["file"])
        variant.update(sha256=record.sha256, size=record.size)
    (copy / "fmrt.json").write_text(json.dumps(raw))
    with warnings.catch_warnings(record=True) as said, pytest.raises(fmrt.FmrtError):
        quantize_bundle(copy, ["int4"], calibration=lines)
    assert not [w for w in said if w.category is RuntimeWarning]

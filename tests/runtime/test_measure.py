"""Measurements: what is counted is exact, and the commands write what later runs read."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from fmrt.bundle.bundle import Bundle
from fmrt.cli import main
from fmrt.embedding.choice import chosen
from fmrt.embedding.tuning import Tuning, load_tuning, provider_facts
from fmrt.machine import kernel_environment
from fmrt.measure.calibration import best
from fmrt.measure.peak import Bound, PeakFlops
from fmrt.measure.product_graph import product_graph
from fmrt.options import UNNAMED
from fmrt.session import resolve_provider
from fmrt.session.flops import count_products, fit
from fmrt.session.providers import cuda

from .simulated_gpu import Simulated


def write_products(path: Path) -> None:
    """``[b, n, 4] @ [4, 6]``, products as of attention, and a Gemm ``[b * n, 6] @ [6, 3]``."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "w"], ["y"]),
        node("Transpose", ["y"], ["t"], perm=[0, 2, 1]),
        node("MatMul", ["y", "t"], ["scores"]),
        node("MatMul", ["scores", "y"], ["z"]),
        node("Reshape", ["z", "flat"], ["rows"]),
        node("Gemm", ["rows", "v", "bias"], ["out"]),
    ]
    constants = {
        "w": np.ones((4, 6), np.float32),
        "v": np.ones((6, 3), np.float32),
        "bias": np.ones(3, np.float32),
        "flat": np.array([-1, 6], np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", "n", 4])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["rows", 3])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)


def test_flops_are_those_of_the_shapes(tmp_path: Path) -> None:
    write_products(tmp_path / "g.onnx")
    sizes = [(1, 5), (2, 8), (1, 20)]
    feeds = [{"x": np.ones((b, n, 4), np.float32), "unknown": np.ones(1)} for b, n in sizes]
    found = count_products(tmp_path / "g.onnx", "out", feeds)

    def flops(b: int, n: int) -> int:
        return 2 * b * (n * 4 * 6 + 2 * n * n * 6 + n * 6 * 3)

    assert [one.flops for one in found] == [flops(*size) for size in sizes]
    assert sorted(found[1].weights) == [(16, 4, 6), (16, 6, 3)]
    polynomial = fit([5, 8, 20], [flops(1, n) for n in (5, 8, 20)])
    assert np.polyval(polynomial, 100.0) == pytest.approx(flops(1, 100))
    assert np.polyval(fit([7, 7], [3.0, 3.0]), 7) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("precision", "kernels"), [("fp32", {"numpy", "onnxruntime"}), ("int8", {"onnxruntime"})]
)
def test_the_peak_is_that_of_real_kernels(precision: str, kernels: set[str]) -> None:
    peak = PeakFlops([(64, 64, 64)], 1, precision)
    try:
        rates = peak.flops_per_second()
    finally:
        peak.close()
    assert kernels <= set(rates)
    assert min(rates.values()) > 1e6


def test_an_environment_that_holds_kernels_back_does_not_lower_the_peak(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """OpenBLAS reads this when it is loaded, and multiplies at half the speed with AVX-512."""
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")
    assert kernel_environment() == {"OPENBLAS_CORETYPE": "Nehalem"}
    program = "import json, os; print(json.dumps([os.environ.get('OPENBLAS_CORETYPE')]))"
    monkeypatch.setattr("fmrt.measure.peak.PROGRAM", ("-c", program))
    peak = PeakFlops([], 1)
    assert peak.kernels == [None]
    peak.close()


def test_the_peak_is_the_same_where_a_variable_holds_kernels_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With OpenBLAS on a processor with AVX-512, the variable would halve NumPy's speed."""
    free = PeakFlops([(256, 384, 384)], 1)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")
    held = PeakFlops([(256, 384, 384)], 1)
    try:
        for _ in range(3):  # in turns, and the best of each: the machine has other work
            free.flops_per_second()
            held.flops_per_second()
        ratio = held.bound.kernels["numpy"] / free.bound.kernels["numpy"]
    finally:
        free.close()
        held.close()
    assert ratio > 0.65


def test_work_is_compared_with_the_fastest_kernel_and_may_not_beat_it() -> None:
    bound = Bound({"numpy": 2e9, "openvino": 4e9, "onnxruntime": 1e9})
    assert (bound.kernel, bound.flops_per_second) == ("openvino", 4e9)
    assert bound.fraction(1e9, 0.5) == 0.5
    assert bound.problem(1.0) is None
    assert "1.66 of the peak" in (bound.problem(1.66) or "")


def test_the_graph_of_a_product_multiplies() -> None:
    import onnxruntime as ort

    rng = np.random.default_rng(0)
    for kind in (np.float32, np.int8):
        weights = rng.integers(-9, 9, (7, 300)).astype(kind)
        x = rng.integers(0, 9, (5, 7)).astype(np.float32 if kind == np.float32 else np.uint8)
        session = ort.InferenceSession(product_graph(weights), providers=["CPUExecutionProvider"])
        got = session.run(None, {"x": x})[0]
        assert np.array_equal(got, x.astype(np.float32) @ weights.astype(np.float32))


def test_a_peak_that_the_model_beats_is_an_error(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(PeakFlops, "bound", Bound({"numpy": 1.0, "onnxruntime": 2.0}))
    counted = np.ones(1), [(8, 8, 8)]  # a FLOP per item, and the shape of a product
    monkeypatch.setattr("fmrt.measure.benchmark._flops", lambda *_: counted)
    assert main(["bench", str(tiny_bundle), "--items", "9", "--rounds", "1"]) == 0
    shown = capsys.readouterr().out
    assert "no bound" in shown
    assert "onnxruntime 0 GFLOP/s, numpy 0 GFLOP/s" in shown


def test_noise_does_not_beat_the_default() -> None:
    assert best({512: 1.0, 256: 1.01, 128: 0.7}) == 512
    assert best({512: 1.0, 256: 1.05, 128: 1.03}) == 256


def test_bench_writes_figures_and_a_plot(tiny_bundle: Path, tmp_path: Path, capsys) -> None:
    out, plot = tmp_path / "b.json", tmp_path / "b.html"
    options = ["--items", "30", "--rounds", "2", "--json", str(out), "--plot", str(plot)]
    assert main(["bench", str(tiny_bundle), *options]) == 0
    figures = json.loads(out.read_text())
    assert figures["items"] == 30
    assert len(figures["seconds"]) == 2
    assert 0 <= figures["padding"] < 1
    assert figures["latency"]["p50"] <= figures["latency"]["p99"]
    assert plot.read_text().count("<circle") == 30
    assert "texts/s" in capsys.readouterr().out
    assert main(["bench", str(tiny_bundle), "--plot", str(tmp_path / "b.pdf")]) == 1
    assert ".html" in capsys.readouterr().err


def test_bench_takes_a_file_of_texts(tiny_bundle: Path, tmp_path: Path, capsys) -> None:
    texts = tmp_path / "t.txt"
    texts.write_text("the cat\nthe dog\nthe cat\n")
    command = ["bench", str(tiny_bundle), "--texts", str(texts), "--rounds", "1", "--json", "-"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["items"] == 2


@pytest.mark.parametrize("provider", ["cpu", "openvino", None])
def test_tune_leaves_what_later_runs_use(
    provider: str | None, tiny_bundle: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    if provider == "openvino":
        pytest.importorskip("openvino")
    monkeypatch.setenv("FMRT_CACHE", str(tmp_path))
    monkeypatch.setattr("fmrt.measure.calibration.TURN", 0.001)
    named = ["--provider", provider] if provider else []
    assert main(["tune", str(tiny_bundle), "--items", "20", *named]) == 0
    assert str(tmp_path) in capsys.readouterr().out
    bundle = Bundle.open(tiny_bundle)
    # With nothing named, the fastest here is tuned: which that is depends on the machine.
    variant, used = chosen(bundle, None, provider or UNNAMED, None)
    target = resolve_provider(used)
    found = bundle.variant(variant, target.name)
    assert load_tuning(found, more=provider_facts(found, target.provider)) != Tuning()


def test_bench_says_how_busy_a_gpu_is(tiny_bundle: Path, tmp_path, monkeypatch, capsys) -> None:
    """The GPU is simulated, and so is the program that says how busy it is."""
    monkeypatch.setattr(cuda, "PROVIDER", Simulated())
    monkeypatch.setattr("fmrt.measure.gpu.SIZE", 64)
    monkeypatch.setattr("fmrt.measure.gpu.TURN", 0.001)
    monkeypatch.setattr("fmrt.measure.benchmark._flops", lambda *_: (np.ones(1), [(8, 8, 8)]))
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\n[ "$1" = --id=0000:65:00.0 ] && echo 80 && exec sleep 60\n')
    program.chmod(0o755)
    monkeypatch.setattr("fmrt.measure.benchmark._embed", lambda *_: time.sleep(0.3) or 0.3)
    command = ["bench", str(tiny_bundle), "--provider", "cuda", "--items", "20", "--rounds", "1"]
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "Simulated GPU, busy: 80%" in said
    assert "float32 product of 64" in said
    monkeypatch.setenv("PATH", "")
    assert main([*command, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["gpu"], found["gpu_busy"]) == ("Simulated GPU", None)
    assert 0 < found["peak_fraction"] < 1


def test_a_product_in_half_precision_is_numpys() -> None:
    x = np.arange(6, dtype=np.float16).reshape(2, 3)
    weights = np.arange(12, dtype=np.float16).reshape(3, 4)
    session = ort.InferenceSession(product_graph(weights), providers=["CPUExecutionProvider"])
    assert np.array_equal(session.run(None, {"x": x})[0], x @ weights)

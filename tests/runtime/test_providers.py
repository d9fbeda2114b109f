"""Providers that cannot be had say why; the messages are those that ONNX Runtime's wheels gave."""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import onnxruntime as ort
import pytest

import fmrt
from fmrt.errors import BundleCorruptError, ProviderError, ProviderWarning
from fmrt.session import diagnosis, every_provider, providers, resolve_provider
from fmrt.session.creation import explain
from fmrt.session.device_options import DeviceOptions
from fmrt.session.placement import node_placement
from fmrt.session.providers import PROVIDERS, plugin, provider_named
from fmrt.system.cores import cpu_name

# onnxruntime-gpu 1.31.1 on machines without CUDA's libraries, without a driver, without TensorRT.
LOADER = {
    "libcublasLt.so.13: cannot open shared object file: No such file or directory": (
        "libcublasLt.so.13 is missing",
        "onnxruntime-gpu[cuda,cudnn]",
    ),
    "libcuda.so.1: cannot open shared object file: No such file or directory": (
        "libcuda.so.1 is missing",
        "driver",
    ),
    "libnvinfer.so.10: cannot open shared object file: No such file or directory": (
        "libnvinfer.so.10 is missing",
        "pip install tensorrt",
    ),
    "/x/libonnxruntime_providers_cuda.so: undefined symbol: cublasLtCreate": (
        "undefined symbol: cublasLtCreate",
        "onnxruntime-gpu[cuda,cudnn]",
    ),
}
# The same with a driver that has no device, and with one older than the CUDA of the wheel.
AT_CREATION = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc:63 static "
    "onnxruntime::CUDAExecutionProviderInfo onnxruntime::CUDAExecutionProviderInfo::"
    "FromProviderOptions(const onnxruntime::ProviderOptions&) [ONNXRuntimeError] : 1 : FAIL : "
    'provider_options_utils.h:187 Parse Failed to parse provider option "device_id": CUDA failure '
    "35: CUDA driver version is insufficient for CUDA runtime version ; GPU=-1 ; hostname=vm ; "
    "file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc ; "
    "line=70 ; expr=cudaGetDeviceCount(&num_devices); \n"
)


class Runtime:
    """CUDA's runtime library as ctypes shows it, with some devices or an error."""

    def __init__(self, devices: int, code: int = 0, text: str = "") -> None:
        self.devices, self.code, self.text = devices, code, text
        self.cudaGetErrorString = lambda _: text.encode()

    def cudaGetDeviceCount(self, count: ctypes.Array) -> int:  # noqa: N802
        count._obj.value = self.devices
        return self.code


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """What was found about this machine does not leak from test to test."""

    def forget() -> None:
        diagnosis._count_devices.cache_clear()
        providers._warned.clear()

    forget()
    yield
    forget()


@pytest.fixture
def gpu_wheel(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An ONNX Runtime with CUDA whose libraries load."""
    names = [provider_named(name).ort_name for name in PROVIDERS]
    monkeypatch.setattr(ort, "get_available_providers", lambda: names)
    monkeypatch.setattr(diagnosis, "_load_error", lambda _: None)
    return monkeypatch


def with_devices(patch: pytest.MonkeyPatch, *args: object) -> None:
    patch.setattr(diagnosis, "cuda_runtime", lambda: Runtime(*args))


@pytest.mark.parametrize("text", LOADER)
def test_a_missing_library_is_named(text: str, gpu_wheel: pytest.MonkeyPatch) -> None:
    gpu_wheel.setattr(diagnosis, "_load_error", lambda _: text)
    what, advice = LOADER[text]
    with pytest.raises(ProviderError, match="'cuda' cannot be had") as e:
        resolve_provider("cuda")
    assert what in str(e.value)
    assert advice in str(e.value)


@pytest.mark.parametrize(
    ("code", "text", "advice"),
    [
        (35, "CUDA driver version is insufficient for CUDA runtime version", "update NVIDIA's"),
        (100, "no CUDA-capable device is detected", "CUDA_VISIBLE_DEVICES"),
        (999, "unknown error", "nvidia-smi"),
    ],
)
def test_a_driver_that_fails_is_quoted(
    code: int, text: str, advice: str, gpu_wheel: pytest.MonkeyPatch
) -> None:
    with_devices(gpu_wheel, 0, code, text)
    with pytest.raises(ProviderError, match=text) as e:
        resolve_provider("cuda")
    assert advice in str(e.value)


def test_devices(gpu_wheel: pytest.MonkeyPatch) -> None:
    with_devices(gpu_wheel, 3)
    for spec, devices in {
        "cuda": (0,),
        "cuda:2": (2,),
        "cuda:0,2": (0, 2),
        "cuda:1,1": (1,),
        "cuda:all": (0, 1, 2),
        "tensorrt:1": (1,),
        "auto": (0,),
    }.items():
        target = resolve_provider(spec)
        assert target.devices == devices
        assert resolve_provider(target.spec) == target
    with pytest.raises(ProviderError, match="no CUDA device 3 and 7; this machine has 0, 1, 2"):
        resolve_provider("cuda:1,3,7")


@pytest.mark.parametrize("spec", ["", "gpu", "cpu:0", "CUDA"])
def test_an_unknown_provider_lists_the_known(spec: str) -> None:
    with pytest.raises(ProviderError, match="choose from: auto, cpu, cuda, tensorrt"):
        resolve_provider(spec)


@pytest.mark.parametrize("spec", ["cuda:x", "cuda:-1", "cuda:1,", "cuda:1 2", "cuda:all,1"])
def test_devices_that_are_none(spec: str) -> None:
    with pytest.raises(ProviderError, match="are no devices"):
        resolve_provider(spec)


def test_auto_says_once_that_it_falls_back(
    gpu_wheel: pytest.MonkeyPatch, tiny_bundle: Path
) -> None:
    with_devices(gpu_wheel, 0, 100, "no CUDA-capable device is detected")
    with pytest.warns(ProviderWarning, match=r"uses the CPU.*no CUDA-capable device"):
        embedder = fmrt.Embedder(tiny_bundle, provider="auto")
    assert embedder.provider == "cpu"
    embedder.close()
    fmrt.Embedder(tiny_bundle, provider="auto").close()  # a second warning would be an error


def test_auto_is_silent_where_nothing_is_made_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(providers, "has_nvidia_driver", lambda: False)
    assert resolve_provider("auto").spec == "cpu"


def test_auto_names_the_wheel_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(providers, "has_nvidia_driver", lambda: True)
    with pytest.warns(ProviderWarning, match="built without CUDAExecutionProvider"):
        assert resolve_provider("auto").spec == "cpu"


def test_two_wheels_that_overwrite_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(
        importlib.metadata, "distributions", lambda name: [SimpleNamespace(name=name)]
    )
    with pytest.raises(ProviderError, match=r"overwrite each other.*onnxruntime-gpu\[cuda,cudnn]"):
        resolve_provider("cuda")


def test_errors_at_creation_name_the_cause(tiny_bundle: Path) -> None:
    graph = tiny_bundle / "onnx/model.onnx"
    error = explain(RuntimeError(AT_CREATION), graph, provider_named("cuda"))
    assert isinstance(error, ProviderError)
    assert "driver version is insufficient" in str(error)
    assert "(CUDA error 35)" in str(error)
    other = explain(ValueError("Protobuf parsing failed."), graph, provider_named("cuda"))
    assert isinstance(other, BundleCorruptError)


def test_a_graph_for_another_provider_is_named(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    node = helper.make_node(
        "RemovePadding", ["x", "n"], ["y", "o", "c", "m"], domain="com.microsoft"
    )
    graph = helper.make_graph(
        [node],
        "packed",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 4]),
            helper.make_tensor_value_info("n", TensorProto.INT32, [2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "g.onnx")
    with pytest.raises(ProviderError, match=r"'cpu' cannot run .*RemovePadding.*fmrt info"):
        node_placement(tmp_path / "g.onnx", resolve_provider("cpu"))


def test_placement_counts_nodes(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from fmrt.cli import main

    placement = node_placement(tiny_bundle / "onnx/model.onnx", resolve_provider("cpu"))
    assert placement.nodes["cpu"]["Gather"] == 2
    assert not placement.fallback
    assert main(["info", str(tiny_bundle), "--provider", "cpu"]) == 0
    assert f"{placement.total} of {placement.total} nodes on cpu" in capsys.readouterr().out


def test_a_fallback_is_counted_by_operator() -> None:
    from fmrt.session.placement import Placement

    placement = Placement("cuda", {"cuda": {"MatMul": 5}, "cpu": {"Range": 1, "Gather": 2}})
    assert str(placement) == "5 of 8 nodes on cuda; fell back: Gather x2, Range x1"


def test_cuda_options() -> None:
    cuda = provider_named("cuda")
    plain = cuda.options(1, DeviceOptions())
    assert plain["device_id"] == "1"
    assert plain["use_tf32"] == "0"
    assert "gpu_mem_limit" not in plain
    limited = cuda.options(0, DeviceOptions(1 << 30, cuda_graphs=True))
    assert limited["gpu_mem_limit"] == str(1 << 30)
    assert limited["enable_cuda_graph"] == "1"


def test_nothing_is_printed_when_cuda_is_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProviderWarning)
        resolve_provider("auto")
    assert capfd.readouterr() == ("", "")


# An affinity with a core that no machine has: ONNX Runtime's own logger says so, whatever the
# session's severity is.
LOGS = """
import sys
from pathlib import Path
import onnxruntime as ort
from fmrt.session.creation import create, session_options
from fmrt.session.providers import CPU

graph = Path(sys.argv[1])
options = session_options(2)
options.add_session_config_entry("session.intra_op_thread_affinities", "9999")

def own():
    ort.InferenceSession(graph, options)

create(graph, CPU, options)
print("none of ours is heard", file=sys.stderr)
if "own" in sys.argv:
    own()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="affinities are checked on Linux alone")
def test_onnx_runtime_is_silent_in_our_calls_alone(tiny_bundle: Path) -> None:
    """What a thread says that starts after the call has returned is no call's: hence the tries."""

    def said(who: str) -> str:
        command = [sys.executable, "-c", LOGS, tiny_bundle / "onnx/model.onnx", who]
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr

    ours = "none of ours is heard\n"
    assert any(said("ours") == ours for _ in range(5))
    assert any("affinity" in said("own").partition(ours)[2] for _ in range(5))


PLUGIN = """
from pathlib import Path

def get_library_path():
    return str(Path(__file__).parent / "lib.so")

def get_ep_names():
    return ["PretendExecutionProvider"]
"""


@pytest.fixture
def pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """An installed plug-in whose library ONNX Runtime takes; returns the devices that it finds."""
    package = tmp_path / "onnxruntime_ep_pretend"
    package.mkdir()
    (package / "__init__.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    devices: list[object] = []
    monkeypatch.setattr(ort, "register_execution_provider_library", lambda *_: None)
    monkeypatch.setattr(ort, "get_ep_devices", lambda: devices)

    def forget() -> None:
        sys.modules.pop("onnxruntime_ep_pretend", None)
        for cache in (plugin._of_package, plugin._registered):
            cache.cache_clear()

    forget()
    yield devices
    forget()


def device(ep_name: str, name: str) -> SimpleNamespace:
    hardware = SimpleNamespace(vendor="Pretend", type=SimpleNamespace(name="NPU"), metadata={})
    return SimpleNamespace(ep_name=ep_name, ep_metadata={"Description": name}, device=hardware)


def test_an_installed_plug_in_is_found_by_its_name(pretend: list[object]) -> None:
    assert "pretend" in every_provider()
    with pytest.raises(ProviderError, match=r"'pretend' cannot be had.*finds no device"):
        resolve_provider("pretend")
    with pytest.raises(ProviderError, match="tensorrt, openvino, pretend"):
        resolve_provider("pretence")
    pretend += [device("Another", "x"), device("PretendExecutionProvider", "A1")]
    pretend += [device("PretendExecutionProvider", "A2")]
    target = resolve_provider("pretend:all")
    assert target.devices == (0, 1)
    assert target.provider.device_names() == ["A1", "A2"]
    assert target.provider.precisions == ("fp32",)
    with pytest.raises(ProviderError, match="no PRETEND device 2; this machine has 0, 1"):
        resolve_provider("pretend:2")


def test_a_plug_in_that_does_not_load_says_why(
    pretend: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("libpretend.so.3: cannot open shared object file")

    monkeypatch.setattr(ort, "register_execution_provider_library", refuse)
    with pytest.raises(ProviderError, match=r"libpretend.so.3.*pip install -U onnxruntime-ep-pret"):
        resolve_provider("pretend")


def test_a_plug_in_that_does_not_import_says_why(
    pretend: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fmrt.cli import main

    (tmp_path / "onnxruntime_ep_pretend/__init__.py").write_text("raise RuntimeError('too old')")
    with pytest.raises(ProviderError, match=r"'pretend' cannot be had.*too old.*pip install -U"):
        resolve_provider("pretend")
    assert main(["info", "--providers"]) == 0
    assert "onnxruntime_ep_pretend cannot be loaded: too old" in capsys.readouterr().out


def test_providers_are_listed_with_their_devices(
    pretend: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    from fmrt.cli import main

    assert main(["info", "--providers", "--json"]) == 0
    found = {p["name"]: p for p in json.loads(capsys.readouterr().out)["providers"]}
    assert list(found)[: len(PROVIDERS)] == list(PROVIDERS)
    assert found["cpu"]["problem"] is None
    assert found["cpu"]["devices"] == [cpu_name()]
    assert "finds no device" in found["pretend"]["problem"]
    pretend += [device("PretendExecutionProvider", f"A{i}") for i in range(2)]
    assert main(["info", "--providers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines if line.startswith("pretend")] == [
        "0: A0",
        "1: A1",
    ]


def test_openvino_computes_fp32_graphs_in_fp32(tiny_bundle: Path) -> None:
    pytest.importorskip("openvino")
    texts = ["the cat sat", "a dog", "the red bird sat by the tree"] * 40
    with fmrt.Embedder(tiny_bundle) as embedder:
        want = embedder.embed(texts)
    with fmrt.Embedder(tiny_bundle, provider="openvino") as embedder:
        assert abs(embedder.embed(texts) - want).max() < 1e-5
        for text, row in zip(texts[:3], want, strict=False):  # the session for queries too
            assert abs(embedder.embed([text])[0] - row).max() < 1e-5


def test_openvino_that_is_not_installed_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ProviderError, match=r"'openvino' cannot be had.*fmrt\[openvino\]"):
        resolve_provider("openvino")


def test_a_plug_in_gives_the_vectors_of_the_cpu(tiny_bundle: Path) -> None:
    """With any real one that finds a device, such as OpenVINO's on Intel's CPUs."""
    usable = [p for p in plugin.plugins().values() if p.problem() is None]
    if not usable:
        pytest.skip("no plug-in of ONNX Runtime finds a device here")
    texts = ["the cat sat", "a dog"]
    with fmrt.Embedder(tiny_bundle) as embedder:
        want = embedder.embed(texts)
    for provider in usable:
        with fmrt.Embedder(tiny_bundle, provider=provider.name) as embedder:
            assert embedder.provider == provider.name
            assert abs(embedder.embed(texts) - want).max() < 1e-5

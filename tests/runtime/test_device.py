"""Device sessions over CPU memory: bindings, shapes, memory that runs out, several devices."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fmrt
from fmrt.bundle.bundle import Bundle
from fmrt.embedding.engine import Engine
from fmrt.errors import DeviceMemoryError, ProviderWarning
from fmrt.session import device as device_module
from fmrt.session import open_session, resolve_provider
from fmrt.session.creation import session_options
from fmrt.session.device import Device, DeviceSession
from fmrt.session.halving import BatchHalver, is_out_of_memory
from fmrt.session.multi_device import MultiDeviceSession
from fmrt.session.providers import CPU
from fmrt.session.shapes import aligned, bucketed

from .conftest import DIM, TEXTS

OUTPUT = "sentence_embedding"
# ONNX Runtime's words: its arena on a GPU and under a limit, and CUDA's own.
OUT_OF_MEMORY = [
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running "
    "FusedMatMul node. Name:'MatMul_92_FusedMatMulAndScale' Status Message: /onnxruntime_src/"
    "onnxruntime/core/framework/bfc_arena.cc:331 void* onnxruntime::BFCArena::AllocateRawInternal("
    "size_t, bool) Failed to allocate memory for requested buffer of size 8388608000",
    "Available memory of 1048576 is smaller than requested bytes of 4194304",
    "CUDA failure 2: out of memory ; GPU=0 ; hostname=vm ; expr=cudaMalloc((void**)&p, size);",
    "std::bad_alloc",
]


def feeds_of(lengths: list[int], seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (len(lengths), max(lengths))
    mask = (np.arange(shape[1]) < np.array(lengths)[:, None]).astype(np.int64)
    ids = rng.integers(1, 20, shape) * mask
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros(shape, np.int64)}


def on_cpu_memory(bundle: Path, **options: object) -> DeviceSession:
    graph = bundle / "onnx/model.onnx"
    session = CPU.start(graph, session_options())
    return DeviceSession(session, OUTPUT, Device("cpu", 0), **options)


@pytest.mark.parametrize("graphs", [False, True])
def test_bound_batches_are_those_of_the_cpu_session(tiny_bundle: Path, graphs: bool) -> None:
    want = open_session(tiny_bundle / "onnx/model.onnx", resolve_provider("cpu"), OUTPUT)
    session = on_cpu_memory(tiny_bundle, graphs=graphs)
    batches = [feeds_of(n, i) for i, n in enumerate([[3], [16, 2, 9], [5] * 40, [3], [7], [8, 8]])]
    for feeds in batches * 3:
        got = session.run({**feeds, "unknown": np.zeros(1)})
        assert got.dtype == np.float32
        assert np.abs(got - want.run(feeds)).max() < 1e-6


def test_bindings_are_used_again_and_the_oldest_freed(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = on_cpu_memory(tiny_bundle, streams=1)
    stream = session._streams.get()
    session._streams.put(stream)
    for i in range(3):
        session.run(feeds_of([5, 4], i))
    session.run(feeds_of([12]))
    assert [bound.inputs["input_ids"].shape() for bound in stream._bound.values()] == [
        [2, 8],
        [1, 16],
    ]
    monkeypatch.setattr(device_module, "BOUND_BYTES", 1)
    session.run(feeds_of([5, 4]))
    assert len(stream._bound) == 1


def test_threads_share_the_streams(tiny_bundle: Path) -> None:
    session = on_cpu_memory(tiny_bundle, streams=2)
    batches = [feeds_of([1 + i % 16] * (1 + i % 5), i) for i in range(60)]
    want = [session.run(feeds) for feeds in batches]
    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(session.run, batches))
    assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True))


lengths = st.lists(st.integers(1, 70), min_size=1, max_size=40)


@given(lengths)
def test_shapes_change_no_token(of: list[int]) -> None:
    feeds = feeds_of(of)
    rows, length = feeds["input_ids"].shape
    for shaped in (aligned(feeds), bucketed(feeds)[0]):
        assert shaped["input_ids"].shape[1] % 8 == 0
        for name, array in feeds.items():
            assert np.array_equal(shaped[name][:rows, :length], array)
        assert not shaped["attention_mask"][:, length:].any()
        # A row without a token would be a row of NaN.
        assert shaped["attention_mask"].any(axis=1).all()


def test_few_short_texts_have_few_shapes() -> None:
    of = [[n] * rows for n in range(1, 257) for rows in (1, 2, 3, 17, 32)]
    shapes = {bucketed(feeds_of(n))[0]["input_ids"].shape for n in of}
    assert len(shapes) == 8 * 4
    assert not bucketed(feeds_of([257]))[1]
    assert not bucketed(feeds_of([3] * 33))[1]
    assert bucketed({"pixel_values": np.zeros((2, 3, 4, 4), np.float32)})[1]


class Small:
    """A session whose memory holds so many numbers."""

    def __init__(self, room: int, message: str = OUT_OF_MEMORY[0]) -> None:
        self.room, self.message = room, message
        self.sizes: list[int] = []

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
        self.sizes.append(feeds["x"].size)
        if feeds["x"].size > self.room:
            raise RuntimeError(self.message)
        assert feeds["prompt_length"].shape == (1,)
        return feeds["x"].sum(axis=1, keepdims=True).astype(np.float32)


def batch(rows: int, width: int = 4) -> dict[str, np.ndarray]:
    x = np.arange(rows * width).reshape(rows, width)
    return {"x": x, "prompt_length": np.zeros(1, np.int64)}


@pytest.mark.parametrize("message", OUT_OF_MEMORY)
def test_a_batch_that_does_not_fit_is_split(message: str) -> None:
    run, freed = Small(8, message), []
    memory = BatchHalver()
    with pytest.warns(
        ProviderWarning, match=r"out of memory at a batch of \[7, 4\].*split"
    ) as told:
        got = memory.run(run, batch(7), lambda: freed.append(1))
    assert np.array_equal(got[:, 0], batch(7)["x"].sum(axis=1))
    assert len(told) == 1
    assert freed
    run.sizes.clear()
    assert np.array_equal(memory.run(run, batch(16))[:, 0], batch(16)["x"].sum(axis=1))
    assert max(run.sizes) <= 8, "it starts small enough, and says nothing more"


def test_one_item_that_does_not_fit_is_an_error() -> None:
    with (
        pytest.warns(ProviderWarning),
        pytest.raises(DeviceMemoryError, match=r"one item, \[1, 4\].*buffer of size 8388608000"),
    ):
        BatchHalver().run(Small(3), batch(2))


def test_other_errors_come_through() -> None:
    with pytest.raises(RuntimeError, match="Invalid rank"):
        BatchHalver().run(Small(0, "Invalid rank for input: x"), batch(4))


def test_a_session_is_freed_with_its_engine(tiny_bundle: Path) -> None:
    """At once, not when Python looks for cycles: its arena may be gigabytes."""
    gc.collect()
    gc.disable()
    try:
        engine = Engine(Bundle.open(tiny_bundle))
        engine.vectors(["the cat"])
        session = weakref.ref(engine._parts.session)
        engine.close()
        del engine
        assert session() is None
    finally:
        gc.enable()


def test_ort_out_of_memory_is_recognised_and_split(tmp_path: Path) -> None:
    """A session of ONNX Runtime with an arena of 1 MiB, as with gpu_mem_limit."""
    from onnx import TensorProto, helper, save

    graph = helper.make_graph(
        [
            helper.make_node("Expand", ["x", "shape"], ["wide"]),
            helper.make_node("ReduceSum", ["wide", "axis"], ["y"], keepdims=1),
        ],
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [
            helper.make_tensor("shape", TensorProto.INT64, [2], [1, 50_000]),
            helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
        ],
    )
    opset = [helper.make_opsetid("", 18)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "wide.onnx")
    place = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    ort.create_and_register_allocator(place, ort.OrtArenaCfg(1 << 20, -1, -1, -1))
    options = session_options()
    options.add_session_config_entry("session.use_env_allocators", "1")
    session = CPU.start(tmp_path / "wide.onnx", options)
    run = DeviceSession(session, "y", Device("cpu", 0)).run
    x = np.arange(32, dtype=np.float32)[:, None]
    with pytest.raises(Exception, match="memory") as e:
        session.run(None, {"x": x})
    assert is_out_of_memory(e.value)
    with pytest.warns(ProviderWarning, match="out of memory"):
        got = run({"x": x})
    assert np.allclose(got, x * 50_000)


class Busy:
    """A device that takes as long as it is told to."""

    workers, batch_tokens, window_items, longest_padded = 2, 100, 1000, None

    def __init__(self) -> None:
        self.runs = 0
        self.free = threading.Event()

    def run(self, _: Mapping[str, np.ndarray]) -> np.ndarray:
        self.runs += 1
        self.free.wait(10)
        return np.zeros((1, 1), np.float32)


def test_batches_go_to_the_device_with_the_least_to_do() -> None:
    slow, quick = Busy(), Busy()
    quick.free.set()
    several = MultiDeviceSession([slow, quick])
    assert several.workers == 4
    assert several.batch_tokens == 100
    with ThreadPoolExecutor(4) as pool:
        stuck = pool.submit(several.run, {})
        while not slow.runs:
            pass
        for _ in range(10):
            several.run({})
        slow.free.set()
        stuck.result()
    assert (slow.runs, quick.runs) == (1, 10)


def test_several_devices_embed_as_one(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = TEXTS * 50
    with fmrt.Embedder(tiny_bundle) as embedder:
        want = embedder.embed(texts, on_too_long="truncate")
    several = MultiDeviceSession([on_cpu_memory(tiny_bundle) for _ in range(3)])
    monkeypatch.setattr("fmrt.embedding.engine.open_session", lambda *_: several)
    with fmrt.Embedder(tiny_bundle) as embedder:
        got = embedder.embed(texts, on_too_long="truncate", batch_tokens=64)
    assert got.shape == (len(texts), DIM)
    assert np.abs(got - want).max() < 1e-6

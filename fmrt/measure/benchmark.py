"""Throughput, latency, padding, and the share of the machine's matrix-multiply peak."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from fmrt.bundle.bundle import Bundle
from fmrt.embedding.engine import Engine
from fmrt.embedding.scheduler import plan_batches, windows
from fmrt.machine import kernel_environment
from fmrt.measure.gpu import DevicePeak, sampled
from fmrt.measure.peak import Bound, PeakFlops
from fmrt.session import Target, resolve_provider, runtime_version
from fmrt.session.flops import Products, count_products, fit
from fmrt.system.cores import available_cores, cpu_name

# Percentiles of latency.
PERCENTILES = (50, 90, 99)
# The precision of a variant's products on the CPU, where it is another than fp32: fp16 weights are
# made float32 when they are loaded, and 4-bit ones while they are multiplied.
COMPUTED = {"int8": "int8", "bf16": "bf16"}
# Distinct shapes of products that the peak is measured at.
MOST_SHAPES = 8


@dataclasses.dataclass(frozen=True)
class Bench:
    """What was measured; times in seconds, lengths in the model's positions (tokens, patches).

    Attributes:
        variant: The variant that was measured.
        modality: The modality of its tower.
        provider: The provider that it ran on.
        cpu: The name of the processor.
        cores: The cores that this process may use.
        workers: The number of batches at the same time.
        intra_op_threads: The number of threads inside an operator of each batch.
        batch_tokens: The largest number of positions of a batch.
        runtime: The version of ONNX Runtime.
        items: The number of distinct items.
        positions: The positions of all items, without padding.
        seconds: The seconds of each round over all items.
        items_per_second: The items per second in the median round.
        positions_per_second: The positions per second in the median round.
        padding: The part of the computed positions that is padding.
        flops: The FLOPs of the matrix products of all items, without padding.
        peak_flops_per_second: The speed of the fastest kernel at the model's shapes and in the
            variant's precision, the best of all rounds; on a GPU, of one large product. None on
            other providers.
        peak_kernel: The name of that kernel.
        peak_kernels: The best of all rounds of each kernel that was tried.
        peak_fraction: The part of ``peak_flops_per_second`` that was reached in the median round.
        peak_error: The reason that the peak is no bound; None when it is one.
        environment: The variables that choose the kernels of the libraries in this process.
        latency: The seconds of items embedded alone, by percentile.
        latency_lengths: The lengths of those items.
        latency_seconds: The seconds of each of them.
        gpu: The model of the GPU; None where it runs on none.
        gpu_busy: The part of the rounds in which some kernel ran, as the driver counts it.
    """

    variant: str
    modality: str
    provider: str
    cpu: str
    cores: int
    workers: int
    intra_op_threads: int
    batch_tokens: int
    runtime: str
    items: int
    positions: int
    seconds: tuple[float, ...]
    items_per_second: float
    positions_per_second: float
    padding: float
    flops: float
    peak_flops_per_second: float | None
    peak_kernel: str | None
    peak_kernels: dict[str, float]
    peak_fraction: float | None
    peak_error: str | None
    environment: dict[str, str]
    latency: dict[str, float]
    latency_lengths: tuple[int, ...]
    latency_seconds: tuple[float, ...]
    gpu: str | None = None
    gpu_busy: float | None = None


def bench(
    engine: Engine, bundle: Bundle, items: Sequence[object], rounds: int = 5, singles: int = 200
) -> Bench:
    """Measure an engine; the peak and the model take turns.

    Args:
        engine: The loaded engine.
        bundle: The bundle that it was loaded from.
        items: The items, which are distinct, since equal texts are computed once.
        rounds: The number of rounds over all items.
        singles: The number of items that are embedded alone, each once.
    """
    lengths, padding = _lengths(engine, items)
    path = bundle.graph(engine.variant)
    polynomial, shapes = _flops(engine, path, items, lengths)
    flops = float(np.polyval(polynomial, lengths.astype(float)).sum())
    _embed(engine, items[: 2 * engine.workers])
    target = resolve_provider(engine.provider)
    seconds, busy, bound = _turns(engine, items, rounds, shapes, target)
    chosen = np.linspace(0, len(items) - 1, min(singles, len(items))).astype(int)
    alone = _alone(engine, [items[i] for i in chosen])
    median = statistics.median(seconds)
    fraction = None if bound is None else bound.fraction(flops, median)
    return Bench(
        variant=engine.variant.name,
        modality=engine.tower.modality,
        provider=engine.provider,
        cpu=cpu_name(),
        cores=available_cores(),
        workers=engine.workers,
        intra_op_threads=engine.tuning.intra_op_threads or 1,
        batch_tokens=engine.batch_tokens,
        runtime=runtime_version(),
        items=len(items),
        positions=int(lengths.sum()),
        seconds=tuple(seconds),
        items_per_second=len(items) / median,
        positions_per_second=float(lengths.sum()) / median,
        padding=padding,
        flops=flops,
        peak_flops_per_second=None if bound is None else bound.flops_per_second,
        peak_kernel=None if bound is None else bound.kernel,
        peak_kernels={} if bound is None else dict(bound.kernels),
        peak_fraction=fraction,
        peak_error=None if bound is None or fraction is None else bound.problem(fraction),
        environment=kernel_environment(),
        latency={f"p{p}": float(np.percentile(alone, p)) for p in PERCENTILES},
        latency_lengths=tuple(int(lengths[i]) for i in chosen),
        latency_seconds=tuple(alone),
        gpu=target.device_model,
        gpu_busy=statistics.mean(busy) if busy else None,
    )


def _turns(
    engine: Engine,
    items: Sequence[object],
    rounds: int,
    shapes: Sequence[tuple[int, int, int]],
    target: Target,
) -> tuple[list[float], list[float], Bound | None]:
    """The seconds of each round, how busy a GPU was in each, and the peak's bound, in turns."""
    seconds: list[float] = []
    busy: list[float] = []
    bound: Bound | None = None
    with _peak(engine, shapes) as peak:
        for _ in range(rounds):
            if peak is not None:
                peak.flops_per_second()
                bound = peak.bound
            with sampled(target.provider.device_address(target.devices[0])) as found:
                seconds.append(_embed(engine, items))
            busy += [] if found.share is None else [found.share]
    return seconds, busy, bound


def _embed(engine: Engine, items: Sequence[object]) -> float:
    start = time.perf_counter()
    for _ in engine.stream(items, _same):
        pass
    return time.perf_counter() - start


def _alone(engine: Engine, items: Sequence[object]) -> list[float]:
    """Seconds of each item alone, when the session for that is open."""
    _one(engine, items[0])
    _one(engine, items[0])
    engine.wait()
    return [_one(engine, item) for item in items]


def _one(engine: Engine, item: object) -> float:
    start = time.perf_counter()
    list(engine.stream([item], _same))
    return time.perf_counter() - start


def _lengths(engine: Engine, items: Sequence[object]) -> tuple[NDArray[np.int64], float]:
    """Positions of every item, and the part of padding in the batches that they make."""
    preprocess, found, computed = engine.preprocess, [np.zeros(0, np.int64)], 0
    loaded = (preprocess.load(item) for item in items)
    sizes = engine.window_sizes(len(items))
    cut = windows(loaded, preprocess.weight, preprocess.window_weight, sizes)
    for window in cut:
        lengths = preprocess.encode(window, "", "truncate").lengths
        plan = plan_batches(
            lengths,
            engine.batch_tokens,
            longest_padded=engine.longest_padded,
            workers=engine.workers,
        )
        computed += sum(len(rows) * int(lengths[rows].max()) for rows in plan)
        found.append(lengths)
    lengths = np.concatenate(found)
    return lengths, 1.0 - float(lengths.sum()) / max(1, computed)


def _flops(
    engine: Engine, path: object, items: Sequence[object], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.float64], list[tuple[int, int, int]]]:
    """FLOPs of an item by its length, and the shapes of products with weights in a batch."""
    order = np.argsort(lengths, kind="stable")
    trials = dict.fromkeys(int(order[i]) for i in (0, len(order) // 2, len(order) - 1))
    distinct = {int(lengths[i]): i for i in trials}
    found = count_products(
        path,  # type: ignore[arg-type]
        engine.tower.embedding_output,
        [_feeds(engine, items[i]) for i in distinct.values()],
    )
    longest = max(distinct)
    shapes = _shapes(found[list(distinct).index(longest)], engine.batch_tokens / longest)
    return fit(list(distinct), [one.flops for one in found]), shapes


def _feeds(engine: Engine, item: object) -> dict[str, NDArray[np.generic]]:
    preprocess = engine.preprocess
    encoded = preprocess.encode([preprocess.load(item)], "", "truncate")
    return {**encoded.feeds(np.zeros(1, np.int64)), **preprocess.constants("")}


def _shapes(products: Products, scale: float) -> list[tuple[int, int, int]]:
    """The heaviest distinct products, with the rows that they have in a whole batch.

    Each is as often in the list as in the graph, up to a common divisor's precision.
    """
    counts: dict[tuple[int, int, int], int] = {}
    for rows, inner, columns in products.weights:
        key = (max(1, round(rows * max(1.0, scale))), inner, columns)
        counts[key] = counts.get(key, 0) + 1
    heaviest = sorted(counts, key=lambda s: -counts[s] * s[0] * s[1] * s[2])[:MOST_SHAPES]
    least = min((counts[shape] for shape in heaviest), default=1)
    return [shape for shape in heaviest for _ in range(max(1, round(counts[shape] / least)))]


@contextmanager
def _peak(
    engine: Engine, shapes: Sequence[tuple[int, int, int]]
) -> Iterator[PeakFlops | DevicePeak | None]:
    target = resolve_provider(engine.provider)
    peak: PeakFlops | DevicePeak
    if shapes and target.provider.memory is not None:
        peak = DevicePeak(target, engine.variant.precision)
    elif shapes and engine.on_host:
        precision = COMPUTED.get(engine.variant.precision, "fp32")
        peak = PeakFlops(shapes, available_cores(), precision)
    else:
        yield None
        return
    try:
        yield peak
    finally:
        peak.close()


def _same(item: object) -> object:
    return item

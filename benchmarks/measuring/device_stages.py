"""Where the time goes on a device: stages, budgets, kernels, and single queries."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from torch.profiler import ProfilerActivity, profile

import fmrt
from benchmarks.measuring.device_peers import PEER, Setting, text_peer, worst_cosine
from fmrt.embedding.engine import Engine
from fmrt.embedding.scheduler import plan_batches
from fmrt.errors import FmrtError
from fmrt.session import open_session, resolve_provider

BUDGETS = (4_096, 16_384, 32_768, 65_536, 131_072)
QUERY = "how to read a file line by line in python without loading it all"
WARM_UP, QUERIES = 30, 200
# Texts of the kernels' profile, and of what is asked alone and in a batch.
PROFILED, ALONE, TOGETHER = 8_000, 200, 600
KERNELS = 25
# With CUDA graphs as they come, in the only session, and without.
GRAPHS = {"": None, "+graphs": True, "-graphs": False}


def stages(
    bundle: fmrt.Bundle, name: str, texts: Sequence[str], setting: Setting
) -> dict[str, Any]:
    """Seconds of tokenizing alone, of the device's loop alone, and of both together."""
    target = resolve_provider(setting.provider)
    with closing(Engine(bundle, name, setting.provider)) as engine:
        prepare, variant = engine.preprocess, engine.variant
        loaded = [prepare.load(text) for text in texts]
        start = time.perf_counter()
        encoded = prepare.encode(loaded, "", "truncate")
        tokenizing = time.perf_counter() - start
        padded = engine.longest_padded
        rows = plan_batches(encoded.lengths, engine.batch_tokens, longest_padded=padded)
        feeds = [{**encoded.feeds(each), **prepare.constants("")} for each in rows]
    session = open_session(bundle.graph(variant), target, engine.tower.embedding_output)
    found: dict[str, Any] = {
        "tokens": int(encoded.lengths.sum()),
        "padded": sum(each["input_ids"].size for each in feeds),
        "batches": len(feeds),
        "tokenize_s": tokenizing,
    }
    for label, threads in {"bare_s": 1, "bare_on_streams_s": session.workers or 1}.items():
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(session.run, feeds))
            start = time.perf_counter()
            list(pool.map(session.run, feeds))
            found[label] = time.perf_counter() - start
    with _embedder(bundle, name, setting) as embedder:
        _embedded(embedder, texts)
        found["embed_s"] = _embedded(embedder, texts)
    return found


def budgets(
    bundle: fmrt.Bundle, name: str, texts: Sequence[str], setting: Setting
) -> dict[str, int]:
    """Texts per second by the most tokens of a batch."""
    found = {}
    with _embedder(bundle, name, setting) as embedder:
        for budget in BUDGETS:
            _embedded(embedder, texts[: len(texts) // 4], batch_tokens=budget)
            took = _embedded(embedder, texts, batch_tokens=budget)
            found[f"{name}@{budget}"] = round(len(texts) / took)
    return found


def kernels(
    bundle: fmrt.Bundle, name: str, texts: Sequence[str], setting: Setting
) -> dict[str, Any]:
    """Time on the device by kernel, longest first, as CUPTI counts it through torch's profiler.

    Each row has the kernel's name, its calls and its milliseconds. Without a GPU there are none.
    """
    some = texts[:PROFILED]
    on_gpu = setting.device == "cuda"
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    with _embedder(bundle, name, setting) as embedder:
        _embedded(embedder, some)
        with profile(activities=[activity]) as profiled:
            took = _embedded(embedder, some)
    rows = sorted(profiled.key_averages(), key=lambda row: -row.device_time_total)
    total = sum(row.device_time_total for row in rows)
    named = [(r.key[:110], r.count, round(r.device_time_total / 1e3, 2)) for r in rows[:KERNELS]]
    return {
        "wall_ms": took * 1e3,
        "gpu_ms": total / 1e3,
        "gpu_busy": total / 1e6 / took,
        "top": named if on_gpu else [],
    }


def latency(
    model: Path, bundle: fmrt.Bundle, name: str, texts: Sequence[str], setting: Setting
) -> dict[str, Any]:
    """Milliseconds of one short query: the peer's, and with and without CUDA graphs."""
    peer = text_peer(model, setting)
    found: dict[str, Any] = {
        PEER: _percentiles(lambda: peer.encode([QUERY], show_progress_bar=False), setting)
    }
    records = resolve_provider(setting.provider).provider.records_graphs
    vectors = {}
    for suffix, graphs in GRAPHS.items():
        if not records and graphs:
            continue
        options = {"variant": name, "provider": setting.provider, "cuda_graphs": graphs}
        try:
            with fmrt.Embedder(bundle, **options) as embedder:
                found[name + suffix] = _percentiles(
                    lambda e=embedder: e.embed_query(QUERY), setting
                )
                alone = [embedder.embed_query(text) for text in texts[: ALONE // 4]]
                vectors[suffix] = np.stack(alone)
        except (FmrtError, RuntimeError) as e:  # graphs that cannot be recorded; the others go on
            found[name + suffix] = {"error": str(e).partition("\n")[0]}
    for suffix, each in vectors.items():
        found[f"{name}{suffix}"]["worst_cosine"] = worst_cosine(each, vectors["-graphs"])
    return found


def invariance(
    bundle: fmrt.Bundle, name: str, texts: Sequence[str], setting: Setting
) -> dict[str, float]:
    """How far a text's vector alone is from that in a batch, and from the same batch again."""
    many = texts[:TOGETHER]
    few = many[: len(many) // 3]

    def embedded(some: Sequence[str]) -> Any:
        return embedder.embed(some, on_too_long="truncate", show_progress=False)

    with _embedder(bundle, name, setting) as embedder:
        together, again = embedded(many), embedded(many)
        alone = np.concatenate([embedded([text]) for text in few])
    return {
        "batch_vs_single": float(np.abs(together[: len(few)] - alone).max()),
        "worst_cos": worst_cosine(together[: len(few)], alone),
        "again": float(np.abs(together - again).max()),
    }


def _embedder(bundle: fmrt.Bundle, name: str, setting: Setting) -> fmrt.Embedder:
    return fmrt.Embedder(bundle, variant=name, provider=setting.provider)


def _embedded(embedder: fmrt.Embedder, texts: Sequence[str], **options: Any) -> float:
    """Seconds of embedding texts."""
    start = time.perf_counter()
    embedder.embed(texts, on_too_long="truncate", show_progress=False, **options)
    return time.perf_counter() - start


def _percentiles(run: Callable[[], object], setting: Setting) -> dict[str, float]:
    count = 20 if setting.tiny else QUERIES
    for _ in range(min(WARM_UP, count)):
        run()
    took = []
    for _ in range(count):
        start = time.perf_counter()
        run()
        took.append(time.perf_counter() - start)
    p50, p99 = np.percentile(took, (50, 99)) * 1e3
    return {"p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3)}

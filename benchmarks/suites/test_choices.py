"""What each choice of docs/performance.md is worth: alternatives take turns on the same batches.

The benchmark's clock runs on a whole round of turns; the ratios are in ``extra_info``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from tokenizers import Tokenizer

import fmrt
from benchmarks.measuring.minilm import MODEL
from benchmarks.measuring.turns import Feeds, as_bytes, compare, run, session
from benchmarks.peers.runner import padded
from fmrt.embedding.scheduler import plan_batches
from fmrt.export.rewrite import optimize_for_cpu
from fmrt.export.rewrite.attention import simplify_attention
from fmrt.export.rewrite.fused_attention import fuse_attention
from fmrt.export.rewrite.gemm import projections_to_gemm
from fmrt.session import SLOW_CPU_FUSIONS
from fmrt.system.cores import available_cores

TEXTS = 500


@pytest.fixture(scope="module")
def batches(bundle: Path, corpus: list[str]) -> Callable[[int], Feeds]:
    """Batches of a token budget, padded, ready for the session."""
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    tokenizer.enable_truncation(256)
    ids = [encoding.ids for encoding in tokenizer.encode_batch(corpus[:TEXTS])]
    lengths = np.array([len(row) for row in ids])

    def of(budget: int) -> Feeds:
        return [padded([ids[i] for i in rows]) for rows in plan_batches(lengths, budget)]

    return of


def test_graphs(benchmark: Any, bundle: Path, batches: Callable[[int], Feeds]) -> None:
    portable = bundle / "onnx/model.onnx"
    attention = ir.load(portable)
    simplify_attention(attention)
    fused = attention.clone()
    fuse_attention(fused)
    gemm = fused.clone()
    projections_to_gemm(gemm)
    sessions = {
        "portable graph": session(portable, None),
        "slow fusions off": session(portable, SLOW_CPU_FUSIONS),
        "and attention simplified": session(as_bytes(attention), SLOW_CPU_FUSIONS),
        "and attention fused": session(as_bytes(fused), SLOW_CPU_FUSIONS),
        "and projections as Gemm": session(as_bytes(gemm), SLOW_CPU_FUSIONS),
    }
    feeds, cores = batches(512), available_cores()
    compare(benchmark, {n: (lambda s=s: run(s, feeds, cores)) for n, s in sessions.items()})


def test_budgets(benchmark: Any, bundle: Path, batches: Callable[[int], Feeds]) -> None:
    model, cores = session(bundle / "onnx/model_cpu.onnx", SLOW_CPU_FUSIONS), available_cores()
    feeds = {budget: batches(budget) for budget in (512, 128, 256, 384, 768, 1024, 4096)}
    compare(
        benchmark, {f"{b} tokens": (lambda f=f: run(model, f, cores)) for b, f in feeds.items()}
    )


def test_threads(benchmark: Any, bundle: Path, batches: Callable[[int], Feeds]) -> None:
    cores, feeds, file = available_cores(), batches(512), bundle / "onnx/model_cpu.onnx"
    one = session(file, SLOW_CPU_FUSIONS)
    all_cores = session(file, SLOW_CPU_FUSIONS, cores)
    compare(
        benchmark,
        {
            "a worker a core": lambda: run(one, feeds, cores),
            "one worker, all cores inside operators": lambda: run(all_cores, feeds, 1),
            "twice as many workers as cores": lambda: run(one, feeds, 2 * cores),
        },
    )


def test_query(benchmark: Any, bundle: Path) -> None:
    """Measure in a process of its own, as the pages of this one are those of the export."""
    command = [sys.executable, "-m", "benchmarks.scripts.query", str(bundle)]
    done = benchmark.pedantic(
        lambda: subprocess.run(command, capture_output=True, text=True, check=True), rounds=1
    )
    benchmark.extra_info["ratios"] = json.loads(done.stdout)


def test_pooled_token(benchmark: Any, tmp_path: Path, batches: Callable[[int], Feeds]) -> None:
    """The last of MiniLM's six layers, for CLS pooling, which it was not trained for."""
    fmrt.export_model(MODEL, tmp_path / "cls", pooling="cls")
    graph = ir.load(tmp_path / "cls/onnx/model.onnx")
    every = graph.clone()
    optimize_for_cpu(every)
    optimize_for_cpu(graph, "sentence_embedding")
    sessions = {
        "all tokens in the last layer": session(as_bytes(every), SLOW_CPU_FUSIONS),
        "the pooled token alone": session(as_bytes(graph), SLOW_CPU_FUSIONS),
    }
    feeds, cores = batches(512), available_cores()
    compare(benchmark, {n: (lambda s=s: run(s, feeds, cores)) for n, s in sessions.items()}, 5)

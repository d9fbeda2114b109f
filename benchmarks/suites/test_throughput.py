"""Texts to vectors: fmrt, sentence-transformers on torch, and the machine's peak, interleaved.

pytest-benchmark times fmrt; before every round, outside its clock, the others run on the same
texts. Ratios are medians over the rounds of this one run.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

import fmrt
from benchmarks.measuring.minilm import MODEL
from benchmarks.measuring.roofline import encoder_flops, encoder_peak, fraction_of
from fmrt.export.quiet import quiet

ROUNDS = 5


@pytest.fixture(scope="module")
def peer() -> SentenceTransformer:
    with quiet():
        return SentenceTransformer(str(MODEL), device="cpu")


CORPORA = {
    "natural": lambda texts: texts[:400],
    "short (8 to 16 tokens)": lambda texts: [" ".join(t.split()[:8]) for t in texts],
    "long (256 tokens)": lambda texts: [" ".join([t] * 60) for t in texts[:60]],
}


@pytest.mark.parametrize("kind", CORPORA)
def test_throughput(
    benchmark: Any,
    embedder: fmrt.Embedder,
    bundle: Path,
    peer: SentenceTransformer,
    corpus: list[str],
    kind: str,
) -> None:
    texts = CORPORA[kind](corpus)
    config = json.loads((bundle / "config.json").read_text())
    lengths = [len(ids) for ids in peer.tokenizer(texts, truncation=True)["input_ids"]]
    theirs: list[float] = []
    want = peer.encode(texts, show_progress_bar=False)

    def others() -> None:
        start = time.perf_counter()
        peer.encode(texts, show_progress_bar=False)
        theirs.append(time.perf_counter() - start)
        peak.flops_per_second()

    with encoder_peak(config) as peak:
        got = benchmark.pedantic(
            embedder.embed,
            (texts,),
            {"on_too_long": "truncate"},
            setup=others,
            rounds=ROUNDS,
            warmup_rounds=1,
        )
        bound = peak.bound
    assert np.abs(got - want).max() < 2e-5
    ours = benchmark.stats.stats.data
    flops = encoder_flops(config, lengths)
    theirs = theirs[-ROUNDS:]
    benchmark.extra_info |= {
        "texts": kind,
        "tokens": sum(lengths),
        "tokens_per_second": sum(lengths) / statistics.median(ours),
        "sentence_transformers_tokens_per_second": sum(lengths) / statistics.median(theirs),
        "ratio": statistics.median(t / o for t, o in zip(theirs, ours, strict=True)),
        "peak_gflops": bound.flops_per_second / 1e9,
        "peak_kernel": bound.kernel,
        "peak_kernels_gflops": {name: rate / 1e9 for name, rate in bound.kernels.items()},
        "peak_fraction": fraction_of(bound, flops, statistics.median(ours)),
        "best_peak_fraction": fraction_of(bound, flops, min(ours)),
    }

"""int8 on texts of four kinds that no calibration saw: cosines with fp32, and the worst texts."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fmrt
from benchmarks.measuring.unseen import KINDS, fetch, unseen

TEXTS = 500
SHOWN = 5


@pytest.fixture(scope="module")
def texts_folder() -> Path:
    """Where the packages with texts are kept from run to run."""
    folder = Path(os.environ.get("FMRT_BENCH_TEXTS", Path(tempfile.gettempdir()) / "fmrt-texts"))
    folder.mkdir(exist_ok=True)
    fetch(folder)
    return folder


@pytest.fixture(scope="module")
def quantized(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle with an int8 variant, at the defaults."""
    if any(v.name == "int8-cpu" for v in fmrt.Bundle.open(bundle).manifest.variants):
        return bundle
    copy = tmp_path_factory.mktemp("unseen") / "bundle"
    shutil.copytree(bundle, copy)
    fmrt.quantize_bundle(copy, ["int8"])
    return copy


@pytest.mark.parametrize("kind", KINDS)
def test_unseen(benchmark: Any, quantized: Path, texts_folder: Path, kind: str) -> None:
    texts = unseen(kind, texts_folder, TEXTS)
    assert len(texts) == TEXTS
    with fmrt.Embedder(quantized) as fp32, fmrt.Embedder(quantized, variant="int8-cpu") as int8:
        want = fp32.embed(texts, on_too_long="truncate")
        got = benchmark.pedantic(int8.embed, (texts,), {"on_too_long": "truncate"}, rounds=1)
    norms = np.linalg.norm(got, axis=1) * np.linalg.norm(want, axis=1)
    cosines = (got * want).sum(axis=1) / norms
    worst = np.argsort(cosines)[:SHOWN]
    benchmark.extra_info |= {
        "kind": kind,
        "texts": TEXTS,
        "mean_cosine": float(cosines.mean()),
        "min_cosine": float(cosines.min()),
        "worst": [{"cosine": float(cosines[i]), "text": texts[i][:120]} for i in worst],
    }

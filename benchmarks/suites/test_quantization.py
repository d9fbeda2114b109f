"""Quantized variants against fp32 and against ONNX Runtime's own quantization, taking turns.

The texts are docstrings that no calibration reads. ONNX Runtime's variants are made of the portable
graph with its own tools: ``quantize_dynamic`` with 8-bit weights a channel, and ``quantize_static``
in QDQ form, calibrated on the same texts as ours.
"""

from __future__ import annotations

import dataclasses
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from sentence_transformers import SentenceTransformer

import fmrt
from benchmarks.measuring.corpus import docstrings
from benchmarks.measuring.minilm import MODEL
from fmrt.bundle.bundle import record_of
from fmrt.bundle.manifest import Variant
from fmrt.export.quantize.items import calibration_docstrings
from fmrt.export.quiet import quiet

TEXTS = 600
PAIRS = 4000
# Many short turns: what disturbs a machine lasts for seconds, and should meet every variant alike.
ROUNDS, A_TURN = 20, 150
OURS = ("int8-cpu", "q8", "fp16-cpu")
PEERS = ("ort-dynamic", "ort-static")


@pytest.fixture(scope="module")
def texts(corpus: list[str]) -> list[str]:
    seen = set(calibration_docstrings())
    assert len(docstrings()) > len(seen)
    unseen = [text for text in corpus if text not in seen]
    assert len(unseen) >= TEXTS
    return unseen[:TEXTS]


@pytest.fixture(scope="module")
def quantized(bundle: Path) -> Path:
    """The bundle with our variants, at the export's defaults, and with ONNX Runtime's."""
    fmrt.quantize_bundle(bundle, ["int8", "fp16"])
    _add(bundle, "ort-dynamic", _dynamic)
    _add(bundle, "ort-static", _static)
    return bundle


def _add(bundle: Path, name: str, make: Callable[[Path, Path], None]) -> None:
    """Put a peer's graph where the runtime finds it, so that both run the same way."""
    path = bundle / f"onnx/{name}.onnx"
    make(bundle, path)
    record = record_of(path)
    file = f"onnx/{name}.onnx"
    manifest = fmrt.Bundle.open(bundle).manifest
    variant = Variant(name, file, "any", "int8", record.sha256, record.size)
    dataclasses.replace(manifest, variants=(*manifest.variants, variant)).write(bundle)


def _dynamic(bundle: Path, out: Path) -> None:
    quantize_dynamic(bundle / "onnx/model.onnx", out, weight_type=QuantType.QInt8, per_channel=True)


def _static(bundle: Path, out: Path) -> None:
    quantize_static(
        bundle / "onnx/model.onnx",
        out,
        _Reader(bundle, calibration_docstrings()[:64]),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=["MatMul", "Gemm", "Gather"],
    )


class _Reader(CalibrationDataReader):
    """Calibration texts, one at a time."""

    def __init__(self, bundle: Path, texts: Sequence[str]) -> None:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
        tokenizer.enable_truncation(256)
        self._feeds = self._made(tokenizer, texts)

    @staticmethod
    def _made(tokenizer: Any, texts: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        for text in texts:
            ids = np.array([tokenizer.encode(text).ids], np.int64)
            yield {
                "input_ids": ids,
                "attention_mask": np.ones_like(ids),
                "token_type_ids": np.zeros_like(ids),
            }

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def test_quantization(benchmark: Any, quantized: Path, texts: list[str]) -> None:
    with quiet():
        peer = SentenceTransformer(str(MODEL), device="cpu")
        want = np.stack([peer.encode(text, show_progress_bar=False) for text in texts])
    variants = (None, *OURS, *PEERS)
    embedders = {
        name: fmrt.Embedder(quantized, variant=name, verify=name not in PEERS) for name in variants
    }
    seconds: dict[str | None, list[float]] = {name: [] for name in variants}

    def turn() -> None:
        for name, embedder in embedders.items():
            start = time.perf_counter()
            embedder.embed(texts[:A_TURN], on_too_long="truncate")
            seconds[name].append(time.perf_counter() - start)

    benchmark.pedantic(turn, rounds=ROUNDS, warmup_rounds=1)
    speed = {name: _ratio(seconds, None, name) for name in variants}
    vectors = {n: e.embed(texts, on_too_long="truncate") for n, e in embedders.items()}
    cosines = {n: (v * want).sum(axis=1) / _norms(v, want) for n, v in vectors.items()}
    int8 = embedders["int8-cpu"]
    alone = np.concatenate([int8.embed([text], on_too_long="truncate") for text in texts[:100]])
    sizes = {v.name: v.size for v in fmrt.Bundle.open(quantized).manifest.variants}
    benchmark.extra_info |= {
        "texts": len(texts),
        "int8_mean_cosine": float(cosines["int8-cpu"].mean()),
        "int8_min_cosine": float(cosines["int8-cpu"].min()),
        "int8_ranking": _spearman(vectors["int8-cpu"], vectors[None]),
        "int8_batch_difference": float(np.abs(vectors["int8-cpu"][:100] - alone).max()),
        "int8_speed": speed["int8-cpu"],
        "int8_over_dynamic": _ratio(seconds, "ort-dynamic", "int8-cpu"),
        "int8_size": sizes["int8-cpu"] / sizes["fp32-cpu"],
        "q8_mean_cosine": float(cosines["q8"].mean()),
        "q8_speed": speed["q8"],
        "fp16_speed": speed["fp16-cpu"],
        "fp16_size": sizes["fp16-cpu"] / sizes["fp32-cpu"],
        "fp16_max_abs_error": float(np.abs(vectors["fp16-cpu"] - want).max()),
        "fp32_min_cosine": float(cosines[None].min()),
        **{f"{n}_speed".replace("-", "_"): speed[n] for n in PEERS},
        **{f"{n}_mean_cosine".replace("-", "_"): float(cosines[n].mean()) for n in PEERS},
        **{f"{n}_min_cosine".replace("-", "_"): float(cosines[n].min()) for n in PEERS},
        **{f"{n}_ranking".replace("-", "_"): _spearman(vectors[n], vectors[None]) for n in PEERS},
    }
    for embedder in embedders.values():
        embedder.close()


def _ratio(seconds: dict[str | None, list[float]], base: str | None, name: str | None) -> float:
    pairs = zip(seconds[base][-ROUNDS:], seconds[name][-ROUNDS:], strict=True)
    return statistics.median(b / n for b, n in pairs)


def _norms(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)


def _spearman(vectors: np.ndarray, expected: np.ndarray) -> float:
    """Rank correlation of the similarities of random pairs."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, len(vectors), (2, PAIRS))
    a, b = a[a != b], b[a != b]
    ranks = [np.argsort(np.argsort((v[a] * v[b]).sum(axis=1))) for v in (vectors, expected)]
    return float(np.corrcoef(*ranks)[0, 1])


def test_int4_of_a_decoder(benchmark: Any, tmp_path: Path) -> None:
    """Llama's geometry at hidden size 2,048, 4 layers, random weights: bytes on disk and loaded."""
    bundle = _decoder(tmp_path)
    texts = list(calibration_docstrings()[:48])
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(texts), encoding="utf-8")
    make = lambda: fmrt.quantize_bundle(bundle, ["int4"], min_cosine=0.5, calibration=file)  # noqa: E731
    manifest = benchmark.pedantic(make, rounds=1).manifest
    sizes = {v.name: _bytes(v) for v in manifest.variants}
    quality = manifest.variants[-1].quality
    loaded = {name: _resident(bundle, name) for name in ("fp32", "q4")}
    benchmark.extra_info |= {
        "int4_size": sizes["q4"] / sizes["fp32"],
        "int4_memory": loaded["q4"] / loaded["fp32"],
        "fp32_mib": loaded["fp32"] / (1 << 20),
        "int4_mib": loaded["q4"] / (1 << 20),
        "int4_mean_cosine": quality.mean_cosine,
    }


def _bytes(variant: Variant) -> int:
    return variant.size + sum(record.size for record in variant.external.values())


def _decoder(folder: Path) -> Path:
    import torch
    from transformers import AutoModel, AutoTokenizer, LlamaConfig

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=4,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=512,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
    )
    AutoModel.from_config(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    fmrt.export_model(folder / "model", folder / "bundle", pooling="mean")
    return folder / "bundle"


_LOADED = """
import sys, fmrt
from fmrt.embedding.engine import Engine
def resident():
    lines = open("/proc/self/status")
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS"))
before = resident()
engine = Engine(fmrt.Bundle.open(sys.argv[1]), sys.argv[2])
engine.vectors(["a text"])
print(resident() - before)
"""


def _resident(bundle: Path, variant: str) -> int:
    """Bytes that a loaded variant adds to its process."""
    command = [sys.executable, "-c", _LOADED, str(bundle), variant]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

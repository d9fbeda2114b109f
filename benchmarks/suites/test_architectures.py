"""What the passes of ``export/rewrite`` are worth on decoders, windows and images.

Random weights of known models' layer sizes, four to six layers. Speed ratios are in
``extra_info``; memory is the peak of a process that runs one text, over that before.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from tokenizers import Tokenizer
from transformers import CONFIG_MAPPING, AutoModel, AutoTokenizer, ViTImageProcessor

from benchmarks.measuring.minilm import MODEL
from benchmarks.measuring.turns import Feeds, as_bytes, compare, run, session
from benchmarks.peers.runner import padded
from fmrt.embedding.scheduler import plan_batches
from fmrt.export.load import load_model
from fmrt.export.rewrite.attention import simplify_attention
from fmrt.export.rewrite.fused_attention import fuse_attention
from fmrt.export.rewrite.gemm import projections_to_gemm
from fmrt.export.rewrite.pooled_token import compute_pooled_token_alone
from fmrt.export.rewrite.rms_norm import fuse_rms_norm
from fmrt.export.text.source import Overrides
from fmrt.export.trace import trace
from fmrt.session import SLOW_CPU_FUSIONS
from fmrt.system.cores import available_cores

LAYERS = {
    "Qwen3-0.6B": {
        "model_type": "qwen3",
        "hidden_size": 1024,
        "num_hidden_layers": 4,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 3072,
        "max_position_embeddings": 32768,
    },
    "EmbeddingGemma": {
        "model_type": "gemma3_text",
        "hidden_size": 768,
        "num_hidden_layers": 6,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "intermediate_size": 1152,
        "max_position_embeddings": 2048,
        "sliding_window": 512,
        "use_bidirectional_attention": True,
    },
    "ModernBERT-base": {
        "model_type": "modernbert",
        "hidden_size": 768,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1152,
        "max_position_embeddings": 8192,
        "local_attention": 128,
    },
}
# Special tokens of MiniLM's vocabulary, which all of them get.
SPECIAL = {"pad_token_id": 0, "bos_token_id": 101, "eos_token_id": 102}
SPECIAL |= {"cls_token_id": 101, "sep_token_id": 102}
NATURAL = 48
ROUNDS = 3
LENGTHS = (512, 2048)
SIMPLIFIED, NORM, FUSED = "simplified", "and RMS norm fused", "and attention fused"
POOLED = "and the pooled token alone"
Passes = list[Callable[[ir.Model], int]]


@pytest.fixture(scope="module", params=LAYERS)
def graphs(request: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("architecture")
    config = dict(LAYERS[request.param])
    torch.manual_seed(0)
    kind = CONFIG_MAPPING[str(config.pop("model_type"))]
    values = {**config, **SPECIAL, "vocab_size": 30522}
    AutoModel.from_config(kind(**values)).eval().save_pretrained(place / "model")
    AutoTokenizer.from_pretrained(MODEL).save_pretrained(place / "model")
    causal = request.param.startswith("Qwen")
    loaded = load_model(
        str(place / "model"), None, "cpu", Overrides("lasttoken" if causal else "mean")
    )
    (part,) = loaded.parts()
    graph = trace(part, loaded.model_type, None)
    return behind_passes(graph, place)


def behind_passes(graph: ir.Model, place: Path) -> dict[str, Path]:
    pooled = partial(compute_pooled_token_alone, embedding="sentence_embedding")
    ways: dict[str, Passes] = {
        SIMPLIFIED: [simplify_attention, pooled, projections_to_gemm],
        NORM: [simplify_attention, fuse_rms_norm, pooled, projections_to_gemm],
        FUSED: [simplify_attention, fuse_rms_norm, pooled, fuse_attention, projections_to_gemm],
    }
    files: dict[str, Path] = {}
    for name, passes in ways.items():
        files[name] = place / f"{len(passes)}.onnx"
        files[name].write_bytes(rewritten(graph, passes))
    return files


def rewritten(graph: ir.Model, passes: Passes) -> bytes:
    copy = graph.clone()
    for apply in passes:
        apply(copy)
    return as_bytes(copy)


def test_natural_lengths(benchmark: Any, graphs: dict[str, Path], corpus: list[str]) -> None:
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    tokenizer.enable_truncation(256)
    ids = [encoding.ids for encoding in tokenizer.encode_batch(corpus[:NATURAL])]
    lengths = np.array([len(row) for row in ids])
    feeds = [padded([ids[i] for i in rows]) for rows in plan_batches(lengths, 512)]
    take_turns(benchmark, graphs, feeds)


@pytest.mark.parametrize("length", LENGTHS)
def test_long_texts(benchmark: Any, graphs: dict[str, Path], length: int) -> None:
    rng = np.random.default_rng(0)
    texts = [rng.integers(999, 29000, length).tolist() for _ in range(available_cores())]
    take_turns(benchmark, graphs, [padded([text]) for text in texts])


def take_turns(benchmark: Any, graphs: dict[str, Path], feeds: Feeds) -> None:
    ways = {
        name: alternative(session(file, SLOW_CPU_FUSIONS), feeds) for name, file in graphs.items()
    }
    compare(benchmark, ways, ROUNDS)


def alternative(model: Any, feeds: Feeds) -> Callable[[], None]:
    names = [i.name for i in model.get_inputs()]
    known = [{name: feed[name] for name in names} for feed in feeds]
    return partial(run, model, known, available_cores())


@pytest.mark.parametrize("length", [*LENGTHS, 8192])
def test_memory(benchmark: Any, graphs: dict[str, Path], length: int) -> None:
    """One thread, one text; the process has nothing but the graph."""
    found = benchmark.pedantic(
        lambda: {name: peak(file, length) for name, file in graphs.items()}, rounds=1
    )
    benchmark.extra_info["mebibytes"] = found


def peak(file: Path, length: int) -> float:
    command = [sys.executable, "-m", "benchmarks.scripts.peak", str(file), str(length)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_images(benchmark: Any, tmp_path: Path) -> None:
    """DINOv2-small's layer sizes, whose vector is that of one token."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING["dinov2"](
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=224, patch_size=14
    )
    AutoModel.from_config(config).save_pretrained(tmp_path / "model")
    ViTImageProcessor().save_pretrained(tmp_path / "model")
    loaded = load_model(str(tmp_path / "model"), None, "cpu", Overrides(None))
    (part,) = loaded.parts()
    graph = trace(part, loaded.model_type, None)
    output = part.tower.embedding_output
    pooled = partial(compute_pooled_token_alone, embedding=output)
    ways: dict[str, Passes] = {
        SIMPLIFIED: [simplify_attention, projections_to_gemm],
        FUSED: [simplify_attention, fuse_attention, projections_to_gemm],
        POOLED: [simplify_attention, pooled, fuse_attention, projections_to_gemm],
    }
    sessions = {n: session(rewritten(graph, p), SLOW_CPU_FUSIONS) for n, p in ways.items()}
    images = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    feeds = [{"pixel_values": images}] * 8
    cores = available_cores()
    compare(
        benchmark, {n: partial(run, s, feeds, cores, output) for n, s in sessions.items()}, ROUNDS
    )

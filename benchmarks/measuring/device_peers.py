"""fmrt beside PyTorch on one device, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

import fmrt
from fmrt.export.quiet import quiet
from fmrt.measure.gpu import sampled
from fmrt.session import Session, open_session, resolve_provider

Way = Callable[[], NDArray[Any]]
# In addition to the names of variants.
PEER = "peer"
# The peer's best of these counts; sentence-transformers' own default is the first.
PEER_BATCHES = (32, 128, 512)
# The part of the texts that the peer's batch is chosen on.
CHOSEN_ON = 5
IMAGE_BATCH, IMAGE_BATCHES = 64, 24


@dataclass(frozen=True)
class Setting:
    """What a run is about.

    Attributes:
        provider: The provider, as ``fmrt embed`` takes it.
        device: PyTorch's, ``cuda`` or ``cpu``.
        dtype: The peer's dtype.
        tiny: Whether models and corpora are small.
        rounds: The rounds of measurements that take turns.
    """

    provider: str
    device: str
    dtype: torch.dtype
    tiny: bool
    rounds: int


@dataclass(frozen=True)
class Work:
    """What both sides did, in rounds.

    Attributes:
        count: The tokens or images of a round.
        lengths: The tokens of each item.
        peer_batch: The items of the peer's batches.
        times: The seconds of the rounds.
        agreement: The worst cosine of each variant's vectors with the peer's.
    """

    count: int
    lengths: Sequence[int]
    peer_batch: int
    times: Times
    agreement: Mapping[str, float]


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


def text_peer(model: Path, setting: Setting) -> SentenceTransformer:
    """sentence-transformers with PyTorch's fused attention."""
    kwargs = {"dtype": setting.dtype, "attn_implementation": "sdpa"}
    with quiet():
        return SentenceTransformer(str(model), device=setting.device, model_kwargs=kwargs)


def texts_in_turns(
    model: Path, bundle: fmrt.Bundle, variants: Sequence[str], texts: list[str], setting: Setting
) -> Work:
    """Raw texts, embedded by the peer in its best batch, and by each variant."""
    peer = text_peer(model, setting)
    text = bundle.manifest.text
    assert text is not None  # it is a bundle of texts
    peer.max_seq_length = text.max_length

    def theirs(batch: int, some: list[str]) -> NDArray[Any]:
        return peer.encode(some, batch_size=batch, show_progress_bar=False)

    few = texts[: max(1, len(texts) // CHOSEN_ON)]
    batch = _best_batch(lambda size: theirs(size, few))
    ways: dict[str, Way] = {PEER: lambda: theirs(batch, texts)}
    with ExitStack() as stack:
        for name in variants:
            embedder = fmrt.Embedder(bundle, variant=name, provider=setting.provider)
            embed = stack.enter_context(embedder).embed
            ways[name] = partial(embed, texts, on_too_long="truncate", show_progress=False)
        times, agreement = _interleaved(ways, setting), _agreement(ways)
    rows = peer.tokenizer(texts, truncation=True, max_length=peer.max_seq_length)["input_ids"]
    lengths = [len(row) for row in rows]
    return Work(sum(lengths), lengths, batch, times, agreement)


def images_in_turns(
    model: Path, bundle: fmrt.Bundle, variants: Sequence[str], setting: Setting
) -> Work:
    """Images as pixel values, decoded before."""
    tower = bundle.manifest.tower("image")
    count = 4 if setting.tiny else IMAGE_BATCH
    shape = (count, 3, tower.input.height, tower.input.width)
    rng = np.random.default_rng(0)
    number = 2 if setting.tiny else IMAGE_BATCHES
    batches = [rng.standard_normal(shape, np.float32) for _ in range(number)]
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
        times, agreement = _interleaved(ways, setting), _agreement(ways)
    images = number * count
    return Work(images, [tower.input.tokens] * images, count, times, agreement)


def compared(work: Work, unit: str, seconds_at_peak: float) -> dict[str, Any]:
    """What was measured of the fastest variant, and of all that took turns by name."""
    times, found = work.times, {}
    peer = statistics.median(times.seconds[PEER])
    for name, cosine in work.agreement.items():
        ours = statistics.median(times.seconds[name])
        found[name] = {
            f"{unit}_per_second": work.count / ours,
            f"peer_{unit}_per_second": work.count / peer,
            "ratio": times.ratio(name),
            "gpu_busy": times.busy(name),
            "peer_gpu_busy": times.busy(PEER),
            "matmul_fraction": seconds_at_peak / ours,
            "cosine_with_peer": cosine,
        }
    best = max(found, key=lambda name: found[name]["ratio"])
    size = {unit: work.count, "peer_batch": work.peer_batch}
    return {**size, "variant": best, **found[best], "compared": found}


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


def _agreement(ways: Mapping[str, Way]) -> dict[str, float]:
    """The worst cosine of each variant's vectors with the peer's."""
    expected = ways[PEER]()
    return {name: worst_cosine(way(), expected) for name, way in ways.items() if name != PEER}


def worst_cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The worst cosine of rows of two arrays, float ``[n, dim]``."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / norms).min())

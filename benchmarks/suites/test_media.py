"""Image and sound files to vectors: fmrt, and transformers on torch with its own preprocessing.

Weights are random, of the geometry of DINOv2-small and wav2vec2-base. The peer runs with the batch
size that is its fastest of a few; the two take turns, and the ratio is the median over the rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
import soundfile
import torch
import transformers
from PIL import Image

import fmrt
from fmrt.export.quiet import quiet

ROUNDS = 5
BATCHES = (1, 4, 8)
RATE = 16_000
Peer = Callable[[Sequence[Path]], np.ndarray]


@dataclass(frozen=True)
class Kind:
    """A model with files for it.

    Attributes:
        save: writes the model and what prepares its items.
        write: writes that many files.
        peer: Gives a batch's vectors with transformers, from a model's directory.
        files: how many.
    """

    save: Callable[[Path], None]
    write: Callable[[Path, int], list[Path]]
    peer: Callable[[Path], Peer]
    files: int


def save_dinov2(directory: Path) -> None:
    config = transformers.Dinov2Config(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14
    )
    transformers.Dinov2Model(config).save_pretrained(directory)
    crop = {"height": 224, "width": 224}
    transformers.BitImageProcessorPil(
        size={"shortest_edge": 256}, crop_size=crop, resample=3
    ).save_pretrained(directory)


def save_wav2vec2(directory: Path) -> None:
    transformers.Wav2Vec2Model(transformers.Wav2Vec2Config()).save_pretrained(directory)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(directory)


def write_photographs(folder: Path, count: int) -> list[Path]:
    """Parts of scikit-learn's two photographs, 480 x 360 pixels, as JPEG."""
    root = Path(sklearn.__file__).parent / "datasets/images"
    whole = [Image.open(root / name) for name in ("china.jpg", "flower.jpg")]
    rng = np.random.default_rng(0)
    files = [folder / f"{i}.jpg" for i in range(count)]
    for i, file in enumerate(files):
        image = whole[i % 2]
        left, top = rng.integers(image.width - 480), rng.integers(image.height - 360)
        image.crop((left, top, left + 480, top + 360)).save(file, quality=90)
    return files


def write_sounds(folder: Path, count: int) -> list[Path]:
    """Five seconds of sweeps and noise each, at the model's rate: all could share a batch."""
    rng = np.random.default_rng(0)
    time_axis = np.arange(5 * RATE) / RATE
    files = [folder / f"{i}.wav" for i in range(count)]
    for i, file in enumerate(files):
        sweep = np.sin(2 * np.pi * (100 + 20 * i + 150 * time_axis) * time_axis)
        soundfile.write(file, 0.4 * sweep + rng.normal(0, 0.05, sweep.shape), RATE)
    return files


def dinov2_peer(directory: Path) -> Peer:
    processor = transformers.BitImageProcessorPil.from_pretrained(directory)
    model = transformers.AutoModel.from_pretrained(directory).eval()

    def embed(files: Sequence[Path]) -> np.ndarray:
        pixels = processor(images=[Image.open(file) for file in files], return_tensors="pt")
        return model(**pixels).pooler_output.numpy()

    return embed


def wav2vec2_peer(directory: Path) -> Peer:
    extractor = transformers.AutoFeatureExtractor.from_pretrained(directory)
    model = transformers.AutoModel.from_pretrained(directory).eval()

    def embed(files: Sequence[Path]) -> np.ndarray:
        sounds = [soundfile.read(file, dtype="float32")[0] for file in files]
        inputs = extractor(sounds, sampling_rate=RATE, return_tensors="pt")
        return model(inputs["input_values"]).last_hidden_state.mean(1).numpy()

    return embed


KINDS = {
    "images": Kind(save_dinov2, write_photographs, dinov2_peer, 48),
    "sounds": Kind(save_wav2vec2, write_sounds, wav2vec2_peer, 16),
}


@pytest.mark.parametrize("kind", KINDS)
def test_media(benchmark: Any, tmp_path: Path, kind: str) -> None:
    chosen = KINDS[kind]
    torch.manual_seed(0)
    with quiet():
        chosen.save(tmp_path / "model")
        peer = chosen.peer(tmp_path / "model")
    (tmp_path / "files").mkdir()
    files = chosen.write(tmp_path / "files", chosen.files)
    bundle = fmrt.export_model(tmp_path / "model", tmp_path / "bundle")

    def theirs(size: int) -> tuple[float, np.ndarray]:
        start = time.perf_counter()
        with torch.inference_mode():
            rows = [peer(files[i : i + size]) for i in range(0, len(files), size)]
        return time.perf_counter() - start, np.concatenate(rows)

    theirs(BATCHES[0])
    size = min(BATCHES, key=lambda size: theirs(size)[0])
    times: list[float] = []
    with fmrt.Embedder(bundle) as embedder:
        got = benchmark.pedantic(
            embedder.embed,
            (files,),
            setup=lambda: times.append(theirs(size)[0]),
            rounds=ROUNDS,
            warmup_rounds=1,
        )
    want = theirs(size)[1]
    assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()
    ours, times = benchmark.stats.stats.data, times[-ROUNDS:]
    benchmark.extra_info |= {
        "items_per_second": len(files) / statistics.median(ours),
        "transformers_items_per_second": len(files) / statistics.median(times),
        "transformers_batch": size,
        "ratio": statistics.median(t / o for t, o in zip(times, ours, strict=True)),
    }

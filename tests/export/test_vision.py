"""Every family of vision models, from image files through the torch-free runtime."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel

import fmrt
from export.image_processor import ImageProcessor
from export.quiet import quiet
from tests.export.reference import assert_parity
from tests.export.vision import VISION, TinyVision, save_vision


def photographs() -> list[bytes]:
    """Files that the exporter has not seen: others sizes, shapes and modes than its own."""
    rng = np.random.default_rng(7)
    out = []
    for height, width, mode, kind in (
        (61, 83, "RGB", "JPEG"),
        (120, 35, "RGB", "PNG"),
        (5, 90, "L", "PNG"),
        (64, 64, "RGBA", "WEBP"),
        (256, 255, "P", "PNG"),
    ):
        y, x = np.mgrid[0:height, 0:width]
        waves = [np.cos(x / (4 + i) - y / (9 - i)) * 80 + 128 for i in range(3)]
        pixels = np.stack(waves, -1) + rng.integers(-25, 25, (height, width, 3))
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode)
        file = io.BytesIO()
        image.save(file, kind)
        out.append(file.getvalue())
    return out


def pytorch(model: Path, tiny: TinyVision, images: list[bytes]) -> np.ndarray:
    """One image at a time, by transformers alone."""
    processor = ImageProcessor(model)
    with quiet(), torch.no_grad():
        backbone = AutoModel.from_pretrained(model).eval()
        extra = {}
        if tiny.model_type == "vit_mae":
            backbone.config.mask_ratio = 0.0
            extra = {"noise": torch.arange(16.0)[None]}
        rows = []
        for data in images:
            output = backbone(pixel_values=torch.from_numpy(processor(data))[None], **extra)
            pooled = output.get("pooler_output") if tiny.pooling == "pooler" else None
            rows.append(output.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1))
    return torch.cat(rows).numpy()


@pytest.mark.parametrize("tiny", VISION, ids=lambda tiny: tiny.model_type)
def test_family_matches_pytorch(tiny: TinyVision, tmp_path: Path) -> None:
    model = save_vision(tiny, tmp_path / "model")
    bundle = fmrt.export_model(model, tmp_path / "bundle")
    assert bundle.manifest.tower().pooling == tiny.pooling
    images = photographs()
    want = pytorch(model, tiny, images)
    with fmrt.Embedder(bundle) as embedder:
        got = embedder.embed(images, batch_tokens=10_000)
        alone = np.stack([embedder.embed([image])[0] for image in images])
    assert_parity(got, want, 1e-4)
    assert np.abs(got - alone).max() <= 1e-5 * np.abs(want).max()
    assert np.ptp(want, axis=0).max() > 1e-3  # the images' vectors differ

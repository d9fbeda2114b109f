"""Every family of vision models, from image files through the torch-free runtime."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from transformers import AutoModel

import fmrt
from fmrt.cli import main
from fmrt.data import read_embeddings
from fmrt.errors import DataError, OptionError
from fmrt.export.quiet import quiet
from fmrt.export.vision.image_processor import ImageProcessor
from tests.export.reference import FILE_ERROR, assert_parity
from tests.export.strangers import check_for_strangers
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


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Directories of the models by type, each written once."""
    root = tmp_path_factory.mktemp("vision")
    tinies = {tiny.model_type: tiny for tiny in VISION}
    return functools.cache(lambda kind: save_vision(tinies[kind], root / kind))


@pytest.mark.parametrize("tiny", VISION, ids=lambda tiny: tiny.model_type)
def test_family_matches_pytorch(
    tiny: TinyVision, models: Callable[[str], Path], tmp_path: Path
) -> None:
    model = models(tiny.model_type)
    bundle = fmrt.export_model(model, tmp_path / "bundle")
    check_for_strangers(bundle, model)
    assert bundle.manifest.tower().pooling == tiny.pooling
    images = photographs()
    want = pytorch(model, tiny, images)
    with fmrt.Embedder(bundle) as embedder:
        got = embedder.embed(images, batch_tokens=10_000)
        alone = np.stack([embedder.embed([image])[0] for image in images])
    assert_parity(got, want, FILE_ERROR)
    assert np.abs(got - alone).max() <= 1e-5 * np.abs(want).max()
    assert np.ptp(want, axis=0).max() > 1e-3  # the images' vectors differ


# Rows and columns of patches, and tokens before them. ResNet's last stage has a stride of 32
# in 384 pixels.
PATCHES = {
    "vit": ((4, 4), 1),
    "dinov2_with_registers": ((4, 4), 5),
    "dinov3_vit": ((4, 4), 1),
    "siglip_vision_model": ((4, 4), 0),
    "swin": ((4, 4), 0),
    "convnext": ((1, 1), None),
    "resnet": ((12, 12), None),
}


@pytest.mark.parametrize("kind", PATCHES)
def test_patches_match_pytorch(
    kind: str,
    models: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, (grid, prefix) = models(kind), PATCHES[kind]
    bundle = fmrt.export_model(model, tmp_path / "bundle", output="patch")
    assert bundle.manifest.tower().grid == grid
    images = photographs()
    processor, backbone = ImageProcessor(model), AutoModel.from_pretrained(model).eval()
    with quiet(), torch.no_grad():
        rows = [backbone(torch.from_numpy(processor(d))[None]).last_hidden_state for d in images]
    want = torch.cat([r.flatten(2).mT if prefix is None else r[:, prefix:] for r in rows]).numpy()
    assert want.shape[1] == grid[0] * grid[1]
    with fmrt.Embedder(bundle) as embedder:
        got = embedder.embed(images, batch_tokens=10_000)
        alone = np.concatenate([embedder.embed([image]) for image in images])
        bits = embedder.embed(images, precision="binary", truncate_dim=9)
        unit = embedder.embed(images, truncate_dim=5, normalize=True)
    assert_parity(got.reshape(-1, got.shape[-1]), want.reshape(-1, got.shape[-1]), FILE_ERROR)
    assert np.abs(got - alone).max() <= 1e-5 * np.abs(want).max()
    assert np.array_equal(np.unpackbits(bits, axis=-1)[..., :9], got[..., :9] > 0)
    assert np.allclose(unit * np.linalg.norm(got[..., :5], axis=-1, keepdims=True), got[..., :5])
    _check_files(tmp_path, images, got)
    assert f"{grid[0]} x {grid[1]} patches" in capsys.readouterr().err


def _check_files(folder: Path, images: list[bytes], want: np.ndarray) -> None:
    (folder / "images").mkdir()
    for i, data in enumerate(images):
        (folder / f"images/{i}.png").write_bytes(data)
    for name in ("v.npy", "v.parquet"):
        out = str(folder / name)
        assert main(["embed", str(folder / "bundle"), str(folder / "images"), "-o", out]) == 0
        with pytest.raises(DataError, match="several an image"):
            read_embeddings(out)
    assert np.allclose(np.load(folder / "v.npy"), want, atol=1e-5)
    column = pyarrow.parquet.read_table(folder / "v.parquet")["embedding"]
    assert np.allclose(np.array(column.to_pylist(), np.float32), want, atol=1e-5)


def test_patches_only_where_there_are_any(models: Callable[[str], Path]) -> None:
    with pytest.raises(OptionError, match="nothing is pooled"):
        fmrt.export_model(models("vit"), "out", output="patch", pooling="cls")
    with pytest.raises(OptionError, match="'patches'; choose from: pooled, patch"):
        fmrt.export_model(models("vit"), "out", output="patches")

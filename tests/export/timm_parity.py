"""timm models through the exporter and the runtime; prints what was found as JSON.

A program of its own, which test_timm runs: transformers looks once whether torchvision is there.
torchvision's operators load only with the build of torch that they were made for, and timm's
transforms need none of them; where they are missing, two names are enough to import the rest.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch


def import_torchvision() -> None:
    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        KEPT.append(library)
        import torchvision  # noqa: F401


KEPT: list[Any] = []
SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 4}
MODELS = {
    "vit_tiny_patch16_224": {"img_size": 32, "patch_size": 8, **SMALL},
    "vit_small_patch16_dinov3": {"img_size": 32, "patch_size": 8, **SMALL},
    "swin_tiny_patch4_window7_224": {
        "img_size": 32,
        "embed_dim": 16,
        "depths": [1, 1],
        "num_heads": [2, 4],
        "window_size": 4,
    },
    "resnet10t": {"channels": [8, 8, 16, 16]},
    "convnext_atto": {"dims": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
}
# 32 / 0.875 = 36.6 and 32 / 0.9 = 35.6: offsets of the crop with and without half a pixel.
CROPS = {"vit_tiny_patch16_224": 0.9, "resnet10t": 0.95}
PIXELS = {"input_size": [3, 32, 32], "interpolation": "bicubic", "crop_mode": "center"}
COLOURS = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def save(architecture: str, directory: Path, **changed: Any) -> Path:
    from transformers import TimmWrapperConfig, TimmWrapperModel

    crop = {"crop_pct": CROPS.get(architecture, 0.875)}
    config = TimmWrapperConfig(
        architecture=architecture,
        model_args=MODELS[architecture],
        pretrained_cfg={**PIXELS, **COLOURS, **crop, **changed},
        num_classes=0,
    )
    torch.manual_seed(0)
    TimmWrapperModel(config).eval().save_pretrained(directory)
    return directory


def compare(architecture: str, folder: Path, images: list[bytes]) -> dict[str, Any]:
    from transformers import AutoImageProcessor, AutoModel
    from transformers.image_utils import load_image

    import fmrt

    model = save(architecture, folder / architecture)
    processor = AutoImageProcessor.from_pretrained(model)
    with torch.no_grad():
        backbone = AutoModel.from_pretrained(model).eval()
        pixels = [processor(load_image(_opened(data)))["pixel_values"] for data in images]
        want = torch.cat([backbone(p).pooler_output for p in pixels]).numpy()
    bundle = fmrt.export_model(model, folder / f"{architecture}-bundle")
    patches = fmrt.export_model(model, folder / f"{architecture}-patches", output="patch")
    with fmrt.Embedder(bundle) as embedder:
        got = embedder.embed(images)
        alone = np.concatenate([embedder.embed([image]) for image in images])
    scale = float(np.abs(want).max())
    return {
        "pooling": bundle.manifest.tower().pooling,
        "grid": patches.manifest.tower().grid,
        "error": float(np.abs(got - want).max()) / scale,
        "alone": float(np.abs(got - alone).max()) / scale,
        "spread": float(np.ptp(want, axis=0).max()) / scale,
    }


def refusal(folder: Path) -> str:
    import fmrt
    from fmrt.errors import ExportError

    model = save("resnet10t", folder / "border", crop_mode="border")
    try:
        fmrt.export_model(model, folder / "none")
    except ExportError as e:
        return str(e)
    return ""


def _opened(data: bytes) -> Any:
    import io

    from PIL import Image

    return Image.open(io.BytesIO(data))


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    import_torchvision()
    from fmrt.export.quiet import quiet
    from tests.export.test_vision import photographs

    with quiet():
        found: dict[str, Any] = {m: compare(m, folder, photographs()) for m in MODELS}
        found["refused"] = refusal(folder)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

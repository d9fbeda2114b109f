"""Processors that need torchvision against the runtime's pixels; prints the errors as JSON.

A program of its own, as `tests.export.timm_parity`. Errors are in levels of a byte, of which an
image has 256.
"""

from __future__ import annotations

import io
import json
import sys
import warnings
from pathlib import Path

import numpy as np

from tests.export.timm_parity import import_torchvision


def error(directory: Path, kind: str, images: list[bytes]) -> float:
    """The largest difference of a pixel from what transformers' own class gives."""
    import torch
    import transformers
    from PIL import Image
    from transformers.image_utils import load_image

    from fmrt.export.segmentation.sam_processor import SamProcessor
    from fmrt.export.vision.image_processor import ImageProcessor
    from fmrt.preprocess.image import ImagePreprocessor

    own = getattr(transformers, kind).from_pretrained(directory)
    segments = kind.startswith("Sam2")
    made = SamProcessor(directory, "Sam2Processor") if segments else ImageProcessor(directory)
    ours = ImagePreprocessor(made.spec(1, images))
    encoded = ours.encode([ours.load(image) for image in images], "", "error")
    got = encoded.feeds(np.arange(len(images)))["pixel_values"]
    with torch.no_grad():
        given = [load_image(Image.open(io.BytesIO(image))) for image in images]
        want = np.concatenate([own(image, return_tensors="pt")["pixel_values"] for image in given])
    std = np.array(own.image_std)[:, None, None]
    return float(np.abs((got - want) * std).max() / own.rescale_factor)


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    import_torchvision()
    from fmrt.export.quiet import quiet
    from fmrt.export.vision.image_processor import reference_images
    from tests.export.sam import save_segmenter
    from tests.export.test_vision import photographs
    from tests.export.vision import VISION, save_vision

    dino = next(tiny for tiny in VISION if tiny.model_type == "dinov3_vit")
    images = [*reference_images(), *photographs()]
    with quiet():
        found = {
            "DINOv3ViTImageProcessor": error(
                save_vision(dino, folder / "dino"), "DINOv3ViTImageProcessor", images
            ),
            "Sam2ImageProcessor": error(
                save_segmenter("sam2", folder / "sam2"), "Sam2ImageProcessor", images
            ),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

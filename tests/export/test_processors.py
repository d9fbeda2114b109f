"""Pixels are those of transformers' own processors, of which some need torchvision."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.export.apart import found_apart, needs_packages

# In levels of a byte: DINOv3's resizes floats, SAM 2's rounds to bytes, and Pillow once more.
MOST = {"DINOv3ViTImageProcessor": 1e-2, "Sam2ImageProcessor": 1 + 1e-3}


@pytest.mark.slow
@needs_packages
def test_pixels_are_those_of_processors_that_need_torchvision(tmp_path: Path) -> None:
    found = found_apart("processor_parity", tmp_path)
    assert found.keys() == MOST.keys()
    for kind, error in found.items():
        assert error <= MOST[kind], kind

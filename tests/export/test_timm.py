"""timm models through transformers' wrapper, in a process that can import torchvision."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.export.apart import found_apart, needs_packages

GRIDS = {
    "vit_tiny_patch16_224": [4, 4],
    "vit_small_patch16_dinov3": [4, 4],
    "swin_tiny_patch4_window7_224": [4, 4],
    "resnet10t": [1, 1],
    "convnext_atto": [1, 1],
}


@pytest.mark.slow
@needs_packages
def test_timm_matches_pytorch(tmp_path: Path) -> None:
    found = found_apart("timm_parity", tmp_path)
    assert "not supported with ResizeKeepRatio, CenterCropOrPad" in found.pop("refused")
    assert {name: facts["grid"] for name, facts in found.items()} == GRIDS
    for facts in found.values():
        assert facts["pooling"] == "pooler"
        assert facts["error"] <= 1e-4
        assert facts["alone"] <= 1e-5
        assert facts["spread"] > 1e-3

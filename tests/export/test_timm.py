"""timm models through transformers' wrapper, in a process that can import torchvision."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Apart from the rest, where dev.py puts them: transformers would import torchvision everywhere.
PACKAGES = Path(sys.prefix) / "timm"
GRIDS = {
    "vit_tiny_patch16_224": [4, 4],
    "vit_small_patch16_dinov3": [4, 4],
    "swin_tiny_patch4_window7_224": [4, 4],
    "resnet10t": [1, 1],
    "convnext_atto": [1, 1],
}


@pytest.mark.slow
@pytest.mark.skipif(not PACKAGES.is_dir(), reason="timm is set up by dev.py")
def test_timm_matches_pytorch(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.export.timm_parity", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(PACKAGES)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert "not supported with ResizeKeepRatio, CenterCropOrPad" in found.pop("refused")
    assert {name: facts["grid"] for name, facts in found.items()} == GRIDS
    for facts in found.values():
        assert facts["pooling"] == "pooler"
        assert facts["error"] <= 1e-4
        assert facts["alone"] <= 1e-5
        assert facts["spread"] > 1e-3

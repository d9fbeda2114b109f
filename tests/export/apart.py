"""Programs that can import torchvision, which lies apart; else transformers would import it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = Path(sys.prefix) / "timm"
needs_packages = pytest.mark.skipif(not PACKAGES.is_dir(), reason="timm is set up by dev.py")


def found_apart(program: str, folder: Path) -> dict[str, Any]:
    """What a program of the tests prints as JSON in its last line, given a folder for its files."""
    run = subprocess.run(
        [sys.executable, "-m", f"tests.export.{program}", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(PACKAGES)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found

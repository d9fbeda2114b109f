"""One export of the real model serves all tests that need it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import fmrt
from tests.export.models import MINILM

os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the real all-MiniLM-L6-v2."""
    out = tmp_path_factory.mktemp("minilm") / "bundle"
    fmrt.export_model(MINILM, out)
    return out

"""One export of the real model serves all tests that need it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

import fmrt
from tests.export.models import MINILM

os.environ["HF_HUB_OFFLINE"] = "1"
# How long an example takes is the machine's, which has other work.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the real all-MiniLM-L6-v2."""
    out = tmp_path_factory.mktemp("minilm") / "bundle"
    fmrt.export_model(MINILM, out)
    return out

"""Embedding from many threads leaves all that a process's threads share as it was."""

from __future__ import annotations

import csv
import io
import locale
import logging
import os
import random
import signal
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fmrt
from fmrt.data import open_writer, read_records
from fmrt.errors import TruncationWarning

Image = pytest.importorskip("PIL.Image")
from PIL import ImageFile

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")

from fmrt.preprocess.audio import decode

from .test_images import bundle as image_bundle  # noqa: F401  # a fixture

THREADS = 8


def umask() -> int:
    os.umask(mask := os.umask(0))
    return mask


def state() -> dict[str, Any]:
    return {
        "warnings": (list(warnings.filters), warnings.showwarning),
        "numpy errors": (np.geterr(), np.geterrcall()),
        "locale": locale.setlocale(locale.LC_ALL),
        "umask": umask(),
        "environment": dict(os.environ),
        "signals": [signal.getsignal(s) for s in signal.valid_signals()],
        "folder": Path.cwd(),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "Pillow": (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES),
        "csv": csv.field_size_limit(),
        "logging": (logging.root.manager.disable, logging.root.level, list(logging.root.handlers)),
        "random": (random.getstate(), str(np.random.get_state())),  # noqa: NPY002
        "limits": (sys.getrecursionlimit(), sys.getswitchinterval(), threading.stack_size()),
        "hooks": (sys.excepthook, threading.excepthook, sys.unraisablehook),
    }


def image_with_bad_metadata() -> bytes:
    """Pillow warns of it: "Palette images with Transparency expressed in bytes ..."."""
    out = io.BytesIO()
    image = Image.new("RGB", (9, 9), (1, 2, 3)).convert("P")
    image.save(out, "PNG", transparency=b"\0\1\2")
    return out.getvalue()


def sound() -> bytes:
    out = io.BytesIO()
    soundfile.write(out, np.zeros(800), 8000, format="FLAC")
    return out.getvalue()


@pytest.mark.filterwarnings("ignore:Palette images")
def test_threads_leave_the_process_as_it_was(
    tiny_bundle: Path,
    image_bundle: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1," + "x" * 200_000 + "\n")
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n')
    with fmrt.Embedder(tiny_bundle) as texts, fmrt.Embedder(image_bundle) as images:

        def work(number: int) -> None:
            texts.embed(["cat " * 40, "dog"] * 20, on_too_long="truncate")
            images.embed([image_with_bad_metadata()] * 20)
            decode(sound(), 16_000, 16_000)
            for name in ("a.csv", "a.jsonl"):
                assert len(list(read_records(str(tmp_path / name)))) == 1
            path = tmp_path / f"{number}.npy"
            writer = open_writer(str(path), shape=(2,), dtype=np.dtype(np.float32))
            writer.write(np.zeros((1, 2), np.float32), [{}])
            writer.commit()

        before = state()
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(work, range(4 * THREADS)))
        assert state() == before
        # What is told by a warning is told after images, too.
        with pytest.warns(TruncationWarning):
            texts.embed(["cat " * 40] * 2)

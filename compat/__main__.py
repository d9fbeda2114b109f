"""``dev.py compat [BUNDLE]``: tries a bundle in other libraries, and writes the docs' table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import fmrt
from compat.environments import UnavailableError, command
from compat.peers import PEERS, Peer
from compat.report import Row, write
from dev import packaged_minilm

GRAPHS = {"fp32": "onnx/model.onnx", "q8": "onnx/model_quantized.onnx"}
TEXTS = [
    "hello world",
    "How do I reset my password?",
    "naïve café, Ångström, Straße",
    "日本語の文章。中文句子",
    "SHOUTING, MiXeD 1234567890 !?.,;:-_()[]{}<>@#$%^&*~`|+=",
    "a text of some more words than the others, for a batch with padding " * 4,
]
# Over the limit of 256 tokens by one, and by much.
LONG = ["word " * 255, "many words " * 400]
SECONDS = 600
# Of a component: an fp32 vector that differs by more is another.
SAME = 1e-5
# 8-bit steps fall to the other side with another instruction set, see docs/quantization.md.
LEAST_COSINE = 0.999


class FailedError(Exception):
    """A library ends with an error; the message is its last line."""


def main(bundle: Path | None) -> int:
    """Try all libraries; 1 if a vector is another, or a library fails."""
    with tempfile.TemporaryDirectory() as place:
        if bundle is None:
            bundle = Path(place) / "minilm"
            fmrt.export_model(packaged_minilm(), bundle)
            fmrt.quantize_bundle(bundle, "q8")
        rows = [tried(peer, bundle.resolve()) for peer in PEERS]
    write(rows)
    bad = [row for row in rows if row.wrong]
    for row in bad:
        print(f"{row.peer.title}: {row.wrong}", file=sys.stderr)
    return 1 if bad else 0


def tried(peer: Peer, bundle: Path) -> Row:
    """What a library makes of a bundle."""
    print(f"trying {peer.title}", flush=True)
    row = Row(peer)
    try:
        start, folder = command(peer)
        for variant, graph in GRAPHS.items():
            with fmrt.Embedder(bundle, variant=variant) as embedder:
                wanted = embedder.embed([*TEXTS, *LONG], on_too_long="truncate")
            found = _answer([*start, peer.name, str(bundle), graph], folder, peer)
            row.versions = found["versions"]
            _compare(row, variant, wanted, np.array(found["vectors"]))
    except UnavailableError as e:
        row.reason = str(e)
    except FailedError as e:
        row.wrong = str(e)
    print(f"  {row.reason or row.wrong or row.differences}", flush=True)
    return row


def _answer(start: list[str], folder: Path, peer: Peer) -> dict[str, dict[str, str]]:
    question = json.dumps({"texts": [*TEXTS, *LONG], "packages": peer.versions})
    settings = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        start,
        input=question,
        cwd=folder,
        env=settings,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line]
        raise FailedError(f"it fails: {' '.join(lines[-1:])}")
    return dict(json.loads(done.stdout))


def _compare(row: Row, variant: str, wanted: np.ndarray, found: np.ndarray) -> None:
    count = len(TEXTS)
    if found.shape != wanted.shape:
        row.wrong = f"{variant}: vectors of shape {found.shape}, and not {wanted.shape}"
        return
    # Consumers that pool the first output themselves may leave vectors as long as they are.
    found = found / np.linalg.norm(found, axis=1, keepdims=True)
    row.differences[variant] = float(np.abs(wanted - found)[:count].max())
    cosines = (wanted * found).sum(axis=1)
    row.long[variant] = float(cosines[count:].min())
    if variant == "fp32" and row.differences[variant] > SAME:
        row.wrong = f"fp32 vectors differ by {row.differences[variant]:.1e}"
    if cosines[:count].min() < LEAST_COSINE:
        row.wrong = f"{variant}: cosine {cosines[:count].min():.4f}"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None))

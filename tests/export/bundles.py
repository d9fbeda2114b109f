"""Bundles of tiny models, a few for each kind of graph, for other environments to verify.

python -m tests.export.bundles FOLDER exports them into the folder, with every variant that their
modality can have.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fmrt
from fmrt.export.quiet import quiet
from tests.export.audio import AUDIO, save_audio
from tests.export.models import TINY, save_tiny
from tests.export.sam import save_segmenter
from tests.export.vision import VISION, save_vision

# Random models of 32 features quantize badly; here it matters that their graphs run.
LOW = 0.5
MEDIA = ("fp16", "int8")
TEXT = (*MEDIA, "int4")


@dataclass(frozen=True)
class Kind:
    """One bundle.

    Attributes:
        name: The name of its folder.
        save: writes ``tiny`` as a directory that the exporter reads.
        tiny: the model.
        schemes: The schemes to quantize it to.
    """

    name: str
    save: Callable[[Any, Path], Path]
    tiny: object
    schemes: tuple[str, ...]


# Attention with a padding mask; with a position bias; in blocks and whole; causal, without and
# with experts; within a window, causal and not; without a mask; convolutions; a segmenter's head.
TEXTS = ("bert", "mpnet", "modernbert", "qwen3", "mixtral", "gemma3_text")
KINDS = (
    *(
        Kind(f"{tiny.model_type}{'-causal' * tiny.causal}", save_tiny, tiny, TEXT)
        for tiny in TINY
        if tiny.model_type in TEXTS
    ),
    Kind("vit", save_vision, VISION[0], MEDIA),
    Kind("wav2vec2", save_audio, AUDIO[0], MEDIA),
    Kind("sam2", save_segmenter, "sam2", ()),
)


def export(kind: Kind, folder: Path) -> str:
    """Export one; returns a line that says what it holds."""
    with TemporaryDirectory() as directory:
        with quiet():
            model = kind.save(kind.tiny, Path(directory))
        bundle = fmrt.export_model(model, folder / kind.name, quantize=kind.schemes, min_cosine=LOW)
    return f"exported {kind.name}: {', '.join(v.name for v in bundle.manifest.graphs)}"


def main() -> None:
    """Export all, one process per core."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        for line in pool.map(export, KINDS, [folder] * len(KINDS)):
            print(line, flush=True)


if __name__ == "__main__":
    main()

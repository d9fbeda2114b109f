"""Finds the graphs of one model in a directory that another tool wrote."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fmrt.bundle.checked import sha256
from fmrt.bundle.manifest import MANIFEST_FILE
from fmrt.errors import ExportError
from fmrt.export.loading.directory import SHOWN, check_regular

# The folders that tools write graphs to: optimum-cli and fastembed, and all others.
FOLDERS = ("", "onnx")
# What tools put after a model's name: a precision, a level of optimization, a processor.
SUFFIX = re.compile(
    r"(?:[_-](?:fp32|fp16|bf16|q8|q4|q4f16|bnb4|quantized|optimized|O[1-4]|q?u?int[48]|"
    r"avx2|avx512|avx512_vnni|arm64|ppc64le|tensorrt))+$"
)

# What tools call the graph of one tower of a model of two.
TOWERS = {"text": "text_model", "image": "vision_model", "audio": "audio_model"}


@dataclass(frozen=True)
class Found:
    """One graph of a model.

    Attributes:
        path: The file.
        suffix: What its name says after the model's, such as ``qint8_avx512_vnni``; may be empty.
    """

    path: Path
    suffix: str


@dataclass(frozen=True)
class Layout:
    """What a directory holds.

    Attributes:
        root: The directory with tokenizer and configuration.
        graphs: The graphs of one model, the one without a suffix first; or those of its towers too.
        name: The directory, as the user gave it.
    """

    root: Path
    graphs: tuple[Found, ...]
    name: str

    def check_single(self, found: Iterable[Found] | None = None) -> None:
        """Raise unless some graphs, by default all, are of one model.

        Raises:
            ExportError: They are of several, with their names.
        """
        models = sorted({_model(each.path) for each in (self.graphs if found is None else found)})
        if len(models) > 1:
            shown = ", ".join(str(m.relative_to(self.root)) + ".onnx" for m in models[:SHOWN])
            raise ExportError(
                f"{self.name} holds graphs of {len(models)} models ({shown}); give the file of the "
                "one that ends in the embedding instead of the directory"
            )

    def of_towers(self, modalities: Sequence[str]) -> tuple[dict[str, list[Found]], list[Found]]:
        """The graphs of each tower of a model of two, and those that are not needed.

        A graph of both towers stands for each where not every tower has one of its own.

        Raises:
            ExportError: A tower has none, or the graphs are of several models.
        """
        stems = set(TOWERS.values())
        whole = [found for found in self.graphs if _model(found.path).name not in stems]
        own = {
            modality: [f for f in self.graphs if _model(f.path).name == TOWERS[modality]]
            for modality in modalities
        }
        for group in (whole, *own.values()):
            self.check_single(group)
        if all(own.values()):
            used = [found for group in own.values() for found in group]
            return own, [found for found in self.graphs if found not in used]
        if whole:
            return dict.fromkeys(modalities, whole), [f for f in self.graphs if f not in whole]
        missing = next(modality for modality in modalities if not own[modality])
        raise ExportError(
            f"{self.name} has no graph of the model's {missing} tower, {TOWERS[missing]}.onnx, and "
            f"holds {self.graphs[0].path.name}: give a directory with the graphs of both towers"
        )


def find_layout(path: Path, name: str) -> Layout:
    """The graphs below a directory, or the one that ``path`` is.

    Raises:
        ExportError: There is none, or those of more than one model, and none of a tower; or it is a
            bundle already.
    """
    if path.is_file():
        root = path.parent.parent if path.parent.name == FOLDERS[1] else path.parent
        return Layout(root, (_found(path),), name)
    root = _inside_cache(path, name)
    if (root / MANIFEST_FILE).exists():
        raise ExportError(f"{name} is a bundle already: fmrt embed {name} embeds with it")
    files = [file for folder in FOLDERS for file in sorted((root / folder).glob("*.onnx"))]
    if not files:
        raise ExportError(
            f"{name} holds no ONNX graph: there is no *.onnx in it nor in its folder onnx; "
            "fmrt export makes a bundle of a PyTorch model"
        )
    found = sorted(map(_found, _without_copies(files)), key=lambda found: found.suffix)
    layout = Layout(root, tuple(found), name)
    if not any(_model(each.path).name in TOWERS.values() for each in found):
        layout.check_single()
    return layout


def _inside_cache(path: Path, name: str) -> Path:
    """The directory of the only model where ``path`` is a cache of huggingface_hub or fastembed."""
    for pattern in ("models--*", "snapshots", "*"):
        if path.name == "snapshots" or pattern != "*":
            inner = [entry for entry in sorted(path.glob(pattern)) if entry.is_dir()]
            if len(inner) > 1:
                shown = ", ".join(entry.name for entry in inner[:SHOWN])
                raise ExportError(f"{name} holds {len(inner)} models; give one of them: {shown}")
            path = inner[0] if inner else path
    return path


def _without_copies(files: Sequence[Path]) -> list[Path]:
    """The files without those whose name and content another folder has too."""
    kept: list[Path] = []
    for file in files:
        twin = next((other for other in kept if other.name == file.name), None)
        for one in (file, twin) if twin else ():
            check_regular(one)
        if twin is None or sha256(twin) != sha256(file):
            kept.append(file)
    return kept


def _model(file: Path) -> Path:
    return file.parent / (SUFFIX.sub("", file.stem) or file.stem)


def _found(file: Path) -> Found:
    suffix = SUFFIX.search(file.stem)
    whole = suffix is None or suffix.start() == 0
    return Found(file, "" if whole or suffix is None else suffix[0].lstrip("_-"))

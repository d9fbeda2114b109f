"""Masks as files: a folder of PNG files, one PNG file, or one array."""

from __future__ import annotations

import argparse
import dataclasses
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmrt.errors import DataError, OptionError
from fmrt.system.whole_file import write_whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

PNG, NPY = ".png", ".npy"
_PATTERN = "prompt*_mask*"


@dataclass(frozen=True)
class MaskFile:
    """A mask on its way to a file.

    Attributes:
        prompt, index: The prompt and index which prompt's, and which of its masks, both from 0.
        score: The model's.
        mask: bool ``[height, width]``.
        name: Where it is, once written.
    """

    prompt: int
    index: int
    score: float
    mask: NDArray[Any]
    name: str = ""

    @property
    def stem(self) -> str:
        """The name of its file in a folder."""
        return f"prompt{self.prompt}_mask{self.index}"


def check_masks_output(output: str, args: argparse.Namespace, *, several: bool) -> None:
    """Raise, before any work, if masks could not be written in the end.

    Raises:
        DataError: ``output`` is in the way.
        OptionError: One file for several masks.
    """
    path = Path(output)
    if path.suffix == PNG and several:
        raise OptionError(f"{output} holds one mask: give a folder or a .npy file for several")
    if path.suffix in (PNG, NPY):
        if path.is_dir():
            raise DataError(f"{output} is a folder; give another name")
        if path.exists() and not args.overwrite:
            raise DataError(f"{output} exists; say --overwrite or give another name")
        if not path.parent.is_dir():
            raise DataError(f"{path.parent} is no folder")
    elif path.is_file():
        raise DataError(f"{output} is a file; give a folder, or a name that ends in .png or .npy")
    elif any(path.glob(_PATTERN)) and not args.overwrite:
        raise DataError(f"{output} holds masks; say --overwrite or give another folder")


def write_masks(output: str, masks: Sequence[MaskFile], args: argparse.Namespace) -> list[MaskFile]:
    """Write the masks, and name the file of each."""
    path = Path(output)
    if path.suffix == NPY:
        write_whole(path, _npy([file.mask for file in masks]))
        return [dataclasses.replace(f, name=f"{output}[{i}]") for i, f in enumerate(masks)]
    if path.suffix == PNG:
        (only,) = masks
        return [_written(only, path, args.npy)]
    path.mkdir(parents=True, exist_ok=True)
    for old in path.glob(_PATTERN):
        old.unlink()  # of another run, as overwriting is allowed
    return [_written(file, path / f"{file.stem}{PNG}", args.npy) for file in masks]


def _written(file: MaskFile, path: Path, npy: bool) -> MaskFile:
    for target, data in _files(file, path, npy):
        write_whole(target, data)
    return dataclasses.replace(file, name=str(path))


def _files(file: MaskFile, path: Path, npy: bool) -> Iterator[tuple[Path, bytes]]:
    yield path, _png(file.mask)
    if npy:
        yield path.with_suffix(NPY), _npy(file.mask)


def _png(mask: NDArray[Any]) -> bytes:
    from PIL import Image  # an extra

    out = io.BytesIO()
    Image.fromarray(mask.astype("uint8") * 255).save(out, "PNG")
    return out.getvalue()


def _npy(mask: object) -> bytes:
    import numpy as np

    out = io.BytesIO()
    np.save(out, np.asarray(mask))
    return out.getvalue()

"""Which files are images or sounds: by their extension, and else by their content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fmrt.system.extras import needing


@dataclass(frozen=True)
class Media:
    """Files of one modality.

    Attributes:
        noun: What such a file is.
        library: The library that reads it.
        extensions: The extensions that promise such a file, with the dot: one that cannot be read
            is an error.
        reads: Whether a file of another extension is one, too.
    """

    noun: str
    library: str
    extensions: frozenset[str]
    reads: Callable[[Path], bool]

    def holds(self, path: Path) -> bool:
        """Whether a file is to be embedded."""
        return path.suffix.lower() in self.extensions or self.reads(path)


def _is_image(path: Path) -> bool:
    with needing("Embedding image"):
        from fmrt.preprocess.image import is_image  # an extra
    return is_image(path)


def _is_sound(path: Path) -> bool:
    with needing("Embedding audio"):
        from fmrt.preprocess.audio import is_sound  # an extra
    return is_sound(path)


_IMAGES = (
    "apng avif bmp dib gif j2k jfif jp2 jpe jpeg jpg pbm pgm png pnm ppm qoi tga tif tiff webp"
)
_SOUNDS = "aif aifc aiff au caf flac mp3 oga ogg opus rf64 snd w64 wav wave"


def _extensions(names: str) -> frozenset[str]:
    return frozenset(f".{name}" for name in names.split())


MEDIA = {
    "image": Media("image", "Pillow", _extensions(_IMAGES), _is_image),
    "audio": Media("sound", "libsndfile", _extensions(_SOUNDS), _is_sound),
}

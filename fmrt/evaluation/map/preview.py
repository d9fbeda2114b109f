"""The parts of items that a page shows: texts, small pictures, the starts of sounds."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence

import numpy as np

from fmrt.errors import InputError
from fmrt.evaluation.dataset import Side
from fmrt.evaluation.map.chart import Previews
from fmrt.system.extras import needing
from fmrt.system.limits import Budget

# The most characters of text, and bytes of pictures or sounds, of a page.
CHARACTERS, BYTES = 16_000_000, 24_000_000
_LEAST_TEXT, _MOST_TEXT = 80, 2000
# The edges of pictures in pixels, each with the fewest bytes per item that allow it.
_EDGES = ((96, 3000), (64, 1500), (32, 0))
_SECONDS = 3


def previews(sides: Sequence[Side], rate: int | None = None) -> Previews:
    """The previews of all items, in bounded memory.

    Args:
        sides: The sides, whose items follow each other.
        rate: The samples per second of sounds that are arrays.

    Raises:
        InputError: An item cannot be shown.
    """
    modalities = {side.modality for side in sides}
    count = sum(len(side.items) for side in sides)
    most = max(_LEAST_TEXT, min(_MOST_TEXT, CHARACTERS // max(1, count)))
    whole = [text for side in sides for text in _captions(side)]
    notes = []
    if longer := sum(len(text) > most for text in whole):
        notes.append(f"of {longer:,} texts the page shows the first {most:,} characters")
    texts = [text if len(text) <= most else f"{text[:most]}…" for text in whole]
    if modalities == {"text"}:
        return Previews(texts, None, b"", np.zeros(count, np.uint32), notes)
    make, mime, what = _maker(modalities - {"text"}, count, rate)
    parts, left_out = [], 0
    size = 0
    for side in sides:
        for item, place in zip(side.items, side.places, strict=True):
            part = b""
            if side.modality != "text" and size < BYTES:
                part = _made(make, item, place)
            elif side.modality != "text":
                left_out += 1
            size += len(part)
            parts.append(part)
    if left_out:
        notes.append(f"{left_out:,} of {count:,} items have no {what}: the page would be too large")
    ends = np.cumsum([len(part) for part in parts]).astype(np.uint32)
    return Previews(texts, mime, b"".join(parts), ends, notes)


def _captions(side: Side) -> list[str]:
    if side.modality == "text":
        return [str(item) for item in side.items]
    return [
        os.fspath(item) if isinstance(item, str | os.PathLike) else place
        for item, place in zip(side.items, side.places, strict=True)
    ]


def _maker(
    modalities: set[str], count: int, rate: int | None
) -> tuple[Callable[[object], bytes], str, str]:
    if "audio" in modalities:
        return _sounds(rate or 16_000), "audio/mpeg", "sound"
    edge = next(edge for edge, size in _EDGES if BYTES // max(1, count) >= size)
    return _pictures(edge), "image/webp", "picture"


def _made(make: Callable[[object], bytes], item: object, place: str) -> bytes:
    try:
        return make(item)
    except InputError as e:
        raise InputError(f"{place}: {e}") from None


def _pictures(edge: int) -> Callable[[object], bytes]:
    with needing("Showing images"):
        from PIL import Image  # an extra

        from fmrt.preprocess.image import opened
    budget = Budget()

    def make(item: object) -> bytes:
        with opened(item, budget) as image:
            smaller = image.copy()
        smaller.thumbnail((edge, edge), Image.Resampling.BOX)
        file = io.BytesIO()
        smaller.save(file, "WEBP", quality=75)
        return file.getvalue()

    return make


def _sounds(rate: int) -> Callable[[object], bytes]:
    with needing("Playing sounds"):
        import soundfile  # an extra

        from fmrt.preprocess.audio import decode

    def make(item: object) -> bytes:
        samples = decode(item, rate, rate * _SECONDS).samples
        file = io.BytesIO()
        soundfile.write(file, np.clip(samples, -1, 1), rate, format="MP3", subtype="MPEG_LAYER_III")
        return file.getvalue()

    return make

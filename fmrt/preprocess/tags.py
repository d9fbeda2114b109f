"""Tags of TIFF and EXIF, whose values may all be one place of a file, which is read many times."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from fmrt.errors import InputError
from fmrt.system.limits import megabytes

EXIF, PICTURES = b"Exif\0\0", b"MPF\0"
# PNG files have EXIF as hexadecimal text, after a few lines about itself.
RAW_EXIF, RAW_LINES = "Raw profile type exif", 3
STARTS = (b"II*\0", b"MM\0*")
MOST_STARTS = 64
AVIF = b"ftyp"
# The start of a JPEG file; what its markers begin with; the marker of pixels, and those alone.
JPEG, MARKER, JPEG_PIXELS = b"\xff\xd8", 0xFF, 0xDA
JPEG_BARE = frozenset((0x00, 0x01, 0xFF, *range(0xD0, 0xDA)))
# Bytes of a value by its type, as TIFF 6.0 and BigTIFF number them; others are passed over.
TYPE_BYTES = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8,
    18: 8,
}  # fmt: skip
# Pillow reads a version whose bytes are exchanged, too.
SWAPPED = 256
# Most bytes of values, besides the size of the file itself, which whole files do not exceed.
MOST_BYTES = 8_000_000


class _Layout(NamedTuple):
    """How a directory of tags is written: of TIFF, or of BigTIFF."""

    first: str
    first_at: int
    entries: str
    tag: str
    inline: int


_LAYOUTS = {42: _Layout("I", 4, "H", "HHI4x", 4), 43: _Layout("Q", 8, "Q", "HHQ8x", 8)}


def check_file(data: bytes) -> None:
    """Refuse an image file whose tags would take much more memory than the file has bytes.

    Looked at are the tags that Pillow reads when it opens a file: of TIFF, JPEG and AVIF.

    Raises:
        InputError: The tags would take much more memory.
    """
    if data.startswith(JPEG):
        segments = list(_segments(data))
        _check(b"".join(s.removeprefix(EXIF) for s in segments if s.startswith(EXIF)))
        for segment in segments:
            _check(segment.removeprefix(PICTURES))
    elif data[4:8] == AVIF:
        for start in STARTS:
            place = -1
            for _ in range(MOST_STARTS):
                if (place := data.find(start, place + 1)) < 0:
                    break
                _check(data[place:])
            else:
                raise InputError("the image is corrupt: it has too many directories of tags")
    else:
        _check(data)


def check_exif(info: Mapping[Any, Any]) -> None:
    """Refuse the EXIF of an image, as Pillow's ``info`` holds it, for the same reason.

    Raises:
        InputError: The tags would take much more memory, as in `check_file`.
    """
    _check(info.get("exif", b""))
    if RAW_EXIF in info:
        _check(bytes.fromhex("".join(str(info[RAW_EXIF]).split("\n")[RAW_LINES:])))


def _segments(data: bytes) -> Iterator[bytes]:
    """Contents of a JPEG file's segments, up to its pixels."""
    place = len(JPEG)
    while place + 4 <= len(data) and data[place + 1] != JPEG_PIXELS:
        if data[place] != MARKER or data[place + 1] in JPEG_BARE:
            place += 1
            continue
        size = int.from_bytes(data[place + 2 : place + 4])
        yield data[place + 4 : place + 2 + size]
        place += 2 + size


def _check(data: bytes) -> None:
    """Refuse tags whose values are read as more than ``data`` and `MOST_BYTES` together."""
    data = data.removeprefix(EXIF)
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return
    try:
        stated = _stated(data, order)
    except struct.error:
        return  # Pillow says what it lacks
    if stated > len(data) + MOST_BYTES:
        raise InputError(
            f"the image is corrupt: its tags state {megabytes(stated)}, and the file has "
            f"{megabytes(len(data))}"
        )


def _stated(data: bytes, order: str) -> int:
    """Bytes of all values that do not lie in the directory itself."""
    number = struct.unpack_from(order + "H", data, 2)[0]
    layout = _LAYOUTS.get(number if number < SWAPPED else number >> 8)
    if layout is None:
        return 0
    (start,) = struct.unpack_from(order + layout.first, data, layout.first_at)
    (entries,) = struct.unpack_from(order + layout.entries, data, start)
    start += struct.calcsize("=" + layout.entries)
    size = struct.calcsize("=" + layout.tag)
    directory = data[start : start + entries * size]
    whole = directory[: len(directory) // size * size]
    tags = struct.iter_unpack(order + layout.tag, whole)
    sizes = (TYPE_BYTES.get(kind, 0) * count for _, kind, count in tags)
    # A value that reaches past the end of the file is not read.
    return sum(size for size in sizes if layout.inline < size <= len(data))

"""Sound files that end before their own end, of which decoders take what there is."""

from __future__ import annotations

import io
from typing import BinaryIO, Literal

# The byte order of the size that stands behind a container's name.
ORDERS: dict[bytes, Literal["little", "big"]] = {b"RIFF": "little", b"FORM": "big"}
# Written by programs that stream, and do not know the size in advance.
UNSTATED = (0, 0xFFFFFFFF)
OGG = b"OggS"
# Longest page of an Ogg file; in a page's header (RFC 3533) the place and the bit that mark the
# last one, and its own length, in front of a byte a segment with the segment's length.
OGG_PAGE, OGG_FLAGS, OGG_LAST, OGG_HEADER = 65_307, 5, 4, 27


def is_cut_short(file: BinaryIO) -> bool:
    """Whether a WAV, AIFF or Ogg file is shorter than it says; the others are not looked at.

    Args:
        file: at its start, seekable.
    """
    head = file.read(8)
    size = file.seek(0, io.SEEK_END)
    if head[:4] == OGG:
        file.seek(max(0, size - OGG_PAGE))
        tail = file.read()
        return not _is_last_page(tail[max(0, tail.rfind(OGG)) :])
    order = ORDERS.get(head[:4])
    if order is None:
        return False
    stated = int.from_bytes(head[4:], order)
    # Some leave out the byte that makes a size even.
    return stated not in UNSTATED and stated + len(head) > size + 1


def _is_last_page(page: bytes) -> bool:
    """Whether an Ogg page is whole, and marked as its stream's last."""
    if len(page) < OGG_HEADER:
        return False
    segments = page[OGG_HEADER : OGG_HEADER + page[OGG_HEADER - 1]]
    whole = OGG_HEADER + page[OGG_HEADER - 1] + sum(segments)
    return bool(page[OGG_FLAGS] & OGG_LAST) and len(page) >= whole

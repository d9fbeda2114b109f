"""Sound files that end before their own end, of which decoders take what there is."""

from __future__ import annotations

import io
from typing import BinaryIO, Literal

# The byte order of the size that stands behind a container's name.
ORDERS: dict[bytes, Literal["little", "big"]] = {b"RIFF": "little", b"FORM": "big"}
# Written by programs that stream, and do not know the size in advance.
UNSTATED = (0, 0xFFFFFFFF)
OGG = b"OggS"
# Longest page of an Ogg file, and in a page the place and the bit that mark the last one.
OGG_PAGE, OGG_FLAGS, OGG_LAST = 65_307, 5, 4


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
        flags = tail[tail.rfind(OGG) + OGG_FLAGS :][:1]
        return not (flags and flags[0] & OGG_LAST)
    order = ORDERS.get(head[:4])
    if order is None:
        return False
    stated = int.from_bytes(head[4:], order)
    # Some leave out the byte that makes a size even.
    return stated not in UNSTATED and stated + len(head) > size + 1

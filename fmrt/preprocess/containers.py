"""Sound files as they are, not as their headers say: all of their streams, to the last sample.

libsndfile believes a header's length, and stops there. Programs that stream write a placeholder, as
they do not know the length in advance; recordings that were joined keep the first one's; and a file
that was cut short keeps its old one. So lengths are looked up here, in the parts of a file itself.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

from fmrt.errors import InputError
from fmrt.preprocess.mpeg import mpeg_pieces
from fmrt.preprocess.spliced import Piece, Spliced

TRUNCATED = "the file is truncated: it ends before its own end"
# From here on, a 32-bit length that a file does not have is a placeholder of sox or ffmpeg.
PLACEHOLDER = 0x7FFF_F000
# Chunks of a file that are looked at, so that a hostile one ends.
MOST_CHUNKS = 10_000
# The largest number of samples of a FLAC file.
MOST_FRAMES = 0xF_FFFF_FFFF
# NIST Sphere and Creative Voice, as they begin.
OTHERS = (b"NIST", b"Crea")
FLAC, OGG, ID3 = b"fLaC", b"OggS", b"ID3"


@dataclass(frozen=True)
class Stream:
    """One sound of a file.

    Attributes:
        file: The source that libsndfile reads.
        frames: The frames that must be there; None if that is what libsndfile says; 0 if nobody
            knows.
    """

    file: BinaryIO
    frames: int | None = None


def streams(file: BinaryIO) -> list[Stream]:
    """The sounds of a file, which follow each other; nearly always one.

    Args:
        file: The file, which is seekable.

    Raises:
        InputError: It is empty, or ends before its own end.
    """
    size = file.seek(0, io.SEEK_END)
    if not size:
        raise InputError("the file is empty")
    start = _behind_tag(file)
    file.seek(start)
    head = file.read(4)
    file.seek(0)
    if head in CHUNKED:
        return [Stream(_spliced(file, _chunked(file, size, CHUNKED[head])))]
    if head == FLAC:
        return [_flac(file, start, size)]
    if head == OGG:
        return [Stream(_spliced(file, [link])) for link in _links(file, size)]
    if head in AU:
        _check_au(file, size, AU[head])
    elif mpeg := mpeg_pieces(file, start, size):
        pieces, whole = mpeg
        if not whole:
            raise InputError(TRUNCATED)
        return [Stream(_spliced(file, pieces))]
    return [Stream(_spliced(file, None))]


def begins_as_sound(file: BinaryIO) -> bool:
    """Whether a file begins as one of the common formats; it is at its start then."""
    start = _behind_tag(file)
    file.seek(start)
    head = file.read(4)
    size = file.seek(0, io.SEEK_END)
    known = {*CHUNKED, *AU, FLAC, OGG, *OTHERS}
    found = head in known or mpeg_pieces(file, start, size) is not None
    file.seek(0)
    return found


def _spliced(file: BinaryIO, pieces: list[Piece] | None) -> BinaryIO:
    """The pieces as a file; None for the file as it is."""
    file.seek(0)
    return file if pieces is None else Spliced(file, pieces)  # type: ignore[return-value]


def _behind_tag(file: BinaryIO) -> int:
    """Where a file begins after an ID3v2 tag, if it has one (id3.org)."""
    file.seek(0)
    head = file.read(10)
    if head[:3] != ID3 or len(head) < 10:
        return 0
    length = 0
    for byte in head[6:]:
        length = length << 7 | byte & 0x7F
    return len(head) + length


@dataclass(frozen=True)
class Chunks:
    """How a container names its parts.

    Attributes:
        start: The place of the first chunk.
        width: The number of bytes of a chunk's size, which follows its name of four bytes.
        order: The order of these bytes.
        data: The names that the chunk with the samples may have.
        align: The number that the places of chunks are multiples of.
        name: The number of bytes of a chunk's name; its first four are looked at.
        whole: Whether a chunk's size counts its name and itself.
    """

    start: int
    width: int
    order: Literal["little", "big"]
    data: tuple[bytes, ...]
    align: int = 2
    name: int = 4
    whole: bool = False

    @property
    def head(self) -> int:
        """Bytes of a chunk before its content."""
        return self.name + self.width


CHUNKED = {
    b"RIFF": Chunks(12, 4, "little", (b"data",)),
    b"RF64": Chunks(12, 4, "little", (b"data",)),
    b"RIFX": Chunks(12, 4, "big", (b"data",)),
    b"FORM": Chunks(12, 4, "big", (b"SSND", b"BODY")),
    b"riff": Chunks(40, 8, "little", (b"data",), align=8, name=16, whole=True),  # Sony Wave64
    b"caff": Chunks(8, 8, "big", (b"data",), align=1),
}


def _chunked(file: BinaryIO, size: int, kind: Chunks) -> list[Piece] | None:
    """Pieces in which the samples' length is right; None where it is already."""
    large = None
    for name, place, length in _chunks(file, size, kind):
        if name == b"ds64":  # EBU Tech 3306: the size of the whole, then that of the samples
            file.seek(place + 8)
            large = int.from_bytes(file.read(8), kind.order)
        if name in kind.data:
            stated = large if large is not None and length == 0xFFFF_FFFF else length
            pieces = _mended(file, size, kind, place, stated)
            # The samples of an RF64 file are as long as its ds64 says, so it becomes a plain one.
            return (
                pieces
                if large is None or pieces is None
                else [b"RIFF", (4, place - 4), *pieces[1:]]
            )
    file.seek(4)
    if kind.width == 4 and int.from_bytes(file.read(4), kind.order) + 8 > size:
        raise InputError(TRUNCATED)
    return None


def _mended(file: BinaryIO, size: int, kind: Chunks, place: int, stated: int) -> list[Piece] | None:
    """Pieces for a file whose samples begin at ``place``, and are ``stated`` bytes."""
    rest = size - place
    most = (1 << 8 * kind.width) - 1
    if 0 < stated <= rest:
        return None
    if stated == 0 and _is_chunk(file, place, size, kind):
        return None
    if 0 < stated < PLACEHOLDER:
        raise InputError(TRUNCATED)
    size_place = place - kind.width
    length = rest + kind.head if kind.whole else rest
    return [(0, size_place), min(length, most).to_bytes(kind.width, kind.order), (place, size)]


def _chunks(file: BinaryIO, size: int, kind: Chunks) -> Iterator[tuple[bytes, int, int]]:
    """Name, place of the content and stated length of each chunk."""
    place = kind.start
    for _ in range(MOST_CHUNKS):
        content = place + kind.head
        if content > size:
            return
        name, length = _chunk(file, place, kind)
        yield name, content, length
        place = content + length + (-length) % kind.align


def _chunk(file: BinaryIO, place: int, kind: Chunks) -> tuple[bytes, int]:
    """Name of a chunk, and the stated length of its content."""
    file.seek(place)
    head = file.read(kind.head)
    length = int.from_bytes(head[kind.name :], kind.order)
    return head[:4], max(0, length - kind.head) if kind.whole else length


def _is_chunk(file: BinaryIO, place: int, size: int, kind: Chunks) -> bool:
    """Whether a chunk begins at a place, or the file ends there."""
    if place >= size:
        return True
    name, length = _chunk(file, place, kind)
    return name.isalnum() and length <= size - place


def _flac(file: BinaryIO, start: int, size: int) -> Stream:
    """Its number of samples (RFC 9639, 8.2), 36 bits, is zeroed, which stands for unknown."""
    place = start + 21
    file.seek(place)
    number = file.read(5)
    if len(number) < 5:
        raise InputError(TRUNCATED)
    stated = int.from_bytes(number, "big") & MOST_FRAMES
    unknown = bytes([number[0] & 0xF0, 0, 0, 0, 0])
    # Some write ones, not zeros.
    frames = 0 if stated == MOST_FRAMES else stated
    return Stream(_spliced(file, [(0, place), unknown, (place + 5, size)]), frames)


# Pages of an Ogg file (RFC 3533): bytes of a header without its segments' lengths, and the
# place and the bits of its flags.
OGG_HEADER, OGG_FLAGS, OGG_FIRST, OGG_LAST = 27, 5, 2, 4
# Longest page.
OGG_PAGE = 65_307


def _links(file: BinaryIO, size: int) -> list[tuple[int, int]]:
    """Start and end of each link of a chain: pages that begin streams, after others."""
    starts: list[int] = []
    began = False
    flags = 0
    for place, flags, whole in _pages(file, size):
        if not whole:
            raise InputError(TRUNCATED)
        if flags & OGG_FIRST and not began:
            starts.append(place)
        began = bool(flags & OGG_FIRST)
    if not flags & OGG_LAST:
        raise InputError(TRUNCATED)
    starts[:1] = [0]
    return list(zip(starts, [*starts[1:], size], strict=True))


def _pages(file: BinaryIO, size: int) -> Iterator[tuple[int, int, bool]]:
    """Place, flags, and whether it is whole, of each page; what is between them is passed over."""
    place = 0
    while place + OGG_HEADER <= size:
        file.seek(place)
        head = file.read(OGG_HEADER + 255)
        if head[:4] != OGG:
            file.seek(place)
            found = file.read(OGG_PAGE).find(OGG, 1)
            place += OGG_PAGE - 3 if found < 0 else found
            continue
        segments = head[OGG_HEADER : OGG_HEADER + head[OGG_HEADER - 1]]
        end = place + OGG_HEADER + head[OGG_HEADER - 1] + sum(segments)
        yield place, head[OGG_FLAGS], end <= size and not _interrupted(file, place, end)
        place = end


def _interrupted(file: BinaryIO, place: int, end: int) -> bool:
    """Whether another page begins before a page's own end, as where two files were joined."""
    file.seek(place + 4)
    body, after = file.read(end - place - 4), file.read(4)
    return after not in (b"", OGG) and OGG in body


AU: dict[bytes, Literal["little", "big"]] = {b".snd": "big", b"dns.": "little"}


def _check_au(file: BinaryIO, size: int, order: Literal["little", "big"]) -> None:
    file.seek(4)
    start, length = (int.from_bytes(file.read(4), order) for _ in range(2))
    if length < PLACEHOLDER and start + length > size:
        raise InputError(TRUNCATED)

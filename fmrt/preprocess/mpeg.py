"""How many frames an MP3 has: counted, as its header may say anything, or nothing.

Where there is no number, decoders guess it from the first frame's bit rate, and stop there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from fmrt.preprocess.spliced import Piece

# The part of the frames that a header states that must be there.
WHOLE = 0.95
# Bytes that are searched for the next frame, after what is none: a tag with a picture, say.
MOST_BETWEEN = 1 << 24
# kbit/s of layer III, by the index in a frame's header: of version 1, and of 2 and 2.5.
BIT_RATES = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
# Hz, by the version's two bits.
SAMPLE_RATES = {
    3: (44_100, 48_000, 32_000),
    2: (22_050, 24_000, 16_000),
    0: (11_025, 12_000, 8_000),
}
HEADER = 4
VERSION_1, LAYER_3, MONO = 3, 1, 3
TAGS = (b"Xing", b"Info")
# Placeholders of programs that stream.
UNSTATED = (0, 0xFFFF_FFFF)


@dataclass(frozen=True)
class Frame:
    """A frame of layer III, as its header describes it.

    Attributes:
        header: The four bytes of its header.
        length: The length of the frame, in bytes.
        tag: The place in the frame where a header of the whole file may be.
    """

    header: bytes
    length: int
    tag: int

    @classmethod
    def of(cls, header: bytes) -> Frame | None:
        """The frame of a header; None if it is no header of layer III with a bit rate."""
        if len(header) < HEADER or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
            return None
        version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
        rate, frequency = header[2] >> 4, header[2] >> 2 & 3
        if version not in SAMPLE_RATES or layer != LAYER_3 or rate in (0, 15) or frequency == 3:
            return None
        first = version == VERSION_1
        bits = BIT_RATES[not first][rate] * 1000 * (144 if first else 72)
        length = bits // SAMPLE_RATES[version][frequency] + (header[2] >> 1 & 1)
        sides = (17, 9) if header[3] >> 6 == MONO else (32, 17)
        return cls(header, length, HEADER + sides[not first])

    def like(self, other: Frame) -> bool:
        """Whether both have one version, layer and sample rate, as all of a file have."""
        mine, its = self.header, other.header
        return mine[1] & 0xFE == its[1] & 0xFE and mine[2] & 0x0C == its[2] & 0x0C


def mpeg_pieces(file: BinaryIO, start: int, size: int) -> tuple[list[Piece] | None, bool] | None:
    """What an MP3 is to be read as, so that its number of frames is right.

    Args:
        file: The file, which is seekable.
        start: The place of its frames, after a tag.
        size: The size of the file.

    Returns:
        Pieces, or None for the file as it is; and whether it has the frames that it states. None
        if it is no MP3.
    """
    file.seek(start)
    first = Frame.of(file.read(HEADER))
    if first is None or not _follows(file, first, start):
        return None
    file.seek(start)
    data = file.read(first.length)
    tag = data[first.tag : first.tag + 4]
    stated = None
    if tag in TAGS and data[first.tag + 7] & 1:
        stated = int.from_bytes(data[first.tag + 8 : first.tag + 12], "big")
    behind = start + first.length if tag in TAGS else start
    counted = sum(1 for _ in _frames(file, first, behind, size))
    if stated in UNSTATED:
        stated = None
    whole = stated is None or counted >= WHOLE * stated
    if stated == counted:
        return None, whole
    if stated is None:
        return [(0, start), _info(first, counted, size - behind), (behind, size)], whole
    place = start + first.tag + 8
    return [(0, place), counted.to_bytes(4, "big"), (place + 4, size)], whole


def _follows(file: BinaryIO, frame: Frame, place: int) -> bool:
    """Whether another frame follows a frame, or nothing."""
    file.seek(place + frame.length)
    header = file.read(HEADER)
    after = Frame.of(header)
    return len(header) < HEADER or (after is not None and after.like(frame))


def _frames(file: BinaryIO, first: Frame, start: int, size: int) -> Iterator[int]:
    """Places of the whole frames."""
    place = start
    while place + HEADER <= size:
        file.seek(place)
        frame = Frame.of(file.read(HEADER))
        if frame is None or not frame.like(first):
            found = _next(file, first, place + 1)
            if found is None:
                return
            place = found
            continue
        if place + frame.length > size:
            return
        yield place
        place += frame.length


def _next(file: BinaryIO, first: Frame, place: int) -> int | None:
    """Place of the next frame that another follows."""
    for start in range(place, place + MOST_BETWEEN, 1 << 16):
        file.seek(start)
        block = file.read((1 << 16) + HEADER)
        at = block.find(first.header[:1])
        while 0 <= at < 1 << 16:
            frame = Frame.of(block[at : at + HEADER])
            if frame is not None and frame.like(first) and _follows(file, frame, start + at):
                return start + at
            at = block.find(first.header[:1], at + 1)
        if len(block) < 1 << 16:
            return None
    return None


def _info(first: Frame, frames: int, size: int) -> bytes:
    """A frame of silence whose header states the number of frames and of bytes after it."""
    header = bytes([first.header[0], first.header[1] | 1, first.header[2] & 0x0D | 0x90])
    frame = Frame.of(header + first.header[3:])
    assert frame is not None  # noqa: S101  # it has a bit rate
    counts = (3).to_bytes(4, "big") + frames.to_bytes(4, "big")
    whole = counts + min(size + frame.length, 0xFFFF_FFFF).to_bytes(4, "big")
    tag = bytes(frame.tag - HEADER) + TAGS[1] + whole
    return (frame.header + tag).ljust(frame.length, b"\0")

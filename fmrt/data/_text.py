"""The bytes of a text file as UTF-8 with the usual line ends, whatever they were."""

from __future__ import annotations

import codecs
import gzip
import io
from collections.abc import Callable
from typing import IO, cast

# Read ahead to see what a file is.
HEAD = 1 << 16
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16's, with which it begins
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# How files begin that are no text, with what they are.
_OTHERS = (
    (b"PAR1", "a parquet file: say --format parquet"),
    (b"PK\3\4", "a ZIP archive, such as an Excel workbook: save its sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file: save it as CSV or text"),
    (b"ARROW1", "an Arrow file: save it as parquet"),
    (b"%PDF", "a PDF file: extract its text first"),
    (b"SQLite format 3", "a database: export a table as CSV"),
    (b"BZh", "compressed with bzip2: give bzip2 -dc FILE | fmrt ... -"),
    (b"\xfd7zXZ", "compressed with xz: give xz -dc FILE | fmrt ... -"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd: give zstd -dc FILE | fmrt ... -"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"GIF8", "an image"),
    (b"RIFF", "an image or a sound"),
    (b"OggS", "a sound"),
    (b"fLaC", "a sound"),
)
# Without a byte order mark, UTF-16 is told by the zeros in every other byte of most scripts.
_LEAST_UTF16, _MOST_ZEROS, _FEWEST_ZEROS = 8, 0.1, 0.9
Convert = Callable[[bytes, bool], bytes]


class NotTextError(Exception):
    """A file is no text; says what it is."""


def as_utf8(stream: IO[bytes], choices: list[str]) -> IO[bytes]:
    r"""Return a stream of the text in UTF-8 without a byte order mark, in lines that end in ``\n``.

    Args:
        stream: The stream at its start.
        choices: A list that takes one line for what the file does not say itself.

    Raises:
        NotTextError: It is no text.
    """
    head = _read(stream, HEAD)
    for start, what in _OTHERS:
        if head.startswith(start) and (len(start) > 4 or b"\0" in head):  # noqa: PLR2004
            raise NotTextError(what)
    bom, encoding = next((b for b in _BOMS if head.startswith(b[0])), (b"", ""))
    # Two bytes may just be a bad line; with zeros every line of the file would be.
    if encoding.startswith("utf-16") and b"\0" not in head:
        bom, encoding = b"", ""
    if not bom and (encoding := _utf16(head)):
        choices.append(f"it is taken for {encoding.upper()}, without a byte order mark")
    text = _from(stream, head, len(bom))
    if encoding not in ("", "utf-8"):
        text = _converted(text, _recoding(encoding))
        head = head[len(bom) :].decode(encoding, "ignore").encode(errors="ignore")
    if b"\r" in head and b"\n" not in head:
        choices.append("its lines end with carriage returns (old Mac)")
        text = _converted(text, _with_line_feeds())
    return text


def unpacked(stream: IO[bytes]) -> IO[bytes]:
    """What a gzip-compressed stream holds, which may be a pipe."""
    packed = cast("IO[bytes]", gzip.GzipFile(fileobj=stream))
    return _converted(packed, lambda data, _: data)


def _read(stream: IO[bytes], most: int) -> bytes:
    """Up to ``most`` bytes, fewer at the end, and where a pipe has given a plain first line."""
    data = b""
    while len(data) < most and not _is_plain(data) and (more := _some(stream, most - len(data))):
        data += more
    return data


def _some(stream: IO[bytes], most: int) -> bytes:
    """What a pipe has now, without a wait for more; a file has ``most`` bytes, or all."""
    read: Callable[[int], bytes] = stream.read
    if not stream.seekable():
        read = getattr(stream, "read1", read)
    return read(most)


def _is_plain(head: bytes) -> bool:
    """Whether what follows cannot change what the start of a file tells."""
    others = (*(start for start, _ in _OTHERS), *(bom for bom, _ in _BOMS[1:]))
    return b"\n" in head and b"\0" not in head and not head.startswith(others)


def _utf16(head: bytes) -> str:
    if len(head) < _LEAST_UTF16 or (len(head) % 2 and len(head) < HEAD):
        return ""
    even, odd = (head[place::2].count(0) / (len(head) // 2) for place in (0, 1))
    if odd >= _FEWEST_ZEROS and even <= _MOST_ZEROS:
        return "utf-16-le"
    return "utf-16-be" if even >= _FEWEST_ZEROS and odd <= _MOST_ZEROS else ""


def _from(stream: IO[bytes], head: bytes, place: int) -> IO[bytes]:
    """The stream from a place in its head on, of which ``head`` is read already."""
    if stream.seekable():
        stream.seek(place - len(head), io.SEEK_CUR)
        return stream
    return _converted(stream, lambda data, _: data, head[place:])


def _recoding(encoding: str) -> Convert:
    decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")

    def convert(data: bytes, end: bool) -> bytes:
        try:
            # What is no character is none in UTF-8 either, and its line is bad.
            return decoder.decode(data, end).encode(errors="surrogatepass")
        except UnicodeDecodeError:
            decoder.reset()
            return data.decode(encoding, "ignore").encode(errors="surrogatepass") + b"\xff"

    return convert


def _with_line_feeds() -> Convert:
    held = b""

    def convert(data: bytes, end: bool) -> bytes:
        nonlocal held
        data = held + data
        held = b"\r" if data.endswith(b"\r") and not end else b""
        return data[: len(data) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    return convert


def _converted(stream: IO[bytes], convert: Convert, ready: bytes = b"") -> IO[bytes]:
    return cast("IO[bytes]", io.BufferedReader(_Converted(stream, convert, ready), HEAD))


class _Converted(io.RawIOBase):
    """What is ready, then a stream of bytes that are converted as they are read; it stays open."""

    def __init__(self, stream: IO[bytes], convert: Convert, ready: bytes) -> None:
        self._stream = stream
        self._convert = convert
        self._ready = ready
        self._ended = False

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer with what is there; 0 at the end."""
        while not self._ready and not self._ended:
            data = _some(self._stream, HEAD)
            self._ended = not data
            self._ready = self._convert(data, self._ended)
        done = min(len(buffer), len(self._ready))
        buffer[:done] = self._ready[:done]
        self._ready = self._ready[done:]
        return done

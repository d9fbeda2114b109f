"""A bundle in one file: a zip archive whose members are read where they are.

An archive comes from a stranger, as a bundle does. Only what `fmrt package` writes is taken:
members that are stored as they are or deflated, one after the other, with plain names, and nothing
between or around them. So no member grows without bound when it is read, no two share bytes, and no
name leads anywhere.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, NoReturn, TypeAlias

from fmrt.errors import BundleCorruptError, quoted, said

SUFFIX = ".fmrt"
# What to do about a file that is not as it was.
FIX = "copy the file again, or make it again with fmrt package"
# A FIFO is opened at once then, and found to be none.
FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
# Of the names that a manifest may list; a case that differs is the same name to some systems.
NAME = re.compile(r"[\w+@=()~.-][\w+@=()~. -]*(?:/[\w+@=()~.-][\w+@=()~. -]*){0,15}", re.ASCII)
MOST_NAME = 1024
MOST_MEMBERS = 4096
MOST_DIRECTORY = 32 << 20
# Without the form for larger archives, which a device of the edge could not hold either.
MOST_BYTES = (1 << 32) - 2

# Of PKWARE's APPNOTE: the records of a member, of its entry in the directory, and of the end.
_LOCAL = struct.Struct("<4s5H3I2H")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
# The head of an extra field, and the field that Android pads its archives with.
_EXTRA = struct.Struct("<2H")
_PADDING = 0xD935
PAGE, SMALL = 4096, 64
PART = 1 << 16
# A deflated member is at most so many times its bytes in the archive; weights are 1.1 times them.
MOST_GROWTH = 32
# Of deflate.
MOST_EFFORT = 9
# Of the size, what deflate has to save; else a member is stored.
LEAST_SAVED = 0.02
_STORED, _DEFLATED = 0, 8
_LOCAL_MAGIC, _ENTRY_MAGIC, _END_MAGIC = b"PK\3\4", b"PK\1\2", b"PK\5\6"
# Encrypted, or with its sizes after its content.
_OTHER_FLAGS = 1 | 8


@dataclass(frozen=True)
class Member:
    """A file in an archive.

    Attributes:
        archive: The archive.
        name: The file's name in it.
        start: The place of its first byte in the archive.
        size: The size of its content in bytes.
        packed: Its bytes in the archive.
        deflated: Whether these are compressed, and so not its content.
    """

    archive: Archive
    name: str
    start: int
    size: int
    packed: int
    deflated: bool

    def __str__(self) -> str:
        return f"{self.archive.path}/{self.name}"

    def parts(self) -> Iterator[bytes]:
        """The content, a part after the other.

        Raises:
            BundleCorruptError: It is deflated, and is not what its entry says.
            OSError: The archive cannot be read.
        """
        yield from _inflated(self) if self.deflated else self.packed_parts()

    def packed_parts(self) -> Iterator[bytes]:
        """Its bytes in the archive, a part after the other.

        Raises:
            OSError: The archive cannot be read.
        """
        left = self.packed
        with self.archive.path.open("rb") as file:
            file.seek(self.start)
            while left and (part := file.read(min(left, PART))):
                left -= len(part)
                yield part

    def read_bytes(self) -> bytes:
        """The content.

        Raises:
            OSError: The archive cannot be read.
        """
        return b"".join(self.parts())

    def read_text(self, encoding: str) -> str:
        """The content as text.

        Raises:
            OSError: The archive cannot be read.
        """
        return self.read_bytes().decode(encoding)


# A file of a bundle: on its own in a folder, or in an archive.
BundleFile: TypeAlias = Path | Member


class _Entry(NamedTuple):
    """What the directory says of a member, and its own header too."""

    name: str
    first: int
    header: int
    size: int
    packed: int
    deflated: bool


@dataclass(frozen=True, eq=False)
class Archive:
    """An archive that was opened once; its content is read when it is needed.

    Attributes:
        path: Its place.
    """

    path: Path

    @cached_property
    def members(self) -> Mapping[str, Member]:
        """The files in it, by name.

        Raises:
            BundleCorruptError: It is no archive of `fmrt package`, or was cut or changed.
        """
        try:
            descriptor = os.open(self.path, FLAGS)
            with os.fdopen(descriptor, "rb"):
                size = os.fstat(descriptor).st_size
                if not _END.size <= size <= MOST_BYTES:
                    self._refuse(f"{size:,} bytes are no archive of a bundle")
                with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as data:
                    return dict(self._read(data))
        except (OSError, ValueError) as e:
            if isinstance(e, BundleCorruptError):
                raise
            raise BundleCorruptError(f"{self.path} cannot be read: {said(e)}") from e

    def member(self, name: str) -> Member:
        """A file in it.

        Raises:
            BundleCorruptError: There is none of that name.
        """
        if name not in self.members:
            raise BundleCorruptError(f"{self.path} has no {quoted(name)} in it; {FIX}")
        return self.members[name]

    def _read(self, data: mmap.mmap) -> Iterator[tuple[str, Member]]:
        start, count = self._directory(data)
        seen: set[str] = set()
        place, ends = start, 0
        for _ in range(count):
            entry, place = self._entry(data, place)
            name, first, header, size, packed, deflated = entry
            if not NAME.fullmatch(name) or ".." in name.split("/") or len(name) > MOST_NAME:
                self._refuse(f"it has a member {quoted(name)}, which is no name of a file in it")
            if name.lower() in seen:
                self._refuse(f"it has two members {quoted(name)}")
            if header != ends:
                self._refuse(f"{quoted(name)} does not begin where the member before it ends")
            seen.add(name.lower())
            ends = first + packed
            yield name, Member(self, name, first, size, packed, deflated)
        if ends != start or place != len(data) - _END.size:
            self._refuse("it has bytes that belong to no member")

    def _directory(self, data: mmap.mmap) -> tuple[int, int]:
        """Where the entries begin, and how many there are."""
        end = len(data) - _END.size
        magic, disk, first, here, count, size, start, comment = _END.unpack_from(data, end)
        if magic != _END_MAGIC:
            self._refuse("it does not end as an archive does, and was perhaps cut")
        if disk or first or here != count or comment or start + size != end:
            self._refuse("its directory is not where its end says")
        if count > MOST_MEMBERS or size > MOST_DIRECTORY:
            self._refuse(f"it has {count:,} members in {size:,} bytes of names")
        return start, count

    def _entry(self, data: mmap.mmap, place: int) -> tuple[_Entry, int]:
        """A member's entry, and where the next one begins."""
        if place + _ENTRY.size > len(data):
            self._refuse("its directory is cut")
        fields = _ENTRY.unpack_from(data, place)
        magic, flags, method = fields[0], fields[3], fields[4]
        packed, size, names, extra, comment = fields[8:13]
        header = fields[-1]
        after = place + _ENTRY.size + names + extra + comment
        raw = data[place + _ENTRY.size : place + _ENTRY.size + names] if after <= len(data) else b""
        if magic != _ENTRY_MAGIC or not raw:
            self._refuse("its directory is malformed")
        name = raw.decode("ascii", "backslashreplace")
        if method not in (_STORED, _DEFLATED) or flags & _OTHER_FLAGS:
            self._refuse(f"{quoted(name)} is encrypted, or neither stored nor deflated")
        if size != packed and (method == _STORED or size > MOST_GROWTH * packed):
            self._refuse(f"{quoted(name)} would become {size:,} bytes of {packed:,}")
        first = self._first(data, header, raw, (method, packed, size))
        return _Entry(name, first, header, size, packed, method == _DEFLATED), after

    def _first(
        self, data: mmap.mmap, header: int, name: bytes, expected: tuple[int, int, int]
    ) -> int:
        """The first byte of a member whose own header says the same as its entry."""
        if header + _LOCAL.size > len(data):
            self._refuse(f"{quoted(name.decode('ascii', 'replace'))} is beyond its end")
        magic, _, flags, method, _, _, _, packed, size, names, extra = _LOCAL.unpack_from(
            data, header
        )
        first: int = header + _LOCAL.size + names + extra
        same = data[header + _LOCAL.size : header + _LOCAL.size + names] == name
        if magic != _LOCAL_MAGIC or not same or flags & _OTHER_FLAGS:
            self._refuse(f"{quoted(name.decode('ascii', 'replace'))} is not where it should be")
        if (method, packed, size) != expected or first + packed > len(data):
            self._refuse(f"{quoted(name.decode('ascii', 'replace'))} is of another size, or cut")
        return first

    def _refuse(self, why: str) -> NoReturn:
        raise BundleCorruptError(f"{self.path} is no package of fmrt: {why}; {FIX}")


def _inflated(member: Member) -> Iterator[bytes]:
    """The content of a deflated member; never more of it than its entry says."""
    import zlib  # few archives need it

    inflate, left = zlib.decompressobj(-zlib.MAX_WBITS), member.size
    try:
        for packed in member.packed_parts():
            rest, part = packed, b""
            # What inflate did not give yet is given after its input was taken, too.
            while left >= 0 and not inflate.eof and (rest or len(part) == PART):
                part = inflate.decompress(rest, PART)
                rest, left = inflate.unconsumed_tail, left - len(part)
                yield part
    except zlib.error as e:
        raise BundleCorruptError(f"{member} is corrupt: {e}; {FIX}") from e
    if left or not inflate.eof or inflate.unused_data:
        raise BundleCorruptError(f"{member} is corrupt: it is not of {member.size:,} bytes; {FIX}")


def archive_at(path: Path) -> Archive | None:
    """The archive at a path; None where there is a folder, another file or nothing."""
    if not path.is_file():
        return None
    if path.suffix != SUFFIX:
        with path.open("rb") as file:
            if file.read(4) != _LOCAL_MAGIC:
                return None
    return Archive(path)


def unpack(archive: Archive, directory: Path) -> None:
    """Write the files of an archive to a new directory.

    Raises:
        BundleCorruptError: It is no archive of `fmrt package`.
        OSError: The directory is there already, or cannot be written.
    """
    directory.mkdir(parents=True)
    for name, member in archive.members.items():
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            file.writelines(member.parts())


def pack(directory: Path, target: Path, deflate: Callable[[str], bool] = lambda _: False) -> None:
    """Write the files of a directory as an archive, graphs and weights at the start of a page.

    The same files give the same archive, to the last byte.

    Args:
        directory: The directory.
        target: The archive.
        deflate: Says of a file's name in it whether to compress the file, where that saves bytes.

    Raises:
        OSError: The archive cannot be written.
    """
    import shutil  # start-up stays quick
    from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    with ZipFile(target, "w", allowZip64=False, compresslevel=MOST_EFFORT) as archive:
        for path in paths:
            info = ZipInfo(path.relative_to(directory).as_posix())
            info.external_attr = 0o644 << 16
            deflated = deflate(info.filename) and _saves(path)
            info.compress_type = ZIP_DEFLATED if deflated else ZIP_STORED
            assert archive.fp is not None  # noqa: S101  # open for writing
            first = archive.fp.tell() + _LOCAL.size + len(info.filename)
            info.extra = _padding(first, PAGE if path.stat().st_size >= PAGE else SMALL)
            with path.open("rb") as source, archive.open(info, "w") as place:
                shutil.copyfileobj(source, place, 1 << 20)
            info.extra = b""  # the directory needs none


def _saves(path: Path) -> bool:
    """Whether a file is worth compressing, and does not shrink by more than a reader takes."""
    import zlib

    deflate = zlib.compressobj(MOST_EFFORT, zlib.DEFLATED, -zlib.MAX_WBITS)
    with path.open("rb") as file:
        packed = sum(len(deflate.compress(part)) for part in iter(lambda: file.read(PART), b""))
    packed += len(deflate.flush())
    size = path.stat().st_size
    return packed < (1 - LEAST_SAVED) * size and size <= MOST_GROWTH * packed


def _padding(first: int, alignment: int) -> bytes:
    """A field of nothing, after which a member's content is aligned."""
    missing = -(first + _EXTRA.size) % alignment
    return _EXTRA.pack(_PADDING, missing) + bytes(missing)

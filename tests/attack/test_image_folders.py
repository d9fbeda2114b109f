"""Folders of images with all else that lies in folders: every file has a vector, or is named."""

from __future__ import annotations

import io
import json
import os
import random
import re
import socket
import struct
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("onnx")
pytest.importorskip("soundfile")

import fmrt
from fmrt.data import Reading
from tests.attack import bundles
from tests.attack.fuzz import Budget, attack
from tests.attack.mutate import mutated_bytes

# The readers of images are attacked in every run of the tests, see `tests.attack.test_media`.
pytestmark = pytest.mark.slow

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "TGA", "ICO", "QOI")
NAMES = (
    *(b"a.png", b"b.JPG", b"c", b"d.txt", b"e.png.txt", b".hidden.png", b"\xff.png", b"\n.png"),
    *(
        b"\xe2\x80\xae.gif",
        b" .png",
        b"-.png",
        b"x" * 250 + b".png",
        b"CON.png",
        b"f.webp",
        b"g.Tiff",
    ),
    *(b"caf\xc3\xa9.png", b"cafe\xcc\x81.png", b"*.png", b"%s.bmp", b"h.dat", b"\xed\xa0\x80.png"),
)
FOLDERS = (b"", b"", b"sub", b"sub/sub", b".git", b"x.png.d", b"\xff", b"deep/" * 30 + b"deep")
TARGETS = (
    ".",
    "..",
    "nowhere",
    "/dev/zero",
    "/dev/null",
    "/proc/self/mem",
    "../outside.png",
    "sub",
)
OUTSIDE = "outside.png"


@dataclass(frozen=True)
class Entry:
    """What a name stands for: a file, a link, a pipe or a socket; whether it is a good image."""

    name: bytes
    kind: str
    data: bytes = b""
    good: bool = False


@dataclass(frozen=True)
class Folder:
    """What is in a folder, and how it is embedded."""

    entries: tuple[Entry, ...]
    skip: bool
    way: str


def some_folder(generator: random.Random) -> Folder:
    entries: dict[bytes, Entry] = {}
    for _ in range(generator.choice((0, 1, 3, 10, 25))):
        folder, name = generator.choice(FOLDERS), generator.choice(NAMES)
        path = os.path.join(folder, name)  # noqa: PTH118  # of bytes
        entries[path] = generator.choice(MAKERS)(generator, path)
    way = generator.choice(("table", "table", "file", "job"))
    return Folder(tuple(entries.values()), generator.random() < 0.8, way)


def picture(generator: random.Random) -> bytes:
    size = generator.randint(1, 40), generator.randint(1, 40)
    color = tuple(generator.randrange(256) for _ in range(3))
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, generator.choice(FORMATS))
    return out.getvalue()


def _good(generator: random.Random, path: bytes) -> Entry:
    return Entry(path, "file", picture(generator), good=True)


def _damaged(generator: random.Random, path: bytes) -> Entry:
    return Entry(path, "file", mutated_bytes(generator, picture(generator)))


def _huge(generator: random.Random, path: bytes) -> Entry:
    """A header that claims many pixels, with few bytes after it."""
    sides = (1, 5_000, 12_000, 40_000, 65_535, 1 << 24, (1 << 31) - 1)
    width, height = generator.choice(sides), generator.choice(sides)
    return Entry(path, "file", generator.choice(CLAIMS)(width, height) + bytes(100))


def _png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 20))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def _bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack(
        "<IIIIiiHHIIiiII", 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0
    )


def _gif(width: int, height: int) -> bytes:
    size = struct.pack("<HH", width & 0xFFFF, height & 0xFFFF)
    return (
        b"GIF89a" + size + b"\x80\0\0" + bytes(6) + b"," + bytes(4) + size + b"\0\x02\x02D\x01\0;"
    )


def _ppm(width: int, height: int) -> bytes:
    return b"P6 %d %d 255\n" % (width, height)


def _tga(width: int, height: int) -> bytes:
    return struct.pack(
        "<BBBHHBHHHHBB", 0, 0, 10, 0, 0, 0, 0, 0, width & 0xFFFF, height & 0xFFFF, 24, 0
    )


def _qoi(width: int, height: int) -> bytes:
    return b"qoif" + struct.pack(">IIBB", width, height, 4, 0) + b"\xfd" * 50


def _tiff(width: int, height: int) -> bytes:
    tags = ((256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (278, height))
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + bytes(4)


def _other(generator: random.Random, path: bytes) -> Entry:
    contents = (
        b"",
        b"a text\n" * 9,
        b"%PDF-1.7\n",
        b"PK\x03\x04" + bytes(40),
        b"\0" * 9,
        b"<svg/>",
    )
    return Entry(path, "file", generator.choice(contents))


def _link(generator: random.Random, path: bytes) -> Entry:
    return Entry(
        path,
        "link",
        os.fsencode(generator.choice((*TARGETS, Path(os.fsdecode(path)).name))),
    )


def _pipe(_: random.Random, path: bytes) -> Entry:
    return Entry(path, "pipe")


def _socket(_: random.Random, path: bytes) -> Entry:
    return Entry(path, "socket")


CLAIMS: tuple[Callable[[int, int], bytes], ...] = (_png, _bmp, _gif, _ppm, _tga, _qoi, _tiff)
MAKERS: tuple[Callable[[random.Random, bytes], Entry], ...]
MAKERS = (_good, _good, _good, _damaged, _huge, _huge, _other, _link, _link, _pipe, _socket)


def lay_out(place: Path, case: Folder) -> list[Entry]:
    """Make the entries; those whose name another one bars are left out."""
    place.mkdir()
    made = []
    for entry in case.entries:
        path = os.path.join(os.fsencode(place), entry.name)  # noqa: PTH118
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
            _make(path, entry)
        except OSError:
            continue
        made.append(entry)
    return made


def _make(path: bytes, entry: Entry) -> None:
    if entry.kind == "file":
        with open(path, "xb") as file:  # noqa: PTH123
            file.write(entry.data)
    elif entry.kind == "link":
        os.symlink(entry.data, path)  # noqa: PTH211
    elif entry.kind == "pipe":
        os.mkfifo(path)
    else:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path)


def embedded(bundle: Path, case: Folder) -> None:
    with tempfile.TemporaryDirectory() as name:
        root, place = Path(name), Path(name, "in")
        (root / OUTSIDE).write_bytes(_PLAIN)
        made = lay_out(place, case)
        said: list[str] = []
        keep = ("path",) if case.way == "table" else ()
        reading = Reading(keep=keep, on_error="skip" if case.skip else "fail")
        if case.way == "job":
            result = fmrt.embed_to_folder(
                bundle, place, root / "job", reading=reading, warn=said.append
            )
        else:
            out = root / ("v.jsonl" if keep else "v.npy")
            result = fmrt.embed_to_file(bundle, place, out, reading=reading, warn=said.append)
        passed = re.findall(r"^passed over ([\d,]+)", "\n".join(said), re.MULTILINE)
        told = result.rows + result.skipped + sum(int(n.replace(",", "")) for n in passed)
        assert told >= _count(place), said
        if keep:
            rows = [json.loads(line) for line in out.read_text().splitlines()]
            assert len(rows) == result.rows
            _check(bundle, made, {row["path"]: row["embedding"] for row in rows})


def _count(place: Path) -> int:
    """What is in a folder: files and links, and each hidden folder as one."""
    total = 0
    for _, folders, files in os.walk(place):
        hidden = [name for name in folders if name.startswith(".")]
        folders[:] = [name for name in folders if name not in hidden]
        total += len(hidden) + len(files)
    return total


def _check(bundle: Path, made: list[Entry], found: dict[str, list[float]]) -> None:
    """Good images that are not hidden, of a name that is text, have the vectors they have alone."""
    wanted = {}
    for entry in made:
        hidden = any(part.startswith(b".") for part in entry.name.split(b"/"))
        if entry.good and not hidden and _is_text(entry.name):
            wanted[entry.name.decode()] = entry.data
    if not wanted:
        return
    assert wanted.keys() <= found.keys(), wanted.keys() - found.keys()
    with fmrt.Embedder(bundle, verify=False, workers=1, intra_op_threads=1) as embedder:
        vectors = embedder.embed(list(wanted.values()))
    got = np.array([found[path] for path in wanted])
    np.testing.assert_allclose(got, vectors, atol=1e-5)


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


_PLAIN = picture(random.Random(0))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("attacked") / "image"
    (place / "onnx").mkdir(parents=True)
    bundles.make_image(place)
    bundles.keep_options(place)
    return place


def test_image_folders(budget: Budget, bundle: Path) -> None:
    attack(partial(embedded, bundle), some_folder, budget, most_growth=300 << 20)

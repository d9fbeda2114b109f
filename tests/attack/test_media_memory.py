"""Small images and sounds that state large sizes: no file under 1 MB takes more than 300 MB."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

pytest.importorskip("PIL")
soundfile = pytest.importorskip("soundfile")
from PIL import Image

from fmrt.bundle.manifest import AudioInput, ImageInput
from fmrt.embedding.scheduler import Workers
from fmrt.errors import InputError
from fmrt.preprocess.audio import AudioPreprocessor, decode
from fmrt.preprocess.image import ImagePreprocessor
from fmrt.system.limits import Budget as Memory
from fmrt.system.limits import Limits
from tests.attack.fuzz import REFUSED, RIGHT, Budget, Victim, attack
from tests.attack.mutate import mutated_bytes

MOST_GROWTH = 300_000_000
IMAGE = ImageInput(8, 8, 4, (8, 8), 2, False, None, (1 / 255,) * 3, (0.0, 0.0, 0.0))
SOUND = AudioInput(16_000, "input_values", 1, 160_000, False, False, 0, None)
LOADERS = 2
# The small images whose sizes are exchanged for others.
WIDTH, HEIGHT = 301, 203
SIZES = (1, 4_000, 13_000, 16_383, 30_000, 65_535, 1 << 20, (1 << 31) - 1)
RATES = (1, 7, 100, 8_000, 16_000, 96_000, 655_350, (1 << 31) - 1)


def load_images(files: list[bytes]) -> None:
    prepare = ImagePreprocessor(IMAGE)
    workers = Workers(LOADERS)
    for _ in workers.map(prepare.load, files):
        pass


def load_sounds(files: list[bytes]) -> None:
    prepare = AudioPreprocessor(SOUND, None)
    workers = Workers(LOADERS)
    assert all(len(found.values) <= 160_000 for found in workers.map(prepare.load, files))


@cache
def png(side: int, extra: bytes = b"") -> bytes:
    packer = zlib.compressobj(9)
    row = b"\0" * (3 * side + 1)
    pixels = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", pixels)
        + chunk(b"IEND", b"")
    )


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def saved(kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize((WIDTH, HEIGHT)).convert("RGB").save(out, kind, **options)
    return out.getvalue()


def tags(count: int, size: int) -> bytes:
    """TIFF whose tags are all the same ``size`` bytes."""
    entries = b"".join(struct.pack("<HHII", 40_000 + i, 7, size, 0) for i in range(count))
    whole = b"II*\0" + struct.pack("<IH", 8, count) + entries + b"\0" * 4
    return whole + b"\0" * (size - len(whole))


def bitmap(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 54) + header + b"\xff" * 100_000


def icon(picture: bytes) -> bytes:
    entry = struct.pack("<BBBBHHII", 32, 32, 0, 0, 1, 32, len(picture), 22)
    return struct.pack("<HHH", 0, 1, 1) + entry + picture


def jpeg_with(exif: bytes) -> bytes:
    plain = saved("JPEG")
    segment = b"Exif\0\0" + exif
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + plain[2:]


def text_of(exif: bytes) -> bytes:
    packed = zlib.compress(f"\nexif\n{len(exif)}\n{exif.hex()}".encode())
    return chunk(b"zTXt", b"Raw profile type exif\0\0" + packed)


IMAGES: dict[str, Callable[[], bytes]] = {
    "a PNG file of 13,000 x 13,000": lambda: png(13_000),
    "a BMP file of 1 x 16,000,000": lambda: bitmap(1, 16_000_000),
    "an ICO file with that": lambda: icon(png(13_000)),
    "TIFF tags that are one place": lambda: tags(5_000, 900_000),
    "EXIF of a JPEG file": lambda: jpeg_with(tags(4_000, 60_000)[:65_000]),
    "EXIF of a PNG file": lambda: png(9, chunk(b"eXIf", tags(5_000, 900_000))),
    "EXIF as text": lambda: png(9, text_of(tags(3_000, 400_000))),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_that_states_too_much_is_refused(kind: str):
    data = IMAGES[kind]()
    assert len(data) < 1_000_000
    with Victim(load_images, 10, 50_000_000) as victim:
        found = victim.run([data] * 3)
    assert found.kind == REFUSED, found


def test_images_that_fit_wait_for_each_other():
    """Each takes 192 MB."""
    with Victim(load_images, 30, MOST_GROWTH) as victim:
        found = victim.run([png(4_900)] * 4)
    assert found.kind == RIGHT, found


def test_a_user_may_raise_the_limit():
    large = png(6_000)
    with pytest.raises(InputError, match=r"289 MB.* 200 MB; raise max_item_bytes .--max-item-size"):
        ImagePreprocessor(IMAGE).load(large)
    raised = ImagePreprocessor(IMAGE, Limits(300_000_000))
    assert raised.load(large).shape == (8, 8, 3)


def wav(samples: int, rate: int) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, np.zeros(samples), rate, "PCM_U8", format="WAV")
    return out.getvalue()


def flac(samples: int, rate: int = 16_000) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, np.zeros(samples, np.int16), rate, format="FLAC")
    return out.getvalue()


def flac_that_states(samples: int) -> bytes:
    """36 bits, in the middle of the stream's description."""
    data = bytearray(flac(100_000))
    place = 8 + 13
    data[place] = data[place] & 0xF0 | samples >> 32
    data[place + 1 : place + 5] = (samples & 0xFFFFFFFF).to_bytes(4)
    return bytes(data)


@pytest.mark.parametrize(
    "make",
    [lambda: [wav(50_000, 1)] * 3, lambda: [flac(16_000 * 1800)] * 12],
    ids=["a WAV file of 1 Hz", "twelve recordings of 30 minutes"],
)
def test_only_the_window_of_a_sound_is_held(make: Callable[[], list[bytes]]):
    with Victim(load_sounds, 30, MOST_GROWTH) as victim:
        found = victim.run(make())
    assert found.kind == RIGHT, found


def test_the_number_of_samples_is_not_believed():
    with Victim(load_sounds, 10, MOST_GROWTH) as victim:
        found = victim.run([flac_that_states(1 << 31), flac_that_states((1 << 36) - 1)])
    assert found.kind == REFUSED, found


@pytest.mark.parametrize("rate", [1, 100, 8_000, 44_100, 96_000])
def test_a_window_is_resampled_as_the_whole(rate: int):
    """The samples that the model takes are those of the whole sound, to the last bit."""
    rng = np.random.default_rng(rate)
    data = io.BytesIO()
    most = 4_000
    soundfile.write(data, rng.normal(0, 0.1, 3 * rate + 3_000), rate, format="WAV")
    window, length = decode(data.getvalue(), 16_000, most)
    whole, _ = decode(data.getvalue(), 16_000, 10**9, Memory(Limits(10**12)))
    assert abs(length - len(whole)) <= 1  # it is computed for the one, and counted for the other
    assert np.array_equal(window, whole[:most])


def some_images(generator: random.Random) -> list[bytes]:
    kind, options = generator.choice(
        [
            ("PNG", {}),
            ("JPEG", {}),
            ("JPEG", {"progressive": True}),
            ("GIF", {}),
            ("BMP", {}),
            ("TIFF", {"compression": "tiff_lzw"}),
            ("TIFF", {"compression": "jpeg"}),
            ("WEBP", {"lossless": True}),
            ("WEBP", {}),
            ("AVIF", {}),
            ("JPEG2000", {}),
            ("TGA", {"compression": "tga_rle"}),
            ("ICO", {}),
            ("PCX", {}),
            ("PPM", {}),
            ("SGI", {}),
            ("DDS", {}),
            ("QOI", {}),
        ]
    )
    data = saved(kind, **options)
    for side in (WIDTH, HEIGHT):
        data = with_other_size(generator, data, side)
    if generator.random() < 0.5:
        data = mutated_bytes(generator, data)
    return [data] * LOADERS


def with_other_size(generator: random.Random, data: bytes, side: int) -> bytes:
    """Exchanges a side, or the side less one, wherever it stands as a number."""
    other = generator.choice(SIZES)
    for less in (0, 1):
        for size in (4, 2):
            for order in ("little", "big"):
                old = (side - less).to_bytes(size, order)
                new = min(other - less, (1 << 8 * size) - 1).to_bytes(size, order)
                data = data.replace(old, new)
    if data.startswith(b"\x89PNG"):
        data = data[:8] + chunk(b"IHDR", data[16:29]) + data[33:]
    return data


def some_sounds(generator: random.Random) -> list[bytes]:
    kind = generator.choice(["WAV", "FLAC", "OGG", "MP3", "AIFF", "AU", "W64", "CAF"])
    rate = generator.choice((16_000, 48_000) if kind in ("MP3", "OGG") else RATES[:6])
    samples = generator.choice((1, 1_000, 40_000)) + (kind == "FLAC") * 3_000_000
    channels = generator.choice((1, 2, 8))
    out = io.BytesIO()
    try:
        soundfile.write(out, np.zeros((samples // channels + 1, channels)), rate, format=kind)
    except (RuntimeError, TypeError, ValueError):  # a rate or channels that it cannot have
        return [wav(1_000, rate)]
    data = out.getvalue()
    if generator.random() < 0.5:
        other = generator.choice(RATES)
        for order in ("little", "big"):
            data = data.replace(rate.to_bytes(4, order), other.to_bytes(4, order))
    if generator.random() < 0.7:
        data = data[:200] + mutated_bytes(generator, data[200:400]) + data[400:]
        data = mutated_bytes(generator, data[:200]) + data[200:]
    return [data] * LOADERS


def test_images(budget: Budget):
    attack(load_images, some_images, budget, most_growth=MOST_GROWTH)


def test_sounds(budget: Budget):
    attack(load_sounds, some_sounds, budget, most_growth=MOST_GROWTH)

"""Images and sounds of every kind: what the libraries' own readers make of them, or one line."""

from __future__ import annotations

import io
import random
import warnings
from dataclasses import dataclass

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")
from PIL import ImageOps

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")

from fmrt.errors import InputError
from fmrt.preprocess.audio import decode
from fmrt.preprocess.image import decoded
from tests.attack.fuzz import Budget, attack
from tests.attack.mutate import mutated_bytes

# Not AVIF, whose encoder of Pillow dies of some of these images.
FORMATS = ["PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "TGA", "JPEG2000", "PCX", "SGI"]
FORMATS += ["ICO", "QOI", "DDS", "IM", "MSP", "SPIDER", "XBM"]
MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "I", "F"]
MODES += ["I;16"]
ORIENTATION = 0x0112


def some_image(generator: random.Random) -> bytes:
    """A file of random pixels, mode and format; half of them damaged."""
    while True:
        size = generator.randint(1, 40), generator.randint(1, 40)
        pixels = np.frombuffer(generator.randbytes(size[0] * size[1] * 4), np.uint8)
        image = Image.fromarray(pixels.reshape(size[1], size[0], 4), "RGBA")
        exif = Image.Exif()
        exif[ORIENTATION] = generator.randint(0, 9)
        kind = generator.choice(FORMATS)
        # Pillow does not see it in a PNG of an ICO file.
        options = {"exif": exif} if generator.random() < 0.3 and kind != "ICO" else {}
        if generator.random() < 0.1:
            options |= {"save_all": True, "append_images": [image.rotate(90)]}
        out = io.BytesIO()
        try:
            image.convert(generator.choice(MODES)).save(out, kind, **options)
        except Exception:  # a mode that the format cannot hold
            continue
        data = out.getvalue()
        return data if generator.random() < 0.5 else mutated_bytes(generator, data)


def by_pillow(data: bytes) -> np.ndarray | None:
    """As transformers opens an image, but for 16 bits, of which the upper 8 are kept."""
    try:
        image = Image.open(io.BytesIO(data))
        deep = image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PPM")
        image.load()
        image = ImageOps.exif_transpose(image)
        if deep:
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return np.asarray(image.convert("RGB"))
    except Exception:
        return None


def as_pillow(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            got = np.asarray(decoded(data))
        except InputError as e:
            # What a limit refuses is not given to Pillow, which has none.
            ours = "files are not read" in e.reason or "limit" in e.reason or "tags" in e.reason
            assert ours or by_pillow(data) is None, e  # noqa: PT017
            raise
        expected = by_pillow(data)
    assert expected is not None, "read, and Pillow does not"
    assert np.array_equal(got, expected)


def test_images(budget: Budget) -> None:
    attack(as_pillow, some_image, budget)


KINDS = [
    ("WAV", subtype)
    for subtype in ("PCM_16", "PCM_24", "PCM_32", "PCM_U8", "FLOAT", "DOUBLE", "ULAW", "ALAW")
]
KINDS += [("WAVEX", "PCM_24"), ("RF64", "PCM_16"), ("W64", "PCM_16"), ("CAF", "PCM_16")]
KINDS += [("AIFF", "PCM_16"), ("AIFF", "PCM_S8"), ("AU", "PCM_16"), ("AU", "ULAW")]
KINDS += [("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS")]
KINDS += [("MP3", "MPEG_LAYER_III")]
CHUNKS = {"WAV": b"data", "WAVEX": b"data", "AIFF": b"SSND"}
RATE = 16_000
# What an MP3's decoder needs to begin, and what its last frames hold of silence.
MP3_FRAMES = 4 * 1152


@dataclass(frozen=True)
class SoundCase:
    """A file, and the files of which it holds the sound; none of a damaged one."""

    data: bytes
    parts: tuple[bytes, ...]
    kind: tuple[str, str]


def some_sound(generator: random.Random) -> SoundCase:
    kind = generator.choice(KINDS)
    channels = generator.choice((1, 1, 2, 6)) if kind[0] != "MP3" else generator.choice((1, 2))
    joined = kind[0] in ("OGG", "MP3") and generator.random() < 0.4
    parts = tuple(recorded(generator, kind, channels) for _ in range(2 if joined else 1))
    data = b"".join(parts)
    if generator.random() < 0.4:
        return SoundCase(mutated_bytes(generator, data), (), kind)
    return SoundCase(with_placeholder(generator, data, kind[0]), parts, kind)


def recorded(generator: random.Random, kind: tuple[str, str], channels: int) -> bytes:
    frames = generator.randint(2000, 30_000)
    noise = np.frombuffer(generator.randbytes(frames * channels), np.int8).reshape(frames, channels)
    out = io.BytesIO()
    soundfile.write(out, noise / 200, RATE, format=kind[0], subtype=kind[1])
    return out.getvalue()


def with_placeholder(generator: random.Random, data: bytes, kind: str) -> bytes:
    """The file as a program that streams writes it, sometimes."""
    length = generator.choice((0, 0x7FFF_F000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF))
    if kind in CHUNKS and generator.random() < 0.5:
        order = "big" if kind == "AIFF" else "little"
        place = data.index(CHUNKS[kind]) + 4
        data = data[:place] + length.to_bytes(4, order) + data[place + 4 :]
    if kind == "FLAC" and generator.random() < 0.5:
        data = data[:21] + bytes([data[21] & 0xF0]) + bytes(4) + data[26:]
    return data


def as_soundfile(case: SoundCase) -> None:
    got = decode(case.data, RATE, 100 * RATE).samples
    if not case.parts:
        assert np.isfinite(got).all()
        return
    whole = [
        soundfile.read(io.BytesIO(part), dtype="float32", always_2d=True)[0].mean(axis=1)
        for part in case.parts
    ]
    expected = np.concatenate(whole)
    if case.kind[0] == "MP3" and len(case.parts) > 1:
        assert abs(len(got) - len(expected)) <= MP3_FRAMES
        return
    if case.data != b"".join(case.parts):  # without a length, a byte of padding is a sample
        got = got[: len(expected)]
    assert got.shape == expected.shape, (got.shape, expected.shape)
    assert np.abs(got - expected).max() < 1e-6


def test_sounds(budget: Budget) -> None:
    attack(as_soundfile, some_sound, budget)

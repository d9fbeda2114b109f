"""Items to calibrate on, and others to judge the result by.

A user gives a file of their own. Else texts are docstrings and functions of the running Python's
standard library, phrases of several languages, and words that are put together at random. Images
and sounds are drawn from a seed.
"""

from __future__ import annotations

import ast
import functools
import io
import random
import sysconfig
import wave
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmrt.errors import OptionError
from fmrt.export.quantize.phrases import OTHER_LANGUAGES, TALK
from fmrt.system.extras import needing

# How many a model is calibrated on, and judged by, at most; of drawn images and sounds fewer.
CALIBRATION, HELD_OUT = 512, 128
DRAWN = 96
# Texts of made-up words.
MADE_UP = 48
FEWEST = 8
FEWEST_WORDS = 4
SKIPPED = frozenset({"site-packages", "test", "tests"})
SIDE = 256
RATE = 16_000


@dataclass(frozen=True)
class Items:
    """Raw items of one modality: disjoint, and each list in a random but fixed order."""

    calibration: list[object]
    held_out: list[object]


def own_items(modality: str) -> Items:
    """The exporter's own items.

    Raises:
        OptionError: The standard library's source is not installed.
        MissingExtraError: Pillow is needed to draw images.
    """
    if modality == "text":
        return _texts()
    draw: Callable[[int], object] = {"image": _image, "audio": _sound}[modality]
    return _split([draw(seed) for seed in range(DRAWN)])


def given_items(path: Path, modality: str) -> Items:
    """Items of a user's file: one text per line; a folder of images or sounds.

    Raises:
        OptionError: It cannot be read, or has too few.
    """
    try:
        if modality == "text":
            lines = path.read_text(encoding="utf-8").splitlines()
            found: list[object] = list(dict.fromkeys(line for line in lines if line.strip()))
        else:
            found = [str(file) for file in sorted(path.iterdir()) if file.is_file()]
    except (OSError, UnicodeDecodeError) as e:
        what = "one text per line" if modality == "text" else f"a folder of {modality} files"
        raise OptionError(f"--calibration {path}: {e}; give {what}") from e
    if len(found) < 2 * FEWEST:
        raise OptionError(f"--calibration {path}: {len(found)} items; give {2 * FEWEST} or more")
    return _split(found)


@functools.cache
def calibration_docstrings() -> tuple[str, ...]:
    """The docstrings that calibration may use: those of every fourth file, chosen by its name."""
    return tuple(dict.fromkeys(text for path in _files() for text in _docstrings(path)))


def _texts() -> Items:
    """Of every kind some, and a part of each kind held out."""
    docstrings = list(calibration_docstrings())
    if len(docstrings) < CALIBRATION + HELD_OUT:
        raise OptionError(
            "this Python has no source of its standard library to calibrate on; "
            "give --calibration FILE with one text per line"
        )
    functions = list(dict.fromkeys(text for path in _files() for text in _functions(path)))
    phrases = [*TALK, *OTHER_LANGUAGES]
    kinds = [
        _split(docstrings, 352, 80),
        _split(functions, 112, 32),
        _split(phrases, len(phrases), 16),
        Items(list(_made_up(phrases, MADE_UP)), []),
    ]
    calibration = [text for kind in kinds for text in kind.calibration]
    random.Random(1).shuffle(calibration)  # noqa: S311  # no secret
    return Items(calibration, [text for kind in kinds for text in kind.held_out])


def _split(
    found: Sequence[object], calibration: int = CALIBRATION, most_held_out: int = HELD_OUT
) -> Items:
    """A third of what there is, at most so many, is held out."""
    found = random.Random(0).sample(found, len(found))  # noqa: S311  # no secret
    held_out = min(most_held_out, len(found) // 3)
    return Items(found[held_out : held_out + calibration], found[:held_out])


def _made_up(phrases: Sequence[str], count: int) -> Iterator[str]:
    """Texts of words that no language has, from the letters of phrases: tokenizers split them."""
    rng = random.Random(2)  # noqa: S311  # no secret
    words = [word for phrase in phrases for word in phrase.split() if word.isalpha()]
    for _ in range(count):
        pairs = (rng.choices(words, k=2) for _ in range(rng.randint(2, 40)))
        yield " ".join(a[: len(a) // 2 + 1] + b[len(b) // 2 :] for a, b in pairs)


def _files() -> Iterator[Path]:
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if zlib.crc32(name.encode()) % 4 == 0 and not SKIPPED & set(path.parts):
            yield path


def _tree(path: Path) -> ast.AST:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return ast.Module([], [])


def _functions(path: Path) -> Iterator[str]:
    """Functions of two statements and more, without their docstrings."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.FunctionDef) and len(node.body) > 1:
            if ast.get_docstring(node) is not None:
                del node.body[0]
            yield ast.unparse(node)


def _docstrings(path: Path) -> Iterator[str]:
    """Docstrings of `FEWEST_WORDS` and more, whitespace collapsed."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(_tree(path)):
        raw = ast.get_docstring(node) if isinstance(node, kinds) else None
        text = " ".join((raw or "").split())
        if len(text.split()) >= FEWEST_WORDS:
            yield text


def _image(seed: int) -> bytes:
    """A PNG of shapes over a smooth ground with some noise."""
    with needing("Calibrating on images"):
        from PIL import Image, ImageDraw  # an extra
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (*rng.integers(2, 9, 2), 3), np.uint8)
    picture = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    for _ in range(rng.integers(1, 12)):
        (left, top), (width, height) = rng.integers(0, SIDE, 2), rng.integers(4, SIDE, 2)
        shape = [pen.ellipse, pen.rectangle][rng.integers(2)]
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        shape((int(left), int(top), int(left + width), int(top + height)), fill=colour)
    noise = rng.normal(0, rng.uniform(0, 20), (SIDE, SIDE, 3))
    noisy = np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(noisy).save(out, "PNG")
    return out.getvalue()


def _sound(seed: int) -> bytes:
    """A WAV of a few gliding tones with overtones, swelling and fading, over noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(RATE * rng.uniform(0.6, 4.0))) / RATE
    wave_form: NDArray[np.float64] = rng.normal(0, rng.uniform(0.001, 0.05), len(time))
    for _ in range(rng.integers(1, 5)):
        pitch = rng.uniform(80, 1500) * (1 + rng.uniform(-0.3, 0.3) * time)
        swell = np.square(np.sin(np.pi * (time * rng.uniform(0.3, 4) + rng.uniform())))
        for overtone in range(1, 6):
            wave_form += swell * np.sin(2 * np.pi * pitch * overtone * time) / overtone**1.5
    samples = (wave_form / np.abs(wave_form).max() * 0.8 * 32767).astype("<i2")
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    return out.getvalue()

"""Mutators of bytes and of JSON values, each with a generator given."""

from __future__ import annotations

import copy
import json
import math
import random
from typing import Any

# Values that programs trip over, whatever should stand in their place.
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, "", "x", " ", "a\0b", "\ud800", "\u202e", "é" * 300, "x" * 100_000,
    "../../../../etc/passwd", "/etc/passwd", "C:\\x", "\\\\host\\share", "CON", "NaN", "1e9",
    -1, 0, 1, 2, 3, 7, 255, 65_536, 10**6, 10**9, -(10**9), 2**31, 2**53, 2**63, 10**30, 10**400,
    0.0, -0.0, 0.5, 1.5, 1e-300, 1e300, math.nan, math.inf, -math.inf,
    [], {}, [None], [1], [-1, -1], [0, 0], [1, 2, 3, 4], [10**9, 10**9], ["x"], [[]],
    [0.0] * 10_000, {"a": 1}, {"": ""}, {"x": None},
)  # fmt: skip
ODD_INTEGERS = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0xFFFFFFFF,
    2**63 - 1,
    2**64 - 1,
)


def mutated_bytes(generator: random.Random, data: bytes, most: int = 4) -> bytes:
    """``data`` after one to ``most`` changes: flips, cuts, copies, odd integers, noise."""
    for _ in range(generator.randint(1, most)):
        data = generator.choice(_BYTES)(generator, bytearray(data))
    return data


def _flip(generator: random.Random, data: bytearray) -> bytes:
    if data:
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    return bytes(data)


def _cut(generator: random.Random, data: bytearray) -> bytes:
    return bytes(data[: generator.randint(0, len(data))])


def _remove(generator: random.Random, data: bytearray) -> bytes:
    start, end = _span(generator, data)
    return bytes(data[:start] + data[end:])


def _repeat(generator: random.Random, data: bytearray) -> bytes:
    start, end = _span(generator, data)
    return bytes(data[:start] + data[start:end] * generator.choice((2, 3, 100)) + data[end:])


def _move(generator: random.Random, data: bytearray) -> bytes:
    start, end = _span(generator, data)
    place = generator.randint(0, len(data))
    return bytes(data[:place] + data[start:end] + data[place + end - start :])


def _noise(generator: random.Random, data: bytearray) -> bytes:
    start, end = _span(generator, data)
    return bytes(data[:start]) + generator.randbytes(end - start) + bytes(data[end:])


def _integer(generator: random.Random, data: bytearray) -> bytes:
    """An odd integer of 1 to 8 bytes, in either order, most often near the start."""
    size = generator.choice((1, 2, 4, 8))
    value = generator.choice(ODD_INTEGERS) % (1 << 8 * size)
    limit = generator.choice((64, 512, len(data) or 1))
    place = generator.randrange(min(limit, len(data) or 1))
    data[place : place + size] = value.to_bytes(size, generator.choice(("little", "big")))
    return bytes(data)


def _span(generator: random.Random, data: bytearray) -> tuple[int, int]:
    start = generator.randint(0, len(data))
    return start, min(len(data), start + generator.choice((1, 2, 4, 16, 256, 4096)))


_BYTES = (_flip, _flip, _cut, _remove, _repeat, _move, _noise, _integer, _integer)


def mutated_json(generator: random.Random, value: Any, most: int = 2) -> Any:
    """A copy of a JSON value after one to ``most`` changes of a value anywhere in it."""
    root = [copy.deepcopy(value)]
    for _ in range(generator.choice((1, generator.randint(1, most)))):
        places = _places(root)
        if not places:
            break
        container, key = generator.choice(places)
        _change(generator, places, container, key)
    return root[0] if root else None


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every container with every key or index of it."""
    found, left = [], [value]
    while left:
        container = left.pop()
        if isinstance(container, dict | list):
            keys = container.keys() if isinstance(container, dict) else range(len(container))
            found += [(container, key) for key in keys]
            left += [container[key] for key in keys]
    return found


def _change(
    generator: random.Random, places: list[tuple[Any, Any]], container: Any, key: Any
) -> None:
    old, kind = container[key], generator.random()
    if kind < 0.1:
        del container[key]
    elif kind < 0.2:  # another value of the document
        other, place = generator.choice(places)
        container[key] = copy.deepcopy(other[place])
    elif kind < 0.3 and isinstance(old, list) and old:
        old.append(copy.deepcopy(generator.choice(old)))
    elif kind < 0.3 and isinstance(container, dict):
        container[generator.choice(("", "x", "../x", f"{key}2"))] = container.pop(key)
    elif kind < 0.6 and isinstance(old, int | float) and not isinstance(old, bool):
        container[key] = generator.choice(
            (-old, old + 1, old - 1, old * 2, old * 1000, 0.5 if old else 2)
        )
    elif kind < 0.6 and isinstance(old, str):
        container[key] = generator.choice(
            (old + "x", old[1:], old.upper(), old + "\0", f"../{old}")
        )
    else:
        container[key] = copy.deepcopy(generator.choice(ODD_VALUES))


def mutated_json_text(generator: random.Random, value: Any) -> bytes:
    """The text of a mutated value: most often JSON, sometimes broken, deep, or with a key twice."""
    text = json.dumps(mutated_json(generator, value)).encode()
    kind = generator.random()
    if kind < 0.05:
        return mutated_bytes(generator, text)
    if kind < 0.07:
        return generator.choice((b"[", b'{"a":')) * generator.choice((10, 1000, 200_000))
    if kind < 0.09:
        return text.replace(b"{", b'{"schema_version": 1, "dim": 3, ', 1)
    return text

"""Which files a graph reads besides its own, found without the onnx package.

ONNX Runtime opens whatever file a graph names as the place of its weights. So the names are read
here first, in a walk over the protobuf messages that can hold one (onnx.proto3); weights in the
graph itself are passed over, so that the walk takes a millisecond.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

MODEL, GRAPH, NODE, ATTRIBUTE, TENSOR, SPARSE, FUNCTION, TRAINING, ENTRY = range(9)
# The fields of each message that lead to tensors.
_FIELDS: Mapping[int, Mapping[int, int]] = {
    MODEL: {7: GRAPH, 20: TRAINING, 25: FUNCTION},
    TRAINING: {1: GRAPH, 2: GRAPH},
    FUNCTION: {7: NODE, 11: ATTRIBUTE},
    GRAPH: {1: NODE, 5: TENSOR, 15: SPARSE},
    NODE: {5: ATTRIBUTE},
    ATTRIBUTE: {5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH, 22: SPARSE, 23: SPARSE},
    SPARSE: {1: TENSOR, 2: TENSOR},
    TENSOR: {13: ENTRY},
}
_KEY: Final = 1
_VALUE: Final = 2
_LOCATION = b"location"
# An operator whose content is compiled code, or the name of a file with it.
_COMPILED = b"EPContext"

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_MOST_SHIFT = 63


class MalformedGraphError(ValueError):
    """Not a graph, or one that holds what no exported graph does."""


def external_locations(path: Path) -> frozenset[str]:
    """Names of the files with a graph's weights, as the graph says them: relative to its folder.

    Raises:
        MalformedGraphError: The file is no ONNX graph, or holds compiled code.
    """
    if not path.stat().st_size:
        raise MalformedGraphError("it is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return frozenset(_locations(data))


def _locations(data: mmap.mmap) -> Iterator[str]:
    left = [(MODEL, 0, len(data))]
    while left:
        kind, start, end = left.pop()
        if kind == ENTRY:
            yield from _location(data, start, end)
            continue
        inner = _FIELDS[kind]
        for number, first, last in _fields(data, start, end):
            found = inner.get(number)
            if found is None:
                continue
            if found == NODE:
                if data.find(_COMPILED, first, last) >= 0:
                    raise MalformedGraphError("it holds an operator EPContext, compiled code")
                # Most nodes hold no name of a file, and looking for one is quicker than a walk.
                if data.find(_LOCATION, first, last) < 0:
                    continue
            left.append((found, first, last))


def _location(data: mmap.mmap, start: int, end: int) -> Iterator[str]:
    entry = {number: data[first:last] for number, first, last in _fields(data, start, end)}
    if entry.get(_KEY) == _LOCATION:
        yield entry.get(_VALUE, b"").decode(errors="backslashreplace")


def _fields(data: mmap.mmap, place: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each field of a message that holds bytes."""
    while place < end:
        tag, place = _varint(data, place, end)
        kind = tag & 7
        if kind == _BYTES:
            size, place = _varint(data, place, end)
            if size > end - place:
                raise MalformedGraphError("it is cut short")
            yield tag >> 3, place, place + size
            place += size
        elif kind == _VARINT:
            place = _varint(data, place, end)[1]
        elif kind in (_FIXED_64, _FIXED_32):
            place += 8 if kind == _FIXED_64 else 4
        else:
            raise MalformedGraphError("it is no ONNX graph")


def _varint(data: mmap.mmap, place: int, end: int) -> tuple[int, int]:
    """A number of 7 bits per byte, and where it ends."""
    value = shift = 0
    while place < end and shift <= _MOST_SHIFT:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # the highest bit: more bytes follow
            return value, place
        shift += 7
    raise MalformedGraphError("it is no ONNX graph, or cut short")

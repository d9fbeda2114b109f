"""Which files a graph reads besides its own, found without the onnx package.

ONNX Runtime opens whatever file a graph names as the place of its weights. So the names are read
here first, in a walk over the protobuf messages that can hold one (onnx.proto3); weights in the
graph itself are passed over, so that the walk takes a millisecond.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias

from fmrt.system.archive import BundleFile, Member

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


# A graph's content, in memory or mapped.
Data: TypeAlias = "mmap.mmap | bytes"


def external_locations(path: BundleFile) -> frozenset[str]:
    """Names of the files with a graph's weights, as the graph says them: relative to its folder.

    Raises:
        MalformedGraphError: The file is no ONNX graph, or holds compiled code.
    """
    if isinstance(path, Member):
        return frozenset(_locations(path.read_bytes()))
    if not path.stat().st_size:
        raise MalformedGraphError("it is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return frozenset(_locations(data))


def _locations(data: Data) -> Iterator[str]:
    left = [(MODEL, 0, len(data))]
    while left:
        kind, start, end = left.pop()
        if kind == ENTRY:
            yield from _location(data, start, end)
            continue
        inner = _FIELDS[kind]
        for number, _, first, last in _fields(data, start, end):
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


def _location(data: Data, start: int, end: int) -> Iterator[str]:
    entry = {number: data[first:last] for number, _, first, last in _fields(data, start, end)}
    if entry.get(_KEY) == _LOCATION:
        yield entry.get(_VALUE, b"").decode(errors="backslashreplace")


def _fields(data: Data, place: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, place, start and end of each field of a message that holds bytes."""
    while place < end:
        field = place
        tag, place = _varint(data, place, end)
        kind = tag & 7
        if kind == _BYTES:
            size, place = _varint(data, place, end)
            if size > end - place:
                raise MalformedGraphError("it is cut short")
            yield tag >> 3, field, place, place + size
            place += size
        elif kind == _VARINT:
            place = _varint(data, place, end)[1]
        elif kind in (_FIXED_64, _FIXED_32):
            place += 8 if kind == _FIXED_64 else 4
        else:
            raise MalformedGraphError("it is no ONNX graph")


def relocated(graph: bytes, place: Callable[[str], tuple[str, int]]) -> bytes:
    """A graph whose weights are in other files, or further on in them.

    Args:
        graph: The graph.
        place: A function from the name of a file, as the graph says it, to the name of the other
            one, and the place in it where the content of the first begins.

    Raises:
        MalformedGraphError: It is no ONNX graph.
    """
    return _moved(graph, MODEL, 0, len(graph), place)


def _moved(
    data: bytes, kind: int, start: int, end: int, place: Callable[[str], tuple[str, int]]
) -> bytes:
    """A message with the places of weights below it changed."""
    if kind == TENSOR:
        return _moved_tensor(data, start, end, place)
    parts, copied = [], start
    for number, field, first, last in _fields(data, start, end):
        inner = _FIELDS[kind].get(number)
        if inner is not None and data.find(_LOCATION, first, last) >= 0:
            content = _moved(data, inner, first, last, place)
            parts += [data[copied:field], _message(number, content)]
            copied = last
    return b"".join([*parts, data[copied:end]])


def _moved_tensor(
    data: bytes, start: int, end: int, place: Callable[[str], tuple[str, int]]
) -> bytes:
    entries: dict[bytes, bytes] = {}
    parts, copied = [], start
    for number, field, first, last in _fields(data, start, end):
        if number in _FIELDS[TENSOR]:
            entry = {n: data[a:b] for n, _, a, b in _fields(data, first, last)}
            entries[entry.get(_KEY, b"")] = entry.get(_VALUE, b"")
            parts.append(data[copied:field])
            copied = last
    if _LOCATION not in entries:
        return data[start:end]
    name, further = place(entries[_LOCATION].decode(errors="backslashreplace"))
    offset = int(entries.get(b"offset", b"0")) + further
    # The checksum is of the whole other file.
    entries.pop(b"checksum", None)
    entries |= {_LOCATION: name.encode(), b"offset": b"%d" % offset}
    for key, value in entries.items():
        entry_ = _message(_KEY, key) + _message(_VALUE, value)
        parts.append(_message(next(iter(_FIELDS[TENSOR])), entry_))
    return b"".join([*parts, data[copied:end]])


def _message(number: int, content: bytes) -> bytes:
    """A field that holds bytes."""
    return _number(number << 3 | _BYTES) + _number(len(content)) + content


def _number(value: int) -> bytes:
    """A number in 7 bits per byte."""
    found = bytearray()
    while value > 0x7F:  # more bytes follow
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _varint(data: Data, place: int, end: int) -> tuple[int, int]:
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

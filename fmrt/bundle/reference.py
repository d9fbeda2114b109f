"""The reference file: items with what PyTorch gave for them, and the options that were exported."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Annotated, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from fmrt.bundle.inputs import TextInput
from fmrt.bundle.manifest import MANIFEST_FILE, Manifest, TaskHead, Tower
from fmrt.bundle.regular import FIX
from fmrt.bundle.typed import Contradictions, Range, WrongValueError, decode, wrong
from fmrt.errors import BundleCorruptError, quoted, said
from fmrt.system.archive import BundleFile, Member

T = TypeVar("T")

# Key of the metadata with the towers as they were exported.
TOWERS = "towers"
MOST_ITEMS = 1 << 16
_DTYPES = {"F32": np.float32, "I64": np.int64, "U8": np.uint8}


class Reference(NamedTuple):
    """Items with the vectors that PyTorch gave them.

    Attributes:
        items: The raw items: a text without its prompt, or the bytes of an image or sound file.
        prompts: The prompt before each.
        lengths: The number of positions that the model computes for each, int64 ``[n]``.
        embeddings: The vectors, float32 ``[n, dim]``.
    """

    items: list[str | bytes]
    prompts: list[str]
    lengths: NDArray[np.int64]
    embeddings: NDArray[np.float32]


class HeadReference(NamedTuple):
    """Inputs of a head with what PyTorch gave for them.

    Attributes:
        items: The task's items, as JSON; those about an image name it by its place among the
            tower's reference items.
        outputs: The outputs by name, each ``[n, ...]``.
    """

    items: list[dict[str, Any]]
    outputs: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class _Entry:
    """An item in the metadata: a text, or the name of the tensor with a file's bytes."""

    text: str | None = None
    bytes: str | None = None
    prompt: str = ""

    def contradictions(self) -> Contradictions:
        """Fields that do not go together, with the reason."""
        if (self.text is None) == (self.bytes is None):
            yield "text", "or bytes must be there, and not both"


@dataclass(frozen=True)
class _HeadEntry:
    """A prompt for a mask of the image at a place among the tower's items."""

    image: Annotated[int, Range(0, MOST_ITEMS)]
    points: tuple[tuple[float, float], ...]
    labels: tuple[int, ...] | None = None
    box: tuple[float, float, float, float] | None = None


def read_reference(path: BundleFile, manifest: Manifest, tower: Tower) -> Reference:
    """The reference items of a tower, once the manifest says of them what was exported.

    Raises:
        BundleCorruptError: The file is malformed, without items, or made with other options.
    """
    with _opened(path) as file:
        _check_towers(file, manifest)
        entries = file.entries(tower.modality, _Entry)
        shape = (len(entries), *tower.shape(manifest.dim))
        embeddings = file.tensor(f"{tower.modality}.embeddings", "F32", shape)
        lengths = file.tensor(f"{tower.modality}.lengths", "I64", shape[:1])
        items = [_item(file, entry, tower) for entry in entries]
        prompts = [entry.prompt for entry in entries]
        _check_numbers(embeddings, lengths)
        _check_prompts(prompts, tower)
    return Reference(items, prompts, lengths, embeddings)


def read_head_reference(path: BundleFile, head: TaskHead) -> HeadReference:
    """The reference items of a head and PyTorch's outputs.

    Raises:
        BundleCorruptError: The file is malformed or without items.
    """
    with _opened(path) as file:
        entries = file.entries(head.task, _HeadEntry)
        images = len(file.entries(head.modality, _Entry))
        outputs = {}
        for name in head.outputs:
            values = file.tensor(f"{head.task}.{name}", "F32", (len(entries), ...))
            if not np.isfinite(values).all():
                raise WrongValueError(f"{head.task}.{name}", "holds NaN or infinity")
            outputs[name] = values
        for row, entry in enumerate(entries):
            if entry.image >= images:
                raise wrong(f"{head.task}[{row}].image", entry.image, f"below {images}")
    return HeadReference([asdict(entry) for entry in entries], outputs)


def declared(towers: Sequence[Tower]) -> str:
    """What the file keeps of the towers' options, for `read_reference` to compare."""
    return json.dumps([asdict(tower) for tower in towers])


class _File:
    """An open safetensors file whose content is checked as it is read."""

    def __init__(self, file: Any) -> None:  # noqa: ANN401  # safetensors.safe_open
        self._file = file
        self._names = frozenset(file.keys())
        self.metadata: Mapping[str, str] = file.metadata() or {}

    def entries(self, key: str, kind: type[T]) -> list[T]:
        """A list of objects in the metadata, as JSON; at least one."""
        if key not in self.metadata:
            raise WrongValueError(key, "is missing in the metadata")
        found = _parsed(key, self.metadata[key])
        if not isinstance(found, list) or not 1 <= len(found) <= MOST_ITEMS:
            raise wrong(key, found, f"a list of 1 to {MOST_ITEMS:,} items")
        return [decode(kind, entry, f"{key}[{i}]") for i, entry in enumerate(found)]

    def tensor(self, name: str, dtype: str, shape: tuple[Any, ...]) -> NDArray[Any]:
        """A tensor of this type and shape, ``...`` at its end for any number of further sizes."""
        if name not in self._names:
            raise WrongValueError(name, "is missing")
        part = self._file.get_slice(name)
        found = (part.get_dtype(), tuple(part.get_shape()))
        if shape[-1] is ...:
            same = found[1][: len(shape) - 1] == shape[:-1] and 0 not in found[1]
        else:
            same = found[1] == shape
        if found[0] != dtype or not same:
            sizes = ", ".join("..." if size is ... else str(size) for size in shape)
            raise WrongValueError(
                name, f"is {found[0]} {list(found[1])}, and must be {dtype} [{sizes}]"
            )
        values: NDArray[Any] = self._file.get_tensor(name)
        return values

    def bytes(self, name: str) -> bytes:
        """The content of a file that is kept as a tensor."""
        return self.tensor(name, "U8", (...,)).tobytes()


class _InMemory:
    """A safetensors file in memory, as ``safetensors.safe_open`` shows one on the disk.

    The library reads such a file too, but leaves its metadata out.
    """

    def __init__(self, data: bytes) -> None:
        from safetensors import deserialize

        self._tensors = dict(deserialize(data))  # type: ignore[no-untyped-call]
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        self._metadata: dict[str, str] | None = header.get("__metadata__")

    def keys(self) -> list[str]:
        return list(self._tensors)

    def metadata(self) -> dict[str, str] | None:
        return self._metadata

    def get_slice(self, name: str) -> _Slice:
        return _Slice(self._tensors[name])

    def get_tensor(self, name: str) -> NDArray[Any]:
        tensor = self._tensors[name]
        kind = _DTYPES[tensor["dtype"]]
        return np.frombuffer(tensor["data"], kind).reshape(tensor["shape"]).copy()


class _Slice:
    """A tensor's type and shape."""

    def __init__(self, tensor: Mapping[str, Any]) -> None:
        self._tensor = tensor

    def get_dtype(self) -> str:
        return str(self._tensor["dtype"])

    def get_shape(self) -> list[int]:
        return list(self._tensor["shape"])


@contextmanager
def _opened(path: BundleFile) -> Iterator[_File]:
    from safetensors import SafetensorError, safe_open

    try:
        if isinstance(path, Member):
            yield _File(_InMemory(path.read_bytes()))
            return
        with safe_open(path, framework="np") as file:
            yield _File(file)
    except (SafetensorError, WrongValueError, OSError, MemoryError) as e:
        raise BundleCorruptError(f"{path} cannot be used: {said(e)}; {FIX}") from e


def _item(file: _File, entry: _Entry, tower: Tower) -> str | bytes:
    if (entry.text is None) != (tower.modality != "text"):
        raise wrong(tower.modality, entry.text or entry.bytes, f"an item of {tower.modality}")
    return entry.text if entry.bytes is None else file.bytes(entry.bytes)  # type: ignore[return-value]


def _check_numbers(embeddings: NDArray[np.float32], lengths: NDArray[np.int64]) -> None:
    if not np.isfinite(embeddings).all() or not embeddings.any():
        raise WrongValueError("embeddings", "hold NaN or infinity, or nothing but zeros")
    if lengths.min() < 1:
        raise wrong("lengths", int(lengths.min()), "at least 1")


def _check_prompts(prompts: Sequence[str], tower: Tower) -> None:
    """Every prompt of the manifest must be before some item: else nothing is known of it."""
    if not isinstance(tower.input, TextInput):
        return
    for name, prompt in tower.input.prompts.items():
        if prompt and prompt not in prompts:
            raise WrongValueError(
                f"{MANIFEST_FILE}: prompt {name!r}",
                f"is {quoted(prompt)}, with which nothing was exported",
            )


def _check_towers(file: _File, manifest: Manifest) -> None:
    """Compare the manifest with what was exported; files of older exports do not keep it."""
    if TOWERS not in file.metadata:
        return
    raw = _parsed(TOWERS, file.metadata[TOWERS])
    if not isinstance(raw, list) or len(raw) != len(manifest.towers):
        raise wrong(TOWERS, raw, f"a list of {len(manifest.towers)} towers")
    for i, (tower, entry) in enumerate(zip(manifest.towers, raw, strict=True)):
        where = f"towers[{i}]"
        exported = decode(Tower, entry, where)
        if tower != exported:
            for name, now, before in _differences(tower, exported):
                raise WrongValueError(
                    f"{MANIFEST_FILE}: {where}.{name}",
                    f"is {quoted(now)}, and was exported as {quoted(before)}",
                )


def _differences(now: Any, before: Any) -> Iterator[tuple[str, Any, Any]]:  # noqa: ANN401
    """Fields of two objects that differ, those of objects in them too."""
    for one in fields(now):
        values = getattr(now, one.name), getattr(before, one.name)
        if values[0] == values[1]:
            continue
        if is_dataclass(values[0]) and type(values[0]) is type(values[1]):
            for name, *own in _differences(*values):
                yield f"{one.name}.{name}", own[0], own[1]
        else:
            yield one.name, *values


def _parsed(key: str, text: str) -> object:  # any JSON value
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as e:
        raise WrongValueError(key, f"is not JSON ({e})") from e

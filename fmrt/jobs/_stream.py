"""Items to vectors to a writer, which has a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from contextlib import closing
from typing import Any, TypeVar

from numpy.typing import NDArray

from fmrt.embed_options import EmbedOptions
from fmrt.embedder import Embedder
from fmrt.embedding.request import Request
from fmrt.embedding.scheduler import Workers
from fmrt.errors import InputError
from fmrt.system.progress import Progress
from fmrt.words import count

T = TypeVar("T")
UNITS = {"text": "text", "image": "image", "audio": "sound"}
SHOW_TENTHS_BELOW = 10
# Windows that wait to be written, next to the one that is.
WAITING = 1


def embed_stream(
    embedder: Embedder,
    options: EmbedOptions,
    items: Iterable[T],
    *,
    raw: Callable[[T], object],
    reject: Callable[[T, InputError], None],
    write: Callable[[list[T], NDArray[Any]], None],
    held_bytes: Callable[[T], int] | None = None,
    group_of: Callable[[T], Hashable] | None = None,
) -> int:
    """Write the vectors of items, in order, while the next are computed; return their number.

    Args:
        embedder: The embedder of the model.
        options: The options with the modality.
        items: The items, which may be anything.
        raw: A function that gives what to embed of an item.
        reject: A function that takes an item that cannot be embedded.
        write: A function that takes items with their vectors; it is called in another thread.
        held_bytes: The bytes that an item holds besides what is embedded.
        group_of: A function that gives an item's group, as for `Embedder.embed_items`.
    """
    stream = embedder.embed_items(
        items, raw, options, on_error=reject, group_of=group_of, held_bytes=held_bytes
    )

    def written(window: tuple[list[T], NDArray[Any]]) -> int:
        write(*window)
        return len(window[0])

    total = 0
    with (
        closing(Workers(1, ahead=WAITING)) as writer,
        Progress(None, options.show_progress, UNITS[options.modality or "text"]) as progress,
    ):
        for done in writer.map(written, stream):
            total += done
            progress.advance(done)
    return total


def summary(items: int, request: Request, seconds: float) -> str:
    """What was embedded, for people."""
    tower = request.tower
    form = count(request.post.dim, "dimension")
    if tower.grid:
        form = f"{tower.grid[0]} x {tower.grid[1]} patches of {form}"
    rate, unit = items / max(seconds, 1e-9), UNITS[tower.modality]
    return (
        f"{count(items, unit)}, {form}, in {seconds:.1f} s "
        f"({rate:,.{0 if rate >= SHOW_TENTHS_BELOW else 1}f} {unit}s/s)"
    )

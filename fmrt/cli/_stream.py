"""Items to vectors to a writer, which has a thread of its own."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar

from fmrt.cli._arguments import options_of
from fmrt.words import count

if TYPE_CHECKING:
    from collections.abc import Hashable

    from numpy.typing import NDArray

    from fmrt.bundle import Bundle
    from fmrt.embedder import Embedder
    from fmrt.errors import InputError
    from fmrt.manifest import Tower
    from fmrt.request import Request

T = TypeVar("T")
UNITS = {"text": "text", "image": "image", "audio": "sound"}
SHOW_TENTHS_BELOW = 10
# Windows that wait to be written, beside the one that is.
WAITING = 1


def open_embedder(args: argparse.Namespace, bundle: Bundle) -> Embedder:
    """The bundle's model, as the arguments ask for it."""
    from fmrt.embedder import Embedder

    return Embedder(
        bundle,
        variant=args.variant,
        provider=args.provider,
        workers=args.workers,
        modality=args.modality,
        verify=not args.no_verify,
        gpu_mem_limit=args.gpu_mem_limit,
        cuda_graphs=args.cuda_graphs,
        cache=args.cache,
        max_item_bytes=args.max_item_size,
    )


def provenance(args: argparse.Namespace, bundle: Bundle, request: Request) -> dict[str, Any]:
    """Where the vectors of the arguments' run come from."""
    from fmrt.jobs import provenance_of

    provider = args.provider.partition(":")[0]
    variant = bundle.variant(args.variant, provider, request.tower.modality)
    return provenance_of(bundle, variant, request)


def embed_stream(
    args: argparse.Namespace,
    embedder: Embedder,
    items: Iterable[T],
    *,
    raw: Callable[[T], object],
    reject: Callable[[T, InputError], None],
    write: Callable[[list[T], NDArray[Any]], None],
    group_of: Callable[[T], Hashable] | None = None,
) -> int:
    """Write the vectors of items, in order, while the next are computed; return their number.

    Args:
        args: of the command.
        embedder: of the model.
        items: anything.
        raw: what to embed of an item.
        reject: takes an item that cannot be embedded.
        write: takes items with their vectors; it is called in another thread.
        group_of: as of `Embedder.embed_items`.
    """
    from fmrt.progress import Progress
    from fmrt.scheduler import Workers

    stream = embedder.embed_items(items, raw, options_of(args), on_error=reject, group_of=group_of)

    def written(window: tuple[list[T], NDArray[Any]]) -> int:
        write(*window)
        return len(window[0])

    total = 0
    with (
        closing(Workers(1, ahead=WAITING)) as writer,
        Progress(None, args.progress, UNITS[args.modality]) as progress,
    ):
        for done in writer.map(written, stream):
            total += done
            progress.advance(done)
    return total


def form_of(tower: Tower, dim: int) -> str:
    """What the embedding of an item is, for people."""
    form = count(dim, "dimension")
    return f"{tower.grid[0]} x {tower.grid[1]} patches of {form}" if tower.grid else form


def summary(items: int, modality: str, form: str, seconds: float) -> str:
    """What was embedded, for people."""
    rate, unit = items / max(seconds, 1e-9), UNITS[modality]
    return (
        f"{count(items, unit)}, {form}, in {seconds:.1f} s "
        f"({rate:,.{0 if rate >= SHOW_TENTHS_BELOW else 1}f} {unit}s/s)"
    )

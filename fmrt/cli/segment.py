"""``fmrt segment``: points and boxes on an image become masks."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fmrt.cli._arguments import (
    Subparsers,
    add_max_item_size,
    add_model,
    open_bundle,
    positive,
)
from fmrt.cli._masks import MaskFile, check_masks_output, write_masks
from fmrt.cli._say import show
from fmrt.cli._text import table
from fmrt.errors import InputError, OptionError

if TYPE_CHECKING:
    from fmrt.cli._arguments import Parser
    from fmrt.segmentation.engine import EncodedImage, Segmentation
    from fmrt.segmentation.prompt import SegmentPrompt
    from fmrt.segmenter import Segmenter

_NUMBERS = ("prompt", "mask", "score", "pixels")
_POINT, _BOX = 2, 4


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the program's."""
    parser = subparsers.add_parser(
        "segment",
        help="cut objects out of an image, by points and boxes",
        description="Write the masks of what points and boxes mark in IMAGE, in its own size, and "
        "print the model's scores. Positions are in pixels from the upper left corner.",
    )
    parser.set_defaults(run=run)
    add_model(parser)
    parser.add_argument("image", metavar="IMAGE", help="an image file")
    _add_prompts(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUTPUT",
        required=True,
        help="a folder for a .png a mask, white on the object; or a .png file for the only mask; "
        "or a .npy file for all of them, bool [masks, height, width]",
    )
    parser.add_argument(
        "--all-masks",
        action="store_true",
        help="write every mask of a prompt, from a part to the whole (default: the best by score)",
    )
    add_max_item_size(parser)
    parser.add_argument("--npy", action="store_true", help="a .npy next to each .png")
    parser.add_argument("--overwrite", action="store_true", help="replace masks in OUTPUT")
    parser.add_argument(
        "--threads", metavar="N", type=positive, help="inside an operator (default: one a core)"
    )
    parser.add_argument(
        "--no-verify", action="store_true", help="do not check the model's masks before the run"
    )


def _add_prompts(parser: Parser) -> None:
    parser.add_argument(
        "--point",
        metavar="X,Y",
        type=_point,
        action="append",
        default=[],
        help="a point on the object; several mark one object",
    )
    parser.add_argument(
        "--label",
        metavar="0|1",
        type=int,
        choices=(0, 1),
        action="append",
        help="of each --point, in their order: 1 on the object, 0 off it (default: all 1)",
    )
    parser.add_argument(
        "--box",
        metavar="X0,Y0,X1,Y1",
        type=_box,
        action="append",
        default=[],
        help="around the object; several, with --each alone, an object each",
    )
    parser.add_argument(
        "--each", action="store_true", help="every --point and every --box is an object of its own"
    )


def _point(text: str) -> tuple[float, ...]:
    return _numbers(text, _POINT, "x,y")


def _box(text: str) -> tuple[float, ...]:
    return _numbers(text, _BOX, "x0,y0,x1,y1")


def _numbers(text: str, count: int, form: str) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, text.split(",")))
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        raise argparse.ArgumentTypeError(f"{text!r} is not {form}")
    return numbers


def run(args: argparse.Namespace) -> int:
    """Segment, write the masks, and print one line per mask.

    Raises:
        OptionError: No prompt, or a bundle that does not segment.
        InputError: An image that cannot be read, or a prompt outside of it.
        DataError: Masks that cannot be written.
    """
    prompts = _prompts(args)
    check_masks_output(args.output, args, several=args.all_masks or len(prompts) > 1)
    bundle, provider = open_bundle(args)
    bundle.manifest.head("segment")
    from fmrt.segmenter import Segmenter

    segmenter = Segmenter(
        bundle,
        variant=args.variant,
        provider=provider,
        threads=args.threads,
        verify=not args.no_verify,
        max_item_bytes=args.max_item_size,
    )
    found = segmenter.segment_prompts(_encoded(segmenter, args.image), prompts)
    files = write_masks(args.output, list(_masks(found, args.all_masks)), args)
    show(args, table((*_NUMBERS, "file"), map(_row, files), _NUMBERS))
    return 0


def _prompts(args: argparse.Namespace) -> list[SegmentPrompt]:
    from fmrt.segmentation.prompt import SegmentPrompt

    points, labels, boxes = args.point, args.label, args.box
    if not points and not boxes:
        raise OptionError("no prompt: give --point X,Y or --box X0,Y0,X1,Y1")
    if labels is not None and len(labels) != len(points):
        raise OptionError(f"{len(points)} --point and {len(labels)} --label: give one to each")
    if args.each:
        own = labels or [1] * len(points)
        single = [SegmentPrompt([point], [label]) for point, label in zip(points, own, strict=True)]
        return [*single, *(SegmentPrompt(box=box) for box in boxes)]
    if len(boxes) > 1:
        raise OptionError("several --box: say --each for an object each")
    return [SegmentPrompt(points, labels, boxes[0] if boxes else None)]


def _encoded(segmenter: Segmenter, image: str) -> EncodedImage:
    try:
        return segmenter.encode(image)
    except InputError as e:
        named = image in e.reason
        raise InputError(e.reason if named else f"{image}: {e.reason}") from None


def _masks(found: Sequence[Segmentation], every: bool) -> Iterator[MaskFile]:
    for prompt, result in enumerate(found):
        for index in range(len(result.scores)) if every else (result.best,):
            yield MaskFile(prompt, index, float(result.scores[index]), result.mask(index))


def _row(file: MaskFile) -> tuple[str, ...]:
    share = f"{file.mask.mean():.1%}"
    return (f"{file.prompt}", f"{file.index}", f"{file.score:.4f}", share, file.name)

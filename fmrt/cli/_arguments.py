"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from fmrt.errors import OptionError
from fmrt.limits import DEFAULT

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

    from fmrt.bundle import Bundle
    from fmrt.manifest import Manifest

Subparsers: TypeAlias = "argparse._SubParsersAction[Parser]"


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all errors of this program are."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401
        # An abbreviation in a script would change its meaning with the next option we add.
        super().__init__(*args, **{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        """Print the error and where help is, and exit with 2."""
        self.exit(2, f"fmrt: error: {message}; see {self.prog} --help\n")

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        """Print, and let an error of writing be one, which argparse would drop."""
        (file or sys.stderr).write(message)


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number


_UNITS = {"": 1, **{f"{p}B": 1000**i for i, p in enumerate(("", "K", "M", "G", "T"))}}
_UNITS |= {p: 1000**i for i, p in enumerate(("K", "M", "G", "T"), 1)}
_UNITS |= {f"{p}iB": 1024**i for i, p in enumerate(("K", "M", "G", "T"), 1)}


def byte_size(text: str) -> int:
    """Parse a number of bytes: ``8GiB``, ``500MB``, ``500M``, ``1.5GB`` or ``1000000``."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    if found is None or found[2] not in _UNITS or not (size := float(found[1]) * _UNITS[found[2]]):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; say it as 8GiB, 500MB or in bytes")
    return int(size)


def add_model(parser: Parser) -> None:
    """Add the bundle, its variant and its provider."""
    parser.add_argument("bundle", metavar="BUNDLE", help="a bundle's directory, or its hub id")
    add_variant(parser)
    add_pin(parser)


def add_pin(parser: Parser) -> None:
    """Add the hash that a bundle must have."""
    parser.add_argument(
        "--sha256",
        metavar="HASH",
        help="of the bundle's manifest, as fmrt info prints it; another bundle is refused",
    )


def add_variant(parser: Parser) -> None:
    """Add the choice of a graph and of what it runs on."""
    parser.add_argument("--variant", metavar="V", help="as fmrt info lists them")
    parser.add_argument(
        "--provider",
        metavar="P",
        default="cpu",
        help="cpu, cuda, tensorrt, devices as in cuda:1, cuda:0,1 or cuda:all, or auto for the "
        "best there is (default: cpu)",
    )


def add_prompt(parser: Parser, default: str) -> None:
    """Add the choice of what goes in front of a text."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--prompt-name", metavar="N", help=f"one of the model's prompts (default: {default})"
    )
    group.add_argument("--prompt", metavar="TEXT", help="this text in front, instead of a prompt")


def add_reading(parser: Parser) -> None:
    """Add how to read a file of texts."""
    parser.add_argument(
        "--column",
        metavar="C",
        help="to embed (default: text, image, audio, path or file_name, or the only one with "
        "strings)",
    )
    parser.add_argument(
        "--format",
        metavar="F",
        help="txt, jsonl, csv, tsv or parquet (default: as the name ends; txt for -)",
    )


def add_max_item_size(parser: Parser) -> None:
    """Add the limit of an item's memory."""
    parser.add_argument(
        "--max-item-size",
        metavar="SIZE",
        type=byte_size,
        default=DEFAULT.item_bytes,
        help="most memory that one image, sound, text or record may take while it is read "
        "(default: 200MB)",
    )


def open_bundle(args: argparse.Namespace) -> tuple[Bundle, str]:
    """Open the bundle of `add_model`'s arguments, or download it; no graph is loaded.

    Returns:
        The bundle, and the provider with ``auto`` resolved.

    Raises:
        ProviderError: the provider is unknown or cannot be had.
        BundleError: there is no such bundle or variant.
    """
    from fmrt.bundle import Bundle  # noqa: PLC0415  # start-up stays quick
    from fmrt.session import resolve_provider  # noqa: PLC0415

    target = resolve_provider(args.provider)
    bundle = Bundle.from_pretrained(
        args.bundle, variant=args.variant, provider=target.name, sha256=args.sha256
    )
    bundle.variant(args.variant, target.name)
    return bundle, target.spec


def check_prompt_name(manifest: Manifest, name: str | None) -> None:
    """Raise, before a model is loaded, unless it has that prompt.

    Raises:
        OptionError: it has not.
    """
    if name is not None and name not in manifest.text.prompts:
        names = ", ".join(manifest.text.prompts) or "none"
        raise OptionError(f"--prompt-name {name!r}: this model has: {names}")

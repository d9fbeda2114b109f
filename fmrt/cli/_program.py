"""The program: its commands, and errors in one line instead of tracebacks."""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from fmrt._version import __version__
from fmrt.cli import (
    adopt,
    bench,
    completion,
    embed,
    evaluate,
    export,
    info,
    package,
    push,
    quantize,
    search,
    segment,
    tune,
    verify,
)
from fmrt.cli import map as map_
from fmrt.cli._arguments import Parser, in_flags
from fmrt.cli._process import discard
from fmrt.cli._say import warn
from fmrt.cli._status import FAILED, INTERRUPTED, PARTLY, USAGE
from fmrt.cli._text import flat
from fmrt.errors import (
    IN_PYTHON,
    CacheWarning,
    FmrtError,
    OptionError,
    ProviderWarning,
    QuantizationError,
    TruncationWarning,
    UnverifiedWarning,
)

if TYPE_CHECKING:
    from fmrt.cli._process import Interruptible

# Warnings for the user, shown as one line.
OURS = (CacheWarning, ProviderWarning, TruncationWarning, UnverifiedWarning)
# What a command imports, unless it says otherwise; before it begins, see `fmrt.cli._process`.
NEEDS = "fmrt.embedder"
QUIET = "say warnings and errors alone"
# Each has add_parser(subparsers) and run(args) -> exit code.
COMMANDS = (
    export,
    adopt,
    quantize,
    package,
    push,
    embed,
    search,
    segment,
    evaluate,
    map_,
    verify,
    info,
    bench,
    tune,
    completion,
)


def run(argv: Sequence[str] | None, interruptible: Interruptible) -> int:
    """Run the command line, as `fmrt.cli.main` says.

    Args:
        argv: arguments without the program's name; None for those of the process.
        interruptible: the context in which Ctrl-C raises, for the command.

    Raises:
        SystemExit: wrong usage, or help that was asked for.
    """
    # Its retries are warnings; that it gave up is one line of ours.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    parser = make_parser()
    try:
        args = parser.parse_args(argv)
    except SystemExit as e:
        raise SystemExit(_flushed(e.code if isinstance(e.code, int) else USAGE)) from None
    except OSError as e:
        return _lost(e)
    if args.command is None:
        parser.print_help(sys.stderr)
        return USAGE
    if args.quiet:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A text that the terminal's encoding cannot show is no reason to fail.
        sys.stdout.reconfigure(errors="replace")
    with suppress(ImportError):  # the command says what is missing
        importlib.import_module(args.needs)
    with _warnings_at_the_end():
        return _ended(args, interruptible)


def make_parser() -> Parser:
    """The program's parser, with those of its commands."""
    parser = Parser("fmrt", description="Export foundation models once, embed anywhere, fast.")
    parser.add_argument("--version", action="version", version=f"fmrt {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    parser.set_defaults(needs=NEEDS)
    for command in COMMANDS:
        command.add_parser(subparsers)
    for one in subparsers.choices.values():
        if "--quiet" not in one.names():
            one.add_argument("-q", "--quiet", action="store_true", help=QUIET)
    for one in (parser, *subparsers.choices.values()):
        one.commands = subparsers.choices
    return parser


@contextmanager
def _warnings_at_the_end() -> Iterator[None]:
    """Show warnings only at the end, where they do not tear a progress bar apart."""
    with warnings.catch_warnings(record=True) as caught:
        for category in OURS:
            warnings.simplefilter("always", category)
        # Pillow's, about metadata of images that it reads nevertheless.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield
    said: set[str] = set()
    for warning in caught:
        if issubclass(warning.category, OURS):
            line = f"warning: {flat(str(warning.message))}"
            # A command may open a bundle more than once.
            if not issubclass(warning.category, UnverifiedWarning) or line not in said:
                warn(line)
            said.add(line)
        else:
            warnings.showwarning(
                warning.message, warning.category, warning.filename, warning.lineno
            )


def _ended(args: argparse.Namespace, interruptible: Interruptible) -> int:
    """Run a command and turn what it raises into a line and an exit status."""
    try:
        with interruptible():
            code: int = args.run(args)
        return _flushed(code)
    except FmrtError as e:
        partly = isinstance(e, QuantizationError) and e.added
        said = in_flags(str(e)) if isinstance(e, OptionError) else str(e)
        notes = (note for note in getattr(e, "__notes__", ()) if not note.startswith(IN_PYTHON))
        message = "; ".join([said, *notes])
        return _fail(message, PARTLY if partly else FAILED)
    except KeyboardInterrupt as e:
        warn(flat(str(e)) or "interrupted")
        return INTERRUPTED
    except OSError as e:
        return _lost(e)


def _flushed(code: int) -> int:
    try:
        sys.stdout.flush()
    except OSError as e:
        return _lost(e)
    return code


def _lost(error: OSError) -> int:
    """Say what could not be read or written; nothing of it is standard error."""
    discard(sys.stdout)
    if isinstance(error, BrokenPipeError):  # the reader, such as head, has seen enough
        return FAILED
    if error.errno == errno.EBADF and error.filename is None:
        return _fail("standard input or output is closed")
    where = f": {error.filename!r}" if error.filename is not None else ""
    return _fail(f"{error.strerror or error}{where}")


def _fail(message: str, status: int = FAILED) -> int:
    warn(f"error: {flat(message)}")
    return status

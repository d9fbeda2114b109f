"""The command line ``fmrt``: one module a command, and errors in one line instead of tracebacks."""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from fmrt._version import __version__
from fmrt.cli import bench, embed, export, info, quantize, search, segment, tune, verify
from fmrt.cli._arguments import Parser
from fmrt.cli._status import FAILED, INTERRUPTED, PARTLY, USAGE
from fmrt.cli._text import flat
from fmrt.errors import (
    CacheWarning,
    FmrtError,
    ProviderWarning,
    QuantizationError,
    TruncationWarning,
)

# Warnings for the user, shown as one line.
OURS = (CacheWarning, ProviderWarning, TruncationWarning)
# Each has add_parser(subparsers) and run(args) -> exit code.
COMMANDS = (export, quantize, embed, search, segment, verify, info, bench, tune)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status, see `fmrt.cli._status`.

    Args:
        argv: arguments without the program's name; default those of the process.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    if args.command is None:
        parser.print_help(sys.stderr)
        return USAGE
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A text that the terminal's encoding cannot show is no reason to fail.
        sys.stdout.reconfigure(errors="replace")
    with _warnings_at_the_end():
        return _run(args.run, args)


def _parser() -> Parser:
    parser = Parser("fmrt", description="Export foundation models once, embed anywhere, fast.")
    parser.add_argument("--version", action="version", version=f"fmrt {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for command in COMMANDS:
        command.add_parser(subparsers)
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
    for warning in caught:
        if issubclass(warning.category, OURS):
            _say(f"warning: {flat(str(warning.message))}")
        else:
            warnings.showwarning(
                warning.message, warning.category, warning.filename, warning.lineno
            )


def _run(command: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    try:
        code = command(args)
        if sys.stdout is not None:
            sys.stdout.flush()
    except FmrtError as e:
        partly = isinstance(e, QuantizationError) and e.added
        return _fail(
            "; ".join([str(e), *getattr(e, "__notes__", ())]), PARTLY if partly else FAILED
        )
    except KeyboardInterrupt as e:
        _say(flat(str(e)) or "interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as head, has seen enough
        _discard_stdout()
        return FAILED
    except OSError as e:
        _discard_stdout()
        where = f": {e.filename!r}" if e.filename is not None else ""
        return _fail(f"{e.strerror or e}{where}")
    return code


def _fail(message: str, status: int = FAILED) -> int:
    _say(f"error: {flat(message)}")
    return status


def _say(line: str) -> None:
    print(f"fmrt: {line}", file=sys.stderr)


def _discard_stdout() -> None:
    """Let what is still buffered go nowhere if it cannot go where it should.

    Otherwise the interpreter would try again at exit, and print a traceback.
    """
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

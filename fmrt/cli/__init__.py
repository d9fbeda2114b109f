"""The command line: ``fmrt export | embed | search | verify | info``.

A subcommand is a module with ``add_arguments(parser)`` and ``run(args) -> exit code``; the first
line of its docstring is its help. Bad input ends in one line on standard error and exit code 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

from fmrt._version import __version__
from fmrt.cli import embed, export, info, search, verify
from fmrt.errors import FmrtError

COMMANDS: dict[str, ModuleType] = {
    m.__name__.rsplit(".", 1)[-1]: m for m in (export, embed, search, verify, info)
}
BAD_USAGE = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.command is None:
        parser.print_help(sys.stderr)
        return BAD_USAGE
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    try:
        status: int = COMMANDS[args.command].run(args)
        return status
    except FmrtError as e:
        _say("error", str(e))
    except KeyboardInterrupt:
        _say("error", "interrupted; nothing was written under the output's name")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone; Python would complain about that at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as e:
        _say("error", str(e))
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fmrt", description="Export foundation models once, embed anywhere, fast."
    )
    parser.add_argument("--version", action="version", version=f"fmrt {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, module in COMMANDS.items():
        description = (module.__doc__ or "").splitlines()[0]
        module.add_arguments(commands.add_parser(name, help=description, description=description))
    return parser


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    _say("warning", str(message))


def _say(kind: str, message: str) -> None:
    print(f"fmrt: {kind}: {' '.join(message.split())}", file=sys.stderr)

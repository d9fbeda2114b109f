"""``fmrt completion``: a script that lets a shell complete commands, options and files."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fmrt.cli._status import DONE

if TYPE_CHECKING:
    from fmrt.cli._arguments import Parser, Subparsers

SHELLS = ("bash", "zsh", "fish")
# What arguments are, by the names that help shows for them.
FOLDERS = frozenset({"BUNDLE", "MODEL", "OUT", "DIR"})
FILES = frozenset({"INPUT", "OUTPUT", "EMBEDDINGS", "IMAGE", "FILE", "FILE.json"})


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the program's."""
    parser = subparsers.add_parser(
        "completion",
        help="print a script that completes commands in a shell",
        description="Print a script for SHELL. To have it: fmrt completion bash > "
        "~/.local/share/bash-completion/completions/fmrt, or into a file _fmrt of zsh's fpath, or "
        "into ~/.config/fish/completions/fmrt.fish.",
    )
    parser.set_defaults(run=run, needs="shtab")
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    import shtab  # for this command alone

    from fmrt.cli._program import make_parser  # which has this command

    parser = make_parser()
    for command in parser.commands.values():
        _mark(command, shtab)
    print(shtab.complete(parser, args.shell))
    return DONE


def _mark(parser: Parser, shtab: object) -> None:  # a module
    """Say which arguments are files; the library finds the rest."""
    for action in parser._actions:  # as the library does
        if action.metavar in FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.metavar in FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]

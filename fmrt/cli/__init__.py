"""The command line ``fmrt``: one module a command, and errors in one line instead of tracebacks."""

from __future__ import annotations

from collections.abc import Sequence

from fmrt.cli import _process


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status, see `fmrt.cli._status`.

    Args:
        argv: Arguments without the program's name; default those of the process, which then ends.
    """
    with _process.prepared(ends=argv is None) as interruptible:
        from fmrt.cli import _program  # an interrupt while it loads is one line

        return _program.run(argv, interruptible)

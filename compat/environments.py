"""Environments of their own for the libraries, kept under ``build/compat`` between runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import venv
from importlib.metadata import version
from pathlib import Path

from compat.peers import PEERS, Peer
from dev import ROOT, python
from tests.wheel.environments import link, required, site_packages

PLACE = ROOT / "build/compat"
# Large, and the same for all: taken from this environment.
SHARED = ("torch", "onnxruntime", "safetensors", "scikit-learn")
# Some libraries need other versions of these.
OWN = {"transformers", "huggingface_hub", "tokenizers"}
SECONDS = 1200


class UnavailableError(Exception):
    """A library's environment cannot be made here; the message says why."""


def command(peer: Peer) -> tuple[list[str], Path]:
    """The command that starts a library's runner, and the folder to start it in.

    Raises:
        UnavailableError: The environment cannot be made.
    """
    folder = PLACE / peer.environment
    stamp = folder / "made.json"
    packages = [
        p for other in PEERS if other.environment == peer.environment for p in other.packages
    ]
    if not stamp.is_file() or json.loads(stamp.read_text()) != packages:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (_node if peer.node else _python)(folder, packages, peer)
        stamp.write_text(json.dumps(packages))
    if peer.node:
        for path in (
            Path(__file__).with_name("runner.mjs"),
            ROOT / "examples/javascript/wordpiece.mjs",
        ):
            shutil.copy(path, folder)
        return ["node", "runner.mjs"], folder
    return [python(folder), str(Path(__file__).with_name("runner.py"))], folder


def _node(folder: Path, packages: list[str], _: Peer) -> None:
    if shutil.which("npm") is None:
        raise UnavailableError("Node is not installed")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    # transformers.js brings an onnxruntime of its own, whose place npm chooses.
    _installed(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", *packages], folder)


def _python(folder: Path, packages: list[str], peer: Peer) -> None:
    venv.create(folder, with_pip=False)
    constraints = folder / "constraints.txt"
    constraints.touch()
    if peer.torch:
        for found in required(SHARED):
            if found.name not in OWN:
                link(found, site_packages(folder))
        constraints.write_text(f"torch=={version('torch').partition('+')[0]}\n")
    pip = [python(), "-m", "pip", "--python", python(folder), "install", "--quiet"]
    options = ["--disable-pip-version-check", "--constraint", str(constraints)]
    _installed([*pip, *options, *packages], folder)


def _installed(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired as e:
        raise UnavailableError(f"its packages took more than {SECONDS} s") from e
    if done.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        last = (done.stderr.strip() or done.stdout.strip()).rpartition("\n")[2]
        raise UnavailableError(f"its packages cannot be installed: {last}")

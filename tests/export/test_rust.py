"""The example in Rust has fmrt's token ids and vectors, and says in one line what it cannot do."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fmrt
from fmrt.export.package import package_bundle
from tests.export.models import TINY, save_tiny
from tests.export.test_c import EXAMPLE, TEXTS, compare, mixed

OLDEST = (1, 77)
pytestmark = pytest.mark.slow


def has_rust() -> bool:
    """Whether a new enough Rust is here, and the compiler of C that it needs."""
    if not all(shutil.which(name) for name in ("cargo", "rustc", "cc", "make")):
        return False
    said = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=False)
    found = re.match(r"rustc (\d+)\.(\d+)", said.stdout)
    return found is not None and tuple(map(int, found.groups())) >= OLDEST


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, built with ONNX Runtime's library from the registry."""
    if not has_rust():
        pytest.skip("needs Rust 1.77 and a compiler of C")
    folder = tmp_path_factory.mktemp("rust")
    for name in ("c", "rust"):
        skipped = shutil.ignore_patterns("build", "target")
        shutil.copytree(EXAMPLE.parent / name, folder / name, ignore=skipped)
    library = ["make", "-C", str(folder / "c"), f"PYTHON={sys.executable}"]
    fetched = subprocess.run(
        [*library, "build/libonnxruntime.so.1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if fetched.returncode:
        pytest.skip(f"ONNX Runtime's package cannot be had here: {fetched.stderr[-200:]}")
    make = ["make", "-C", str(folder / "rust")]
    made = subprocess.run(make, capture_output=True, text=True, check=False, timeout=300)
    assert (made.returncode, made.stderr) == (0, ""), "Rust's compiler warns of something"
    return folder / "rust/target/release/embed"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package whose tokenizer is a byte-level BPE, with weights apart from the graph."""
    folder = tmp_path_factory.mktemp("roberta")
    model = save_tiny(next(t for t in TINY if t.model_type == "roberta"), folder / "model")
    bundle = fmrt.export_model(model, folder / "bundle").path
    made = package_bundle(bundle, folder / "model.fmrt", single_file=True, variant="fp32-cpu")
    assert made.manifest.variants[0].external
    return made.path


def test_ids_and_vectors_are_those_of_fmrt(program: Path, minilm: Path) -> None:
    compare(program, minilm, [*TEXTS, *mixed(200)])


def test_a_package_needs_no_unpacking(program: Path, package: Path) -> None:
    compare(program, package, [*TEXTS, *mixed(50)])


@pytest.mark.parametrize(
    ("arguments", "line", "said"),
    [
        (["fp64"], b"", "no variant fp64"),
        ([], b"fine\n\xff\n", "line 2: the text is not valid UTF-8"),
        ([], b"a\0b", "line 1: the text has a NUL"),
        ([], b"word " * 400, "--truncate"),
    ],
)
def test_bad_input_is_one_line(
    program: Path, package: Path, arguments: list[str], line: bytes, said: str
) -> None:
    command = [program, package, *arguments]
    done = subprocess.run(command, input=line, capture_output=True, check=False, timeout=100)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1), done
    assert said in done.stderr.decode()


def test_what_is_no_bundle_is_one_line(program: Path, package: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.fmrt"
    cut.write_bytes(package.read_bytes()[:-100])
    for path, said in ((cut, "whole .fmrt file"), (tmp_path / "absent", "No such file")):
        done = subprocess.run([program, path], input=b"", capture_output=True, check=False)
        assert (done.returncode, done.stderr.count(b"\n")) == (1, 1), done
        assert said in done.stderr.decode()

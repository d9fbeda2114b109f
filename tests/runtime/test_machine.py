"""``fmrt info`` without a bundle: what a report of a problem needs, whatever is broken."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

import fmrt
from fmrt import machine
from fmrt.cli import main
from fmrt.system import cores, memory


def test_info_describes_this_machine(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FMRT_CACHE", str(tmp_path))
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fmrt"] == fmrt.__version__
    assert found["python"].startswith(platform.python_version())
    assert found["cpu"] == cores.cpu_name()
    assert found["cores"] == cores.available_cores()
    assert found["onnxruntime"]["version"] == ort.__version__
    assert found["onnxruntime"]["providers"] == ort.get_available_providers()
    assert found["packages"]["numpy"] == np.__version__
    assert {"pyarrow", "pillow", "torch"} <= found["packages"].keys()  # installed or not
    assert found["environment"] == {"OPENBLAS_CORETYPE": "Nehalem"}
    assert found["cache"] == str(tmp_path)
    assert found["memory"]["total"] > 1 << 28
    assert main(["info"]) == 0
    lines = capsys.readouterr().out
    for value in (found["platform"], found["cpu"], f"numpy {np.__version__}", str(tmp_path)):
        assert value in lines


def test_an_onnx_runtime_that_does_not_load_is_reported(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('DLL load failed')")
    done = subprocess.run(
        [sys.executable, "-m", "fmrt", "info", "--json"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)["onnxruntime"]
    assert (found["version"], found["error"]) == (None, "DLL load failed")
    assert done.stderr == ""


def test_instruction_sets_are_the_processors(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(cores, "_CPUINFO", file)
    file.write_text("processor : 0\nflags\t\t: fpu avx2 amx_int8 sse\n\nflags : avx\n")
    assert machine.describe().instruction_sets == ["avx2", "amx_int8"]
    file.write_text("processor : 0\nFeatures\t: fp asimd i8mm\n")
    assert machine.describe().instruction_sets == ["asimd", "i8mm"]
    file.unlink()  # no Linux
    assert all(isinstance(name, str) for name in machine.describe().instruction_sets)


def test_a_cgroups_memory_counts_where_it_is_less(tmp_path: Path, monkeypatch) -> None:
    info = tmp_path / "meminfo"
    info.write_text("MemTotal:  1000 kB\nMemAvailable:  600 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", info)
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    for text, limit in {"max": None, "512000": 512000, "9223372036854771712": None}.items():
        (tmp_path / "memory.max").write_text(text + "\n")
        assert machine.describe().memory == memory.Memory(1024000, 614400, limit)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--provider", "cpu"], "name one; --providers"),
        (["--sha256", "0" * 64], "--sha256 is about a bundle"),
        (["--revision", "main"], "--revision is about a bundle"),
        (["bundle", "--providers"], "leave 'bundle' out"),
    ],
)
def test_what_is_asked_of_a_bundle_needs_one(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", *arguments]) == 1
    out, err = capsys.readouterr()
    assert said in err
    assert (out, err.count("\n")) == ("", 1)

"""w8 has the same vectors on processors of other kinds, each emulated, and in WebAssembly."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer

import fmrt
from fmrt import Bundle
from tests.export.models import TINY, save_tiny

pytestmark = pytest.mark.slow

SAME = 1e-5
TEXTS = ["how to read a file line by line", "日本語の文章", "x", "one more of many words " * 12]
MANY = [f"{head} {word} {n}" for n, word in enumerate(("tree", "café", "(a+b)")) for head in TEXTS]
# Each text alone: a graph, feeds and the file for the vectors are on the command line.
RUN = """
import sys, numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = 1, 4
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
rows = []
for ids in np.load(sys.argv[2]).values():
    feeds = {i.name: np.zeros_like(ids) for i in session.get_inputs()}
    feeds |= {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    rows.append(session.run(["sentence_embedding"], feeds)[0][0])
np.save(sys.argv[3], np.stack(rows))
"""
QEMU = shutil.which("qemu-x86_64")
# A command that starts a Python of aarch64 with onnxruntime, see CONTRIBUTING.md.
AARCH64 = os.environ.get("FMRT_AARCH64_PYTHON")
MACHINES = {
    "AVX2 without VNNI": (QEMU and [QEMU, "-cpu", "Haswell", sys.executable], "qemu-x86_64"),
    "neither AVX nor FMA": (QEMU and [QEMU, "-cpu", "Nehalem", sys.executable], "qemu-x86_64"),
    "aarch64": (AARCH64 and shlex.split(AARCH64), "FMRT_AARCH64_PYTHON"),
}
# Rounds activations, by itself or after ONNX Runtime's optimizations.
ROUNDS = ("Quantize", "Integer", "QGemm", "QLinear", "QAttention", "MatMulNBits", "Round")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph w8 of a random model."""
    folder = tmp_path_factory.mktemp("tiny")
    model = save_tiny(next(t for t in TINY if t.model_type == "bert"), folder / "model")
    return graph(fmrt.export_model(model, folder / "bundle"))


def graph(bundle: Bundle) -> Path:
    made = fmrt.quantize_bundle(bundle.path, "w8", min_cosine=0.9)
    return made.path / made.variant("w8").file


def token_ids(bundle: Path) -> list[NDArray[np.int64]]:
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    tokenizer.no_padding()
    return [np.array([e.ids]) for e in tokenizer.encode_batch(MANY)]


def vectors(
    python: list[str], graph: Path, ids: list[NDArray[np.int64]], place: Path
) -> np.ndarray:
    place.mkdir()
    np.savez(place / "ids.npz", *ids)
    command = [*python, "-c", RUN, str(graph), str(place / "ids.npz"), str(place / "v.npy")]
    subprocess.run(command, check=True, timeout=500, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return np.asarray(np.load(place / "v.npy"))


@pytest.mark.parametrize("machine", MACHINES)
def test_processors_agree(machine: str, tiny: Path, tmp_path: Path) -> None:
    python, needed = MACHINES[machine]
    if not python:
        pytest.skip(f"needs {needed}")
    ids = token_ids(tiny.parents[1])
    here = vectors([sys.executable], tiny, ids, tmp_path / "here")
    there = vectors(python, tiny, ids, tmp_path / "there")
    assert np.abs(here).max() > 0.1
    assert np.abs(here - there).max() <= SAME


def test_nothing_rounds_an_activation(tiny: Path, tmp_path: Path) -> None:
    for level in ("DISABLE_ALL", "BASIC", "EXTENDED", "ALL"):
        options = ort.SessionOptions()
        name = level if level == "DISABLE_ALL" else f"ENABLE_{level}"
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_{name}")
        options.optimized_model_filepath = str(tmp_path / f"{level}.onnx")
        options.log_severity_level = 4
        ort.InferenceSession(tiny, options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(options.optimized_model_filepath).graph.node
        assert not [n.op_type for n in nodes if any(word in n.op_type for word in ROUNDS)]


WEB = """
import * as ort from "onnxruntime-web";
import fs from "node:fs";
ort.env.wasm.numThreads = 1;
const [graph, ids, out] = process.argv.slice(2);
const session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
const rows = [];
for (const row of JSON.parse(fs.readFileSync(ids))) {
  const tensor = (values) =>
    new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, row.length]);
  const feeds = {};
  for (const name of session.inputNames) feeds[name] = tensor(row.map(() => 0));
  feeds.input_ids = tensor(row);
  feeds.attention_mask = tensor(row.map(() => 1));
  rows.push(Array.from((await session.run(feeds)).sentence_embedding.data));
}
fs.writeFileSync(out, JSON.stringify(rows));
"""


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node")
def test_webassembly_agrees(minilm: Path, tmp_path: Path) -> None:
    made = fmrt.quantize_bundle(minilm, "w8", out=tmp_path / "w8")
    example = Path(__file__).parents[2] / "examples/javascript"
    shutil.copy(example / "package.json", tmp_path)
    install = ["npm", "install", "--no-audit", "--no-fund"]
    subprocess.run(install, cwd=tmp_path, check=True, capture_output=True, timeout=300)
    path, ids = made.path / made.variant("w8").file, token_ids(minilm)
    (tmp_path / "ids.json").write_text(json.dumps([row[0].tolist() for row in ids]))
    (tmp_path / "run.mjs").write_text(WEB)
    command = ["node", "run.mjs", str(path), "ids.json", "v.json"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=300)
    there = np.array(json.loads((tmp_path / "v.json").read_text()))
    assert np.abs(vectors([sys.executable], path, ids, tmp_path / "here") - there).max() <= SAME

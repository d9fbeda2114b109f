"""The files of the real tools, made in an environment of their own, become bundles."""

from __future__ import annotations

import os
import shlex
import subprocess
import venv
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest

import fmrt
from dev import ROOT, python
from fmrt.errors import ExportError
from fmrt.export.audio.feature_extractor import reference_sounds
from fmrt.export.graphs import NOT_REWRITTEN
from fmrt.export.vision.image_processor import reference_images
from tests.export.models import MINILM
from tests.wheel.environments import link, required, site_packages

pytestmark = pytest.mark.slow

TOOLS = ("optimum-onnx==0.1.0", "transformers==4.57.*", "sentence-transformers>=5.2,<6")
# These have another version there; all else is this environment's, torch above all.
OTHERS = {"transformers", "huggingface_hub", "tokenizers", "sentence-transformers"}
SHARED = (
    *("torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "safetensors", "shtab"),
    *("accelerate", "scikit-learn", "sentencepiece", "pillow", "soundfile", "soxr"),
)
TEXTS = ["a short text", "How do I reset my password?", "日本語の文章", "words " * 300]
LAYOUTS = ("optimum/plain", "sentence-transformers", "transformers.js", "fastembed")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that is held at transformers 4, with fmrt in it."""
    place = tmp_path_factory.mktemp("tools")
    environment = place / "environment"
    venv.create(environment, with_pip=False)
    for found in required(SHARED):
        if found.name not in OTHERS:
            link(found, site_packages(environment))
    link(distribution("peft"), site_packages(environment))
    pip = (python(), "-m", "pip", "--python", python(environment), "install", "--quiet")
    (place / "torch.txt").write_text("torch==2.13.0\n")
    subprocess.run([*pip, "--constraint", place / "torch.txt", *TOOLS], check=True)
    subprocess.run([*pip, "--no-deps", ROOT], check=True)
    return environment


@pytest.fixture(scope="module")
def files(environment: Path) -> Path:
    script = Path(__file__).with_name("other_tools.py")
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    out = environment.with_name("files")
    command = [python(environment), str(script), str(MINILM), str(out)]
    subprocess.run(command, check=True, env=settings)
    return out


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_becomes_a_verified_bundle(
    layout: str, files: Path, minilm: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    bundle = fmrt.adopt_onnx(files / layout, tmp_path / "out", model=MINILM, report=said.append)
    with fmrt.Embedder(minilm) as want, fmrt.Embedder(bundle) as got:
        vectors = [e.embed(TEXTS, on_too_long="truncate") for e in (want, got)]
    assert np.abs(vectors[0] - vectors[1]).max() <= 1e-5
    assert all(report.passed for report in fmrt.verify_bundle(bundle))
    assert bundle.manifest.reference == "pytorch"
    for variant in bundle.manifest.variants:
        assert variant.parity is not None
        assert variant.tolerance is not None
        with fmrt.Embedder(bundle, variant=variant.name) as embedder:
            together = embedder.embed(TEXTS, on_too_long="truncate")
            alone = [embedder.embed([text], on_too_long="truncate")[0] for text in TEXTS]
        bound = 1e-5 if variant.precision == "fp32" or variant.alone else 1e-2
        assert np.abs(together - np.stack(alone)).max() <= bound, variant.name


def test_dynamic_int8_shows_its_parity_and_that_vectors_depend_on_the_batch(
    files: Path, tmp_path: Path
) -> None:
    for place in ("optimum/quantized", "sentence-transformers"):
        said: list[str] = []
        out = tmp_path / place.replace("/", "-")
        bundle = fmrt.adopt_onnx(files / place, out, model=MINILM, report=said.append)
        (variant,) = (v for v in bundle.manifest.variants if v.precision.startswith("int8"))
        assert variant.alone
        assert variant.parity is not None
        assert any("depends on the others of its batch, by" in line for line in said)


def test_optimized_graphs_are_verified(files: Path, tmp_path: Path) -> None:
    bundle = fmrt.adopt_onnx(files / "optimum" / "optimized", tmp_path / "out", model=MINILM)
    (variant,) = (v for v in bundle.manifest.variants if v.name == "optimized")
    assert variant.provider == "cpu"
    assert variant.parity is not None


def test_a_cache_of_several_models_asks_for_one(files: Path, tmp_path: Path) -> None:
    for name in ("models--a--b", "models--a--c"):
        (tmp_path / "cache" / name / "snapshots" / "1").mkdir(parents=True)
    with pytest.raises(ExportError, match="holds 2 models; give one of them"):
        fmrt.adopt_onnx(tmp_path / "cache", tmp_path / "out")


@pytest.fixture(scope="module")
def kinds(environment: Path) -> tuple[Path, str]:
    """A folder with a model of each kind and its bundle through optimum-onnx; what was said."""
    script, out = Path(__file__).with_name("tiny_kinds.py"), environment.with_name("kinds")
    return out, _run(environment, str(script), str(MINILM), str(out), cwd=out.parent)


def _run(environment: Path, *arguments: str, cwd: Path) -> str:
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [python(environment), *arguments],
        env=settings,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_both_exporters_give_the_same_vectors(
    environment: Path, minilm: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    said = _run(environment, "-m", "fmrt", "export", str(MINILM), str(out), cwd=tmp_path)
    assert "converting to ONNX through optimum-onnx 0.1.0" in said
    assert fmrt.Bundle.open(out).manifest.packages["optimum-onnx"] == "0.1.0"
    with fmrt.Embedder(minilm) as want, fmrt.Embedder(out) as got:
        vectors = [e.embed(TEXTS, on_too_long="truncate") for e in (want, got)]
    assert np.abs(vectors[0] - vectors[1]).max() <= 1e-5


ITEMS = {"text": lambda: TEXTS, "image": reference_images, "audio": reference_sounds}


@pytest.mark.parametrize("kind", ["encoder", "decoder", "image", "audio", "towers", "lora"])
def test_each_kind_has_the_same_vectors_through_both_exporters(
    kind: str, kinds: tuple[Path, str], tmp_path: Path
) -> None:
    folder, _ = kinds
    by_optimum = fmrt.Bundle.open(folder / "bundles" / kind)
    assert by_optimum.manifest.exporter == "optimum-onnx"
    assert all(report.passed for report in fmrt.verify_bundle(by_optimum))
    own = fmrt.export_model(folder / "models" / kind, tmp_path / "out", exporter="transformers")
    assert own.manifest.exporter == "transformers"
    assert own.manifest.towers == by_optimum.manifest.towers
    for modality in own.manifest.modalities:
        vectors = []
        for bundle in (own, by_optimum):
            with fmrt.Embedder(bundle, modality=modality) as embedder:
                vectors.append(embedder.embed(ITEMS[modality](), on_too_long="truncate"))
        assert np.abs(vectors[0] - vectors[1]).max() <= 1e-5


def test_the_portable_graph_is_left_where_no_pass_finds_its_pattern(
    kinds: tuple[Path, str],
) -> None:
    folder, said = kinds
    names = [v.name for v in fmrt.Bundle.open(folder / "bundles" / "decoder").manifest.variants]
    assert (names == ["fp32"]) == (NOT_REWRITTEN in said)
    assert "left out" not in said.replace("head: left out", "")


def test_an_exporter_that_is_not_installed_is_one_line(
    environment: Path, kinds: tuple[Path, str], tmp_path: Path
) -> None:
    model = kinds[0] / "models" / "encoder"
    command = [python(environment), "-m", "fmrt", "export", str(model), "out"]
    done = subprocess.run(
        [*command, "--exporter", "transformers"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "needs transformers 5, and transformers 4.57" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["image", "audio", "image-quantized", "audio-quantized"])
def test_graphs_of_images_and_sounds_become_verified_bundles(
    name: str, kinds: tuple[Path, str], tmp_path: Path
) -> None:
    folder, modality = kinds[0], name.partition("-")[0]
    model = folder / "models" / modality
    bundle = fmrt.adopt_onnx(folder / "onnx" / name, tmp_path / "out", model=model)
    assert all(report.passed for report in fmrt.verify_bundle(bundle))
    vectors = []
    for each in (fmrt.Bundle.open(folder / "bundles" / modality), bundle):
        with fmrt.Embedder(each) as embedder:
            vectors.append(embedder.embed(ITEMS[modality]()))
    assert np.abs(vectors[0] - vectors[1]).max() <= 1e-5


@pytest.mark.parametrize("layout", ["towers", "towers-split"])
def test_graphs_of_two_towers_become_one_verified_bundle(
    layout: str, kinds: tuple[Path, str], tmp_path: Path
) -> None:
    folder = kinds[0]
    model = folder / "models" / "towers"
    bundle = fmrt.adopt_onnx(folder / "onnx" / layout, tmp_path / "out", model=model)
    assert all(report.passed for report in fmrt.verify_bundle(bundle))
    names = {(v.modality, v.name) for v in bundle.manifest.variants}
    assert layout == "towers" or {("text", "quantized"), ("image", "quantized")} <= names
    for modality in ("text", "image"):
        vectors = []
        for each in (fmrt.Bundle.open(folder / "bundles" / "towers"), bundle):
            with fmrt.Embedder(each, modality=modality) as embedder:
                vectors.append(embedder.embed(ITEMS[modality](), on_too_long="truncate"))
        assert np.abs(vectors[0] - vectors[1]).max() <= 1e-5


@pytest.mark.parametrize("ending", ["", "-with-past"])
def test_a_decoders_position_ids_are_bound(
    ending: str, kinds: tuple[Path, str], tmp_path: Path
) -> None:
    folder, said = kinds[0], []
    graphs, model = folder / "onnx" / f"decoder{ending}", folder / "models" / "decoder"
    bundle = fmrt.adopt_onnx(graphs, tmp_path / "out", model=model, report=said.append)
    assert "  position_ids: counted from a text's first token" in said
    vectors = []
    for each in (fmrt.Bundle.open(folder / "bundles" / "decoder"), bundle):
        with fmrt.Embedder(each) as embedder:
            vectors.append(embedder.embed(TEXTS, on_too_long="truncate"))
    assert np.abs(vectors[0] - vectors[1]).max() <= 1e-5


def _table() -> list[str]:
    """What the first column of the page's table of commands says to run."""
    page = (ROOT / "docs" / "optimum.md").read_text().partition("## Command by command")[2]
    rows = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) == 6
    return rows


# The mean cosine with fmrt's own vectors that the files of each command have at least.
COSINES = {"export onnx": 0.99999, "-O3": 0.99999, "-O4": 0.999, "--avx512_vnni": 0.8}


def test_the_commands_of_the_table_make_files_that_are_adopted(
    environment: Path, minilm: Path, tmp_path: Path
) -> None:
    commands = [row for row in _table() if row.startswith("optimum-cli")]
    assert len(commands) == len(COSINES)
    with fmrt.Embedder(minilm) as embedder:
        want = embedder.embed(TEXTS, on_too_long="truncate")
    plain = tmp_path / "plain"
    for number, (command, (part, least)) in enumerate(zip(commands, COSINES.items(), strict=True)):
        assert part in command
        made = tmp_path / str(number) if "OUT" in command else plain
        places = {"M": str(MINILM), "D": str(plain), "OUT": str(made)}
        arguments = [places.get(word, word) for word in shlex.split(command)[1:]]
        _run(environment, "-m", "optimum.commands.optimum_cli", *arguments, cwd=tmp_path)
        bundle = fmrt.adopt_onnx(made, tmp_path / f"bundle{number}", model=MINILM)
        for variant in bundle.manifest.variants:
            with fmrt.Embedder(bundle, variant=variant.name) as embedder:
                got = embedder.embed(TEXTS, on_too_long="truncate")
            cosines = (got * want).sum(-1) / np.linalg.norm(got, axis=-1)
            assert cosines.mean() >= least, (command, variant.name)


PYTHON = """
import sys

import numpy as np
from optimum.onnxruntime import ORTModelForFeatureExtraction
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

M, texts = sys.argv[1], sys.argv[2:]
D = M
T = AutoTokenizer.from_pretrained(
    M, model_max_length=256
)(texts, padding=True, truncation=True, return_tensors="np")
found = {expression}
if isinstance(found, SentenceTransformer):
    vectors = found.encode(texts, batch_size=1)
else:
    mask = T["attention_mask"][:, :, None]
    vectors = (np.asarray(found.last_hidden_state) * mask).sum(1) / mask.sum(1)
    vectors = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
np.save("vectors.npy", vectors)
"""


@pytest.mark.parametrize("name", ["ORTModelForFeatureExtraction", "SentenceTransformer"])
def test_the_classes_of_the_table_give_the_vectors_of_an_embedder(
    name: str, environment: Path, files: Path, minilm: Path, tmp_path: Path
) -> None:
    (expression,) = (row for row in _table() if row.startswith(name))
    layout = "sentence-transformers" if name == "SentenceTransformer" else "optimum/plain"
    (tmp_path / "run.py").write_text(PYTHON.replace("{expression}", expression))
    _run(environment, "run.py", str(files / layout), *TEXTS, cwd=tmp_path)
    with fmrt.Embedder(minilm) as embedder:
        want = embedder.embed(TEXTS, on_too_long="truncate")
    assert np.abs(np.load(tmp_path / "vectors.npy") - want).max() <= 1e-5


def test_the_lines_of_the_page_run_in_that_environment(environment: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "optimum.md").read_text()
    block = page.partition("```sh\n")[2].partition("```")[0]
    (tmp_path / "texts.txt").write_text("a\nb\n")
    modules = {"optimum-cli": "optimum.commands.optimum_cli", "fmrt": "fmrt"}
    for line in block.replace("sentence-transformers/all-MiniLM-L6-v2", str(MINILM)).splitlines():
        name, *arguments = shlex.split(line)
        _run(environment, "-m", modules[name], *arguments, cwd=tmp_path)
    assert np.load(tmp_path / "vectors.npy").shape == (2, 384)

"""Vectors say where they come from, and a search compares that with its bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fmrt import Embedder
from fmrt.bundle.bundle import sha256
from fmrt.cli import main
from fmrt.data import read_embeddings, read_provenance

OUTPUTS = ["v.npy", "v.parquet", "v/", "p/"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("cat\nthe red dog\n\na cat sat\n")
    return tmp_path


def embed(bundle: Path, output: str, *options: str) -> None:
    shards = ["--shard-rows", "3"] if output.endswith("/") else []
    shards += ["--shard-format", "parquet"] if output == "p/" else []
    name = str(bundle)
    assert main(["embed", name, "a.txt", "-o", output, "--no-verify", *shards, *options]) == 0


def search(bundle: Path, output: str, *options: str) -> int:
    return main(["search", str(bundle), output, "cat", *options])


def other_model(bundle: Path, to: str, **changes: object) -> Path:
    """The bundle with a changed manifest."""
    copy = Path(shutil.copytree(bundle, to))
    values = json.loads((copy / "fmrt.json").read_text())
    (copy / "fmrt.json").write_text(json.dumps(values | changes))
    return copy


@pytest.mark.parametrize("output", OUTPUTS)
def test_vectors_say_where_they_come_from(tiny_bundle, place, output) -> None:
    options = ("--prompt-name", "query", "--truncate-dim", "4", "--precision", "int8")
    embed(tiny_bundle, output, *options)
    found = read_provenance(output)
    graph = json.loads((tiny_bundle / "fmrt.json").read_text())["variants"][0]["sha256"]
    wanted = {
        "model": "tiny/bag-of-words",
        "revision": "abc123",
        "bundle": sha256(tiny_bundle / "fmrt.json"),
        "modality": "text",
        "variant": "fp32",
        "variant_sha256": graph,
        "prompt": "query: ",
        "normalize": True,
        "dim": 4,
        "truncate_dim": 4,
        "precision": "int8",
    }
    assert {name: found[name] for name in wanted} == wanted
    with Embedder(tiny_bundle) as embedder:
        exact = embedder.embed(["cat", "the red dog"], prompt_name="query", truncate_dim=4)
    decoded = read_embeddings(output)[0][:2] * (found["scale"] / 127)
    np.testing.assert_allclose(decoded, exact, atol=found["scale"] / 250)


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_search_with_another_model_is_refused(tiny_bundle, place, capsys, output) -> None:
    embed(tiny_bundle, output)
    source = {"model": "other", "revision": None, "weights_sha256": "1" * 64, "adapters": []}
    other = other_model(tiny_bundle, "other", source=source)
    capsys.readouterr()
    assert search(other, output) == 1
    err = capsys.readouterr().err
    assert "was embedded with 'tiny/bag-of-words', whose vectors those of 'other'" in err
    assert err.count("\n") == 1
    assert search(other, output, "--ignore-provenance") == 0


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_search_may_differ_in_prompt_and_form(tiny_bundle, place, capsys, output) -> None:
    """Documents with their prompt, int8, cut; the query with its own; a bundle exported again."""
    embed(tiny_bundle, output, "--prompt", "the ", "--precision", "int8", "--truncate-dim", "4")
    again = other_model(tiny_bundle, "again", packages={"numpy": "0"}, fmrt_version="9")
    capsys.readouterr()
    assert search(again, output, "--prompt-name", "query") == 0
    assert search(again, output, "--truncate-dim", "8") == 1
    assert "has 4 dimensions, and the query has 8" in capsys.readouterr().err


@pytest.mark.parametrize("output", OUTPUTS[:2])
def test_outputs_that_say_nothing_are_searched(tiny_bundle, place, output) -> None:
    embed(tiny_bundle, output)
    if output == "v.npy":
        Path("v.npy.json").unlink()
    else:
        pq.write_table(pq.read_table(output).replace_schema_metadata(None), output)
    assert read_provenance(output) is None
    assert search(tiny_bundle, output) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "cannot read 'v.npy.json'"),
        (b"[" * 100_000, "cannot read 'v.npy.json'"),
        (b"[]", "cannot read where the vectors of 'v.npy.json' come from"),
        (b"{}", "space is None"),
        (None, "does not belong to 'v.npy'"),
    ],
)
def test_a_sidecar_that_is_wrong_is_one_line(tiny_bundle, place, capsys, content, message) -> None:
    embed(tiny_bundle, "v.npy")
    if content is None:
        np.save("v.npy", np.ones((2, 12), np.float32))
    else:
        Path("v.npy.json").write_bytes(content)
    capsys.readouterr()
    assert search(tiny_bundle, "v.npy") == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


class CrashError(BaseException):
    """The end of the process."""


def crashing(call, left):
    def step(*arguments, **options):
        if next(left, None) is None:
            raise CrashError
        return call(*arguments, **options)

    return step


def test_vectors_are_never_beside_the_files_of_another_run(tiny_bundle, place, monkeypatch):
    """Whichever change of a name is the last one before a crash."""
    Path("a.txt").write_text("cat\n\0\ndog\nmat\n")
    embed(tiny_bundle, "v.npy", "--on-error", "skip")
    first = np.load("v.npy")
    Path("a.txt").write_text("\0\nroad\nred\nblue\n")
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    for names in range(9):
        for name, content in before.items():
            Path(name).write_bytes(content)
        with monkeypatch.context() as patch:
            left = iter(range(names))
            for method in ("replace", "unlink"):
                patch.setattr(Path, method, crashing(getattr(Path, method), left))
            try:
                embed(tiny_bundle, "v.npy", "--on-error", "skip", "--overwrite", "--prompt", "a")
            except CrashError:
                pass
            else:
                break
        if Path("v.npy").exists() and np.array_equal(np.load("v.npy"), first):
            assert np.load("v.lines.npy").tolist() == [1, 3, 4]
            assert read_provenance("v.npy")["prompt"] == ""
    assert names > 3
    assert np.load("v.lines.npy").tolist() == [2, 3, 4]
    assert read_provenance("v.npy")["prompt"] == "a"


def test_a_file_of_the_user_is_not_replaced(tiny_bundle, place, capsys) -> None:
    Path("v.npy.json").write_text("mine")
    assert main(["embed", str(tiny_bundle), "a.txt", "-o", "v.npy"]) == 1
    assert "'v.npy.json' exists; say --overwrite" in capsys.readouterr().err
    assert Path("v.npy.json").read_text() == "mine"

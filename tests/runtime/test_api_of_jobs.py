"""Whole inputs and search by the Python API: what the command line does, without it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import fmrt
from fmrt.cli import main
from fmrt.data import _outputs, read_embeddings, read_provenance
from fmrt.data._output_format import FileWriter, OutputFormat
from fmrt.errors import DataError, DataWarning, OptionError

WORDS = ("cat", "dog", "red", "blue", "road")


@pytest.fixture
def place(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("".join(f"{WORDS[i % 5]} {WORDS[i % 3]}\n" for i in range(50)))
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_job_by_the_api_is_the_one_of_the_command(tiny_bundle, place, monkeypatch) -> None:
    """Cut by the one, it goes on by the other, to the same bytes."""
    assert main(["embed", str(tiny_bundle), "a.txt", "-o", "v/", "--shard-rows", "10"]) == 0
    real, left = os.fsync, iter(range(9))

    def cut(handle: int) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        real(handle)

    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", cut)
        with pytest.raises(KeyboardInterrupt, match="goes on"):
            fmrt.embed_to_folder(tiny_bundle, "a.txt", "w", shard_rows=10)
    with fmrt.Embedder(tiny_bundle) as embedder:
        done = fmrt.embed_to_folder(embedder, "a.txt", Path("w"), shard_rows=10, report=said.append)
        assert (done.rows, done.shards, done.skipped) == (50, 5, 0)
        assert 0 < done.computed < 50
        assert said[0].startswith("going on: ")
        again = fmrt.embed_to_folder(embedder, "a.txt", "w", report=said.append)
    assert again.computed == 0
    assert said[-1] == "w is complete: 50 rows in 5 shards; nothing to do"
    assert files(Path("v")) == files(Path("w"))
    assert sorted(done.files) == sorted(Path("w").iterdir())
    with pytest.raises(DataError, match="--truncate-dim was not given and is 4"):
        fmrt.embed_to_folder(tiny_bundle, "a.txt", "w", truncate_dim=4)


def test_a_file_by_the_api(tiny_bundle, place) -> None:
    Path("b.jsonl").write_text('"cat"\n7\n"dog"\n')
    options = fmrt.EmbedOptions(truncate_dim=4)
    skipping = fmrt.Reading(on_error="skip")
    with pytest.warns(DataWarning, match="skipped "):
        done = fmrt.embed_to_file(tiny_bundle, "b.jsonl", "v.npy", options, reading=skipping)
    assert (done.rows, done.computed, done.skipped) == (2, 2, 1)
    assert [path.name for path in done.files] == ["v.npy", "v.lines.npy", "v.npy.json"]
    with fmrt.Embedder(tiny_bundle) as embedder:
        assert np.array_equal(np.load("v.npy"), embedder.embed(["cat", "dog"], truncate_dim=4))
        with pytest.raises(OptionError, match="workers is for a bundle"):
            fmrt.embed_to_file(embedder, "b.jsonl", "w.npy", workers=2)
    with pytest.raises(TypeError, match="did you mean 'truncate_dim'"):
        fmrt.embed_to_file(tiny_bundle, "a.txt", "w.npy", truncat_dim=2)


def test_search_by_the_api(tiny_bundle, place) -> None:
    """Of a file, of an array, with texts, and with a model that is loaded already."""
    fmrt.embed_to_file(tiny_bundle, "a.txt", "v.npy")
    texts = Path("a.txt").read_text().splitlines()
    with fmrt.Embedder(tiny_bundle) as embedder:
        hits = fmrt.search(embedder, "v.npy", "dog dog", k=3, texts="a.txt", prompt="")
        assert [hit.text for hit in hits] == [texts[hit.row] for hit in hits]
        assert hits[0].score >= hits[1].score
        array = fmrt.search(embedder, np.load("v.npy"), "dog dog", k=3, prompt="")
    assert [hit.row for hit in array] == [hit.row for hit in hits]
    with pytest.raises(DataError, match="give one \\[n, dim\\]"):
        fmrt.search(tiny_bundle, np.zeros(3), "cat")


class WordsWriter(FileWriter):
    """A format that there is not: numbers as text, a row per line."""

    def write(self, vectors, kept: Sequence[object]) -> None:
        self._form.check(vectors, len(kept))
        self._append("".join(f"{' '.join(map(repr, v.tolist()))}\n" for v in vectors).encode())


PRETEND = OutputFormat(
    ".words",
    WordsWriter,
    lambda path, _, __: (np.loadtxt(path, np.float32, ndmin=2), {}),
    keeps_columns=False,
    shard=True,
    shape_of=lambda path: ([len(Path(path).read_text().splitlines())], None),
)


def test_an_output_format_is_one_row(tiny_bundle, place, monkeypatch, capsys) -> None:
    """Files, shards, what is next to them, reading and search have it by that alone."""
    monkeypatch.setattr(_outputs, "OUTPUT_FORMATS", (*_outputs.OUTPUT_FORMATS, PRETEND))
    Path("b.jsonl").write_text('"cat"\n7\n"dog"\n')
    with fmrt.Embedder(tiny_bundle) as embedder:
        expected = embedder.embed(["cat", "dog"])
    embed = ["embed", str(tiny_bundle), "b.jsonl", "--on-error", "skip", "-o"]
    assert main([*embed, "v.words"]) == 0
    assert main([*embed, "v/", "--shard-format", "words"]) == 0
    for output in ("v.words", "v/"):
        assert np.array_equal(read_embeddings(output)[0], expected)
        assert read_provenance(output)["dim"] == 12
    assert np.load("v.lines.npy").tolist() == [1, 3]
    assert sorted(path.name for path in Path("v").iterdir()) == [
        "index.json", "shard-00000.lines.npy", "shard-00000.words",
    ]  # fmt: skip
    capsys.readouterr()
    assert main(["search", str(tiny_bundle), "v/", "dog", "--texts", "b.jsonl"]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith("dog")
    assert main([*embed, "w/", "--shard-format", "words", "--keep", "line"]) == 1
    assert "--shard-format words holds vectors only" in capsys.readouterr().err

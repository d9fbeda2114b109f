"""The command line: what it writes, and that whatever is wrong ends in one line."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fmrt import Embedder
from fmrt.bundle.bundle import record_of
from fmrt.bundle.manifest import REFERENCE_FILE, Manifest, Variant
from fmrt.cli import main
from fmrt.data import Records
from fmrt.embedding import stream

TEXTS = ["the cat sat", "", "a red dog", "日本 cat", "one two three"]
JSON = [{"text": t, "id": i} for i, t in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def expected(tiny_bundle):
    with Embedder(tiny_bundle) as embedder:
        return embedder.embed(TEXTS)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(name, content):
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return name


def put_texts():
    return put("a.txt", "\n".join(TEXTS))


def parquet(name="a.parquet"):
    pq.write_table(pa.table({"id": range(5), "text": TEXTS}), name)
    return name


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def lines_of(records):
    return "\n".join(json.dumps(r) for r in records)


def fails(capsys, place, *arguments, code=1):
    """Run a command that must fail: one line of error, no traceback, nothing is left."""
    before = sorted(place.rglob("*"))
    assert main(list(map(str, arguments))) == code
    err = capsys.readouterr().err
    assert sorted(place.rglob("*")) == before
    assert [line.startswith("fmrt: error: ") for line in err.splitlines()] == [True], err
    return err


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.txt", lambda name: put(name, "\n".join(TEXTS))),
        ("a.jsonl", lambda name: put(name, lines_of(JSON))),
        ("a.csv", lambda name: put(name, "id,text\n" + "".join(f'1,"{t}"\n' for t in TEXTS))),
        ("a.parquet", parquet),
    ],
)
def test_embeds_every_format(tiny_bundle, place, capsys, expected, name, write):
    write(name)
    assert main(["embed", str(tiny_bundle), name, "-o", "v.npy"]) == 0
    np.testing.assert_array_equal(np.load("v.npy"), expected)
    assert capsys.readouterr().err.startswith("embedded 5 texts, 12 dimensions, in 0.")
    assert names(place) == [name, "v.npy", "v.npy.json"]


def test_embeds_standard_input_and_keeps_columns(tiny_bundle, place, expected):
    command = [sys.executable, "-m", "fmrt", "embed", str(tiny_bundle), "-", "-o", "v.parquet"]
    options = ["--format", "jsonl", "--keep", "id", "line", "--keep", "text"]
    done = subprocess.run(
        [*command, *options], input=lines_of(JSON).encode(), capture_output=True, check=True
    )
    assert done.stdout == b""
    table = pq.read_table("v.parquet")
    assert table.select(["id", "line", "text"]).to_pydict() == {
        "id": [0, 1, 2, 3, 4],
        "line": [1, 2, 3, 4, 5],
        "text": TEXTS,
    }
    np.testing.assert_array_equal(np.array(table["embedding"].to_pylist(), np.float32), expected)


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_vectors_as_json_lines_are_exact(tiny_bundle, place, capsysbinary, precision):
    put("a.jsonl", lines_of(JSON))
    command = ["embed", str(tiny_bundle), "a.jsonl", "--precision", precision, "-q", "-o"]
    for output in ("v.npy", "v.jsonl", "-"):
        keep = [] if output == "v.npy" else ["--keep", "id", "line"]
        assert main([*command, output, *keep]) == 0
    printed = capsysbinary.readouterr().out
    assert printed == Path("v.jsonl").read_bytes()
    rows = [json.loads(line) for line in printed.splitlines()]
    assert [(row["id"], row["line"]) for row in rows] == [(i, i + 1) for i in range(5)]
    vectors = np.load("v.npy")
    assert np.array_equal(np.array([r["embedding"] for r in rows], vectors.dtype), vectors)
    found = []
    for file in ("v.npy", "v.jsonl"):
        assert main(["search", str(tiny_bundle), file, "cat", "--json"]) == 0
        found.append(capsysbinary.readouterr().out)
    assert found[0] == found[1]


def test_json_lines_stream_and_end_when_the_reader_does(tiny_bundle, place):
    put("a.txt", "cat\n" * 40_000)
    command = [sys.executable, "-m", "fmrt", "embed", str(tiny_bundle), "a.txt", "-o", "-"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert len(json.loads(run.stdout.readline())["embedding"]) == 12
    run.stdout.close()
    assert run.wait(60) == 1
    assert run.stderr.read() == b""
    run.stderr.close()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"embedding": [1, 2]', "'v.jsonl' line 1: Expecting"),
        (
            '{"embedding": [0.5, 2]}\n{"text": "a"}',
            "'v.jsonl' line 2 is no object with 'embedding'",
        ),
        ('{"embedding": [0.5, 2]}\n{"embedding": [0.5]}', "'v.jsonl' line 2: 1 dimensions, and"),
        ('{"embedding": ["a"]}', "'embedding' of 'v.jsonl' line 1 is no list of numbers"),
        ('{"embedding": [[1, 2], [3]]}', "'embedding' of 'v.jsonl' line 1 is no list of numbers"),
        ('{"embedding": [1, 2]}', "'v.jsonl' holds int64 vectors, which have no cosine"),
    ],
)
def test_json_lines_that_are_no_vectors(tiny_bundle, place, capsys, content, message):
    put("v.jsonl", content)
    assert message in fails(capsys, place, "search", tiny_bundle, "v.jsonl", "cat")


def test_a_text_in_place_of_a_file_is_told_where_to_go(tiny_bundle, place, capsys):
    error = fails(capsys, place, "embed", tiny_bundle, "it's a text")
    assert (
        "no such file: \"it's a text\"; to embed a text itself: echo 'it'\"'\"'s a text' | "
        in error
    )
    assert error.endswith("- -o -\n")
    put_texts()
    with pytest.raises(SystemExit) as caught:
        main(["embed", str(tiny_bundle), "a.txt"])
    assert caught.value.code == 2
    assert (
        "required: -o/--output (- for standard output); see fmrt embed" in capsys.readouterr().err
    )


def test_options_reach_the_model(tiny_bundle, place):
    put_texts()
    options = "--prompt-name query --truncate-dim 4 --precision float16 --workers 1 --no-verify"
    command = ["embed", str(tiny_bundle), "a.txt", "-o", "v.npy", *options.split()]
    assert main([*command, "--batch-tokens", "8", "--variant", "fp32", "--provider", "auto"]) == 0
    with Embedder(tiny_bundle) as embedder:
        wanted = embedder.embed(
            TEXTS, prompt="query: ", truncate_dim=4, precision="float16", batch_tokens=8
        )
    np.testing.assert_array_equal(np.load("v.npy"), wanted)


# The line of each reason; 3 and 5 to 7 hold nothing to embed.
BAD_JSONL = b'{"text": "cat"}\n\n7\n"dog"\n{"text": null}\n"\xff"\n{"text": "\\ud800"}\n"a"\n'
REASONS = {
    3: "the line is a number, neither an object nor a string",
    5: "'text' is null, not a string",
    6: "not valid UTF-8",
    7: "lone surrogate (invalid UTF-8) at position 0",
}


def test_skip_lists_bad_records_and_numbers_the_rows(tiny_bundle, place, capsys):
    put("b.jsonl", BAD_JSONL)
    command = ["embed", str(tiny_bundle), "b.jsonl", "-o", "v.npy"]
    assert main([*command, "--on-error", "skip"]) == 0
    *skipped, count, summary, note = capsys.readouterr().err.splitlines()
    assert skipped == [f"fmrt: skipped 'b.jsonl' line {n}: {r}" for n, r in REASONS.items()]
    assert count == "fmrt: skipped 4 records in all"
    assert summary.startswith("embedded 3 texts")
    assert note == "line numbers of the rows -> v.lines.npy"
    lines = np.load("v.lines.npy")
    assert lines.dtype == np.int64
    assert lines.tolist() == [1, 4, 8]
    assert np.load("v.npy").shape == (3, 12)

    # Vectors of another run must not be taken for those of these lines.
    put_texts()
    Path("v.npy").unlink()
    command[2] = "a.txt"
    assert "'v.lines.npy' exists" in fails(capsys, place, *command)
    assert main([*command, "--overwrite"]) == 0
    assert not Path("v.lines.npy").exists()


def test_skip_shows_ten_of_many(tiny_bundle, place, capsys):
    put("b.txt", b"\xff\n" * 30 + b"cat\n")
    assert main(["embed", str(tiny_bundle), "b.txt", "-o", "v.npy", "--on-error", "skip"]) == 0
    err = capsys.readouterr().err.splitlines()
    assert sum("b.txt" in line for line in err) == 10
    assert "fmrt: skipped 30 records in all" in err
    assert np.load("v.lines.npy").tolist() == [31]


LONG = "dog " * 40


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("b.txt", "cat\n\0\n", [], "'b.txt' line 2: NUL character at position 0"),
        ("b.txt", b"cat\n\xff\n", [], "'b.txt' line 2: not valid UTF-8"),
        ("b.jsonl", '"a"\n\n{"text": 1}\n', [], "'b.jsonl' line 3: 'text' is a number, not"),
        ("b.jsonl", '"a"\n"\\ud800"\n', [], "'b.jsonl' line 2: lone surrogate"),
        ("b.csv", 'text,n\n"a\nb",1\na\n', [], "'b.csv' line 4: 1 fields where the header has 2"),
        ("b.csv", "a,b\n1,2\n", ["--column", "text"], "'b.csv' has no column 'text'; it has"),
        ("b.csv", "a,b\n1,2\n", [], "cannot tell which column of 'b.csv' to embed"),
        ("b.txt", "", [], "'b.txt' is empty: it has no record to embed"),
        ("b.txt", "a", ["--keep", "line"], ".npy holds vectors only"),
        ("b.txt", "a", ["--format", "xml"], "unknown format 'xml'"),
        ("b.dat", "a", [], "cannot tell the format of 'b.dat'"),
        ("b.txt", "a", ["--variant", "int3"], "has no variant 'int3' for provider 'cpu'"),
        ("b.txt", "a", ["--provider", "abacus"], "unknown provider 'abacus'; choose from: auto"),
        ("b.txt", "a", ["--precision", "int3"], "--precision 'int3': choose from: float32"),
        ("b.txt", "a", ["--truncate-dim", "13"], "this model has 1 to 12 dimensions"),
        ("b.txt", "a", ["--prompt-name", "p"], "--prompt-name 'p': this model has: query"),
        ("b.txt", "a", ["--on-too-long", "cry"], "--on-too-long 'cry': choose from: truncate-and"),
        ("b.txt", "a", ["-o", "no/v.npy"], "there is no directory 'no'"),
        ("b.txt", "a", ["-o", "v.tsv"], "cannot write 'v.tsv'"),
        ("b.txt", b"\xff\n", ["--on-error", "skip"], None),
        (
            "b.csv",
            f'text\n"a\nb"\n{LONG}\n',
            ["--on-too-long", "error"],
            "'b.csv' line 4: 42 tokens, and the model takes 16",
        ),
    ],
)
def test_bad_input_ends_in_one_line(tiny_bundle, place, capsys, name, content, options, message):
    put(name, content)
    command = ["embed", tiny_bundle, name, "-o", "v.npy", *options]
    if message is None:  # skipped lines come before the error
        assert main(list(map(str, command))) == 1
        assert capsys.readouterr().err.endswith(
            "fmrt: error: nothing embedded of 'b.txt': every record was skipped\n"
        )
        assert names(place) == ["b.txt"]
    else:
        assert message in fails(capsys, place, *command)


def test_an_error_far_behind_keeps_its_line(tiny_bundle, place, capsys):
    # Past the window that is in flight when the first vectors are written.
    put("b.txt", b"cat\n" * 20_000 + LONG.encode() + b"\n" + b"dog\n")
    command = ["embed", str(tiny_bundle), "b.txt", "-o", "v.npy", "--on-too-long", "error"]
    assert main(command) == 1
    assert "error: 'b.txt' line 20001: 42 tokens" in capsys.readouterr().err
    assert names(place) == ["b.txt"]
    assert main([*command, "--on-error", "skip"]) == 0
    assert "skipped 'b.txt' line 20001: 42 tokens" in capsys.readouterr().err
    assert np.load("v.npy").shape[0] == 20_001


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_an_output_that_is_a_link_to_itself(tiny_bundle, place, capsys):
    Path("v.npy").symlink_to("v.npy")
    put_texts()
    message = "cannot write 'v.npy': it is a link that leads to itself"
    assert message in fails(capsys, place, "embed", tiny_bundle, "a.txt", "-o", "v.npy")


@pytest.mark.parametrize("command", ["tune", "bench"])
def test_texts_to_measure_with_have_the_limit_of_those_to_embed(
    tiny_bundle, place, capsys, command
):
    Path("long.txt").write_text("a cat " * 20_000 + "\n")
    arguments = [command, tiny_bundle, "--texts", "long.txt", "--max-item-size", "1MB"]
    assert "'long.txt' has no record" in fails(capsys, place, *arguments)


def test_texts_to_search_in_have_the_limit_of_those_to_embed(tiny_bundle, place, capsys):
    Path("long.txt").write_text("a cat " * 20_000 + "\n")
    np.save("v.npy", np.ones((1, 12), np.float32))
    command = ["search", str(tiny_bundle), "v.npy", "cat", "--texts", "long.txt"]
    assert main(command) == 0
    assert "a cat" in capsys.readouterr().out
    error = fails(capsys, place, *command, "--max-item-size", "1MB")
    assert "--texts, line 1: " in error


def test_missing_input_and_existing_output(tiny_bundle, place, capsys):
    assert "no such file: 'no.txt'" in fails(
        capsys, place, "embed", tiny_bundle, "no.txt", "-o", "v.npy"
    )
    put_texts()
    put("v.npy", "precious")
    assert "'v.npy' exists; say --overwrite" in fails(
        capsys, place, "embed", tiny_bundle, "a.txt", "-o", "v.npy"
    )
    assert Path("v.npy").read_text() == "precious"


def edit(bundle, **values):
    path = bundle / "fmrt.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: (b / "fmrt.json").unlink(), "is not an fmrt bundle (no fmrt.json in it)"),
        (lambda b: (b / "fmrt.json").write_text("{"), "is not valid JSON"),
        (lambda b: edit(b, variants=[{}]), "fmrt.json: variants[0].name is missing"),
        (lambda b: edit(b, schema_version=99), "schema version 99, and this fmrt reads up to 1"),
        (lambda b: (b / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (lambda b: flip(b / "onnx/model.onnx"), "its SHA-256 has changed"),
        (lambda b: os.truncate(b / "onnx/model.onnx", 50), "is corrupt: 50 bytes, exported with"),
        (shutil.rmtree, "is not an fmrt bundle (no such directory)"),
    ],
)
def test_a_damaged_bundle_ends_in_one_line(tiny_bundle, place, capsys, damage, message):
    put_texts()
    copy = shutil.copytree(tiny_bundle, place / "bundle")
    damage(copy)
    assert message in fails(capsys, place, "embed", copy, "a.txt", "-o", "v.npy")


def test_truncation_is_one_line(tiny_bundle, place, capsys):
    put("b.txt", f"cat\n{LONG}\n")
    command = ["embed", str(tiny_bundle), "b.txt", "-o", "v.npy"]
    assert main(command) == 0
    assert capsys.readouterr().err.splitlines()[1:] == [
        "fmrt: warning: 1 of 2 texts had more than 16 tokens (the longest 42 tokens) and were "
        "truncated"
    ]
    assert main([*command, "--on-too-long", "truncate", "--overwrite"]) == 0
    assert "warning" not in capsys.readouterr().err


def test_progress_is_shown_on_request(tiny_bundle, place, capsys):
    put_texts()
    assert main(["embed", str(tiny_bundle), "a.txt", "-o", "v.npy", "--progress"]) == 0
    assert "5.00text" in capsys.readouterr().err


def test_interruption_leaves_nothing(tiny_bundle, place, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    put_texts()
    monkeypatch.setattr(os, "fsync", interrupt)
    assert main(["embed", str(tiny_bundle), "a.txt", "-o", "v.npy"]) == 130
    assert capsys.readouterr().err == "fmrt: interrupted\n"
    assert names(place) == ["a.txt"]


def test_a_slow_writer_holds_the_reader_back(tiny_bundle, place, monkeypatch):
    read, written, ahead = [0], [0], []
    following = Records.__iter__

    def counted(self):
        for record in following(self):
            read[0] += 1
            yield record

    class Slow(io.BytesIO):
        def write(self, data):
            time.sleep(0.01)
            ahead.append(read[0] - written[0])
            written[0] += data.count(b"\n")
            return len(data)

    monkeypatch.setattr(stream, "WINDOW_ITEMS", 10)
    monkeypatch.setattr(Records, "__iter__", counted)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(Slow()))
    put("a.txt", "cat\n" * 400)
    assert main(["embed", str(tiny_bundle), "a.txt", "-o", "-"]) == 0
    assert written[0] == 400
    # Two that are computed, one that waits, one that is written, and the next as it is read.
    assert 20 < max(ahead) <= 50


def test_info(tiny_bundle, capsys):
    assert main(["info", str(tiny_bundle)]) == 0
    out = capsys.readouterr().out
    for words in (
        "tiny/bag-of-words at abc123",
        "16 tokens",
        "8, 4",
        "'query: '",
        "onnx/model.onnx",
    ):
        assert words in out
    assert main(["info", str(tiny_bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(
        (tiny_bundle / "fmrt.json").read_text()
    )


def test_verify(tiny_bundle, capsys):
    assert main(["verify", str(tiny_bundle)]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split("  ")[0] == "variant"
    assert row.split()[:3] == ["fp32", "text", "cpu"]
    assert row.endswith("  ok")


def test_verify_and_embed_refuse_wrong_vectors(tiny_bundle, place, capsys):
    from safetensors import safe_open
    from safetensors.numpy import save_file

    copy = shutil.copytree(tiny_bundle, place / "bundle")
    path = copy / REFERENCE_FILE
    with safe_open(path, framework="np") as f:
        key = "text.embeddings"
        tensors, metadata = {k: f.get_tensor(k) for k in f.keys()}, f.metadata()  # noqa: SIM118
    save_file({**tensors, key: -tensors[key]}, path, metadata)
    manifest = Manifest.read(copy)
    replace(manifest, files={**manifest.files, REFERENCE_FILE: record_of(path)}).write(copy)

    assert main(["verify", str(copy)]) == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines()[1].endswith("-1.000000  FAILED")
    assert captured.err.startswith("fmrt: error: ")
    assert captured.err.count("\n") == 1

    put_texts()
    command = ["embed", copy, "a.txt", "-o", "v.npy"]
    assert "does not give PyTorch's vectors" in fails(capsys, place, *command)
    assert main([*map(str, command), "--no-verify"]) == 0


def test_verify_needs_a_variant(tiny_bundle, place, capsys):
    copy = shutil.copytree(tiny_bundle, place / "bundle")
    manifest = Manifest.read(copy)
    only = replace(manifest.variants[0], provider="cuda")
    assert isinstance(only, Variant)
    replace(manifest, variants=(only,)).write(copy)
    assert "has no variant that runs on 'cpu'" in fails(capsys, place, "verify", copy)
    assert "no variant 'x'" in fails(capsys, place, "verify", copy, "--variant", "x")
    assert "no such directory" in fails(capsys, place, "verify", "nowhere")


def found(capsys, *arguments):
    assert main(["search", *map(str, arguments)]) == 0
    return [line.split(maxsplit=3) for line in capsys.readouterr().out.splitlines()[1:]]


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_search(tiny_bundle, place, capsys, precision):
    parquet()
    for options in (["-o", "v.npy"], ["-o", "v.parquet", "--keep", "text"]):
        command = ["embed", str(tiny_bundle), "a.parquet", "--precision", precision]
        assert main([*command, *options]) == 0
    query = ["A red DOG", "-k", 2, "--prompt", ""]
    hits = found(capsys, tiny_bundle, "v.npy", *query, "--texts", "a.parquet")
    assert [hit[0] for hit in hits] == ["1", "2"]
    assert hits[0][2:] == ["2", "a red dog"]
    assert float(hits[0][1]) > 0.99
    assert found(capsys, tiny_bundle, "v.parquet", *query) == hits
    assert found(capsys, tiny_bundle, "v.npy", *query) == [hit[:3] for hit in hits]


def test_search_finds_lines_where_some_were_skipped(tiny_bundle, place, capsys):
    put("b.jsonl", BAD_JSONL)
    assert main(["embed", str(tiny_bundle), "b.jsonl", "-o", "v.npy", "--on-error", "skip"]) == 0
    command = ("search", tiny_bundle, "v.npy", "dog")
    hits = found(capsys, *command[1:], "--prompt", "", "-k", 9, "--texts", "b.jsonl")
    assert {int(hit[2]): hit[3] for hit in hits} == {0: "cat", 1: "dog", 2: "a"}
    capsys.readouterr()
    put("c.txt", "a\n" * 5)
    assert "no record at line 8" in fails(capsys, place, *command, "--texts", "c.txt")
    np.save("v.lines.npy", np.arange(2))
    assert "does not hold the lines of 'v.npy'" in fails(capsys, place, *command)


def test_search_in_several_blocks_is_the_same(tiny_bundle, place, capsys, monkeypatch):
    vectors = np.random.default_rng(0).standard_normal((300, 12)).astype(np.float32)
    np.save("v.npy", vectors)
    monkeypatch.setattr("fmrt.nearest._BLOCK_ELEMENTS", 12 * 7)
    hits = found(capsys, tiny_bundle, "v.npy", "dog", "-k", 20)
    with Embedder(tiny_bundle) as embedder:
        query = embedder.embed_query("dog")
    cosines = vectors @ query / np.linalg.norm(vectors, axis=1)
    assert [int(hit[2]) for hit in hits] == np.argsort(-cosines)[:20].tolist()


def with_nan():
    vectors = np.ones((3, 12), np.float32)
    vectors[1, 2] = np.nan
    return vectors


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (with_nan(), "row 1 of 'v.npy' holds NaN or infinity"),
        (np.ones((0, 12), np.float32), "holds no vectors"),
        (np.ones((3, 5), np.float32), "has 5 dimensions, and the query has 12"),
        (np.ones((3, 12), np.uint8), "holds uint8 vectors, which have no cosine"),
        (np.ones(12, np.float32), "is not an array of numbers [rows, dim]"),
        (np.ones((3, 12), np.float32), "--texts has 5 records, and there are 3 vectors"),
    ],
)
def test_search_refuses_what_it_cannot_compare(tiny_bundle, place, capsys, vectors, message):
    np.save("v.npy", vectors)
    put_texts()
    error = fails(capsys, place, "search", tiny_bundle, "v.npy", "dog", "--texts", "a.txt")
    assert message in error


@pytest.mark.parametrize(
    "line",
    [
        "embed BUNDLE a.txt -o w.npy",
        "embed BUNDLE a.txt -o w/",
        "verify BUNDLE",
        "info BUNDLE",
        "bench BUNDLE --texts a.txt --rounds 1",
        "tune BUNDLE --texts a.txt",
    ],
)
def test_quiet_says_nothing(tiny_bundle, place, capfd, monkeypatch, line):
    put_texts()
    monkeypatch.setenv("FMRT_CACHE", str(place))
    monkeypatch.setattr("fmrt.measure.calibration.TURN", 0.001)
    assert main([*line.replace("BUNDLE", str(tiny_bundle)).split(), "-q"]) == 0
    assert capfd.readouterr() == ("", "")


def test_quiet_says_what_may_be_wrong(tiny_bundle, place, capsys):
    put("b.txt", b"\xff\n" + LONG.encode())
    options = ["--quiet", "--on-error", "skip", "-o", "v.npy"]
    assert main(["embed", str(tiny_bundle), "b.txt", *options]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("fmrt: warning: 1 of 1 texts had more than 16 tokens")
    assert "fmrt: skipped 1 record in all" in err


def test_results_for_programs(tiny_bundle, place, capsys, expected):
    put_texts()
    assert main(["embed", str(tiny_bundle), "a.txt", "-o", "v.npy", "-q"]) == 0
    search = ["search", str(tiny_bundle), "v.npy", "the cat", "--prompt", "", "-k", "2"]
    assert main([*search, "--json", "--texts", "a.txt"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["query"] == "the cat"
    assert [set(hit) for hit in found["hits"]] == 2 * [{"rank", "row", "score", "line", "text"}]
    best = found["hits"][0]
    assert (best["rank"], best["row"], best["text"], best["line"]) == (1, 0, TEXTS[0], None)
    with Embedder(tiny_bundle) as embedder:
        wanted = embedder.embed(["the cat"])[0] @ expected[0]
    assert best["score"] == pytest.approx(float(wanted), abs=1e-6)
    assert len(str(best["score"])) > 8
    assert main([*search, "-q"]) == 0
    assert capsys.readouterr().out == "".join(f"{hit['row']}\n" for hit in found["hits"])

    assert main(["verify", str(tiny_bundle), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["passed"], found["recorded"], found["bundle"]) == (True, [], str(tiny_bundle))
    (report,) = found["reports"]
    assert set(report) == {
        *("variant", "modality", "provider", "items", "passed", "error", "form"),
        *("max_abs_error", "mean_cosine", "min_cosine"),
    }
    assert report["mean_cosine"] == pytest.approx(1)

    for options in (["bench", "--json", str(tiny_bundle)], ["bench", str(tiny_bundle), "--json"]):
        assert main([*options, "--texts", "a.txt", "--rounds", "1"]) == 0
        assert json.loads(capsys.readouterr().out)["items"] == 5


@pytest.mark.parametrize("option", ["--column=c", "--format=csv", "--no-header"])
def test_how_to_read_nothing_is_refused(tiny_bundle, place, capsys, option):
    np.save("v.npy", np.ones((2, 12), np.float32))
    for command in (["search", tiny_bundle, "v.npy", "cat"], ["bench", tiny_bundle]):
        assert "says how to read --texts" in fails(capsys, place, *command, option)


def test_a_verification_that_fails_is_json_too(tiny_bundle, place, capsys):
    copy = place / "bundle"
    shutil.copytree(tiny_bundle, copy)
    manifest = Manifest.read(copy)
    text = replace(manifest.towers[0].input, max_length=4)
    replace(manifest, towers=(replace(manifest.towers[0], input=text),)).write(copy)
    assert main(["verify", str(copy), "--json"]) == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert not found["passed"]
    assert not found["reports"][0]["passed"]
    assert err.startswith("fmrt: error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("embed b t --batch-size 32", "unknown option --batch-size: say --batch-tokens (batches"),
        ("embed b t --batch_tokens=8", "unknown option --batch_tokens; did you mean --batch-tok"),
        ("embed b t --device cuda", "unknown option --device: say --provider (as in --provider"),
        ("embed --model b t", "unknown option --model: BUNDLE is given without an option"),
        ("embed b t --output-file v.npy", "unknown option --output-file: say --output"),
        ("embed b t --max-length 9", "unknown option --max-length: say --on-too-long (a bundle"),
        ("embed b t --dtype fp16", "unknown option --dtype: say --precision (--variant"),
        ("embed b t --num-workers 2", "unknown option --num-workers: say --workers"),
        ("embed b t --quantize int8", "unknown option --quantize: say --variant (fmrt quantize"),
        ("embed b t --pooling cls", "unknown option --pooling, which is one of fmrt export"),
        ("embed b t --precison int8", "unknown option --precison; did you mean --precision?"),
        ("embed b t -o v.npy -x", "unknown option -x; an argument that begins with - comes after"),
        ("export m -o out", "unknown option -o: OUT is given without an option"),
        ("export --model m out", "unknown option --model: MODEL is given without an option"),
        ("search b v q --top-k 3", "unknown option --top-k: say -k"),
        ("bench b --batch-size 3", "unknown option --batch-size: batches are bounded in tokens"),
        ("verify b more", "unexpected argument 'more'"),
        (
            "embed b t -o v.npy --on-error skp",
            "argument --on-error: 'skp'; choose from: fail, skip",
        ),
        ("embed b t -o v.npy --cache=", "argument --cache: it is empty"),
        ("embed b t -o v.npy --workers 1.5", "argument --workers: '1.5' is not a whole number"),
        ("embed b t -o v.npy --workers 99999999999", "is not a whole number from 1 to 2,147,483,"),
        ("embed b t -o v.npy --gpu-mem-limit 1e9", "'1e9' is no size; say it as 8GiB"),
        ("embed b t -o v.npy --prompt \udcff", "lone surrogate (invalid UTF-8) at position 0"),
        ("embed b t -o v.npy --prompt a\0b", "NUL character at position 1"),
        ("quantize b int8 --min-cosine nan", "argument --min-cosine: 'nan' is not a number"),
        ("embd b t", "unknown command 'embd'; did you mean embed?"),
        ("encode b t", "unknown command 'encode'; did you mean fmrt embed?"),
        ("help", "unknown command 'help'; did you mean fmrt --help?"),
        ("xyzzy", "unknown command 'xyzzy'; choose from: export, adopt, quantize"),
        ("--variant q8 info b", "--variant is an option of commands: say it after the command"),
    ],
)
def test_wrong_usage_is_one_line_with_the_way_out(capsys, line, message):
    with pytest.raises(SystemExit) as caught:
        main(line.split(" "))
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("fmrt: error: ")
    assert message in err
    first = line.partition(" ")[0]
    known = ("bench", "embed", "export", "quantize", "search", "verify")
    assert err.endswith(f"see fmrt {first} --help\n" if first in known else "see fmrt --help\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_and_options(capsys, place, shell):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert {"embed", "quantize", "completion"} <= set(re.findall(r"\w+", script))
    assert re.search("-?-?truncate-dim", script)
    if shutil.which(shell) is None:
        return
    put("script", script)
    assert subprocess.run([shell, "-n", "script"], check=False).returncode == 0
    if shell == "bash":
        line = "COMP_WORDS=({}); COMP_CWORD={}; _shtab_fmrt; echo ${{COMPREPLY[@]}};"
        cases = {"fmrt emb": "embed", "fmrt embed --trunc": "--truncate-dim", "fmrt info scr": ""}
        lines = [line.format(words, len(words.split()) - 1) for words in cases]
        run = ["bash", "-c", f"source ./script; {' '.join(lines)}"]
        done = subprocess.run(run, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines() == [*cases.values()]


def test_wrong_usage_ends_with_2(capsys):
    assert main([]) == 2
    assert "usage: fmrt" in capsys.readouterr().err
    for arguments in (
        ["fly"],
        ["embed"],
        ["search", "b", "v", "q", "-k", "0"],
        ["info", "b", "-x"],
    ):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        err = capsys.readouterr().err
        assert err.startswith("fmrt: error: ")
        assert err.count("\n") == 1


def test_an_early_end_of_the_reader_is_quiet(tiny_bundle):
    """As in ``fmrt info BUNDLE | head``: standard output is closed before anything is written."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "fmrt", "info", str(tiny_bundle)]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(tiny_bundle):
    command = [sys.executable, "-m", "fmrt", "info", str(tiny_bundle)]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr == b"fmrt: error: No space left on device\n"


def with_a_variant_that_does_not_run(tiny_bundle, folder):
    """As one whose operators another version of ONNX Runtime, or another device, lacks."""
    import onnx

    bundle = shutil.copytree(tiny_bundle, folder / "bundle")
    path = bundle / "onnx/model_packed.onnx"
    graph = onnx.load(bundle / "onnx/model.onnx")
    look_up = graph.graph.node[0]
    look_up.output[0] = "padded"
    node = onnx.helper.make_node
    more = [
        node("Squeeze", ["padded"], ["rows"]),
        node("Cast", ["attention_mask"], ["offsets"], to=onnx.TensorProto.INT32),
        node("RestorePadding", ["rows", "offsets"], ["word_vectors"], domain="com.microsoft"),
    ]
    rest = list(graph.graph.node)[1:]
    del graph.graph.node[1:]
    graph.graph.node.extend([*more, *rest])
    graph.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    onnx.save(graph, path)
    record = record_of(path)
    manifest = Manifest.read(bundle)
    own = Variant("own", "onnx/model_packed.onnx", "cpu", "fp32", record.sha256, record.size)
    replace(manifest, variants=(own, *manifest.variants)).write(bundle)
    return bundle


def test_verify_records_the_others_beside_a_variant_that_does_not_run(
    tiny_bundle, tmp_path, capsys
):
    bundle = with_a_variant_that_does_not_run(tiny_bundle, tmp_path)
    assert main(["verify", str(bundle), "--record"]) == 1
    said = capsys.readouterr()
    assert "DOES NOT RUN" in said.out
    assert "recorded in" in said.out
    assert said.err.count("\n") == 1
    assert "own does not run: provider 'cpu' cannot run" in said.err
    assert "RestorePadding" in said.err
    found = {v.name: v.parity for v in Manifest.read(bundle).variants}
    assert found["own"] is None
    assert found["fp32"].min_cosine > 0.9999
    assert main(["verify", str(bundle), "--variant", "own"]) == 1
    assert "cannot run" in capsys.readouterr().err


def test_info_lists_the_others_beside_a_graph_that_does_not_load(tiny_bundle, tmp_path, capsys):
    bundle = with_a_variant_that_does_not_run(tiny_bundle, tmp_path)
    assert main(["info", str(bundle), "--provider", "cpu"]) == 1
    said = capsys.readouterr()
    broken, other = said.out.splitlines()[-2:]
    assert re.match(r"onnx/model_packed.onnx +does not load: .*RestorePadding", broken)
    assert re.match(r"onnx/model.onnx +(\d+) of \1 nodes on cpu$", other)
    assert said.err.count("\n") == 1
    assert "onnx/model_packed.onnx does not load: provider 'cpu' cannot run" in said.err
    assert main(["info", str(bundle), "--provider", "cpu", "--json"]) == 1
    placed = json.loads(capsys.readouterr().out)["placements"]
    assert "RestorePadding" in placed["onnx/model_packed.onnx"]["error"]
    assert placed["onnx/model.onnx"]["nodes"]["cpu"]
    assert main(["info", str(bundle), "--provider", "nonsense"]) == 1
    assert capsys.readouterr().out == ""


def test_verify_records_what_was_not_measured(tiny_bundle, tmp_path, capsys):
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    assert main(["verify", str(bundle)]) == 0
    assert Manifest.read(bundle).variants[0].parity is None
    assert main(["verify", str(bundle), "--record"]) == 0
    assert "recorded in" in capsys.readouterr().out
    (variant,) = Manifest.read(bundle).variants
    assert variant.parity.min_cosine > 0.9999
    assert variant.checked_on == "cpu"
    assert main(["verify", str(bundle), "--record"]) == 0
    assert "nothing new" in capsys.readouterr().out


def test_what_was_chosen_of_a_table_is_said(tiny_bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("id;text\n0;the red cat\n1;dog, cat\n")
    Path("b.csv").write_text("the red cat\ndog, cat\n")
    Path("c.txt").write_text("the red cat\rdog, cat\r")
    Path("d.json").write_text('[{"doc": {"t": "the red cat"}},\n{"doc": {"t": "dog, cat"}}]')
    run = ["embed", str(tiny_bundle), "-o", "v.npy", "--overwrite"]
    options = {"b.csv": ["--no-header", "--delimiter", ";"], "d.json": ["--column", "doc.t"]}
    said = {"a.csv": "';'", "c.txt": "carriage returns", "d.json": "JSON array"}
    found = []
    for name in ("a.csv", "b.csv", "c.txt", "d.json"):
        assert main([*run, name, *options.get(name, [])]) == 0
        assert said.get(name, "embedded") in capsys.readouterr().err
        found.append(np.load("v.npy"))
        assert np.array_equal(found[-1], found[0])
    assert main([*run, "b.csv"]) == 1
    assert "--no-header" in capsys.readouterr().err
    for wrong in ("", ";;", '"'):
        with pytest.raises(SystemExit):
            main([*run, "a.csv", "--delimiter", wrong])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
@pytest.mark.parametrize("name", ["a.csv", "a.txt", "a.jsonl", "a.parquet", "a.dat"])
def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tiny_bundle, tmp_path, capsys, name):
    os.mkfifo(tmp_path / name)
    out = str(tmp_path / "v.npy")
    assert main(["embed", str(tiny_bundle), str(tmp_path / name), "-o", out]) == 1
    assert "is a named pipe; give a file" in capsys.readouterr().err

"""Jobs in shards: whatever ends one, the same command goes on, to the same bytes."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fmrt import Embedder
from fmrt.cli import main
from fmrt.data.index import sealed
from fmrt.data.lock import locked_folder, locked_output
from fmrt.system.whole_file import key_of

from .conftest import WORDS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
if sys.platform != "win32":
    import resource
SHARD_ROWS = 50


def texts_of(count: int) -> list[str]:
    chosen = random.Random(0)
    return [" ".join(chosen.choices(WORDS, k=chosen.randint(0, 12))) for _ in range(count)]


def command(bundle: Path, name: str, out: str, *options: str) -> list[str]:
    shards = ["--shard-rows", str(SHARD_ROWS), "--no-verify"]
    return ["embed", str(bundle), name, "-o", out, *shards, *options]


@pytest.fixture
def place(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(name: str, texts: list[str]) -> str:
    Path(name).write_text("\n".join(texts) + "\n")
    return name


def content(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def spawn(arguments: list[str], **options) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "fmrt", *arguments], stderr=subprocess.PIPE, **options
    )


def wait_for_writing(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Return when the process has written to a folder, or is at its end."""

    def state() -> set[tuple[str, int]]:
        try:
            files = [path for path in folder.iterdir() if path.suffix != ".lock"]
            return {(path.name, path.stat().st_size) for path in files}
        except FileNotFoundError:  # the folder, or a file that got its name just now
            return set()

    before = state()
    while process.poll() is None and state() <= before:
        time.sleep(0.0005)


def kill_and_continue(bundle: Path, kills: int) -> None:
    name = put("a.txt", texts_of((40 + 6 * kills) * SHARD_ROWS + 7))
    assert main(command(bundle, name, "whole/")) == 0
    whole, cut = content("whole"), Path("cut")
    chosen, killed, interrupted = random.Random(kills), 0, 0
    while killed < kills:
        process = spawn(command(bundle, name, "cut/"))
        wait_for_writing(process, cut)
        time.sleep(chosen.uniform(0, 0.05))
        process.kill()
        process.communicate()
        if process.returncode == -signal.SIGKILL:
            killed += 1
            interrupted += content("cut").get("journal.jsonl", b"").count(b"\n") > 1
        else:  # it came to its end between kills, as on a quick machine: then another job
            assert process.returncode == 0
            assert content("cut") == whole
            shutil.rmtree(cut)
    assert interrupted, "no kill came after a shard"
    assert main(command(bundle, name, "cut/")) == 0
    assert content("cut") == whole


def test_a_killed_job_goes_on_to_the_same_bytes(tiny_bundle, place) -> None:
    kill_and_continue(tiny_bundle, 6)


@pytest.mark.slow
def test_fifty_kills_end_with_the_same_bytes(tiny_bundle, place) -> None:
    kill_and_continue(tiny_bundle, 50)


def test_a_job_gives_every_row_once(tiny_bundle, place, capsys) -> None:
    texts = texts_of(3 * SHARD_ROWS + 1)
    assert main(command(tiny_bundle, put("a.txt", texts), "v/")) == 0
    assert "-> v/: 151 rows in 4 shards in all" in capsys.readouterr().err
    index = json.loads(Path("v/index.json").read_text())
    assert [s["rows"] for s in index["shards"]] == [50, 50, 50, 1]
    assert (index["rows"], index["shape"], index["dtype"]) == (151, [12], "float32")
    vectors = np.concatenate([np.load(Path("v", s["file"])) for s in index["shards"]])
    with Embedder(tiny_bundle) as embedder:
        np.testing.assert_allclose(vectors, embedder.embed(texts), atol=1e-6)
    before = content("v")
    assert main(command(tiny_bundle, "a.txt", "v/")) == 0
    assert "v/ is complete: 151 rows in 4 shards; nothing to do" in capsys.readouterr().err
    assert content("v") == before


@pytest.mark.parametrize("workers", ["1", "3"])
def test_the_bytes_depend_on_no_number_of_workers(tiny_bundle, place, workers) -> None:
    name = put("a.txt", texts_of(300))
    assert main(command(tiny_bundle, name, "a/")) == 0
    assert main(command(tiny_bundle, name, "b/", "--workers", workers)) == 0
    assert content("a") == content("b")


def test_columns_are_kept_with_the_types_of_the_first_shard(tiny_bundle, place) -> None:
    rows = [{"text": t, "id": i, "note": None} for i, t in enumerate(texts_of(120))]
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    keep = ("--keep", "id", "note", "line")
    assert main(command(tiny_bundle, "a.jsonl", "v/", *keep)) == 0
    tables = [pq.read_table(path) for path in sorted(Path("v").glob("*.parquet"))]
    assert [len(table) for table in tables] == [50, 50, 20]
    assert len({str(table.schema) for table in tables}) == 1
    assert [i for table in tables for i in table["id"].to_pylist()] == list(range(120))


def test_skipped_records_leave_their_lines_to_shards(tiny_bundle, place, capsys) -> None:
    texts = ["cat"] * 240
    for line in (0, 60, *range(100, 150), 239):
        texts[line] = "\0"
    name = put("a.txt", texts)
    assert main(command(tiny_bundle, name, "v/", "--on-error", "skip")) == 0
    index = json.loads(Path("v/index.json").read_text())
    assert [s["rows"] for s in index["shards"]] == [49, 49, 0, 50, 39]
    assert [s["skipped"] for s in index["shards"]] == [1, 1, 50, 0, 1]
    assert np.load("v/shard-00001.lines.npy").tolist() == [n for n in range(51, 101) if n != 61]
    assert np.load("v/shard-00002.lines.npy").tolist() == []


@pytest.mark.parametrize("options", [("--on-error", "skip"), ("--keep", "text", "line")])
def test_a_job_is_searched_as_a_whole(tiny_bundle, place, capsys, options) -> None:
    records = ["cat"] * 120
    records[70:72] = ["the red road"] * 2
    lines = [json.dumps(text) for text in records]
    lines[10:12] = ["", "7"] if "skip" in options else ["", ""]
    Path("a.jsonl").write_text("\n".join(lines))
    assert main(command(tiny_bundle, "a.jsonl", "v/", *options)) == 0
    capsys.readouterr()
    texts = () if "text" in options else ("--texts", "a.jsonl")
    query = ["search", str(tiny_bundle), "v/", "red road the", "-k", "3", "--prompt", "", *texts]
    assert main(query) == 0
    rows = [line.split(maxsplit=3)[2:] for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == [["68", "the red road"], ["69", "the red road"], ["0", "cat"]]


def test_an_unfinished_job_is_not_searched(tiny_bundle, place, capsys) -> None:
    cut_short(tiny_bundle)
    assert main(["search", str(tiny_bundle), "v/", "cat"]) == 1
    assert "'v/' is no complete job of fmrt embed" in capsys.readouterr().err


def cut_short(bundle: Path, *options: str) -> None:
    """Leave a job with two of four shards in v/."""
    with pytest.MonkeyPatch.context() as patch:
        fail_after(patch, 2 + 2 * 5 + 1)
        assert main(command(bundle, put("a.txt", texts_of(170)), "v/", *options)) == 1
    assert Path("v/journal.jsonl").read_bytes().count(b"\n") == 3


def fail_after(patch: pytest.MonkeyPatch, syncs: int) -> None:
    """Let the disk be full when something is brought to it once more."""
    left, real = iter(range(syncs)), os.fsync

    def fsync(handle: int) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    patch.setattr(os, "fsync", fsync)


def test_a_disk_that_is_full_at_any_moment_costs_nothing(tiny_bundle, place, capsys) -> None:
    name = put("a.txt", texts_of(170))
    assert main(command(tiny_bundle, name, "whole/")) == 0
    capsys.readouterr()
    for syncs in range(100):
        with pytest.MonkeyPatch.context() as patch:
            fail_after(patch, syncs)
            if main(command(tiny_bundle, name, "v/")) == 0:
                break
        err = capsys.readouterr().err.splitlines()
        assert sum("error: cannot write" in line for line in err) == 1
        assert "No space left on device" in err[-1]
        assert not list(Path("v").glob(".*")) if Path("v").exists() else True
        assert main(command(tiny_bundle, name, "v/")) == 0
        assert content("v") == content("whole"), f"after {syncs} syncs"
        shutil.rmtree("v")
    # File and folder of a journal, of four shards with their lines, of an index; entries; its end.
    assert syncs == 2 + 4 * (2 + 2 + 1) + 2 + 1


def test_a_journal_that_was_cut_within_an_entry_is_read_to_there(tiny_bundle, place, capsys):
    name = put("a.txt", texts_of(170))
    assert main(command(tiny_bundle, name, "whole/")) == 0
    # The fourth shard's entry does not fit; nor does any file longer than this.
    head = len(json.dumps(json.loads(Path("whole/index.json").read_text())["settings"]))
    limit = head + 600
    process = spawn(
        command(tiny_bundle, name, "v/", "--truncate-dim", "1", "--precision", "int8"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    err = process.communicate()[1].decode().splitlines()
    assert process.returncode == 1
    assert "cannot write 'v/journal.jsonl': File too large" in err[-1]
    assert "are safe in 'v/': the same command goes on from there" in err[-1]
    assert not Path("v/journal.jsonl").read_bytes().endswith(b"\n")
    options = ("--truncate-dim", "1", "--precision", "int8")
    assert main(command(tiny_bundle, name, "v/", *options)) == 0
    assert main(command(tiny_bundle, name, "w/", *options)) == 0
    assert content("v") == content("w")


def test_an_interruption_says_how_to_go_on(tiny_bundle, place) -> None:
    name = put("a.txt", texts_of(100 * SHARD_ROWS))
    # A shell that runs tests in the background leaves SIGINT ignored, in what they start too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = spawn(command(tiny_bundle, name, "v/"))
    signal.signal(signal.SIGINT, before)
    while not list(Path("v").glob("shard-*")):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    err = process.communicate()[1].decode()
    assert process.returncode == 130
    assert err.count("\n") == 1
    assert err.startswith("fmrt: interrupted; ")
    assert err.endswith("are safe in 'v/': the same command goes on from there\n")
    assert not list(Path("v").glob(".*"))
    assert main(command(tiny_bundle, name, "v/")) == 0
    assert main(command(tiny_bundle, name, "whole/")) == 0
    assert content("v") == content("whole")


def other_input(bundle: Path) -> list[str]:
    put("a.txt", [*texts_of(169), "one"])
    return command(bundle, "a.txt", "v/")


def other_bundle(bundle: Path) -> list[str]:
    copy = shutil.copytree(bundle, "copy")
    manifest = copy + "/fmrt.json"
    values = json.loads(Path(manifest).read_text())
    Path(manifest).write_text(json.dumps(values | {"packages": {"numpy": "0"}}))
    return command(Path(copy), "a.txt", "v/")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_input, "the content of the input has changed"),
        (other_bundle, "the bundle has changed"),
        (
            lambda b: command(b, "a.txt", "v/", "--precision", "int8"),
            "--precision was 'float32' and is 'int8'",
        ),
        (
            lambda b: command(b, "a.txt", "v/", "--prompt-name", "query"),
            "--prompt-name was not given and is 'query'",
        ),
        (
            lambda b: command(b, "a.txt", "v/", "--batch-tokens", "8", "--dedupe"),
            "--dedupe was False and is True, --batch-tokens was 512 and is 8",
        ),
    ],
)
def test_another_job_is_refused_and_says_what_differs(
    tiny_bundle, place, capsys, change, message
) -> None:
    cut_short(tiny_bundle)
    before = content("v")
    capsys.readouterr()
    other = change(tiny_bundle)
    assert main(other) == 1
    err = capsys.readouterr().err
    assert f"error: the job in 'v/' was started otherwise: {message}" in err
    assert "say --overwrite to start over" in err
    assert content("v") == before
    assert main([*other, "--overwrite"]) == 0
    assert "170 rows in 4 shards" in capsys.readouterr().err


def test_a_lost_shard_is_computed_again(tiny_bundle, place) -> None:
    cut_short(tiny_bundle)
    Path("v/shard-00000.npy").unlink()
    assert main(command(tiny_bundle, "a.txt", "v/")) == 0
    assert main(command(tiny_bundle, "a.txt", "whole/")) == 0
    assert content("v") == content("whole")


def flip(name: str, position: int) -> None:
    content = bytearray(Path(name).read_bytes())
    content[position] ^= 255
    Path(name).write_bytes(content)


def swap(first: str, second: str) -> None:
    Path(first).rename("aside")
    Path(second).rename(first)
    Path("aside").rename(second)


DAMAGES = [
    lambda: flip("v/shard-00001.npy", 300),
    lambda: flip("v/shard-00001.lines.npy", -3),
    lambda: Path("v/shard-00001.lines.npy").unlink(),
    lambda: swap("v/shard-00000.npy", "v/shard-00001.npy"),
    lambda: swap("v/shard-00000.lines.npy", "v/shard-00001.lines.npy"),
]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("finished", [True, False])
def test_a_shard_that_is_not_as_it_was_written_is_computed_again(
    tiny_bundle, place, capsys, damage, finished
) -> None:
    cut_short(tiny_bundle)
    assert main(command(tiny_bundle, "a.txt", "whole/")) == 0
    if finished:
        assert main(command(tiny_bundle, "a.txt", "v/")) == 0
    damage()
    capsys.readouterr()
    if finished:
        assert main(["search", str(tiny_bundle), "v/", "cat"]) == 1
        assert "is not as it was written" in capsys.readouterr().err
    assert main(command(tiny_bundle, "a.txt", "v/")) == 0
    assert "is not as it was written; its shard is computed again" in capsys.readouterr().err
    assert content("v") == content("whole")


def test_a_shard_that_is_removed_while_the_job_runs_fails_it(
    tiny_bundle, place, capsys, monkeypatch
) -> None:
    name = put("a.txt", texts_of(170))
    assert main(command(tiny_bundle, name, "whole/")) == 0
    real = os.fsync

    def fsync(handle: int) -> None:
        if Path("v/shard-00002.npy").exists():
            Path("v/shard-00000.npy").unlink(missing_ok=True)
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        assert main(command(tiny_bundle, name, "v/")) == 1
    err = capsys.readouterr().err
    assert "'shard-00000.npy' of 'v' was removed or changed while the job ran" in err
    assert "; 120 rows in 3 shards are safe in 'v/': the same command goes on from there" in err
    assert not Path("v/index.json").exists()
    assert main(command(tiny_bundle, name, "v/")) == 0
    assert content("v") == content("whole")


def test_a_journal_that_is_removed_while_the_job_runs_fails_it(
    tiny_bundle, place, capsys, monkeypatch
) -> None:
    real = os.fsync

    def fsync(handle: int) -> None:
        if Path("v/shard-00001.npy").exists():
            shutil.rmtree("v")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    assert main(command(tiny_bundle, put("a.txt", texts_of(170)), "v/")) == 1
    err = capsys.readouterr().err
    assert "cannot write 'v" in err
    assert err.count("\n") == 1


def rewritten(name: str, change) -> None:
    """Change each entry of a journal or index, and seal it again, as an attacker can."""
    path = Path(name)
    text = path.read_text()
    entries = [json.loads(text)] if name.endswith(".json") else map(json.loads, text.splitlines())
    lines = []
    for entry in entries:
        entry.pop("seal")
        change(entry)
        lines.append(json.dumps(sealed(entry)))
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    "change",
    [
        {"number": -1},
        {"number": 2**70},
        {"number": 1.0},
        {"number": True},
        {"rows": 51},
        {"rows": -1},
        {"records": 10**9},
        {"records": 49},
        {"skipped": 7},
        {"size": -1},
        {"sha256": "0"},
        {"file": "../a.txt"},
        {"lines": None},
        {"lines": {"sha256": "0" * 64}},
    ],
)
@pytest.mark.parametrize("name", ["v/journal.jsonl", "v/index.json"])
def test_impossible_values_are_refused(tiny_bundle, place, capsys, name, change) -> None:
    cut_short(tiny_bundle)
    if "index" in name:
        assert main(command(tiny_bundle, "a.txt", "v/")) == 0
    rewritten(name, lambda e: [s.update(change) for s in [e, *e.get("shards", ())] if "file" in s])
    capsys.readouterr()
    assert main(command(tiny_bundle, "a.txt", "v/")) == 1
    err = capsys.readouterr().err
    assert f"error: cannot read '{name}'" in err
    assert err.count("\n") == 1
    if "index" in name:
        assert main(["search", str(tiny_bundle), "v/", "cat"]) == 1
        assert f"error: cannot read '{name}'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["v/journal.jsonl", "v/index.json"])
def test_a_value_that_was_changed_by_hand_is_noticed(tiny_bundle, place, capsys, name) -> None:
    cut_short(tiny_bundle)
    if "index" in name:
        assert main(command(tiny_bundle, "a.txt", "v/")) == 0
    text = Path(name).read_text()
    assert '"batch_tokens": 512' in text
    Path(name).write_text(text.replace('"batch_tokens": 512', '"batch_tokens": 500'))
    capsys.readouterr()
    assert main(command(tiny_bundle, "a.txt", "v/")) == 1
    assert "it has changed since it was written" in capsys.readouterr().err


def test_a_job_of_version_1_is_read_and_not_continued(tiny_bundle, place, capsys) -> None:
    cut_short(tiny_bundle)
    assert main(command(tiny_bundle, "a.txt", "v/")) == 0
    index = json.loads(Path("v/index.json").read_text())
    del index["seal"]
    for shard in index["shards"]:
        del shard["lines"]
    Path("v/index.json").write_text(json.dumps(index | {"version": 1}))
    capsys.readouterr()
    assert main(["search", str(tiny_bundle), "v/", "cat", "--texts", "a.txt"]) == 0
    assert main(command(tiny_bundle, "a.txt", "v/")) == 1
    assert "an earlier fmrt wrote it (version 1)" in capsys.readouterr().err


def test_shards_beyond_the_input_are_refused(tiny_bundle, place, capsys) -> None:
    cut_short(tiny_bundle)
    for path in Path("v").glob("shard-00001*"):
        path.rename(str(path).replace("00001", "00009"))

    def change(entry: dict[str, object]) -> None:
        if entry.get("number") == 1:
            entry.update(number=9, file="shard-00009.npy")

    rewritten("v/journal.jsonl", change)
    assert main(command(tiny_bundle, "a.txt", "v/")) == 1
    assert "do not cover the 170 records of the input" in capsys.readouterr().err


def test_files_of_others_in_the_folder_are_left_alone(tiny_bundle, place) -> None:
    Path("v/shard-notes").mkdir(parents=True)
    put("v/shard-mine.npy", ["x"])
    put("v/notes.txt", ["x"])
    cut_short(tiny_bundle)
    assert main(command(tiny_bundle, "a.txt", "v/", "--overwrite")) == 0
    assert Path("v/shard-mine.npy").read_text() == Path("v/notes.txt").read_text() == "x\n"
    assert main(["search", str(tiny_bundle), "v/", "cat"]) == 0


def test_a_job_goes_on_where_its_folder_was_moved_to(tiny_bundle, place) -> None:
    cut_short(tiny_bundle)
    shutil.copytree("v", "copy/of/it")
    Path("v").rename("w")
    for folder in ("w/", "copy/of/it/"):
        assert main(command(tiny_bundle, "a.txt", folder)) == 0
    assert content("w") == content("copy/of/it")


def test_pipes_in_one_directory_do_not_wait_for_each_other(tiny_bundle, place, capsys) -> None:
    put("a.txt", ["cat"])
    with locked_output("-"):
        assert main(["embed", str(tiny_bundle), "a.txt", "-o", "-", "--no-verify"]) == 0
    assert capsys.readouterr().out.startswith('{"embedding"')


def test_the_files_of_one_output_share_a_key() -> None:
    names = ("v.npy", "v.lines.npy", "v.npy.json")
    assert len({key_of(Path(name)) for name in names}) == 1
    names = ("v.npy", "v.jsonl", "v.jsonl.json", "v.json", "v.lines", "v.parquet", "v")
    assert len({key_of(Path(name)) for name in names}) == 6


def test_names_may_be_any_bytes(tiny_bundle, place) -> None:
    name = os.fsdecode(b"a\xff.txt")
    assert main(command(tiny_bundle, put(name, texts_of(70)), os.fsdecode(b"v\xfe/"))) == 0
    assert main(command(tiny_bundle, name, os.fsdecode(b"v\xfe/"))) == 0


@pytest.mark.parametrize(
    ("arrange", "output", "message"),
    [
        (lambda: None, "no/where/", "cannot write 'no/where': No such file or directory"),
        (lambda: put("v", ["x"]), "v/", "cannot write 'v': File exists"),
        (lambda: Path("v").mkdir() or put("v/shard-00001.npy", []), "v/", "no journal"),
        (lambda: Path("v").mkdir() or put("v/index.json", ["{"]), "v/", "cannot read 'v/index"),
        (lambda: None, "v.npy", "--shard-rows and --shard-format need a folder: say -o 'v.npy/'"),
    ],
)
def test_a_place_that_cannot_be_used_is_one_line(
    tiny_bundle, place, capsys, arrange, output, message
) -> None:
    put("a.txt", ["cat"])
    arrange()
    before = sorted(place.rglob("*"))
    assert main(command(tiny_bundle, "a.txt", output)) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert sorted(place.rglob("*")) == before


def test_standard_input_makes_no_job(tiny_bundle, place, capsys) -> None:
    read, write = os.pipe()
    os.write(write, b"cat\n")
    os.close(write)
    process = spawn(command(tiny_bundle, "-", "v/"), stdin=read)
    assert b"standard input cannot be read again" in process.communicate()[1]
    assert not Path("v").exists()


def test_two_processes_do_not_write_one_job(tiny_bundle, place, capsys) -> None:
    cut_short(tiny_bundle)
    capsys.readouterr()
    with locked_folder(Path("v")):
        assert main(command(tiny_bundle, "a.txt", "v/")) == 1
    assert "another process writes to 'v'; wait for its end" in capsys.readouterr().err
    assert main(command(tiny_bundle, "a.txt", "v/")) == 0


HOLD = """
import sys, time
from fmrt.data.lock import locked_output
from fmrt.system.whole_file import PendingFile
with locked_output(sys.argv[1]):
    pending = PendingFile(sys.argv[1])
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("output", ["v.npy", "v.parquet"])
def test_two_processes_do_not_write_one_file(tiny_bundle, place, capsys, output) -> None:
    """And what one leaves that is killed is gone after the next, even with another output."""
    put("a.txt", ["cat"])
    process = subprocess.Popen([sys.executable, "-c", HOLD, output], stdout=subprocess.PIPE)
    other = ["embed", str(tiny_bundle), "a.txt", "-o"]
    try:
        assert process.stdout.readline() == b"held\n"
        for name in (output, f"../{place.name}/{output}"):
            assert main([*other, name]) == 1
            assert "another process writes to" in capsys.readouterr().err
        assert main([*other, "w.npy"]) == 0
        assert list(place.glob(".fmrt-*.tmp"))
    finally:
        process.kill()
        process.communicate()
    assert main([*other, "w.npy", "--overwrite"]) == 0
    assert sorted(path.name for path in place.iterdir()) == ["a.txt", "w.npy", "w.npy.json"]
    assert main([*other, output]) == 0


def test_an_input_that_changes_while_it_is_read_ends_the_job(
    tiny_bundle, place, capsys, monkeypatch
) -> None:
    name = put("a.txt", texts_of(170))
    real = os.fsync

    def fsync(handle: int) -> None:
        with Path("a.txt").open("a") as file:
            file.write("one more\n")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    assert main(command(tiny_bundle, name, "v/")) == 1
    assert "'a.txt' has changed while it was read" in capsys.readouterr().err

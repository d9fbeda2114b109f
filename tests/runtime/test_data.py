"""Reading texts, writing vectors: what goes in comes out, what is bad is named, nothing is left."""

import csv
import gzip
import io
import json
import os
import subprocess
import sys
from threading import Timer

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmrt.data import BadRecord, Record, open_writer, read_embeddings, read_records
from fmrt.errors import DataError, MissingExtraError

F32 = np.dtype(np.float32)
# Lone surrogates cannot be written as UTF-8.
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=8)
LINES = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n")),
    min_size=1,
    max_size=8,
)


def write_txt(path, texts):
    path.write_bytes(b"\xef\xbb\xbf" + "".join(t + "\r\n" for t in texts).encode())


def write_jsonl(path, texts):
    path.write_bytes("\n\n".join(json.dumps({"text": t, "n": 1}) for t in texts).encode())


def write_strings(path, texts):
    path.write_bytes("\n".join(json.dumps(t, ensure_ascii=False) for t in texts).encode())


def write_csv(path, texts, delimiter=","):
    buffer = io.StringIO(newline="")
    rows = csv.writer(buffer, delimiter=delimiter)
    rows.writerows([["id", "text"], *([i, t] for i, t in enumerate(texts))])
    path.write_bytes(buffer.getvalue().encode("utf-8-sig"))


def write_tsv(path, texts):
    write_csv(path, texts, "\t")


def write_parquet(path, texts):
    pq.write_table(pa.table({"n": [1] * len(texts), "body": texts}), path, row_group_size=3)


WRITERS = [
    (write_txt, "a.txt"),
    (write_jsonl, "a.jsonl"),
    (write_strings, "b.JSONL"),
    (write_csv, "a.csv"),
    (write_tsv, "a.tsv"),
    (write_parquet, "a.parquet"),
]


def read(path, **options):
    return list(read_records(str(path), **options))


def put(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


@pytest.mark.parametrize(("write", "name"), WRITERS)
@given(data=st.data())
def test_texts_read_back_equal(write, name, data, tmp_path_factory):
    texts = data.draw(LINES if write is write_txt else TEXTS)
    path = tmp_path_factory.getbasetemp() / name
    write(path, texts)
    assert [r.value for r in read(path)] == texts


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv"])
def test_gzip_is_decompressed(tmp_path, suffix):
    plain = tmp_path / f"a{suffix}"
    {n[1:]: w for w, n in WRITERS}[suffix](plain, ["x", "ü"])
    packed = put(tmp_path, f"b{suffix}.gz", gzip.compress(plain.read_bytes()))
    assert read(packed) == read(plain)
    put(tmp_path, packed.name, packed.read_bytes()[:-12])
    with pytest.raises(DataError, match="cannot read"):
        read(packed)


BAD = {
    "a.txt": (b"ok\n\xff\n\nend", {2: "not valid UTF-8"}, {1: "ok", 3: "", 4: "end"}),
    "a.jsonl": (
        b'{"text": "ok"}\n\n{"text": 1}\n{"text": null}\n{"other": "x"}\n{"text": \n[1]\n'
        b'{"text": "\xff"}\n' + b"[" * 100_000 + b"\n" + b"1" * 5000 + b'\n{"text": true}\n"end"',
        {
            3: "'text' is a number, not a string",
            4: "'text' is null, not a string",
            5: "it has no 'text'",
            6: "not valid JSON: Expecting value at character 11",
            7: "the line is a list, neither an object nor a string",
            8: "not valid UTF-8",
            9: "not valid JSON: ",
            10: "not valid JSON: ",
            11: "'text' is a boolean, not a string",
        },
        {1: "ok", 12: "end"},
    ),
    "a.csv": (
        b'id,text\r\n1,"two\r\nlines"\n2\n3,a,b\n\n4,\xff\n5,"a"b\n6,ok\n7,"never closed\n8,x',
        {
            4: "1 fields where the header has 2",
            5: "3 fields where the header has 2",
            7: "not valid UTF-8",
            8: "not valid CSV: ",
            10: "not valid CSV: unexpected end of data",
        },
        {2: "two\r\nlines", 9: "ok"},
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_records_are_reported_with_their_numbers(name, tmp_path):
    data, bad, good = BAD[name]
    records = read(put(tmp_path, name, data))
    found = {r.number: r.reason for r in records if isinstance(r, BadRecord)}
    assert found.keys() == bad.keys()
    assert all(found[n].startswith(bad[n]) and "\n" not in found[n] for n in bad)
    assert {r.number: r.value for r in records if isinstance(r, Record)} == good


def test_bad_parquet_rows_are_reported(tmp_path):
    invalid = pa.array([b"ok", b"\xff", None, b"end"]).view(pa.string())
    pq.write_table(pa.table({"text": invalid, "n": [1, 2, 3, 4]}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", keep=["n", "line"]) == [
        Record(1, "ok", {"n": 1, "line": 1}),
        BadRecord(2, "'text' is not valid UTF-8"),
        BadRecord(3, "'text' is null, not a string"),
        Record(4, "end", {"n": 4, "line": 4}),
    ]


def test_a_file_of_bad_lines_only_does_not_raise(tmp_path):
    assert [r.number for r in read(put(tmp_path, "a.jsonl", "x\ny\n"))] == [1, 2]


def test_columns_are_chosen_and_kept(tmp_path):
    path = put(tmp_path, "a.jsonl", '{"body": "x", "n": 1}\n{"body": "y", "more": [2]}')
    kept = [{"n": 1, "more": None, "line": 1}, {"n": None, "more": [2], "line": 2}]
    assert [r.kept for r in read(path, keep=["n", "more", "line"])] == kept
    path = put(tmp_path, "a.csv", "line,text,b\n7,x,y")
    assert read(path, column="b", keep=["line", "text"]) == [
        Record(2, "y", {"line": "7", "text": "x"})
    ]
    path = put(tmp_path, "b.txt", "x")
    assert read(path, keep=["text", "line"]) == [Record(1, "x", {"text": "x", "line": 1})]


TABLE = [("0", "alpha centauri"), ("1", "beta, decay"), ("2", 'gamma "rays"'), ("3", "a;b|c\nd")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("extension", ["csv", "tsv"])
def test_what_a_table_looks_like_is_found(tmp_path, extension, delimiter, end, encoding):
    buffer = io.StringIO(newline="")
    # Without quotes everywhere, csv's writer writes a bare line feed as it is.
    quoting = csv.QUOTE_ALL if end == "\r" else csv.QUOTE_MINIMAL
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerows([("id", "text"), *TABLE])
    body = buffer.getvalue().replace("\n", "\r") if end == "\r" else buffer.getvalue()
    records = read_records(str(put(tmp_path, f"a.{extension}", body.encode(encoding))))
    texts = [text for _, text in TABLE]
    assert [r.value.replace("\r", "\n") for r in records] == texts
    usual = {"csv": ",", "tsv": "\t"}[extension]
    chosen = [delimiter != usual, end == "\r", encoding == "utf-16-le"]
    assert len(records.choices) == sum(chosen)


def test_excel_says_what_separates_fields(tmp_path):
    for first in ("sep=;", '"sep=;"', "SEP=;"):
        path = put(tmp_path, "a.csv", f"{first}\r\nid;text\r\n1;x, y\r\n")
        assert read(path) == [Record(3, "x, y")]
    path = put(tmp_path, "a.csv", '"sep=;"\n"a;b\nc"\n')  # a text, as the next has no fields
    assert read(path, header=False, delimiter=";")[0] == Record(1, "sep=;")
    path = put(tmp_path, "a.csv", "sep=;\n1,x\n")
    with pytest.raises(DataError, match=r"says that ';'.*--delimiter says ','"):
        read(path, header=False, delimiter=",", column="2")


def test_a_table_without_a_header(tmp_path):
    path = put(tmp_path, "a.csv", "alpha centauri\nbeta decay\n")
    with pytest.raises(DataError, match=r"alpha centauri.*--column.*--no-header"):
        read_records(str(path))
    assert [r.value for r in read(path, header=False)] == ["alpha centauri", "beta decay"]
    assert [r.value for r in read(path, column="alpha centauri")] == ["beta decay"]
    path = put(tmp_path, "b.csv", "7;x\n8;y\n")
    assert read(path, header=False, column="2", keep=["1"]) == [
        Record(1, "x", {"1": "7"}),
        Record(2, "y", {"1": "8"}),
    ]
    records = read_records(str(put(tmp_path, "c.csv", "Sentence\na b\n")))
    assert "Sentence" in records.choices[0]


def test_lines_that_end_in_carriage_returns(tmp_path):
    records = read_records(str(put(tmp_path, "a.txt", "a b\r\rc\r")))
    assert [r.value for r in records] == ["a b", "", "c"]
    assert "carriage returns" in records.choices[0]
    long = "x" * 70_000 + "\r" + "y" * 70_000 + "\r\nz"
    assert [r.value[0] for r in read(put(tmp_path, "a.txt", "w\r" + long))] == list("wxyz")


@pytest.mark.parametrize("indent", [None, 0, 2])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@given(texts=TEXTS)
def test_json_values_in_an_array_or_over_lines(name, indent, texts, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / name
    values = [{"text": text, "more": {"n": [1]}} for text in texts]
    path.write_text("\n" + json.dumps(values, indent=indent))
    assert [r.value for r in read(path)] == texts
    path.write_text("\n".join(json.dumps(value, indent=2) for value in values))
    assert [r.value for r in read(path)] == texts
    path.write_text(json.dumps(texts, indent=indent))
    assert [r.value for r in read(path)] == texts


def test_numbers_of_values_are_lines(tmp_path):
    path = put(tmp_path, "a.json", '\n[\n\n{"text": "x"}, {"text": \n1}\n,"y"]')
    bad = BadRecord(4, "'text' is a number, not a string")
    assert read(path) == [Record(4, "x"), bad, Record(6, "y")]


def test_what_is_inside_of_objects(tmp_path):
    path = put(tmp_path, "a.jsonl", '{"doc": {"text": "x", "m": {"id": 7}}}\n{"doc": null}')
    assert read(path, column="doc.text", keep=["doc.m.id"]) == [
        Record(1, "x", {"doc.m.id": 7}),
        BadRecord(2, "it has no 'doc.text'"),
    ]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"doc": [{"text": "x", "m": {"id": 7}}, None], "n": [1, 2]}), path)
    assert read(path, column="doc.text", keep=["doc.m.id", "n"]) == [
        Record(1, "x", {"doc.m.id": 7, "n": 1}),
        BadRecord(2, "'doc.text' is null, not a string"),
    ]
    with pytest.raises(DataError, match=r"it has 'doc', 'n', in which are 'doc\.(text|m)'"):
        read(path)


TEXT_TYPES = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.dictionary(pa.int32(), pa.string()),
    pa.dictionary(pa.int32(), pa.binary()),
]


@pytest.mark.parametrize("kind", TEXT_TYPES)
def test_texts_of_every_type_in_parquet(tmp_path, kind):
    values = pa.array(["nächste", None, "x"])
    values = values if pa.types.is_dictionary(kind) else values.cast(kind)
    if pa.types.is_dictionary(kind):
        values = values.cast(kind.value_type).dictionary_encode()
    try:
        pq.write_table(pa.table({"text": values}), tmp_path / "a.parquet")
    except pa.ArrowNotImplementedError:
        pytest.skip(f"this pyarrow writes no {kind}")
    found = read(tmp_path / "a.parquet")
    assert found[::2] == [Record(1, "nächste"), Record(3, "x")]
    assert isinstance(found[1], BadRecord)


def test_columns_of_one_name_in_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    columns = [pa.array(["x"]), pa.array([1]), pa.array([2])]
    pq.write_table(pa.Table.from_arrays(columns, names=["text", "id", "id"]), path)
    assert read(path) == [Record(1, "x")]
    with pytest.raises(DataError, match="more than one column 'id'"):
        read(path, keep=["id"])


def test_content_comes_before_a_name(tmp_path):
    assert read(put(tmp_path, "a.csv", gzip.compress(b"id,text\n1,x"))) == [Record(2, "x")]
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "a.dat")
    assert read(tmp_path / "a.dat") == [Record(1, "x")]


def test_a_compressed_pipe(tmp_path):
    code = "from fmrt.data import read_records; print([r.value for r in read_records('-')])"
    data = gzip.compress(b"x\ny")
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    assert done.stdout.strip() == b"['x', 'y']"


@pytest.mark.parametrize(
    ("options", "lines"), [({}, "a"), ({"format": "csv", "delimiter": ",", "header": False}, "a,b")]
)
def test_a_pipe_that_is_slow_is_read_line_by_line(options, lines):
    """Each record is there before the next line is written."""
    code = (
        f"from fmrt.data import read_records\nfor r in read_records('-', column=None, **{options}):"
        " print(r.value, flush=True)"
    )
    if "format" in options:
        code = code.replace("column=None", "column='1'")
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipe) as process:
        giving_up = Timer(60, process.kill)  # a reader that waits for more would hang for ever
        giving_up.start()
        for _ in range(3):
            process.stdin.write(f"{lines}\n".encode())
            process.stdin.flush()
            assert process.stdout.readline() == b"a\n"
        process.stdin.close()
        giving_up.cancel()


def test_standard_input_is_read_and_left_open(monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO(b"a\r\nb"))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert [r.value for r in read("-")] == ["a", "b"]
    assert not stdin.buffer.closed
    with pytest.raises(DataError, match="standard input is empty"):
        read_records("-")


@pytest.mark.skipif(sys.platform == "win32", reason="resource is POSIX's")
def test_memory_is_bounded(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"x" * 999 + b"\n")
    os.truncate(tmp_path / "a.txt", 1000)
    with (tmp_path / "a.txt").open("ab") as file:
        file.writelines([b"y" * 999 + b"\n"] * 100_000)
    code = (
        "import resource, sys; from fmrt.data import read_records\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "n = sum(1 for _ in read_records(sys.argv[1]))\n"
        "print(n, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
        "assert not {'pyarrow', 'torch'} & sys.modules.keys()"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.txt"], check=True, capture_output=True, text=True
    ).stdout.split()
    assert int(out[0]) == 100_001
    assert int(out[1]) < 10_000  # KiB, of a file of 100 MB


REFUSED = [
    ("no.txt", None, {}, "no such file"),
    ("", None, {}, "is a directory"),
    ("a.dat", "x", {}, "none of .txt, .jsonl.*--format"),
    ("a.txt", "x", {"format": "xml"}, "unknown format 'xml'"),
    ("a.txt", "", {}, "is empty"),
    ("a.txt", "\ufeff", {}, "is empty"),
    ("a.txt", "x", {"column": "title"}, "leave out --column"),
    ("a.txt", "x", {"keep": ["id"]}, "no column 'id' to keep"),
    ("a.txt.gz", "x", {}, "cannot read"),
    ("a.txt", b"PK\3\4\0", {}, "is a ZIP archive.*CSV"),
    ("a.csv", b"PAR1\0", {}, "is a parquet file"),
    ("a.csv", b"\xfd7zXZ\0", {}, "xz -dc"),
    ("a.csv", "id;text\n0;a;b\n1;c;d\n", {}, "one column 'id;text'.*--delimiter"),
    ("a.csv", "a,b;text\n1,2;x\n", {"column": "c"}, "whether ',' or ';'"),
    ("a.txt", "x", {"delimiter": ";"}, "is txt; --delimiter"),
    ("a.json", '[{"text": "x"},\n]', {}, "line 2: .*comma too many"),
    ("a.json", '[{"text": "x"}\n{"text": "y"}]', {}, "line 2: .*comma is missing"),
    ("a.json", '["x",\n "y"', {}, "line 2: .*not closed"),
    ("a.json", '["x"\n] 7', {}, "line 2: .*more after"),
    ("a.json", '[\n{"text" "x"}, "' + "y" * 99 + '"]', {}, "line 2: .*delimiter"),
    ("a.json", "[]", {}, "is empty"),
    ("a.jsonl", "\n \n", {}, "is empty"),
    ("a.jsonl", '{"a": "x", "b\\n": "y"}', {}, "it has 'a', .*--column"),
    ("a.jsonl", '{"a": "x"}', {"column": "b"}, "no column 'b'; it has 'a'"),
    ("a.csv", "", {}, "is empty"),
    ("a.csv", "text\n", {}, "is empty"),
    ("a.csv", "a,b\n1,2", {}, "--column"),
    ("a.csv", "text,text\n1,2", {}, "more than one column 'text'"),
    ("a.csv", b"\xff,text\n1,2", {}, "header row"),
    ("a.parquet", "", {}, "cannot read .* as parquet"),
    ("a.parquet", "PAR1 not really PAR1", {}, "cannot read .* as parquet"),
]


@pytest.mark.parametrize(("name", "data", "options", "message"), REFUSED)
def test_refused_inputs_say_why_at_once_on_one_line(tmp_path, name, data, options, message):
    path = tmp_path / "new\nline"
    path.mkdir()
    if data is not None:
        put(path, name, data)
    with pytest.raises(DataError, match=message) as e:
        read_records(str(path / name), **options)  # not iterated
    assert "\n" not in str(e.value)


def test_refused_parquet_inputs(tmp_path):
    path = str(tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": [1], "a": ["x"]}), path)
    with pytest.raises(DataError, match=r"'text' of .* is int64, not string"):
        read_records(path)
    with pytest.raises(DataError, match="no column 'b'; it has 'text', 'a'"):
        read_records(path, column="b")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    with pytest.raises(DataError, match="is empty"):
        read_records(path)
    with pytest.raises(DataError, match="standard input"):
        read_records("-", format="parquet")


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    path = put(tmp_path, "a.parquet", "x")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"fmrt\[parquet\]"):
        read_records(str(path))
    with pytest.raises(MissingExtraError, match=r"fmrt\[parquet\]"):
        open_writer(str(tmp_path / "b.parquet"), shape=(1,), dtype=F32)


def vectors(rows, dim, dtype):
    return np.random.default_rng(0).integers(0, 100, (rows, dim)).astype(dtype)


@pytest.mark.parametrize("extension", [".npy", ".parquet"])
@given(
    sizes=st.lists(st.integers(0, 5), max_size=6),
    dim=st.integers(1, 9),
    dtype=st.sampled_from([np.float32, np.float16, np.int8, np.uint8]).map(np.dtype),
)
def test_vectors_in_pieces_read_back_equal(extension, sizes, dim, dtype, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / f"v{extension}"
    chunks = [vectors(n, dim, dtype) for n in sizes]
    writer = open_writer(str(path), shape=(dim,), dtype=dtype, overwrite=True)
    for chunk in chunks:
        writer.write(chunk, [{}] * len(chunk))
    writer.commit()
    writer.abort()  # safe after commit
    expected = np.concatenate([np.empty((0, dim), dtype), *chunks])
    found, _ = read_embeddings(str(path))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)
    if extension == ".npy":
        np.testing.assert_array_equal(np.load(path), expected)
        assert isinstance(np.load(path, mmap_mode="r"), np.memmap)


def test_kept_columns_come_first_and_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr("fmrt.data._parquet_vectors._GROUP_ROWS", 2)
    path = str(tmp_path / "a.parquet")
    kept = [
        {"id": i, "note": "x" if i < 3 else None, "m": {"k": [i], "e": ["x"][i:]}}
        for i in range(6, -1, -1)
    ]
    data = vectors(7, 3, F32)
    writer = open_writer(path, shape=(3,), dtype=F32, keep=["id", "note", "m"])
    for i in range(7):
        buffer = data[i : i + 1].copy()
        writer.write(buffer, kept[i : i + 1])
        buffer[:] = -1  # the caller may use the memory again
    writer.commit()
    schema = pq.read_schema(path)
    assert schema.names == ["id", "note", "m", "embedding"]
    assert schema.field("embedding").type == pa.list_(pa.float32(), 3)
    assert pq.ParquetFile(path).metadata.num_row_groups == 4
    found, columns = read_embeddings(path, columns=["m", "id", "note", "absent"])
    np.testing.assert_array_equal(found, data)
    assert columns == {name: [row[name] for row in kept] for name in ("m", "id", "note")}


@pytest.mark.parametrize(
    ("first", "later", "rows"),
    [
        (1, "x", 1),
        (1, "x", 100),
        ("x", 1, 1),
        (1, 1.5, 1),
        (1.5, True, 1),
        ({"a": 1}, {"b": 1}, 1),
        ([{"a": 1}], [{"a": 1.5}], 1),
        (["x"], "x", 1),
        ("x", "\ud800", 1),
        (1, 2**70, 100),
    ],
)
def test_kept_values_of_two_types_name_the_column(tmp_path, monkeypatch, first, later, rows):
    monkeypatch.setattr("fmrt.data._parquet_vectors._GROUP_ROWS", rows)
    writer = open_writer(str(tmp_path / "a.parquet"), shape=(1,), dtype=F32, keep=["c"])
    with pytest.raises(DataError, match="kept column 'c'") as e:  # noqa: PT012
        writer.write(vectors(1, 1, F32), [{"c": first}])
        writer.write(vectors(1, 1, F32), [{"c": later}])
        writer.commit()
    assert "\n" not in str(e.value)
    writer.abort()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.npy", "a.parquet"])
def test_the_output_appears_only_on_commit(tmp_path, name):
    path = tmp_path / name
    for committed in (False, True):
        writer = open_writer(str(path), shape=(2,), dtype=F32)
        writer.write(vectors(3, 2, F32), [{}] * 3)
        (pending,) = tmp_path.iterdir()
        assert pending.name.startswith(".")
        if committed:
            writer.commit()
        writer.abort()
        writer.abort()
        assert list(tmp_path.iterdir()) == ([path] if committed else [])
    with pytest.raises(DataError, match="exists; say --overwrite"):
        open_writer(str(path), shape=(2,), dtype=F32)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask()


def umask():
    os.umask(mask := os.umask(0))
    return mask


@pytest.mark.parametrize("name", ["a.npy", "a.parquet"])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, name):
    writer = open_writer(str(tmp_path / name), shape=(1024,), dtype=F32)
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(DataError, match=r"cannot write .* free some space") as e:  # noqa: PT012
            for _ in range(10):
                writer.write(np.random.rand(100, 1024).astype(F32), [{}] * 100)  # noqa: NPY002
            writer.commit()
        writer.abort()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(e.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "keep", "message"),
    [
        ("a.csv", [], ".npy or .parquet"),
        ("a.npy", ["id"], "vectors only; write .parquet"),
        ("a.parquet", ["embedding"], "cannot keep 'embedding'"),
        ("no/a.npy", [], "no directory"),
        ("dir.npy", [], "is a directory"),
    ],
)
def test_refused_outputs(tmp_path, name, keep, message):
    (tmp_path / "dir.npy").mkdir()
    with pytest.raises(DataError, match=message) as e:
        open_writer(str(tmp_path / name), shape=(1,), dtype=F32, keep=keep)
    assert "\n" not in str(e.value)
    assert len(list(tmp_path.iterdir())) == 1


def test_vectors_of_another_shape_or_dtype_are_a_mistake(tmp_path):
    writer = open_writer(str(tmp_path / "a.npy"), shape=(2,), dtype=F32)
    for wrong in (vectors(1, 3, F32), vectors(2, 2, F32), vectors(1, 2, np.int8)):
        with pytest.raises(ValueError, match="the writer takes float32"):
            writer.write(wrong, [{}])
    writer.abort()


def test_embeddings_of_other_tools(tmp_path):
    path = str(tmp_path / "a.parquet")
    pq.write_table(pa.table({"embedding": [[1.0, 2.0], [3.0, 4.0]]}), path)
    np.testing.assert_array_equal(read_embeddings(path)[0], [[1, 2], [3, 4]])
    for bad in ([[1.0], [1.0, 2.0]], [[1.0], None], [[1.0], [None]], ["x"], [[1.0, None], [1.0]]):
        pq.write_table(pa.table({"embedding": bad}), path)
        with pytest.raises(DataError, match="'embedding' of"):
            read_embeddings(path)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(DataError, match="no column 'embedding'; it has 'a'"):
        read_embeddings(path)


@pytest.mark.parametrize("value", [np.zeros(3), np.array([["x"]]), np.array([[None]])])
def test_refused_arrays(tmp_path, value):
    np.save(tmp_path / "a.npy", value)
    for name in ("a.npy", "no.npy", "b.npy", "a.txt"):
        put(tmp_path, "b.npy", "")
        put(tmp_path, "a.txt", "x")
        with pytest.raises(DataError) as e:
            read_embeddings(str(tmp_path / name))
        assert "\n" not in str(e.value)

"""A bundle in one file: read in place, and refused where it is not what fmrt package writes."""

from __future__ import annotations

import dataclasses
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from fmrt import Bundle, Embedder
from fmrt.bundle.bundle import record_of
from fmrt.bundle.push import push_bundle
from fmrt.cli import main
from fmrt.errors import BundleCorruptError, BundleError, OptionError
from fmrt.system.archive import PAGE, Archive, pack, unpack

from .conftest import TEXTS

GRAPH = "onnx/model.onnx"
WEIGHTS = f"{GRAPH}_data"


@pytest.fixture
def folder(tiny_bundle: Path, tmp_path: Path) -> Path:
    """The bundle with its weights in a file of their own, large enough for a page."""
    folder = shutil.copytree(tiny_bundle, tmp_path / "folder")
    model = onnx.load(folder / GRAPH)
    (folder / GRAPH).unlink()
    onnx.save(
        model,
        folder / GRAPH,
        save_as_external_data=True,
        location=Path(WEIGHTS).name,
        size_threshold=256,
    )
    with (folder / WEIGHTS).open("ab") as file:
        file.write(bytes(PAGE))
    manifest = Bundle.open(folder).manifest
    graph = record_of(folder / GRAPH)
    variant = dataclasses.replace(
        manifest.variants[0],
        sha256=graph.sha256,
        size=graph.size,
        external={WEIGHTS: record_of(folder / WEIGHTS)},
    )
    dataclasses.replace(manifest, variants=(variant,)).write(folder)
    return folder


@pytest.fixture
def archive(folder: Path, tmp_path: Path) -> Path:
    pack(folder, tmp_path / "tiny.fmrt")
    return tmp_path / "tiny.fmrt"


def test_one_file_gives_the_folders_vectors(folder: Path, archive: Path, tmp_path: Path) -> None:
    expected = Embedder(folder).embed(TEXTS, on_too_long="truncate")
    renamed = archive.rename(tmp_path / "ein anderer Name ü.fmrt")
    embedder = Embedder(renamed, sha256=Bundle.open(folder).manifest_sha256)
    assert np.array_equal(embedder.embed(TEXTS, on_too_long="truncate"), expected)


def test_content_is_aligned_and_the_same_each_time(
    folder: Path, archive: Path, tmp_path: Path
) -> None:
    pack(folder, tmp_path / "again.fmrt")
    assert (tmp_path / "again.fmrt").read_bytes() == archive.read_bytes()
    members = Archive(archive).members
    assert members[WEIGHTS].start % PAGE == 0
    assert all(member.start % 64 == 0 for member in members.values())
    for name, member in members.items():
        assert member.read_bytes() == (folder / name).read_bytes()
    unpack(Archive(archive), tmp_path / "out")
    assert Bundle.open(tmp_path / "out").manifest == Bundle.open(folder).manifest


@pytest.mark.parametrize("command", ["info", "verify", "embed", "search", "bench"])
def test_commands_open_it(
    command: str, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts, vectors = tmp_path / "texts.txt", tmp_path / "v.npy"
    texts.write_text("cat\ndog\nthe red cat\n")
    embed = ["embed", str(archive), str(texts), "-o", str(vectors)]
    more = {
        "search": [str(vectors), "cat", "--texts", str(texts)],
        "bench": ["--texts", str(texts), "--rounds", "1"],
    }
    if command in ("embed", "search"):
        assert main(embed) == 0
    if command != "embed":
        assert main([command, str(archive), *more.get(command, [])]) == 0
    assert "error" not in capsys.readouterr().err


def test_what_would_change_it_says_to_make_a_folder(archive: Path) -> None:
    with pytest.raises(OptionError, match=r"is a bundle in one file.*fmrt package"):
        push_bundle(archive, "org/name")
    with pytest.raises(OptionError, match="fmrt package"):
        Bundle.open(archive).in_directory()


def rewritten(
    archive: Path, change: Callable[[zipfile.ZipInfo], object], more: str | bytes | None = None
) -> None:
    """The archive as another program would write it, each member's entry changed, and one more."""
    with zipfile.ZipFile(archive) as source:
        members = [(info, source.read(info)) for info in source.infolist()]
    with zipfile.ZipFile(archive, "w") as target:
        for info, data in members:
            change(info)
            target.writestr(info, data)
        if isinstance(more, str):
            target.writestr(more, b"more")
        elif more is not None:
            target.writestr("more", more, zipfile.ZIP_DEFLATED)


def patched(offset: int, value: bytes, record: bytes) -> Callable[[Path], None]:
    """Write bytes into the last record of a kind."""

    def change(archive: Path) -> None:
        data = bytearray(archive.read_bytes())
        start = data.rindex(record) + offset
        data[start : start + len(value)] = value
        archive.write_bytes(data)

    return change


def with_method(method: int) -> Callable[[zipfile.ZipInfo], None]:
    def change(info: zipfile.ZipInfo) -> None:
        info.compress_type = method

    return change


def with_deflate(info: zipfile.ZipInfo) -> None:
    if info.filename != WEIGHTS:
        info.compress_type = zipfile.ZIP_DEFLATED


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda a: rewritten(a, lambda _: None, "../../evil"), "no name of a file"),
        (lambda a: rewritten(a, lambda _: None, "/etc/evil"), "no name of a file"),
        (lambda a: rewritten(a, lambda _: None, "onnx/../../evil"), "no name of a file"),
        (lambda a: rewritten(a, lambda _: None, "C:\\evil"), "no name of a file"),
        (lambda a: rewritten(a, lambda _: None, "a\x1bb"), "no name of a file"),
        (lambda a: rewritten(a, lambda _: None, "tokenizer.json"), "two members"),
        (lambda a: rewritten(a, lambda _: None, "TOKENIZER.json"), "two members"),
        (lambda a: rewritten(a, with_method(zipfile.ZIP_BZIP2)), "neither stored nor deflated"),
        (lambda a: rewritten(a, with_deflate, bytes(10**6)), "would become 1,000,000 bytes"),
        (lambda a: a.write_bytes(a.read_bytes()[:-1]), "cut"),
        (lambda a: a.write_bytes(a.read_bytes()[: a.stat().st_size // 2]), "cut"),
        (lambda a: a.write_bytes(a.read_bytes()[:10]), "no archive"),
        (lambda a: a.write_bytes(b""), "no archive"),
        (lambda a: a.write_bytes(bytes(2000)), "does not end"),
        (lambda a: a.write_bytes(b"before" + a.read_bytes()), "not where its end says"),
        (lambda a: a.write_bytes(a.read_bytes() + b"after"), "does not end"),
        # Of the last entry: its member's place and size, its method and flags, its names' length.
        (patched(42, struct.pack("<I", 0), b"PK\1\2"), "begin|not where"),
        (patched(20, struct.pack("<II", 9, 9), b"PK\1\2"), "another size"),
        (patched(20, struct.pack("<II", 2**31, 2**31), b"PK\1\2"), "another size"),
        (patched(10, b"\x08\0", b"PK\1\2"), "another size"),
        (patched(8, b"\x01\0", b"PK\1\2"), "encrypted"),
        (patched(28, b"\xff\xff", b"PK\1\2"), "malformed"),
        # Of the end: how many entries, and where.
        (patched(8, struct.pack("<HH", 65535, 65535), b"PK\5\6"), "65,535 members"),
        (patched(8, struct.pack("<HH", 2, 2), b"PK\5\6"), "begin|belong"),
        (patched(16, struct.pack("<I", 0), b"PK\5\6"), "not where its end says"),
    ],
)
def test_another_archive_is_refused_in_one_line(
    change: Callable[[Path], object],
    why: str,
    archive: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(archive)
    with pytest.raises(BundleCorruptError, match=why):
        Embedder(archive)
    assert main(["info", str(archive)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_two_members_may_not_share_bytes(archive: Path) -> None:
    """The last entry says where the first member is, name and all: it would be read twice."""
    data = bytearray(archive.read_bytes())
    first, last = data.index(b"PK\1\2"), data.rindex(b"PK\1\2")
    data[last + 42 : last + 46] = data[first + 42 : first + 46]
    archive.write_bytes(data)
    with pytest.raises(BundleCorruptError):
        _ = Archive(archive).members


def test_a_compressed_file_gives_the_folders_vectors(folder: Path, tmp_path: Path) -> None:
    compressed = tmp_path / "small.fmrt"
    (folder / "zeros.txt").write_bytes(bytes(10**6))  # shrinks by more than a reader takes
    pack(folder, compressed, lambda name: name != WEIGHTS)
    members = Archive(compressed).members
    assert {name for name, member in members.items() if not member.deflated} >= {
        WEIGHTS,
        "zeros.txt",
    }
    assert members["tokenizer.json"].packed < members["tokenizer.json"].size
    for name, member in members.items():
        assert member.read_bytes() == (folder / name).read_bytes()
    expected = Embedder(folder).embed(TEXTS, on_too_long="truncate")
    assert np.array_equal(Embedder(compressed).embed(TEXTS, on_too_long="truncate"), expected)
    pack(folder, tmp_path / "all.fmrt", lambda _: True)
    assert Archive(tmp_path / "all.fmrt").members[WEIGHTS].deflated
    with pytest.raises(BundleCorruptError, match="is compressed, and must be stored"):
        Embedder(tmp_path / "all.fmrt")


@pytest.mark.parametrize("size", [1, 70_000, 200_000])
def test_a_deflated_member_is_of_the_size_that_is_stated(size: int, tmp_path: Path) -> None:
    """One byte less or more is refused, and no more than that is unpacked."""
    content = np.random.default_rng(0).integers(0, 9, size, np.uint8).tobytes()
    path = tmp_path / "x.fmrt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", content)
    member = Archive(path).members["a"]
    assert member.read_bytes() == content
    for other in (size - 1, size + 1, size // 2):
        with pytest.raises(BundleCorruptError, match="corrupt: it is not of"):
            dataclasses.replace(member, size=other).read_bytes()
    for wrong in (
        dataclasses.replace(member, packed=member.packed - 1),
        dataclasses.replace(member, packed=member.packed + 1),
        dataclasses.replace(member, start=member.start + 1),
    ):
        with pytest.raises(BundleCorruptError, match="corrupt"):
            wrong.read_bytes()


@pytest.mark.parametrize("name", [WEIGHTS, GRAPH, "tokenizer.json", "reference.safetensors"])
def test_changed_content_is_refused(name: str, archive: Path) -> None:
    member = Archive(archive).members[name]
    data = bytearray(archive.read_bytes())
    data[member.start + member.size // 2] ^= 1
    archive.write_bytes(data)
    with pytest.raises(BundleError, match="corrupt"):
        Embedder(archive)


def test_a_manifest_that_lists_a_file_that_is_not_there(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer.json").unlink()
    pack(folder, tmp_path / "x.fmrt")
    with pytest.raises(BundleCorruptError, match=r"no 'tokenizer.json' in it"):
        Embedder(tmp_path / "x.fmrt")


def test_a_graph_that_reads_a_file_beyond_is_refused(folder: Path, tmp_path: Path) -> None:
    model = onnx.load(folder / GRAPH, load_external_data=False)
    tensor = next(t for t in model.graph.initializer if t.external_data)
    entry = next(e for e in tensor.external_data if e.key == "location")
    entry.value = "../../../../etc/passwd"
    onnx.save(model, folder / GRAPH)
    manifest = Bundle.open(folder).manifest
    graph = record_of(folder / GRAPH)
    variant = dataclasses.replace(manifest.variants[0], sha256=graph.sha256, size=graph.size)
    dataclasses.replace(manifest, variants=(variant,)).write(folder)
    pack(folder, tmp_path / "x.fmrt")
    with pytest.raises(BundleCorruptError, match="does not list"):
        Embedder(tmp_path / "x.fmrt")


def test_one_precision_alone_needs_no_asking(folder: Path) -> None:
    manifest = Bundle.open(folder).manifest
    variant = dataclasses.replace(manifest.variants[0], name="q8", precision="int8")
    dataclasses.replace(manifest, variants=(variant,)).write(folder)
    assert Bundle.open(folder).variant().name == "q8"

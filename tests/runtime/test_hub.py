"""Bundles on the hub: published, loaded by every command, and refused in one line.

A hub on this machine answers the library's own client over HTTP.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fmrt.bundle.bundle import Bundle
from fmrt.bundle.card import write_card

from .fake_hub import COMMIT, TOKEN, FakeHub

NAME = "owner/tiny"
EMBED = """
import sys, numpy, fmrt
with fmrt.Embedder(sys.argv[1]) as embedder:
    numpy.save(sys.argv[2], embedder.embed(["the red cat", "a dog"]))
"""
# Graphs that are not needed are not there.
EXTRA = "onnx/model_cpu.onnx"


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "tiny"
    shutil.copytree(tiny_bundle, copy)
    write_card(Bundle.open(copy), {"license": "mit"})
    return copy


@pytest.fixture
def hub(bundle: Path) -> Iterator[FakeHub]:
    with FakeHub().running() as running:
        running.add(NAME, bundle)
        yield running


@pytest.fixture
def run(hub: FakeHub, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python's arguments as a user of that hub."""
    environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"} | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_TOKEN": TOKEN,
    }

    def go(*arguments: object, **changes: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            env=environment | changes,
            cwd=tmp_path,
        )

    return go


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a command that failed."""
    assert done.returncode == 1, done
    (line,) = done.stderr.splitlines()
    assert line.startswith("fmrt: error: ")
    return line


def test_an_id_is_a_bundle_in_the_api_and_in_every_command(
    hub: FakeHub, run: Callable, bundle: Path, tmp_path: Path
) -> None:
    assert run("-c", EMBED, bundle, "local.npy").returncode == 0
    assert run("-c", EMBED, NAME, "hub.npy").returncode == 0
    assert np.array_equal(np.load(tmp_path / "local.npy"), np.load(tmp_path / "hub.npy"))
    (tmp_path / "t.txt").write_text("the cat\na dog\n")
    for command in (
        ["info", NAME],
        ["verify", NAME, "--revision", "main"],
        ["embed", NAME, "t.txt", "-o", "v.npy", "--revision", COMMIT],
        ["search", NAME, "v.npy", "a cat"],
    ):
        assert run("-m", "fmrt", *command).returncode == 0, command
    assert "--record" in refused(run("-m", "fmrt", "verify", NAME, "--record"))
    hub.asked.clear()
    assert run("-m", "fmrt", "info", NAME, HF_HUB_OFFLINE="1").returncode == 0
    assert hub.asked == []


def test_only_what_is_used_is_fetched(hub: FakeHub, run: Callable, bundle: Path) -> None:
    hub.files[NAME][EXTRA] = b"no graph"
    assert run("-m", "fmrt", "info", NAME).returncode == 0
    fetched = {a.rpartition("/")[2] for a in hub.asked if a.startswith("GET") and "resolve" in a}
    assert fetched == {"fmrt.json"}
    assert run("-c", EMBED, NAME, "v.npy").returncode == 0
    used = {*Bundle.open(bundle).manifest.files, "onnx/model.onnx", "fmrt.json"}
    fetched = {a for a in hub.asked if a.startswith("GET") and "/resolve/" in a}
    assert {a.split("/", 5)[-1] for a in fetched} == used


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("owner/other", {}, "no such repository, or a private one"),
        (NAME, {"HF_TOKEN": "hf_wrong"}, "log in (hf auth login, or HF_TOKEN)"),
        ("owner/gated", {}, "must grant you access"),
        ("owner/model", {}, "fmrt export owner/model BUNDLE"),
        (NAME, {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        pytest.param(
            NAME,
            {"HF_ENDPOINT": "http://127.0.0.1:9"},
            "http://127.0.0.1:9 cannot be reached",
            marks=pytest.mark.slow,  # the library tries again for 25 s
        ),
        ("owner/..", {}, "owner/.."),
        ("no-such-directory", {}, "no such directory"),
    ],
)
def test_what_the_hub_does_not_give_is_one_line(
    hub: FakeHub, run: Callable, name: str, options: dict[str, str], words: str
) -> None:
    hub.private.add(NAME)
    hub.gated.add("owner/gated")
    hub.files["owner/model"] = {"config.json": b"{}"}
    line = refused(run("-m", "fmrt", "info", name, **options))
    assert words in line
    assert name in line


def test_a_renamed_repository_is_followed_and_a_circle_is_not(hub: FakeHub, run: Callable) -> None:
    hub.moved = {"owner/old": NAME, "owner/circle": "owner/circle"}
    assert run("-c", EMBED, "owner/old", "v.npy").returncode == 0
    assert "owner/circle" in refused(run("-m", "fmrt", "info", "owner/circle"))


def test_a_revision_is_the_hubs(run: Callable, bundle: Path) -> None:
    line = refused(run("-m", "fmrt", "verify", NAME, "--revision", "v9"))
    assert "no revision 'v9'" in line
    assert "is for bundles of the hub" in refused(
        run("-m", "fmrt", "info", bundle, "--revision", "v9")
    )


@pytest.mark.parametrize(
    ("file", "lie"),
    [
        ("onnx/model.onnx", "flipped"),
        ("onnx/model.onnx", "short"),
        ("onnx/model.onnx", "long"),
        ("onnx/model.onnx", "restated"),
        ("tokenizer.json", "flipped"),
        ("reference.safetensors", "missing"),
        ("fmrt.json", "restated"),
        ("fmrt.json", "missing"),
    ],
)
def test_a_hub_that_lies_is_not_believed(
    hub: FakeHub, run: Callable, file: str, lie: str, tmp_path: Path
) -> None:
    changes = {
        "flipped": lambda data: bytes([data[0] ^ 1]) + data[1:],
        "short": lambda data: data[: len(data) // 2],
        "long": lambda data: data + b"more",
        "restated": lambda data: data[: len(data) // 2],
    }
    if lie == "missing":
        del hub.files[NAME][file]
    else:
        change = changes[lie]
        kind = "restate" if lie == "restated" else "lie"
        setattr(hub, kind, lambda name, data: change(data) if name == file else data)
    done = run("-c", EMBED, NAME, "v.npy")
    if lie == "long":  # what is beyond the stated end is not read
        assert done.returncode == 0
        return
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(("fmrt.errors.BundleCorruptError", "fmrt.errors.BundleNotFoundError"))
    assert not (tmp_path / "v.npy").exists()
    hub.lie = hub.restate = lambda _, data: data
    if lie != "missing" and file != "fmrt.json":  # the cache has kept no lie
        assert run("-c", EMBED, NAME, "v.npy").returncode == 0


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("onnx/other.onnx", "lists onnx/other.onnx, and it has no such file"),
        ("../../../../other.onnx", "../../../../other.onnx"),
    ],
)
def test_a_manifest_that_names_another_file_is_refused(
    hub: FakeHub, run: Callable, file: str, words: str
) -> None:
    manifest = json.loads(hub.files[NAME]["fmrt.json"])
    manifest["variants"][0]["file"] = file
    hub.files[NAME]["fmrt.json"] = json.dumps(manifest).encode()
    assert words in refused(run("-m", "fmrt", "verify", NAME))
    assert not any(".." in asked for asked in hub.asked)


def test_a_bundle_is_pushed_whole_and_once(
    hub: FakeHub, run: Callable, bundle: Path, tmp_path: Path
) -> None:
    (bundle / ".hidden").write_text("x")
    (bundle / "fmrt.json.partial-1").write_text("x")
    (bundle / "onnx/stray.onnx").write_bytes(b"left by a run that was killed")
    done = run("-m", "fmrt", "push", bundle, "new/bundle", "--private")
    assert done.returncode == 0, done.stderr
    assert f"{hub.url}/new/bundle\n" in done.stdout
    assert hub.created[-1].get("visibility", hub.created[-1].get("private")) in ("private", True)
    there = hub.files["new/bundle"]
    assert not {".hidden", "fmrt.json.partial-1", "onnx/stray.onnx"} & set(there)
    for name, data in there.items():
        if name != "README.md":
            assert (bundle / name).read_bytes() == data
    assert b'fmrt.Embedder("new/bundle")' in there["README.md"]
    assert "ORG/NAME" in (bundle / "README.md").read_text()
    sent = hub.uploads
    assert run("-m", "fmrt", "push", bundle, "new/bundle").returncode == 0
    assert hub.uploads == sent
    assert run("-c", EMBED, "new/bundle", "v.npy").returncode == 0


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("POST", "repos/create", 401, "log in (hf auth login, or HF_TOKEN)"),
        ("POST", "repos/create", 403, "may not write there"),
        ("POST", "preupload", 403, "may not write there"),
        ("POST", "/commit/", 409, "push again"),
        ("POST", "/commit/", 412, "push again"),
        ("POST", "repos/create", 501, "it fails at the moment"),
        ("PUT", "/lfs/", 403, "may not write there"),
    ],
)
def test_a_push_that_the_hub_refuses_is_one_line(
    hub: FakeHub, run: Callable, bundle: Path, method: str, path: str, status: int, words: str
) -> None:
    hub.fail[method, path] = status
    line = refused(run("-m", "fmrt", "push", bundle, "new/bundle"))
    assert words in line
    assert str(status) in line
    assert "new/bundle" in line


def test_a_push_is_checked_before_and_after(
    hub: FakeHub, run: Callable, bundle: Path, tmp_path: Path
) -> None:
    hub.restate = lambda name, data: data + b" " if name == "tokenizer.json" else data
    line = refused(run("-m", "fmrt", "push", bundle, "new/bundle"))
    assert "has another tokenizer.json than was sent" in line
    assert "owner/name" in refused(run("-m", "fmrt", "push", bundle, "no good name"))
    assert "on the hub already" in refused(run("-m", "fmrt", "push", NAME, "new/bundle"))
    hub.asked.clear()
    data = bytearray((bundle / "onnx/model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "onnx/model.onnx").write_bytes(data)
    assert "corrupt" in refused(run("-m", "fmrt", "push", bundle, "new/bundle"))
    assert hub.asked == []

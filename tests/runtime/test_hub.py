"""A bundle on the hub: only the files of one variant are fetched, and failures are one line."""

from __future__ import annotations

import fnmatch
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest

import fmrt
from fmrt.errors import BundleNotFoundError


@pytest.fixture
def hub(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's client, with the repository "owner/tiny" in a directory; gives its cache."""
    cache = tmp_path / "cache"

    def fetch(repository: str, patterns: list[str]) -> Path:
        if repository != "owner/tiny":
            raise OSError(f"404: no repository {repository}\nwith more lines")
        for file in tiny_bundle.rglob("*"):
            name = file.relative_to(tiny_bundle).as_posix()
            if file.is_file() and any(fnmatch.fnmatch(name, p) for p in patterns):
                (cache / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, cache / name)
        return cache

    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda r, name, **_: str(fetch(r, [name]) / name)
    )
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda r, allow_patterns, **_: str(fetch(r, allow_patterns)),
    )
    return cache


@pytest.mark.parametrize("provider", ["cpu", "auto"])
def test_only_what_one_variant_needs_is_fetched(
    hub: Path, tiny_bundle: Path, provider: str
) -> None:
    with fmrt.Embedder.from_pretrained("owner/tiny", provider=provider) as embedder:
        got = embedder.embed(["a text"])
    with fmrt.Embedder(tiny_bundle) as embedder:
        assert np.array_equal(got, embedder.embed(["a text"]))
    manifest = fmrt.Bundle.open(hub).manifest
    names = {p.relative_to(hub).as_posix() for p in hub.rglob("*") if p.is_file()}
    graphs = {v.file for v in manifest.variants} & names
    assert len(graphs) == 1
    assert names == {"fmrt.json", *manifest.files, *graphs}


def test_an_unknown_repository_and_a_wrong_path_are_one_line(hub: Path) -> None:
    for name in ("owner/other", "no-such-directory", "./no/such"):
        with pytest.raises(BundleNotFoundError) as e:
            fmrt.Embedder.from_pretrained(name)
        assert "\n" not in str(e.value)

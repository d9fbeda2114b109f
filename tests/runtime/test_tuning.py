"""Threads and batches: what was measured is used here alone, and few items have the cores alone."""

from __future__ import annotations

import dataclasses
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

import fmrt
from fmrt.bundle.bundle import Bundle
from fmrt.embedding import engine, tuning
from fmrt.embedding.tuning import Tuning, load_tuning, save_tuning, tuning_file
from fmrt.errors import OptionError
from fmrt.session import AllCores

from .conftest import WORDS


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("FMRT_CACHE", str(tmp_path / "cache"))


def test_a_measurement_is_found_again_and_only_where_it_was_made(tiny_bundle, monkeypatch) -> None:
    variant = Bundle.open(tiny_bundle).variant(None, "cpu")
    assert load_tuning(variant) == Tuning()
    best = Tuning(batch_tokens=256, workers=3, intra_op_threads=2, query_threads=4)
    file = save_tuning(variant, best, {})
    assert file.is_relative_to(tuning.cache_directory())
    assert load_tuning(variant) == best
    assert load_tuning(dataclasses.replace(variant, sha256="0" * 64)) == Tuning()
    monkeypatch.setattr(tuning, "cpu_name", lambda: "another CPU")
    assert load_tuning(variant) == Tuning()


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"tuning": {"workers": 0}}', '{"tuning": {"workers": "2"}}']
)
def test_an_unreadable_measurement_is_none(tiny_bundle, content) -> None:
    variant = Bundle.open(tiny_bundle).variant(None, "cpu")
    file = tuning_file(variant)
    file.parent.mkdir(parents=True)
    file.write_text(content)
    assert load_tuning(variant) == Tuning()


def test_the_embedder_uses_the_measurement_unless_told_otherwise(tiny_bundle, monkeypatch) -> None:
    opened: list[int] = []
    real = engine.open_session

    def record(*args):
        opened.append(args[-1])
        return real(*args)

    monkeypatch.setattr(engine, "open_session", record)
    save_tuning(Bundle.open(tiny_bundle).variant(None, "cpu"), Tuning(None, 1, 2, 1), {})
    for options in ({}, {"workers": 2}, {"intra_op_threads": 3}):
        with fmrt.Embedder(tiny_bundle, **options) as embedder:
            embedder.embed(["cat"])
    assert opened == [2, 1, 3]
    with pytest.raises(OptionError, match="intra_op_threads=0"):
        fmrt.Embedder(tiny_bundle, intra_op_threads=0)


def test_few_items_soon_get_the_cores_alone(tiny_bundle, monkeypatch) -> None:
    monkeypatch.setattr(engine, "default_query_threads", lambda: 2)
    used: list[int] = []
    real = engine.open_session

    def record(*args):
        session, threads = real(*args), args[-1]
        run = session.run
        session.run = lambda feeds: used.append(threads) or run(feeds)
        return session

    monkeypatch.setattr(engine, "open_session", record)
    with fmrt.Embedder(tiny_bundle, verify=False) as embedder:
        first = embedder.embed_query("the red cat")
        assert used == [1]
        embedder.embed_query("the red cat")
        embedder._engine(None, ()).wait()
        third = embedder.embed_query("the red cat")
        assert used[0] == 1
        assert used[-1] == 2
        del used[:]
        embedder.embed([" ".join(pair) for pair in permutations(WORDS, 2)])
        assert set(used) == {1}
    assert np.abs(first - third).max() <= 2e-6


def test_two_callers_do_not_share_the_cores() -> None:
    session = object()
    all_cores = AllCores(lambda: session)
    for _ in range(2):
        assert all_cores.take() is None
    all_cores.wait()
    assert all_cores.take() is session
    assert all_cores.take() is None
    all_cores.give_back()
    assert all_cores.take() is session


def test_a_session_that_cannot_be_opened_is_an_error_and_not_slowness() -> None:
    def fail():
        raise OptionError("no memory")

    all_cores = AllCores(fail)
    for _ in range(2):
        assert all_cores.take() is None
    all_cores.wait()
    with pytest.raises(OptionError, match="no memory"):
        all_cores.take()

"""CUDA graphs of few items without being asked: used where they are right, given up where not."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

import fmrt
from fmrt.errors import ProviderWarning
from fmrt.session.device import DeviceSession
from fmrt.session.providers import cuda

from .conftest import WORDS
from .simulated_gpu import Simulated

QUERIES = ["the cat", "a dog", "red road", "blue mat", "one two", "a cat ran", "the dog sat"]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Simulated:
    simulated = Simulated()
    monkeypatch.setattr(cuda, "PROVIDER", simulated)
    return simulated


def embed_alone(bundle: Path, **options: object) -> np.ndarray:
    """Each query alone; from the third on, the session for that is open."""
    with fmrt.Embedder(bundle, provider="cuda", **options) as embedder:
        found = []
        for query in QUERIES * 2:
            found.append(embedder.embed([query]))
            embedder._engines["text"].wait()
        return np.concatenate(found)


def right(bundle: Path) -> np.ndarray:
    with fmrt.Embedder(bundle) as embedder:
        return np.concatenate([embedder.embed([query]) for query in QUERIES * 2])


def counting(runs: list[int]) -> Callable[[DeviceSession], DeviceSession]:
    def recording(session: DeviceSession) -> DeviceSession:
        run = session.run

        def counted(feeds: Mapping[str, np.ndarray]) -> np.ndarray:
            runs.append(1)
            return run(feeds)

        session.run = counted
        return session

    return recording


def test_few_items_that_come_repeatedly_are_recorded(tiny_bundle: Path, gpu: Simulated) -> None:
    runs: list[int] = []
    gpu.recording = counting(runs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = embed_alone(tiny_bundle)
    assert gpu.opened == [False, True]
    assert len(runs) >= 2 * len(QUERIES) - 2
    assert np.abs(got - right(tiny_bundle)).max() < 1e-6


@pytest.mark.parametrize("options", [{"cuda_graphs": False}, {"gpu_mem_limit": 1 << 30}])
def test_not_where_the_user_says_otherwise(
    options: dict[str, object], tiny_bundle: Path, gpu: Simulated
) -> None:
    assert np.abs(embed_alone(tiny_bundle, **options) - right(tiny_bundle)).max() < 1e-6
    assert gpu.opened == [False]


def no_capture(_: DeviceSession) -> DeviceSession:
    raise RuntimeError("This session cannot use the graph capture feature\nat graph.cc")


def no_run(session: DeviceSession) -> DeviceSession:
    def run(_: Mapping[str, np.ndarray]) -> np.ndarray:
        raise RuntimeError("CUDA failure 900: operation not permitted when stream is capturing")

    session.run = run
    return session


def stale(session: DeviceSession) -> DeviceSession:
    """A record that does not read its inputs again."""
    run, kept = session.run, {}

    def replayed(feeds: Mapping[str, np.ndarray]) -> np.ndarray:
        return kept.setdefault("vectors", run(feeds))

    session.run = replayed
    return session


@pytest.mark.parametrize(
    ("recording", "why"),
    [
        (no_capture, "cannot use the graph capture feature;"),
        (no_run, "not permitted when stream is capturing;"),
        (stale, "they give other vectors;"),
    ],
)
def test_what_cannot_be_recorded_is_said_once(
    recording: Callable[[DeviceSession], DeviceSession],
    why: str,
    tiny_bundle: Path,
    gpu: Simulated,
) -> None:
    gpu.recording = recording
    with pytest.warns(ProviderWarning, match="CUDA graphs are not used.*" + why) as told:
        got = embed_alone(tiny_bundle)
    assert len(told) == 1
    assert np.abs(got - right(tiny_bundle)).max() < 1e-6


def test_long_lists_stay_with_the_plain_session(tiny_bundle: Path, gpu: Simulated) -> None:
    runs: list[int] = []
    gpu.recording = counting(runs)
    texts = [" ".join(words) for words in itertools.product(WORDS[:7], repeat=3)]
    with fmrt.Embedder(tiny_bundle, provider="cuda") as embedder:
        for _ in range(3):
            embedder.embed(texts)
            embedder._engines["text"].wait()
    assert not runs


def test_a_large_graph_is_not_loaded_twice(
    tiny_bundle: Path, gpu: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmrt.embedding.engine.MOST_WEIGHTS_TWICE", 10)
    embed_alone(tiny_bundle)
    assert gpu.opened == [False]

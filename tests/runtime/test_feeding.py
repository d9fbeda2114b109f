"""A fast device is kept busy: preparing and computing overlap from the first window to the last."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmrt.embed_options import EmbedOptions
from fmrt.embedding.scheduler import Workers, window_sizes
from fmrt.embedding.stream import Parts, Stream, Truncation

TEXTS = 20_000


class Encoded:
    counted, errors, cut = True, {}, ()

    def __init__(self, lengths):
        self.lengths = np.array(lengths)

    def feeds(self, rows):
        return {"lengths": self.lengths[rows]}


class Stage:
    """Work that takes time and no processor, one piece at a time."""

    def __init__(self, seconds_each):
        self.busy = 0.0
        self._each = seconds_each
        self._lock = threading.Lock()

    def work(self, amount):
        with self._lock:
            start = time.perf_counter()
            time.sleep(self._each * amount)
            self.busy += time.perf_counter() - start


class Tokenizer:
    """Prepares items that are their own lengths."""

    unit, parallel, padded, dedupe, window_weight, limit, stride = "text", 0, 1, 0, 1 << 40, 512, 1

    def __init__(self, stage):
        self._stage = stage

    def load(self, item):
        return item

    def weight(self, _):
        return 1

    def encode(self, loaded, *_):
        self._stage.work(len(loaded))
        return Encoded(loaded)

    def constants(self, _):
        return {}


class Device:
    workers, batch_tokens, window_items, longest_padded = 2, 16_384, 16_384, None

    def __init__(self, stage):
        self._stage = stage

    def run(self, feeds):
        lengths = feeds["lengths"]
        self._stage.work(len(lengths) * int(lengths.max()))
        return lengths[:, None].astype(np.float32)


def overlap(lengths, preparing, computing):
    """The stream's time over that of its longer stage."""
    tokenizing = Stage(preparing / len(lengths))
    device = Stage(computing / sum(lengths))
    parts = Parts(
        SimpleNamespace(grid=None),
        SimpleNamespace(padded=True, alone=False),
        (1,),
        Tokenizer(tokenizing),
        Device(device),
        Workers(2),
        Workers(1),
        None,
        None,
    )
    stream = Stream(
        parts,
        lambda item: item,
        EmbedOptions(),
        batch_tokens=Device.batch_tokens,
        prompt="",
        truncation=Truncation(),
        on_error=None,
        all_cores=False,
        group_of=None,
        held_bytes=None,
    )
    start = time.perf_counter()
    vectors = np.concatenate([part for _, part in stream.run(lengths)])
    took = time.perf_counter() - start
    np.testing.assert_array_equal(vectors[:, 0], lengths)
    parts.workers.close()
    parts.loaders.close()
    return took / max(tokenizing.busy, device.busy)


@pytest.mark.parametrize(
    ("preparing", "computing"), [(1.0, 1.0), (1.0, 0.25), (1.0, 0.05), (0.25, 1.0)]
)
def test_a_stream_takes_little_longer_than_its_longer_stage(preparing, computing):
    generator = np.random.default_rng(0)
    lengths = generator.lognormal(3.7, 0.6, TEXTS).clip(5, 256).astype(int).tolist()
    # A machine that does other work delays threads: one turn of some must be undisturbed.
    found = []
    for _ in range(5):
        found.append(overlap(lengths, preparing, computing))
        if found[-1] <= 1.15:
            return
    pytest.fail(f"times its longer stage: {found}")


@given(st.integers(1, 5000), st.integers(1, 300), st.integers(0, 100_000))
def test_windows_grow_and_shrink_within_their_bounds(most, least, total):
    left, sizes = total, []
    for size in window_sizes(most, least, total):
        assert size == least or least < size <= most
        sizes.append(size)
        left -= size
        if left <= 0:
            break
    assert len(sizes) <= total // least + 1

"""Invariants of batches, windows, workers, cores and output conversion."""

from __future__ import annotations

import threading
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fmrt.embedding.postprocess import make_postprocess
from fmrt.embedding.scheduler import Workers, plan_batches, windows
from fmrt.system import cores

lengths = hnp.arrays(np.int64, st.integers(0, 200), elements=st.integers(1, 600))


@given(lengths, st.integers(1, 2000))
def test_every_row_is_in_one_batch_and_batches_keep_the_budget(lengths, batch_tokens) -> None:
    batches = plan_batches(lengths, batch_tokens)
    assert sorted(np.concatenate([[], *batches]).tolist()) == list(range(len(lengths)))
    for rows in batches:
        longest = int(lengths[rows].max())
        assert len(rows) == 1 or len(rows) * longest <= batch_tokens


@given(lengths, st.integers(1, 2000), st.integers(0, 600))
def test_rows_that_may_not_be_padded_are_not(lengths, batch_tokens, longest_padded) -> None:
    batches = plan_batches(lengths, batch_tokens, longest_padded=longest_padded)
    assert sorted(np.concatenate([[], *batches]).tolist()) == list(range(len(lengths)))
    for rows in batches:
        longest = int(lengths[rows].max())
        assert longest <= longest_padded or set(lengths[rows].tolist()) == {longest}


@given(lengths, st.integers(1, 2000), st.integers(2, 5))
def test_workers_end_together(lengths, batch_tokens, workers) -> None:
    batches = plan_batches(lengths, batch_tokens, workers=workers)
    assert sorted(np.concatenate([[], *batches]).tolist()) == list(range(len(lengths)))
    busy = [0] * workers
    for rows in batches:
        busy[busy.index(min(busy))] += len(rows) * int(lengths[rows].max())
    # The last to end began a batch that was a single row, of the least size, or at most a share
    # of what was left then.
    single = int(lengths.max(initial=0))
    assert max(busy) - min(busy) <= max(single, batch_tokens // 8) + sum(busy) / (2 * workers)


@given(lengths, st.integers(600, 2000))
def test_sorting_leaves_little_padding(lengths, batch_tokens) -> None:
    batches = plan_batches(lengths, batch_tokens)
    # A batch wastes at most budget * (1 - shortest / longest), which is at most
    # budget * log(longest / shortest), and lengths fall from batch to batch.
    waste = sum(len(rows) * int(lengths[rows].max()) - int(lengths[rows].sum()) for rows in batches)
    if len(lengths):
        assert waste <= batch_tokens * np.log(lengths.max() / lengths.min()) + 1e-6


def test_a_batch_ends_where_the_next_row_would_be_mostly_padding() -> None:
    lengths = np.array([100] * 3 + [10] * 60)
    sizes = [len(rows) for rows in plan_batches(lengths, 512)]
    assert sizes == [3, 51, 9]
    # But it keeps its half, as small batches cost more than padding.
    sizes = [len(rows) for rows in plan_batches(np.array([100] + [60] * 60), 512)]
    assert sizes[0] == 3


@given(st.lists(st.text(max_size=30)), st.integers(1, 9), st.integers(1, 60))
def test_windows_cut_a_stream_in_order(items, most_items, most_characters) -> None:
    cut = list(windows(items, len, most_characters, repeat(most_items)))
    assert [item for window in cut for item in window] == items
    for window in cut:
        assert 1 <= len(window) <= most_items
        assert sum(map(len, window[:-1])) < most_characters


def test_results_keep_their_order_and_windows_overlap() -> None:
    workers = Workers(2)
    both = threading.Barrier(2)
    done: list[int] = []

    def call(value: int) -> None:
        if value < 2:
            both.wait(timeout=10)  # passes only when the first two windows run at once
        done.append(value)

    jobs = ((value, [lambda v=value: call(v)]) for value in range(20))
    assert list(workers.run(jobs)) == list(range(20))
    assert sorted(done) == list(range(20))
    workers.close()


def test_an_error_in_a_batch_is_raised_and_the_rest_is_dropped() -> None:
    workers = Workers(1)
    ran: list[int] = []

    def call(value: int) -> None:
        ran.append(value)
        if value == 1:
            raise RuntimeError("in a batch")

    jobs = ((v, [lambda v=v: call(v)] * 3) for v in range(1000))
    with pytest.raises(RuntimeError, match="in a batch"):
        list(workers.run(jobs))
    workers.close()
    assert max(ran) <= 3


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_cores_respect_the_cgroup_quota(tmp_path: Path, monkeypatch, files, quota) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(cores, "CGROUP", tmp_path)
    monkeypatch.setattr(cores, "_affinity", lambda: 8)
    assert cores.available_cores() == (8 if quota is None else int(np.ceil(quota)))


vectors = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 20)),
    elements=st.floats(-100, 100, width=32),
)


@given(vectors, st.sampled_from(["float32", "float16", "int8", "uint8", "binary"]), st.booleans())
def test_a_row_does_not_depend_on_the_others(vectors, precision, normalize) -> None:
    post = make_postprocess(
        dim=vectors.shape[1],
        normalized=False,
        truncate_dim=None,
        normalize=normalize,
        precision=precision,
        reference=lambda: vectors,
    )
    together = post(vectors)
    assert together.shape == (len(vectors), post.width)
    for i in range(len(vectors)):
        assert np.array_equal(together[i : i + 1], post(vectors[i : i + 1]))


@given(vectors)
def test_int8_is_within_half_a_step(vectors) -> None:
    post = make_postprocess(
        dim=vectors.shape[1],
        normalized=False,
        truncate_dim=None,
        normalize=False,
        precision="int8",
        reference=lambda: vectors,
    )
    back = post(vectors).astype(np.float64) * post.scale / 127
    assert np.abs(back - vectors).max() <= post.scale / 127 * 0.5001

"""The weights of the session for queries lie in huge pages, on systems that have them."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import numpy as np
import pytest

from fmrt.system import huge_pages
from fmrt.system.huge_pages import _blocks, _huge_page_size

KERNEL = tuple(map(int, re.findall(r"\d+", platform.release())[:2]))
KIB = re.compile(r"AnonHugePages:\s+(\d+) kB")


def huge_bytes() -> int:
    return 1024 * int(KIB.findall(Path("/proc/self/smaps_rollup").read_text())[0])


@pytest.mark.skipif(
    platform.system() != "Linux" or KERNEL < (6, 1) or _huge_page_size() not in range(1, 1 << 23),
    reason="no MADV_COLLAPSE here, or no huge pages of a few MiB",
)
def test_memory_taken_meanwhile_moves_into_huge_pages_and_keeps_its_content() -> None:
    before = np.ones(1 << 24, np.uint8)
    old = huge_bytes()
    with huge_pages.huge_pages():
        meanwhile = np.arange(1 << 23)
    assert huge_bytes() - old >= meanwhile.nbytes - 2 * _huge_page_size()
    assert np.array_equal(meanwhile, np.arange(1 << 23))
    assert before.all()


def test_systems_without_huge_pages_are_left_alone(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(huge_pages, "_PAGE_SIZE", tmp_path / "none")
    monkeypatch.setattr(huge_pages, "_MAPS", tmp_path / "none")
    assert _blocks(_huge_page_size()) == set()
    with huge_pages.huge_pages():
        pass


def test_blocks_are_whole_pages_of_anonymous_memory(monkeypatch, tmp_path) -> None:
    maps = tmp_path / "maps"
    maps.write_text(
        "00200000-00500000 rw-p 00000000 00:00 0          [heap]\n"
        "00900001-00dfffff rw-p 00000000 00:00 0 \n"
        "01000000-02000000 rw-p 00000000 08:01 77         /usr/lib/a.so\n"
        "03000000-04000000 r--p 00000000 00:00 0 \n"
        "05000000-06000000 rw-p 00000000 00:00 0          [stack]\n"
    )
    monkeypatch.setattr(huge_pages, "_MAPS", maps)
    assert _blocks(1 << 21) == {0x200000, 0xA00000}

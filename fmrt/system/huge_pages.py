"""Weights in huge pages, so that reading them all for one short text misses fewer address lookups.

A query reads every weight once: with pages of 4 KiB, thousands of them that the processor has to
look up. What that is worth is in docs/performance.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# madvise(2), since Linux 6.1: make huge pages of what is there, now. Older kernels refuse it.
MADV_COLLAPSE = 25
_PAGE_SIZE = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
_MAPS = Path("/proc/self/maps")  # proc(5)


@contextmanager
def huge_pages() -> Iterator[None]:
    """Put the memory that the process takes meanwhile into huge pages, where the system has them.

    Memory from before is left as it is, and so are mapped files. What is in the memory stays the
    same; what cannot be moved stays where it is.
    """
    size = _huge_page_size()
    before = _blocks(size)
    yield
    new = _blocks(size) - before
    if new:
        import ctypes  # most processes need none

        madvise = ctypes.CDLL(None).madvise
        madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        for block in sorted(new):
            madvise(block, size, MADV_COLLAPSE)


def _huge_page_size() -> int:
    """Bytes of a huge page; 0 on systems without transparent ones, or that do not show them."""
    try:
        return int(_PAGE_SIZE.read_text()) if os.access(_MAPS, os.R_OK) else 0
    except OSError:
        return 0


def _blocks(size: int) -> set[int]:
    """Addresses at which a huge page would fit into anonymous memory of this process."""
    found: set[int] = set()
    if size:
        for line in _MAPS.read_text(encoding="utf-8").splitlines():
            addresses, access, _, _, inode, *name = line.split(maxsplit=5)
            if access == "rw-p" and inode == "0" and name in ([], ["[heap]"]):
                start, end = (int(address, 16) for address in addresses.split("-"))
                found.update(range(-(-start // size) * size, end - size + 1, size))
    return found

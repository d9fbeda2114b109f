"""Host memory that a GPU copies from directly: page-locked, which also frees the CPU meanwhile."""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

from numpy.typing import NDArray

from fmrt.session.diagnosis import cuda_runtime

# Below this the driver's own staging buffer does as well, and locking costs more than it gains.
WORTH_LOCKING = 1 << 20


def page_locked(array: NDArray[Any]) -> NDArray[Any]:
    """Lock an array's pages in memory for as long as it lives; returns it.

    An array that cannot be locked, as the user's limit of locked memory is reached, is copied
    through the driver's staging buffer: slower, and just as right.
    """
    runtime = cuda_runtime()
    if runtime is None or array.nbytes < WORTH_LOCKING:
        return array
    address = ctypes.c_void_p(array.ctypes.data)
    if runtime.cudaHostRegister(address, ctypes.c_size_t(array.nbytes), 0) == 0:
        weakref.finalize(array, runtime.cudaHostUnregister, address)
    else:
        runtime.cudaGetLastError()  # else the next call would report it
    return array

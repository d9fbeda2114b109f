"""Why a provider of ONNX Runtime does not start, in words, before ONNX Runtime falls back.

ONNX Runtime answers a library that it cannot load with a log line and a session on the CPU. Here
the same library is loaded first, so that the loader's own message names what is missing.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import re
import sys
import threading
from pathlib import Path
from typing import Any

import onnxruntime as ort

# The NVIDIA driver's own library, which no Python package brings.
DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
INSTALL_DRIVER = (
    "install NVIDIA's driver, or give the container the GPU (docker run --gpus all), "
    "and check with nvidia-smi"
)
INSTALL_TENSORRT = "pip install tensorrt"
# CUDA's error codes (cuda_runtime_api.h) that a user can do something about.
CUDA_ERRORS = {
    35: "update NVIDIA's driver, or install an onnxruntime-gpu of the CUDA that nvidia-smi shows",
    100: "check nvidia-smi and CUDA_VISIBLE_DEVICES",
}
_MISSING = re.compile(r"(\S+): cannot open shared object file|Could not find module '([^']+)'")


def wheel_problem(provider: str) -> str:
    """What is wrong with a wheel that lacks a provider, by ONNX Runtime's name.

    The CPU and the GPU wheel have the same files: whichever was installed last is there, and
    uninstalling one breaks the other.
    """
    from importlib import metadata  # takes memory, and is seldom needed

    installed = {d.name for d in metadata.distributions(name="onnxruntime")}
    both = installed | {d.name for d in metadata.distributions(name="onnxruntime-gpu")}
    clash = ""
    if {"onnxruntime", "onnxruntime-gpu"} <= both:
        clash = " (onnxruntime and onnxruntime-gpu are both installed and overwrite each other)"
    return f"the installed ONNX Runtime {ort.__version__} was built without {provider}{clash}"


def load_problem(library: str, install: str) -> str | None:
    """Why a provider's library or its first device cannot be had, and what to do; None if it can.

    Args:
        library: The name of the library without ``lib`` and ending.
        install: What to do when one of CUDA's libraries is missing.
    """
    text = _load_error(library)
    if text is not None:
        return explain_load_error(text, install)
    return _device_problem()


def explain_load_error(text: str, install: str) -> str:
    """What the loader says about a library, in words, with what to do.

    Example:
        >>> explain_load_error("libcuda.so.1: cannot open shared object file: No such file", "x")
        "libcuda.so.1 is missing: install NVIDIA's driver, or ..."  # doctest: +SKIP
    """
    found = _MISSING.search(text)
    if found is None:
        return f"its library cannot be loaded ({text}); {install}"
    name = found.group(1) or Path(found.group(2)).name
    if name == DRIVER:
        return f"{name} is missing: {INSTALL_DRIVER}"
    if "nvinfer" in name or "nvonnxparser" in name:
        return f"{name} is missing: {INSTALL_TENSORRT}"
    return f"{name} is missing: {install}"


# One thread at a time: standard output is one for all of them.
_turn = threading.Lock()


@functools.cache
def _load_error(library: str) -> str | None:
    """The loader's message for a provider's library, or None when it loads."""
    _preload()
    ending = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
    prefix = "" if sys.platform == "win32" else "lib"
    folder = Path(ort.__file__).parent / "capi"
    try:
        for name in ("onnxruntime_providers_shared", library):
            ctypes.CDLL(str(folder / f"{prefix}{name}{ending}"), mode=ctypes.RTLD_GLOBAL)
    except OSError as e:
        return str(e)
    return None


def _preload() -> None:
    """Load the CUDA libraries that NVIDIA's or PyTorch's packages bring, without a word."""
    if hasattr(ort, "preload_dlls"):
        with _turn, contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()


def has_nvidia_driver() -> bool:
    """Whether this machine has NVIDIA's driver, the sign of a GPU."""
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return False
    return True


def cuda_device_count() -> int:
    """Number of CUDA devices that this process may use."""
    return _count_devices()[1]


@functools.cache
def cuda_device_model(index: int) -> str | None:
    """The name of a GPU's model, ``NVIDIA H100 80GB HBM3``; None where the driver does not say."""
    return _said_by_driver("cuDeviceGetName", index)


def cuda_device_address(index: int) -> str | None:
    """A GPU's place on the PCI bus, ``00000000:65:00.0``; None where the driver does not say."""
    return _said_by_driver("cuDeviceGetPCIBusId", index)


def _said_by_driver(function: str, index: int) -> str | None:
    """A text that a function of the driver writes about a device."""
    try:
        driver = ctypes.CDLL(DRIVER)
        handle, text = ctypes.c_int(0), ctypes.create_string_buffer(256)
        failed = (
            driver.cuInit(0)
            or driver.cuDeviceGet(ctypes.byref(handle), index)
            or getattr(driver, function)(text, len(text), handle)
        )
    except (OSError, AttributeError):
        return None
    return None if failed else text.value.decode(errors="replace") or None


def _device_problem() -> str | None:
    code, count, text = _count_devices()
    if code == 0 and count:
        return None
    advice = CUDA_ERRORS.get(code, INSTALL_DRIVER)
    return f"{text} (CUDA error {code}): {advice}" if code else f"no CUDA device: {advice}"


@functools.cache
def _count_devices() -> tuple[int, int, str]:
    """Error code, number of devices, and the error's text, of CUDA's runtime.

    Where that library cannot be asked, one device is taken on trust: ONNX Runtime has the last
    word.
    """
    runtime = cuda_runtime()
    if runtime is None:
        return 0, 1, ""
    count = ctypes.c_int(0)
    code = int(runtime.cudaGetDeviceCount(ctypes.byref(count)))
    runtime.cudaGetErrorString.restype = ctypes.c_char_p
    text = runtime.cudaGetErrorString(code).decode() if code else ""
    return code, count.value, text


@functools.cache
def cuda_runtime() -> Any:  # noqa: ANN401  # a ctypes library
    """The runtime library of the CUDA version that ONNX Runtime was built with."""
    major = str(getattr(ort, "cuda_version", "")).partition(".")[0]
    name = f"cudart64_{major}.dll" if sys.platform == "win32" else f"libcudart.so.{major}"
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None

"""ONNX Runtime sessions: providers, threads, and no silent fallback. Nothing else imports ORT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from fmrt.errors import BundleCorruptError, ProviderError

Feeds = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Provider:
    """An execution provider: our name for it, ONNX Runtime's, and how to get it."""

    name: str
    ort_name: str
    install: str


PROVIDERS = {
    p.name: p
    for p in (
        Provider("cpu", "CPUExecutionProvider", "pip install onnxruntime"),
        Provider(
            "cuda",
            "CUDAExecutionProvider",
            "pip uninstall -y onnxruntime && pip install onnxruntime-gpu[cuda,cudnn]",
        ),
    )
}


def resolve_provider(name: str) -> Provider:
    """The provider called ``name``; ``auto`` is CUDA where this ONNX Runtime has it, else CPU.

    Raises:
        ProviderError: unknown, or not part of the installed ONNX Runtime.
    """
    available = ort.get_available_providers()
    if name == "auto":
        name = "cuda" if PROVIDERS["cuda"].ort_name in available else "cpu"
    if name not in PROVIDERS:
        raise ProviderError(f"unknown provider {name!r}; choose from: auto, {', '.join(PROVIDERS)}")
    provider = PROVIDERS[name]
    if provider.ort_name not in available:
        raise ProviderError(
            f"provider {name!r} is not in the installed ONNX Runtime {ort.__version__}"
            f"{_clash()}; to get it: {provider.install}"
        )
    return provider


def _clash() -> str:
    """Says so when the CPU and GPU wheels, which overwrite each other, are both installed."""
    installed = {d.name for d in metadata.distributions(name="onnxruntime")}
    both = installed | {d.name for d in metadata.distributions(name="onnxruntime-gpu")}
    if {"onnxruntime", "onnxruntime-gpu"} <= both:
        return " (onnxruntime and onnxruntime-gpu are both installed and overwrite each other)"
    return ""


# Fusions whose CPU kernels are slower than the operators they replace: SkipLayerNormalization is a
# scalar loop, and BiasGelu takes the bias from the Gemm that adds it for free. See
# docs/performance.md.
SLOW_CPU_FUSIONS = ["SkipLayerNormFusion", "BiasGeluFusion"]


class Session:
    """One graph, loaded once; `run` is safe from many threads and releases the GIL.

    Args:
        path: the ``.onnx`` file.
        provider: from `resolve_provider`.
        output: name of the output to compute.
        intra_op_threads: threads inside one operator; 1 when callers run in parallel.

    Raises:
        BundleCorruptError: ONNX Runtime cannot load the graph.
        ProviderError: the session did not get its provider.
    """

    def __init__(
        self, path: Path, provider: Provider, output: str, intra_op_threads: int = 1
    ) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = intra_op_threads
        options.inter_op_num_threads = 1
        # Batches differ in shape: a memory plan a shape would only grow.
        options.enable_mem_pattern = False
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(
                path,
                options,
                providers=[provider.ort_name],
                disabled_optimizers=SLOW_CPU_FUSIONS if provider.name == "cpu" else None,
            )
        except Exception as e:  # ORT's exception classes share no public base but Exception
            reason = str(e).strip().splitlines()[0]
            raise BundleCorruptError(f"ONNX Runtime cannot load {path}: {reason}") from e
        if provider.ort_name not in self._session.get_providers():
            raise ProviderError(
                f"ONNX Runtime could not start provider {provider.name!r} (driver, device or CUDA "
                f"libraries missing); to get it: {provider.install}"
            )
        self._output = output
        # Inputs with a default are initializers to ONNX Runtime.
        inputs = [*self._session.get_inputs(), *self._session.get_overridable_initializers()]
        self._inputs = frozenset(i.name for i in inputs)

    def run(self, feeds: Feeds) -> NDArray[np.float32]:
        """The embedding of one batch, float32 ``[batch, dim]``; unknown feeds are dropped."""
        used = {name: value for name, value in feeds.items() if name in self._inputs}
        result: NDArray[np.float32] = self._session.run([self._output], used)[0]
        return result

"""Creates the sessions of ONNX Runtime itself, and turns its errors into ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import onnxruntime as ort

from fmrt.errors import BundleCorruptError, GraphError, ProviderError, quoted, said
from fmrt.session.log import FATAL, silent
from fmrt.session.onnx_files import MalformedGraphError, relocated
from fmrt.session.ort_types import OrtOptions, OrtSession
from fmrt.system import native
from fmrt.system.archive import BundleFile, Member

if TYPE_CHECKING:
    from fmrt.session.providers.base import Provider

# What CUDA says of itself in ONNX Runtime's exceptions.
_CUDA_FAILURE = re.compile(r"CUDA failure (\d+): ([^;]+)")
# A session records this only when asked, see `fmrt.session.placement`.
RECORD_PLACEMENT = "session.record_ep_graph_assignment_info"
# Where the files with the weights of a graph are that is given as bytes.
WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
# Weights that are packed for kernels get memory of their own size.
NO_ARENA_FOR_WEIGHTS = "session.use_device_allocator_for_initializers"
# Types of an output that is to become float32.
FLOATS = ("tensor(float)", "tensor(float16)")


def runtime_version() -> str:
    """ONNX Runtime's version."""
    return str(ort.__version__)


def built_in_providers() -> list[str]:
    """ONNX Runtime's names of the providers that it was built with."""
    return list(ort.get_available_providers())


def session_options(
    intra_op_threads: int = 1, *, record_placement: bool = False, low_memory: bool = False
) -> OrtOptions:
    """Options of every session: quiet, and without memory plans, as batches differ in shape."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.log_severity_level = FATAL
    if low_memory:
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry(NO_ARENA_FOR_WEIGHTS, "1")
    if record_placement:
        options.add_session_config_entry(RECORD_PLACEMENT, "1")
    return options


def create(
    path: BundleFile,
    provider: Provider,
    options: OrtOptions,
    given: Sequence[tuple[str, Mapping[str, str]]] = (),
) -> OrtSession:
    """Load a graph, on this provider or not at all.

    Args:
        path: The ``.onnx`` file.
        provider: The provider that runs it.
        options: The options of the session, ``ort.SessionOptions``.
        given: ONNX Runtime's name of the provider with its options; nothing where ``options``
            hold it.

    Raises:
        BundleCorruptError: ONNX Runtime cannot load the graph.
        ProviderError: The session did not get its provider.
    """
    try:
        with silent():
            session = native.call(
                ort.InferenceSession,
                _source(path, options),
                options,
                providers=[(name, dict(values)) for name, values in given] or None,
                disabled_optimizers=list(provider.disabled) or None,
                enable_fallback=0,
            )
    except BundleCorruptError:
        raise
    except Exception as e:  # ORT's exception classes share no public base but Exception
        raise explain(e, path, provider) from e
    if provider.ort_name not in session.get_providers():
        raise ProviderError(
            f"ONNX Runtime could not start provider {provider.name!r} and took "
            f"{', '.join(session.get_providers())}; to get it: {provider.install}"
        )
    _check_names(session, path)
    native.bind(session)
    return session


def _check_names(session: OrtSession, path: BundleFile) -> None:
    """Raise where the name of an input or output is no text."""
    inputs = (*session.get_inputs(), *session.get_overridable_initializers())
    try:
        for value in (*inputs, *session.get_outputs()):
            _ = value.name
    except UnicodeDecodeError as e:
        raise BundleCorruptError(f"{path} has an input or output whose name is not UTF-8") from e


def _source(path: BundleFile, options: OrtOptions) -> Path | bytes:
    """What ONNX Runtime is to load: of an archive, the graph with its weights' places there."""
    if not isinstance(path, Member):
        return path
    holder = path.archive.path.resolve()
    folder = PurePosixPath(path.name).parent

    def place(location: str) -> tuple[str, int]:
        weights = path.archive.member(str(folder / location))
        if weights.deflated:
            raise BundleCorruptError(f"{weights} is compressed, and must be stored as it is")
        return holder.name, weights.start

    options.add_session_config_entry(WEIGHTS_FOLDER, str(holder.parent))
    try:
        return relocated(path.read_bytes(), place)
    except MalformedGraphError as e:
        raise BundleCorruptError(f"{path} is no graph: {e}") from e


def explain(
    error: Exception, path: BundleFile, provider: Provider
) -> BundleCorruptError | ProviderError:
    """Our error for one of ONNX Runtime's at the load of a graph."""
    text = said(error)
    cuda = _CUDA_FAILURE.search(text)
    if cuda:
        return ProviderError(
            f"provider {provider.name!r} failed at the load of {path}: {cuda.group(2).strip()} "
            f"(CUDA error {cuda.group(1)}); check nvidia-smi"
        )
    if "NOT_IMPLEMENTED" in text and "Could not find an implementation" in text:
        return ProviderError(
            f"provider {provider.name!r} cannot run {path}: {text}; "
            "choose another variant, see fmrt info"
        )
    return BundleCorruptError(f"ONNX Runtime cannot load {path}: {text}")


def not_run(error: Exception) -> GraphError:
    """Our error for one of ONNX Runtime's while a graph runs."""
    return GraphError(f"ONNX Runtime cannot run the graph: {said(error)}")


def check_outputs(session: OrtSession, names: Iterable[str]) -> None:
    """Compare the outputs that a manifest states with a loaded graph's.

    Raises:
        GraphError: The graph has no such output, or its values are no floats.
    """
    types = {output.name: output.type for output in session.get_outputs()}
    for name in names:
        if types.get(name) not in FLOATS:
            found = types.get(name, "nothing")
            raise GraphError(f"the graph gives {found} as {name!r}, and floats are needed")


def check_inputs(session: OrtSession, stated: Iterable[str]) -> None:
    """Compare the inputs that a manifest states with a loaded graph's.

    Raises:
        GraphError: The graph has no such input, or needs another one.
    """
    needed = {i.name for i in session.get_inputs()}
    known = needed | {i.name for i in session.get_overridable_initializers()}
    for others, what in ((needed - set(stated), "needs"), (set(stated) - known, "has not")):
        if others:
            names = ", ".join(map(quoted, sorted(others)))
            raise GraphError(f"the graph {what} an input {names}; the manifest says otherwise")

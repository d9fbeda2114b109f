"""Opens a graph on a target, whatever that is."""

from __future__ import annotations

from collections.abc import Sequence

from fmrt.session.base import Session
from fmrt.session.device_options import DeviceOptions
from fmrt.session.multi_device import MultiDeviceSession
from fmrt.session.providers import Target
from fmrt.system.archive import BundleFile


def open_session(
    path: BundleFile,
    target: Target,
    output: str,
    options: DeviceOptions | None = None,
    inputs: Sequence[str] | None = None,
    intra_op_threads: int = 1,
) -> Session:
    """Load a graph on every device of a target.

    Args:
        path: The ``.onnx`` file.
        target: The target from `resolve_provider`.
        output: The name of the output to compute.
        options: The options of GPUs.
        inputs: The names that the graph must have, and no others; None for any.
        intra_op_threads: The number of threads inside one operator on the CPU; 1 when callers run
            in parallel.

    Raises:
        BundleCorruptError: ONNX Runtime cannot load the graph.
        GraphError: The graph has other inputs or another output.
        ProviderError: The session did not get its provider.
    """
    wanted = options or DeviceOptions()
    sessions = [
        target.provider.open(path, output, device, wanted, intra_op_threads)
        for device in target.devices
    ]
    if inputs is not None:
        for session in sessions:
            session.check_inputs(inputs)
    return sessions[0] if len(sessions) == 1 else MultiDeviceSession(sessions)

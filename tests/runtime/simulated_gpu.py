"""A provider called ``cuda`` that computes on the CPU, wrongly or slowly by a graph's file."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from fmrt.session.creation import session_options
from fmrt.session.device import Device, DeviceSession
from fmrt.session.device_options import DeviceOptions
from fmrt.session.providers import CPU
from fmrt.session.providers.cuda import Cuda

GPU = "Simulated GPU"
# Which rows a kernel gives wrong, by the lengths of its texts and the length that they are padded
# to.
Fault = Callable[[np.ndarray, int], np.ndarray]


class Simulated(Cuda):
    """CUDA on the CPU's memory.

    Attributes:
        faults: What goes wrong, by a graph's file.
        seconds: How long a batch takes, by a graph's file.
        model: The model of the GPU.
        recording: Makes a session one that records graphs, for better or worse.
        opened: Whether each session was to record them.
    """

    def __init__(self) -> None:
        super().__init__("cuda", "CPUExecutionProvider", "")
        self.memory = "cpu"
        self.faults: dict[str, Fault] = {}
        self.seconds: dict[str, float] = {}
        self.model: str | None = GPU
        self.recording: Callable[[DeviceSession], DeviceSession] = lambda session: session
        self.opened: list[bool] = []

    def problem(self) -> None:
        """It is there."""

    def device_names(self) -> list[str]:
        return ["cuda:0"]

    def device_model(self, _: int) -> str | None:
        return self.model

    def device_address(self, _: int) -> str:
        return "0000:65:00.0"

    def options(self, *_: object) -> dict[str, str]:
        return {}

    def open(
        self, path: Path, output: str, _: int, wanted: DeviceOptions, *__: object
    ) -> DeviceSession:
        graphs = bool(wanted.cuda_graphs)
        self.opened.append(graphs)
        started = CPU.start(path, session_options())
        made = DeviceSession(started, output, Device("cpu", 0), graphs=graphs)
        run, name = made.run, path.name

        def faulty(feeds: Mapping[str, np.ndarray]) -> np.ndarray:
            time.sleep(self.seconds.get(name, 0))
            vectors = run(feeds)
            if name in self.faults:
                mask = feeds["attention_mask"]
                vectors[self.faults[name](mask.sum(axis=1), mask.shape[1])] += 1
            return vectors

        made.run = faulty
        return self.recording(made) if graphs else made

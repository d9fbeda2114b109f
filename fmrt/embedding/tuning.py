"""How a variant uses a machine's cores or its GPU: defaults, and what ``fmrt tune`` measured there.

A measurement is a JSON file in the user's cache directory, never in the bundle. Its name is a hash
of all that it depends on: the graphs and their weights, ONNX Runtime's version, and the CPU with
the cores that this process may use, or the model of the GPU. Where one of them differs, the
defaults apply again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fmrt.bundle.manifest import Variant
from fmrt.session import CPU, Provider, runtime_version
from fmrt.system.cache_directory import cache_directory
from fmrt.system.cores import available_cores, cpu_name
from fmrt.system.whole_file import write_whole

# More threads on one short text wait for each other longer than they compute; `fmrt tune` measures.
MOST_QUERY_THREADS = 8
# Of a batch, where memory is scarce: what a batch computes is held at once.
LOW_BATCH_TOKENS = 256


@dataclasses.dataclass(frozen=True)
class Tuning:
    """Threads, batches and operators; None where the session's, scheduler's or variant's own apply.

    Attributes:
        batch_tokens: Most positions of a batch, padding included.
        workers: Batches that run at the same time.
        intra_op_threads: Threads inside one operator of each of them.
        query_threads: Threads inside an operator of a batch that has all cores to itself, such as
            that of one search query. 1: no session of its own for these.
    """

    batch_tokens: int | None = None
    workers: int | None = None
    intra_op_threads: int | None = None
    query_threads: int | None = None
    form: str | None = None

    @classmethod
    def chosen(
        cls, workers: int | None, intra_op_threads: int | None, *, low_memory: bool = False
    ) -> Tuning | None:
        """What a user asked for, with one session for everything; None when that is nothing."""
        if low_memory:
            return cls(LOW_BATCH_TOKENS, workers or 1, intra_op_threads, query_threads=1)
        if workers is None and intra_op_threads is None:
            return None
        return cls(workers=workers, intra_op_threads=intra_op_threads, query_threads=1)


def default_query_threads() -> int:
    """All cores, up to `MOST_QUERY_THREADS`."""
    return min(available_cores(), MOST_QUERY_THREADS)


def provider_facts(variant: Variant, provider: Provider) -> tuple[str, ...]:
    """What a measurement depends on where another software than ONNX Runtime's CPU computes."""
    return () if provider is CPU else (variant.precision, provider.name, provider.version())


def tuning_file(variant: Variant, device: str | None = None, more: Sequence[str] = ()) -> Path:
    """Where the measurement of a variant is, or would be.

    Args:
        variant: The variant.
        device: The model of the GPU; None for the CPU.
        more: What else it depends on.
    """
    graphs = [variant.sha256, *(record.sha256 for record in variant.external.values())]
    place = (cpu_name(), available_cores()) if device is None else (device,)
    # Of a GPU the graphs are equals: which of them is the variant's own may change.
    own, others = graphs[:1] * (device is None), graphs[device is None :]
    facts = (*own, sorted(others), *place, runtime_version(), *more)
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return cache_directory() / "tuning" / f"{key[:32]}.json"


def load_tuning(variant: Variant, device: str | None = None, more: Sequence[str] = ()) -> Tuning:
    """What was measured on this machine; defaults where nothing was, or the file is unreadable."""
    try:
        file = tuning_file(variant, device, more)
        values = json.loads(file.read_text(encoding="utf-8"))["tuning"]
        return Tuning(**{name: _checked(name, values[name]) for name in _NAMES if name in values})
    except (OSError, ValueError, KeyError, TypeError):
        return Tuning()  # a cache: what cannot be read is as if it were not there


def save_tuning(
    variant: Variant,
    tuning: Tuning,
    measured: Mapping[str, Any],
    device: str | None = None,
    more: Sequence[str] = (),
) -> Path:
    """Write a measurement, all of it or nothing; returns the file.

    Args:
        variant: The variant that was measured.
        tuning: The best.
        measured: The measurements that it was chosen from, for people.
        device: The model of the GPU; None for the CPU.
        more: What else it depends on.
    """
    file = tuning_file(variant, device, more)
    file.parent.mkdir(parents=True, exist_ok=True)
    place = {"cpu": cpu_name()} if device is None else {"gpu": device}
    content = {"tuning": dataclasses.asdict(tuning), "measured": measured, **place}
    write_whole(file, (json.dumps(content, indent=2) + "\n").encode())
    return file


def _checked(name: str, value: object) -> Any:  # noqa: ANN401  # a field's own type
    if value is None or (isinstance(value, str) if name == "form" else _positive(value)):
        return value
    raise ValueError(f"{value!r} is no {name}")


def _positive(value: object) -> bool:
    return type(value) is int and value > 0


_NAMES = tuple(field.name for field in dataclasses.fields(Tuning))

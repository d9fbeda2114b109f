"""This machine for people and programs: the report of ``fmrt info`` without a bundle."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping

from fmrt.cli._say import print_json, show
from fmrt.cli._text import table
from fmrt.machine import Availability, Machine, Runtime, availabilities, describe
from fmrt.system.memory import Memory


def machine(args: argparse.Namespace) -> None:
    """Print what this machine is."""
    found = describe()
    if args.json:
        print_json(dataclasses.asdict(found))
    else:
        show(args, table(("fmrt", found.fmrt), _facts(found)))


def providers(args: argparse.Namespace) -> None:
    """Print the providers that this machine could have."""
    found = availabilities()
    if args.json:
        print_json({"providers": [dataclasses.asdict(one) for one in found]})
    else:
        rows = [(one.name, line) for one in found for line in _lines(one)]
        show(args, table(("provider", "devices, or why it cannot be had"), rows))


def _facts(found: Machine) -> list[tuple[str, str]]:
    quota = "" if found.quota is None else f", quota {found.quota:g}"
    return [
        ("Python", found.python),
        ("platform", found.platform),
        ("CPU", found.cpu),
        ("instruction sets", " ".join(found.instruction_sets) or "unknown"),
        ("cores", f"{found.cores} of {found.logical_cores or 'unknown'}{quota}"),
        ("memory", _memory(found.memory)),
        ("ONNX Runtime", _runtime(found.onnxruntime)),
        ("its packages", _versions(found.onnxruntime.packages)),
        ("packages", _versions(found.packages)),
        ("environment", " ".join(f"{k}={v}" for k, v in found.environment.items()) or "none"),
        ("cache", found.cache),
    ]


def _memory(found: Memory) -> str:
    sizes = (("", found.total), (" available", found.available), (" allowed", found.limit))
    known = [f"{n / 2**30:,.1f} GiB{what}" for what, n in sizes if n is not None]
    return ", ".join(known) or "unknown"


def _runtime(found: Runtime) -> str:
    if found.version is None:
        return f"cannot be imported: {found.error}"
    return f"{found.version}, built with {', '.join(found.providers)}"


def _versions(packages: Mapping[str, str | None]) -> str:
    versions = (f"{name} {version or '(none)'}" for name, version in packages.items())
    return ", ".join(versions) or "none"


def _lines(one: Availability) -> list[str]:
    if one.problem is not None:
        return [f"cannot be had: {one.problem}"]
    return [f"{index}: {name}" for index, name in enumerate(one.devices)]

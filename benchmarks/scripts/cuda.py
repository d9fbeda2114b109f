"""CUDA against PyTorch on one GPU, and where the time goes, from one command into one JSON file.

python -m benchmarks.scripts.cuda --out benchmarks/cuda.json

Needs a GPU, and in one environment onnxruntime-gpu, a CUDA build of torch and fmrt[export,image].
Four models are exported at the same time, without the GPU: all-MiniLM-L6-v2, and random weights in
the shapes of BERT-base, DINOv2-base and a Qwen3 embedder. Then one after the other has the GPU
alone. Keys of the file are a model and a step:

- ``export``: what the export said, and its seconds;
- ``variants``: nodes that fell back to the CPU, and each form's parity with PyTorch in fp32;
- ``tuned``: the form and the batches that ``fmrt tune`` chooses for a variant that is compared;
- ``throughput``: against PyTorch in fp16 with sdpa, in turns;
- ``breakdown``, ``budgets``, ``kernels``, ``latency``, ``invariance`` of the encoders of texts: see
  `benchmarks.measuring.device_stages`.

Texts go in raw; images as pixel values, decoded before. The file is written after each step. A step
that would end after ``--seconds`` is left out, as ``skipped``; one that fails has an ``error``, and
the exit status is 1.

``--provider cpu --tiny`` runs it on small models without a GPU, to test this file.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnxruntime
import torch
from PIL import Image

import fmrt
from benchmarks.measuring import device_stages
from benchmarks.measuring.corpus import docstrings
from benchmarks.measuring.device_models import MODELS, bert_base
from benchmarks.measuring.device_peers import (
    Setting,
    compared,
    images_in_turns,
    texts_in_turns,
)
from benchmarks.measuring.gpu import hardware, matmul_flops_per_second
from fmrt.bundle.manifest import Variant
from fmrt.embedding.engine import Engine
from fmrt.embedding.tuning import Tuning, save_tuning
from fmrt.errors import FmrtError
from fmrt.measure.forms import tune_forms
from fmrt.session import resolve_provider
from fmrt.session.placement import node_placement
from fmrt.verify import check

ROOT = Path(__file__).parents[2]
PROGRAM = "benchmarks.scripts.cuda"
# All of it is to end within six minutes on an H100.
SECONDS = 350.0
# What a step takes there at most.
NEEDED = {"variants": 15, "tuned": 25, "throughput": 30, "breakdown": 10, "budgets": 10}
NEEDED |= {"kernels": 10, "latency": 20, "invariance": 10, "export_on_device": 20}
TINY_TEXTS = 40
# Items to choose a form with.
TUNED_TEXTS, TUNED_IMAGES = 2_000, 128
DETAILS = ("breakdown", "budgets", "kernels", "latency", "invariance")


@dataclass
class Steps:
    """The results by step, written after each.

    Attributes:
        out: The file.
        end: The time until which steps may run, of `time.monotonic`.
        found: The results.
    """

    out: Path
    end: float
    found: dict[str, Any] = field(default_factory=dict)

    def take(self, name: str, step: Callable[[], Any]) -> Any:
        """Run a step and keep its result; None where it fails or there is no time for it."""
        kind = name.rpartition(".")[2]
        if time.monotonic() + NEEDED.get(kind, 0) > self.end:
            return self._keep(name, "skipped", None)
        start = time.monotonic()
        try:
            result = step()
        except Exception as e:  # whatever a step raises, the others go on
            traceback.print_exc()
            return self._keep(name, {"error": f"{type(e).__name__}: {e}"}, None)
        print(f"{name}: {time.monotonic() - start:.1f} s", flush=True)
        return self._keep(name, result, result)

    def _keep(self, name: str, kept: Any, result: Any) -> Any:
        self.found[name] = kept
        self.out.write_text(json.dumps(self.found, indent=1) + "\n")
        return result

    @property
    def failed(self) -> list[str]:
        """The steps that have an error."""
        return [n for n, r in self.found.items() if isinstance(r, dict) and "error" in r]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything; 1 with one line where there is no GPU, or where a step failed."""
    args = _parser().parse_args(arguments)
    if args.export:
        return _export(args.export, Path(args.place), args.tiny)
    try:
        setting = _setting(args)
    except FmrtError as e:
        print(f"{PROGRAM}: {e}", file=sys.stderr)
        return 1
    steps = Steps(Path(args.out), time.monotonic() + args.seconds)
    names = args.models.split(",") if args.models else list(MODELS)
    # What is tuned here is not kept for later runs of fmrt.
    with (
        tempfile.TemporaryDirectory() as place,
        patch.dict(os.environ, FMRT_CACHE=f"{place}/cache"),
    ):
        _measure(steps, names, Path(place), setting)
    print(f"written: {args.out}")
    if steps.failed:
        print(f"{PROGRAM}: failed: {', '.join(steps.failed)}", file=sys.stderr)
    return int(bool(steps.failed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(PROGRAM, description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", default="benchmarks/cuda.json")
    parser.add_argument("--provider", default="cuda")
    parser.add_argument("--peer-device", choices=("cuda", "cpu"), help="PyTorch's device")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--models", help=f"some of {','.join(MODELS)}")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--export", choices=tuple(MODELS), help=argparse.SUPPRESS)
    parser.add_argument("--place", help=argparse.SUPPRESS)
    return parser


def _setting(args: argparse.Namespace) -> Setting:
    name = resolve_provider(args.provider).name
    device = args.peer_device or ("cpu" if name == "cpu" else "cuda")
    if device == "cpu":
        return Setting(args.provider, "cpu", torch.float32, args.tiny, args.rounds)
    if not torch.cuda.is_available():
        raise FmrtError(f"torch {torch.__version__} has no CUDA device; install its CUDA build")
    return Setting(args.provider, "cuda", torch.float16, args.tiny, args.rounds)


def _measure(steps: Steps, names: Sequence[str], place: Path, setting: Setting) -> None:
    exports = {name: _start_export(name, place, setting, len(names)) for name in names}
    steps.take("hardware", lambda: hardware(setting.device))
    peak = partial(matmul_flops_per_second, setting.device, setting.dtype)
    peak_flops = steps.take("matmul_flops", peak) or 1.0
    steps.take("providers", onnxruntime.get_available_providers)
    bundles = {}
    for name, process in exports.items():
        said = steps.take(f"{name}.export", partial(_finished, name, place, process))
        if said is not None:
            bundles[name] = fmrt.Bundle.open(place / name)
    chosen = {name: _chosen(steps, name, bundle, setting) for name, bundle in bundles.items()}
    for name, bundle in bundles.items():
        if chosen[name]:
            speed = partial(_throughput, name, place, bundle, chosen[name], peak_flops, setting)
            steps.take(f"{name}.throughput", speed)
    for name, bundle in bundles.items():
        if chosen[name] and MODELS[name].detailed:
            _details(steps, name, place, bundle, chosen[name][0], setting)
    steps.take("export_on_device", partial(_export_on_device, place, setting))


# Exports, each in a process of its own that does not see the GPU.


def _start_export(
    name: str, place: Path, setting: Setting, together: int
) -> subprocess.Popen[bytes]:
    cores = max(1, len(os.sched_getaffinity(0)) // together)
    env = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(cores)}
    command = [sys.executable, "-m", PROGRAM, "--export", name, "--place", str(place)]
    command += ["--tiny"] if setting.tiny else []
    with (place / f"{name}.log").open("wb") as log:
        return subprocess.Popen(  # this program itself
            command, cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT
        )


def _export(name: str, place: Path, tiny: bool) -> int:
    wanted = MODELS[name]
    start = time.monotonic()
    model = wanted.make(place / f"{name}-model", tiny)
    said: list[str] = []
    fmrt.export_model(
        model, place / name, cuda=True, report=said.append, max_length=wanted.max_length
    )
    found = {"seconds": time.monotonic() - start, "said": said, "model": str(model)}
    (place / f"{name}.json").write_text(json.dumps(found))
    return 0


def _finished(name: str, place: Path, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    if process.wait() != 0:
        raise FmrtError((place / f"{name}.log").read_text()[-2000:])
    found = json.loads((place / f"{name}.json").read_text())
    return {"seconds": found["seconds"], "said": found["said"]}


def _export_on_device(place: Path, setting: Setting) -> str:
    """Whether ``--device`` gives a verified bundle."""
    model = bert_base(place / "device-model", tiny=True)
    fmrt.export_model(model, place / "device", device=setting.device)
    return "ok"


# What is right, and which form is the fastest.


def _chosen(steps: Steps, name: str, bundle: fmrt.Bundle, setting: Setting) -> list[str]:
    """What to compare: the tuned variants, else the provider's own where that is right."""
    target = resolve_provider(setting.provider)
    tuned = [
        variant
        for variant in bundle.manifest.variants
        if variant.forms
        and variant.provider == target.name
        and variant.precision in MODELS[name].precisions
    ]
    rest = [v for v in bundle.manifest.variants if v not in tuned]
    found = steps.take(f"{name}.variants", partial(variants_of, bundle, rest, tuned, setting)) or {}
    chosen = []
    for variant in tuned:
        step = partial(_tuned, bundle, variant, name, setting)
        result = steps.take(f"{name}.{variant.name}.tuned", step)
        chosen += [variant.name] if result is not None and result["form"] is not None else []
    right = [n for n, each in found.items() if any(p["passed"] for p in each["forms"].values())]
    own = bundle.variant(provider=target.name).name
    return chosen or [n for n in (own, *right) if n in right][:1]


def variants_of(
    bundle: fmrt.Bundle, checked: Sequence[Variant], tuned: Sequence[Variant], setting: Setting
) -> dict[str, Any]:
    """Of each variant that the provider runs: where its nodes run, and each form's parity.

    The forms of those that are tuned are checked there.
    """
    target = resolve_provider(setting.provider)
    found: dict[str, Any] = {}
    for variant in (*checked, *tuned):
        if variant.provider not in ("any", target.name):
            continue
        forms = (variant.form or "", *variant.forms) if variant in checked else ()
        found[variant.name] = {
            "forms": {form or "portable": _parity(bundle, variant, form, setting) for form in forms}
        }
        try:
            placement = node_placement(bundle.graph(variant), target)
        except Exception as e:  # what ONNX Runtime raises of a graph that it cannot load
            found[variant.name]["placement"] = str(e).partition("\n")[0]
            continue
        found[variant.name]["nodes"] = placement.total
        found[variant.name]["fallback_nodes"] = dict(placement.fallback)
    return found


def _parity(bundle: fmrt.Bundle, variant: Variant, form: str, setting: Setting) -> dict[str, Any]:
    tuning = Tuning(form=form or None)
    modality = variant.modality
    try:
        engine = Engine(bundle, variant.name, setting.provider, modality, tuning=tuning)
        with closing(engine):
            report = check(engine, bundle.reference(modality))
    except Exception as e:  # what a kernel that was never run may raise; the others go on
        return {"passed": False, "reason": str(e).strip().partition("\n")[0]}
    return {**asdict(report.parity), "passed": report.passed}


def _tuned(bundle: fmrt.Bundle, variant: Variant, name: str, setting: Setting) -> dict[str, Any]:
    """What ``fmrt tune`` does, on the texts or images of the benchmark."""
    images = MODELS[name].images
    items = _images(setting) if images else _texts(name, setting)[:TUNED_TEXTS]
    found = tune_forms(bundle, variant, setting.provider, lambda _: items)
    parity = asdict(found.parity) if found.parity is not None else {}
    result: dict[str, Any] = {"form": None, "refused": dict(found.refused), **parity}
    if found.tuning is not None:
        if found.device is not None:
            save_tuning(variant, found.tuning, found.measured, found.device)
        result |= {"form": found.tuning.form, "batch_tokens": found.tuning.batch_tokens}
    return result | {"speeds": {what: dict(each) for what, each in found.measured.items()}}


# Speed.


def _throughput(
    name: str,
    place: Path,
    bundle: fmrt.Bundle,
    variants: Sequence[str],
    peak: float,
    setting: Setting,
) -> dict[str, Any]:
    model = _model(name, place, setting)
    if MODELS[name].images:
        work, unit = images_in_turns(model, bundle, variants, setting), "images"
    else:
        work, unit = (
            texts_in_turns(model, bundle, variants, _texts(name, setting), setting),
            "tokens",
        )
    config: Mapping[str, Any] = json.loads((bundle.path / "config.json").read_text())
    return compared(work, unit, MODELS[name].flops(config, work.lengths) / peak)


def _details(
    steps: Steps, name: str, place: Path, bundle: fmrt.Bundle, variant: str, setting: Setting
) -> None:
    texts = _texts(name, setting)
    ways: dict[str, Callable[[], Any]] = {
        "breakdown": partial(device_stages.stages, bundle, variant, texts, setting),
        "budgets": partial(device_stages.budgets, bundle, variant, texts, setting),
        "kernels": partial(device_stages.kernels, bundle, variant, texts, setting),
        "latency": partial(
            device_stages.latency, _model(name, place, setting), bundle, variant, texts, setting
        ),
        "invariance": partial(device_stages.invariance, bundle, variant, texts, setting),
    }
    for step in DETAILS:
        steps.take(f"{name}.{step}", ways[step])


def _model(name: str, place: Path, setting: Setting) -> Path:
    made = place / f"{name}-model"
    return made if made.exists() else MODELS[name].make(made, setting.tiny)


def _texts(name: str, setting: Setting) -> list[str]:
    texts = list(docstrings())
    random.Random(0).shuffle(texts)
    if setting.tiny:
        return texts[:TINY_TEXTS]
    # Numbered, as equal texts would be computed once.
    return [f"{i}. {texts[i % len(texts)]}" for i in range(MODELS[name].texts)]


def _images(setting: Setting) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    count = 4 if setting.tiny else TUNED_IMAGES
    pixels = rng.integers(0, 256, (count, 256, 256, 3), np.uint8)
    return [Image.fromarray(each) for each in pixels]


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=UserWarning, module="torch|transformers")
    sys.exit(main())

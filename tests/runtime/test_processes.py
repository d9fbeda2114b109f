"""The interpreter's end, interrupts, and other processes: each form is a script of its own."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import fmrt
from fmrt.bundle.bundle import Bundle, record_of
from fmrt.errors import ProcessError

from .conftest import DIM

# A script that has not ended by then has hung.
HANGS = 60
# Two small calls: the second opens another session in the background. Long texts keep workers busy.
START = """
import os, signal, sys, threading, time
# A shell leaves it ignored for what runs in its background.
signal.signal(signal.SIGINT, signal.default_int_handler)
import fmrt

LONG = ["cat sat on the mat %d" % i for i in range(60000)]
e = fmrt.Embedder(sys.argv[1], workers=WORKERS)
want = e.embed(["cat", "dog"])

def use(_=None):
    got = e.embed(["cat", "dog"])
    assert abs(got - want).max() < 1e-6, got
    assert abs(e.embed_query("cat", prompt="") - want[0]).max() < 1e-6
    return len(e.embed(LONG[:2000]))
"""
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def script(tmp_path: Path, body: str, workers: int | None = None) -> Path:
    path = tmp_path / "script.py"
    path.write_text(START.replace("WORKERS", str(workers)) + textwrap.dedent(body))
    return path


def run(path: Path, bundle: Path) -> subprocess.CompletedProcess[str]:
    """Run a script; its output and exit code."""
    return subprocess.run(
        [sys.executable, path, bundle], capture_output=True, text=True, timeout=HANGS, check=False
    )


@pytest.fixture(scope="module")
def slow_to_open(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with a graph that takes a moment to be read."""
    import onnx

    directory = tmp_path_factory.mktemp("slow") / "bundle"
    shutil.copytree(tiny_bundle, directory)
    graph = directory / "onnx/model.onnx"
    model = onnx.load(graph)
    big = np.zeros((1 << 19, DIM), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(big, "big"))
    node = model.graph.node[0]
    model.graph.node.append(
        onnx.helper.make_node("Gather", ["big", node.input[1]], ["unused_but_there"])
    )
    model.graph.node.append(
        onnx.helper.make_node("Add", ["unused_but_there", "masked"], ["masked_again"])
    )
    total = next(n for n in model.graph.node if n.op_type == "ReduceSum" and n.output[0] == "sum")
    total.input[0] = "masked_again"
    nodes = list(model.graph.node)
    order = nodes[:6] + nodes[-2:] + nodes[6:-2]
    del model.graph.node[:]
    model.graph.node.extend(order)
    onnx.save(model, graph)
    manifest = Bundle.open(directory).manifest
    record = record_of(graph)
    variant = dataclasses.replace(manifest.variants[0], sha256=record.sha256, size=record.size)
    dataclasses.replace(manifest, variants=(variant,)).write(directory)
    return directory


ENDS = {
    "the script's end": "use()",
    "an exception": "use(); raise SystemExit(0)",
    "a second session being opened": "e.embed(['cat', 'dog'])",
    "a stream that was begun": "it = e.embed_iter(LONG); next(it)",
    "a thread that goes on": "threading.Thread(target=lambda: (time.sleep(0.3), use())).start()",
    "a thread that nobody waits for": """
        def forever():
            while True:
                e.embed(["cat"]), use()
        for _ in range(4):
            threading.Thread(target=forever, daemon=True).start()
        time.sleep(0.5)
        """,
    "a call at exit": "import atexit; atexit.register(use)",
    "an embedder made at exit": "import atexit; atexit.register(fmrt.Embedder, sys.argv[1])",
    "an interrupt that is caught": """
        import _thread
        threading.Timer(0.2, _thread.interrupt_main).start()
        try:
            while True:
                e.embed(LONG)
        except KeyboardInterrupt:
            pass
        """,
}


@pytest.mark.parametrize("form", ENDS)
def test_a_process_ends_with_status_0(form: str, slow_to_open: Path, tmp_path: Path) -> None:
    done = run(script(tmp_path, ENDS[form]), slow_to_open)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_was_begun_does_not_delay_the_end(tiny_bundle: Path, tmp_path: Path) -> None:
    body = """
    import fmrt.session.host as host
    run = host.HostSession.run
    def slowly(self, feeds):
        time.sleep(0.2)
        return run(self, feeds)
    host.HostSession.run = slowly
    it = e.embed_iter([str(i) for i in range(20000)])
    next(it)
    begun = time.monotonic()
    import atexit
    atexit.register(lambda: print(time.monotonic() - begun))
    """
    done = run(script(tmp_path, body, 2), tiny_bundle)
    assert (done.returncode, done.stderr) == (0, "")
    assert float(done.stdout) < 1.5


@posix
def test_an_uncaught_interrupt_is_pythons_own(tiny_bundle: Path, tmp_path: Path) -> None:
    path = script(tmp_path, "print('ready', flush=True)\nwhile True: e.embed(LONG)")
    process = subprocess.Popen(
        [sys.executable, path, tiny_bundle],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=HANGS)
    assert process.returncode == -signal.SIGINT
    assert err.endswith("KeyboardInterrupt\n")


@posix
def test_an_interrupted_cell_leaves_the_embedder_as_it_was(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    body = """
    import random, signal
    cells = [
        "e.embed(LONG)",
        "for v in e.embed_iter(LONG): pass",
        "while True: e.embed_query('cat')",
        "while True: e.embed(['cat', 'dog'])",
        "fmrt.Embedder(sys.argv[1]).embed(LONG)",
    ]
    cells = [compile(cell, "cell", "exec") for cell in cells]
    def interrupt(*_):
        raise KeyboardInterrupt
    signal.signal(signal.SIGALRM, interrupt)
    caught = 0
    for turn in range(40):
        try:
            signal.setitimer(signal.ITIMER_REAL, random.Random(turn).uniform(0.001, 0.08))
            exec(cells[turn % len(cells)])
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            caught += 1
        use()
    print(caught)
    """
    done = run(script(tmp_path, body), tiny_bundle)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 20


FORKS = {
    "os.fork": """
        child = os.fork()
        if child == 0:
            use()
            sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        """,
    "os.fork, and nothing embedded": """
        child = os.fork()
        if child == 0:
            sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        """,
    "os.fork, and closed": """
        child = os.fork()
        if child == 0:
            e.close()
            del e
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        """,
    "a fork of a fork": """
        child = os.fork()
        if child == 0:
            use()
            grandchild = os.fork()
            if grandchild == 0:
                use()
                sys.exit(5)
            sys.exit(2 + os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        """,
    "several workers of a preloaded app": """
        children = []
        for _ in range(3):
            child = os.fork()
            if child == 0:
                threads = [threading.Thread(target=use) for _ in range(3)]
                [t.start() for t in threads], [t.join() for t in threads]
                sys.exit(0)
            children.append(child)
        use()
        assert [os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in children] == [0] * 3
        """,
    "a fork beside threads that embed": """
        busy = True
        def embed():
            while busy:
                e.embed(LONG[:3000])
        threads = [threading.Thread(target=embed) for _ in range(2)]
        [t.start() for t in threads]
        for _ in range(5):
            time.sleep(0.05)
            child = os.fork()
            if child == 0:
                use()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        busy = False
        """,
    "a pool by fork": "pool('fork')",
    "a pool by forkserver": "pool('forkserver')",
    "a pool by spawn": "pool('spawn')",
    "executors": """
        from concurrent.futures import ProcessPoolExecutor
        import multiprocessing
        with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as executor:
            assert list(executor.map(use, range(4))) == [2000] * 4
        """,
    "a stream taken along": """
        from fmrt.errors import ProcessError
        it = e.embed_iter(LONG)
        next(it)
        child = os.fork()
        if child == 0:
            try:
                for _ in it: pass
            except ProcessError as error:
                os._exit(7 if "fork" in str(error) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert sum(1 for _ in it) == len(LONG) - 1
        """,
    "a cache": """
        import tempfile
        with tempfile.TemporaryDirectory() as place:
            e = fmrt.Embedder(sys.argv[1], cache=place)
            use()
            child = os.fork()
            if child == 0:
                use()
                e.embed(LONG[5000:6000])
                sys.exit(7)
            use()
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            e.close()
        """,
}
POOL = """
def pool(start):
    import multiprocessing
    with multiprocessing.get_context(start).Pool(2) as pool:
        assert pool.map(use, range(4)) == [2000] * 4

if __name__ == "__main__":
"""


@posix
@pytest.mark.parametrize(
    ("form", "workers"),
    # Without threads of ours there is nothing to renew: two forms tell whether that works.
    [*((form, None) for form in FORKS), ("os.fork", 1), ("a pool by fork", 1)],
)
def test_an_embedder_works_in_every_kind_of_child(
    form: str, workers: int | None, tiny_bundle: Path, tmp_path: Path
) -> None:
    body = POOL + textwrap.indent(textwrap.dedent(FORKS[form]), "    ")
    done = run(script(tmp_path, body, workers), tiny_bundle)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@posix
def test_a_device_of_the_parent_is_refused_in_a_child(tiny_bundle: Path, tmp_path: Path) -> None:
    """Sessions over CPU memory stand for those of GPUs, as in test_device.py."""
    body = """
    from pathlib import Path
    import fmrt.embedding.engine
    from fmrt.errors import ProcessError
    from fmrt.session.creation import session_options
    from fmrt.session.device import Device, DeviceSession
    from fmrt.session.providers import CPU
    from fmrt.session.multi_device import MultiDeviceSession

    def opened(path, *_):
        start = lambda: CPU.start(path, session_options())
        return MultiDeviceSession(
            [DeviceSession(start(), "sentence_embedding", Device("cpu", 0)) for _ in range(2)]
        )

    fmrt.embedding.engine.open_session = opened
    e = fmrt.Embedder(sys.argv[1])
    list(e._engines.values())[0].provider = "cuda:0,1"
    use()
    child = os.fork()
    if child == 0:
        try:
            use()
        except ProcessError as error:
            os._exit(7 if "loaded on cuda:0,1 before fork()" in str(error) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    use()
    child = os.fork()
    if child == 0:
        sys.exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    """
    done = run(script(tmp_path, body), tiny_bundle)
    assert done.returncode == 0, done.stderr  # old tokenizers speak of forks


def test_pickles_and_copies_say_what_to_do(tiny_bundle: Path) -> None:
    with fmrt.Embedder(tiny_bundle) as embedder:
        for take in (pickle.dumps, copy.copy, copy.deepcopy, lambda e: pickle.dumps(e.embed)):
            with pytest.raises(ProcessError, match="in each process by Embedder"):
                take(embedder)


@posix
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_an_embedder_works_in_the_workers_of_pytorchs_loader(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    body = """
    from torch.utils.data import DataLoader, Dataset
    class Vectors(Dataset):
        def __len__(self): return 40
        def __getitem__(self, i): return e.embed([LONG[i], "cat"])
    seen = sum(len(batch) for batch in DataLoader(Vectors(), batch_size=4, num_workers=2))
    assert seen == 40
    """
    done = run(script(tmp_path, body), tiny_bundle)
    assert done.returncode == 0, done.stderr

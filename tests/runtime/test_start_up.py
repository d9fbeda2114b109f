"""What a process imports until it embeds a text: the rest is imported where it is used first."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# The modules of fmrt that it needs. One more is some milliseconds for each command and each process
# of a service: put it here where it is needed, and else import it in the function that uses it.
NEEDED = {
    *("_version", "arrays", "embed_options", "embedder", "encode", "errors", "options", "verify"),
    "words",
    *("bundle", "bundle.bundle", "bundle.checked", "bundle.inputs", "bundle.manifest"),
    *("bundle.onnx_files", "bundle.reference", "bundle.regular", "bundle.typed"),
    *("embedding", "embedding.choice", "embedding.engine", "embedding.items"),
    *("embedding.postprocess", "embedding.recall", "embedding.request"),
    *("embedding.scheduler", "embedding.stream", "embedding.tuning", "embedding.vocabulary"),
    *("preprocess", "preprocess.base"),
    *("session", "session.all_cores", "session.base", "session.creation"),
    *("session.device_options", "session.diagnosis", "session.halving", "session.host"),
    *("session.log", "session.multi_device", "session.onnx_files"),
    *(
        "session.opening",
        "session.ort_types",
        "session.providers",
        "session.providers.base",
        "session.providers.cpu",
    ),
    *(
        "system",
        "system.archive",
        "system.cache_directory",
        "system.cores",
        "system.extras",
        "system.huge_pages",
        "system.limits",
    ),
    *("system.native", "system.progress", "system.user_warning", "system.whole_file"),
}
# And those that it needs when it loads a bundle of texts.
OF_TEXTS = {f"preprocess.{name}" for name in ("plain_text", "text", "tokenizing")}
# Of other packages and of Python, those that take milliseconds and that nothing there needs.
NEVER = {"filelock", "huggingface_hub", "sqlite3", "tqdm", "pkgutil", "pydoc", "unittest"}

CODE = """
import json, sys, numpy, onnxruntime
before = set(sys.modules)
def own():
    loaded = set(sys.modules) - before
    return sorted(m.removeprefix("fmrt.") for m in loaded if m.startswith("fmrt."))
import fmrt
at_import = sorted(set(sys.modules) - before)
fmrt.Embedder
at_class = own()
with fmrt.Embedder(sys.argv[1]) as embedder:
    embedder.embed(["cat", "dog"])
print(json.dumps([at_import, at_class, own(), sorted(set(sys.modules) - before)]))
"""


def test_a_process_that_embeds_a_text_imports_what_it_needs_alone(tiny_bundle: Path) -> None:
    command = [sys.executable, "-c", CODE, str(tiny_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    at_import, at_class, at_end, everything = json.loads(done.stdout)
    own = [name for name in at_import if name.startswith("fmrt")]
    assert own == ["fmrt", "fmrt._version", "fmrt.errors"]
    assert set(at_class) <= NEEDED
    assert set(at_end) <= NEEDED | OF_TEXTS
    assert not NEVER & set(everything)
    assert not {name for name in everything if name.startswith("importlib.metadata")}


COMMAND = """
import sys
from fmrt.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print(*sys.modules)
"""


@pytest.mark.parametrize(
    ("arguments", "not_needed"),
    [
        (["--help"], {"numpy", "onnxruntime", "tokenizers", "fmrt.embedder", "fmrt.data"}),
        (["info"], {"fmrt.embedder", "fmrt.embedding.engine", "fmrt.data", "tokenizers"}),
    ],
)
def test_a_command_imports_what_it_needs_alone(tiny_bundle: Path, arguments, not_needed) -> None:
    bundle = [str(tiny_bundle)] if arguments == ["info"] else []
    command = [sys.executable, "-c", COMMAND, *arguments, *bundle]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not not_needed & set(done.stdout.splitlines()[-1].split())

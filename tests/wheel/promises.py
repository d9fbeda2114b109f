"""What fmrt promises with each extra alone, and with none, tried in an environment of its own."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import time
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from dev import binaries, fmrt, python, run
from fmrt import export_model
from fmrt.system.extras import EXTRAS
from tests.export.audio import AUDIO, save_audio
from tests.export.models import TINY, save_tiny
from tests.export.test_audio import files as sounds
from tests.export.test_vision import photographs
from tests.export.vision import VISION, save_vision
from tests.wheel.environments import fresh, importable, install

# Commands by extras. Every file and bundle that they name is made by `make_files`.
NONE = "none"
PROMISES: dict[str, tuple[str, ...]] = {
    NONE: (
        "embed bert texts.txt -o v.npy",
        "embed bert texts.txt -o v.jsonl",
        "verify bert",
        "search bert v.npy 'a question' --texts texts.txt",
        "info bert",
    ),
    "parquet": (
        "embed bert texts.txt -o t.parquet --keep text",
        "embed bert t.parquet -o v.parquet",
        "search bert v.parquet 'a question' --texts texts.txt",
    ),
    "image": ("embed vit photos/ -o v.npy", "verify vit"),
    "audio": ("embed wav2vec2 sounds/ -o v.npy", "verify wav2vec2"),
    "openvino": (
        "embed bert texts.txt -o v.npy --provider openvino",
        "verify bert --provider openvino --variant fp32",
    ),
    "evaluate": (
        "evaluate bert labelled.csv --resamples 10",
        "evaluate bert labelled.csv --task knn --against fp32 --json",
        "map bert labelled.csv -o map.html",
        "map bert labelled.csv -o map.png",
    ),
    "quantize": ("quantize plain int8,fp16 --min-cosine 0.5", "verify plain"),
    "export": (
        "export text-model text",
        "embed text texts.txt -o v.npy",
        "export text-model smaller --quantize int8 --min-cosine 0.5",
    ),
    "export,image": ("export image-model image", "embed image photos/ -o v.npy"),
    "export,audio": ("export audio-model audio", "embed audio sounds/ -o v.npy"),
}
# What is refused, and the extras that the message must name.
REFUSED: dict[str, dict[str, str]] = {
    NONE: {
        "embed bert texts.txt -o v.parquet": "fmrt[parquet]",
        "embed vit photos/ -o v.npy": "fmrt[image]",
        "embed wav2vec2 sounds/ -o v.npy": "fmrt[audio]",
        "embed bert texts.txt -o v.npy --provider openvino": "fmrt[openvino]",
        "evaluate bert labelled.csv": "fmrt[evaluate]",
        "map bert labelled.csv -o map.html": "fmrt[evaluate]",
        "quantize plain int8": "fmrt[quantize]",
        "export text-model text": "fmrt[export]",
    },
    "export": {
        "export image-model out": "fmrt[export,image]",
        "export audio-model out": "fmrt[export,audio]",
    },
}


def check(wheel: Path, bundles: Path, place: Path, only: Sequence[str] = ()) -> None:
    """Keep every promise.

    Args:
        wheel: that is installed.
        bundles: The bundles of tiny models, see `tests.export.bundles`.
        place: a folder to make.
        only: extras to try; all by default.
    """
    owns_one_name(wheel)
    make_files(place, bundles)
    for extras in only or PROMISES:
        begun = time.monotonic()
        print(f"\nthe wheel with {extras}", flush=True)
        environment = made(wheel, place / f"venv-{extras}", extras)
        keep(extras, environment, place)
        print(f"the wheel with {extras}: {time.monotonic() - begun:.0f} s", flush=True)


def owns_one_name(wheel: Path) -> None:
    """See that the wheel writes into nothing but its own package and metadata."""
    names = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"fmrt"}, names


def made(wheel: Path, path: Path, extras: str) -> Path:
    """An environment with the wheel and these extras, and without the others' modules."""
    names = [] if extras == NONE else extras.split(",")
    environment = fresh(path, names)
    install(environment, f"{wheel}[{','.join(names)}]" if names else str(wheel))
    wanted = modules_of(names)
    others = modules_of(set(EXTRAS) - set(names)) - wanted
    if "export" in names:  # sentence-transformers needs scikit-learn
        others -= modules_of({"evaluate"} & set(EXTRAS))
    if "evaluate" in names:  # matplotlib needs Pillow
        others -= modules_of({"image"})
    found = importable(environment, wanted | others)
    assert found == wanted, f"{extras}: {sorted(found ^ wanted)}"
    return environment


def modules_of(extras: Iterable[str]) -> set[str]:
    """What some extras bring, as `import` names it."""
    return set().union(*(EXTRAS[extra] for extra in extras))


def keep(extras: str, environment: Path, place: Path) -> None:
    """Run what these extras promise, and see what they do not."""
    work = place / extras
    shutil.copytree(place / "files", work, symlinks=True)
    for command, named in REFUSED.get(extras, {}).items():
        refused(environment, work, command, named)
    for command in PROMISES[extras]:
        fmrt(*shlex.split(command), environment=environment, cwd=work)
    if extras == "export":
        beside_a_stranger(environment, work)


def refused(environment: Path, work: Path, command: str, named: str) -> None:
    """See a command fail with one line that names what installs the missing modules."""
    line = [str(binaries(environment) / "fmrt"), *shlex.split(command)]
    done = subprocess.run(line, cwd=work, capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert (done.returncode, named in last) == (1, True), f"{command}: {done.stderr}"


def beside_a_stranger(environment: Path, work: Path) -> None:
    """Export in a folder with an export.py that is the user's own."""
    (work / "export.py").write_text("raise SystemExit('a stranger was imported')")
    (work / "script.py").write_text("import fmrt; fmrt.export_model('text-model', 'by-script')")
    run(python(environment), "script.py", cwd=work)
    run(python(environment), "-m", "fmrt", "export", "text-model", "by-module", cwd=work)


def make_files(place: Path, bundles: Path) -> None:
    """Write the models and files that commands name, and copy the bundles."""
    files = place / "files"
    files.mkdir(parents=True)
    for name in ("bert", "vit", "wav2vec2"):
        shutil.copytree(bundles / name, files / name)
    save_tiny(TINY[0], files / "text-model")
    save_vision(VISION[0], files / "image-model")
    save_audio(AUDIO[0], files / "audio-model")
    export_model(files / "text-model", files / "plain")
    (files / "texts.txt").write_text("a text\nanother\na question\n")
    rows = [f"text {i},{label}" for i, label in enumerate("ababab")]
    (files / "labelled.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    for folder, kind, contents in (("photos", "jpg", photographs()), ("sounds", "wav", sounds())):
        (files / folder).mkdir()
        for i, data in enumerate(contents[:2]):
            (files / folder / f"{i}.{kind}").write_bytes(data)

"""A Python of aarch64 with ONNX Runtime, under QEMU: from Debian's packages and PyPI's wheels.

It is kept under ``build/agreement``. ONNX Runtime does not start under QEMU before 8.
"""

from __future__ import annotations

import contextlib
import platform
import shutil
import subprocess
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path

from dev import python
from tests.agreement.machines import PLACE, Python, UnavailableError

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SOURCE = f"deb [signed-by={KEYRING}] https://deb.debian.org/debian trixie main\n"
PYTHON = "3.13"
EMULATOR = "qemu-user:amd64"
PACKAGES = (
    *(f"python{PYTHON}-minimal", f"libpython{PYTHON}-minimal", f"libpython{PYTHON}-stdlib"),
    *("libc6", "libexpat1", "zlib1g", "libffi8", "libstdc++6", "libgcc-s1", "libbz2-1.0"),
    *("liblzma5", "libssl3t64"),
)
WHEELS = ("numpy", "onnxruntime")
# Of the usual boards and phones: neither SVE nor dot products.
PROCESSOR = "cortex-a72"
SECONDS = 150


def aarch64() -> Python:
    """The emulated Python, made on first use.

    Raises:
        UnavailableError: Its parts cannot be had here.
    """
    wheels = [f"{name}=={version(name)}" for name in WHEELS]
    place = PLACE / "-".join(["aarch64", PYTHON, *wheels])
    if not place.is_dir():
        _make(place, wheels)
    command = [
        *(str(place / "usr/bin/qemu-aarch64"), "-cpu", PROCESSOR, "-L", str(place / "root")),
        str(place / f"root/usr/bin/python{PYTHON}"),
    ]
    site = {"PYTHONPATH": str(place / "site"), "PYTHONDONTWRITEBYTECODE": "1"}
    return Python(command, site, slow=True)


def _make(place: Path, wheels: list[str]) -> None:
    if platform.machine() != "x86_64":
        raise UnavailableError("QEMU is taken for x86-64 alone")
    if shutil.which("apt-get") is None or not KEYRING.is_file():
        raise UnavailableError(f"needs apt-get and {KEYRING} (package debian-archive-keyring)")
    PLACE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PLACE) as name:
        made = Path(name) / "aarch64"
        try:
            _debian(made)
            _wheels(made, wheels)
        except subprocess.CalledProcessError as e:
            raise UnavailableError(f"{e.cmd[0]}: {e.stderr[-200:]}") from e
        except subprocess.TimeoutExpired as e:
            raise UnavailableError(str(e)) from e
        with contextlib.suppress(OSError):  # another process was first
            made.rename(place)


def _debian(made: Path) -> None:
    """Download and unpack packages, with no change to the system's own apt."""
    apt = made / "apt"
    for folder in (made / "root", apt / "lists/partial", apt / "cache/archives/partial"):
        folder.mkdir(parents=True)
    (apt / "sources.list").write_text(SOURCE)
    (apt / "status").touch()
    options = {
        "Dir::Etc::sourcelist": apt / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": apt / "lists",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
        "APT::Architecture": "amd64",
        "APT::Architectures": "amd64,arm64",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }
    get = [
        "apt-get",
        *(part for name, value in options.items() for part in ("-o", f"{name}={value}")),
    ]
    _run([*get, "update"], apt)
    _run([*get, "download", EMULATOR, *(f"{name}:arm64" for name in PACKAGES)], apt)
    for package in apt.glob("*_arm64.deb"):
        _run(["dpkg-deb", "-x", str(package), str(made / "root")], apt)
    (emulator,) = apt.glob("qemu-user_*_amd64.deb")
    files = ["dpkg-deb", "--fsys-tarfile", str(emulator)]
    with (apt / "files.tar").open("wb") as archive:
        subprocess.run(files, stdout=archive, stderr=subprocess.PIPE, check=True, timeout=SECONDS)
    _run(
        ["tar", "-x", "-f", str(apt / "files.tar"), "-C", str(made), "./usr/bin/qemu-aarch64"], apt
    )
    (made / "root/lib").symlink_to("usr/lib")
    shutil.rmtree(apt)


def _wheels(made: Path, wheels: list[str]) -> None:
    systems = ("manylinux_2_27_aarch64", "manylinux_2_28_aarch64")
    command = [
        *(python(), "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--only-binary", ":all:", "--python-version", PYTHON),
        *(part for system in systems for part in ("--platform", system)),
    ]
    _run([*command, "--dest", str(made / "wheels"), *wheels], made)
    for wheel in (made / "wheels").iterdir():
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(made / "site")
    shutil.rmtree(made / "wheels")


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=SECONDS)

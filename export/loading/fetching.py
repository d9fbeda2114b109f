"""Where a model or an adapter is from: a local directory, or the hub."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from fmrt.errors import ExportError, OptionError
from fmrt.export.loading.directory import check_file
from fmrt.export.loading.pretrained import first_line

WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model.bin")
# What other runtimes need, and this exporter does not.
NOT_NEEDED = ["openvino/*", "*.h5", "*.msgpack", "*.ot", "*.gguf", "*.mlmodel"]
GRAPHS = ["onnx/*", "*.onnx"]
SNAPSHOT = re.compile(r"models--(?P<owner>.+?)--(?P<name>.+)")

READ_BYTES = 1 << 22


@dataclass(frozen=True)
class Origin:
    """Where a model or an adapter is from.

    Attributes:
        name: The name, as the user gave it.
        path: The local directory of the model.
        revision: The commit of what is from the hub.
    """

    name: str
    path: Path
    revision: str | None = None

    @property
    def public_name(self) -> str:
        """What a bundle says of it: a hub id, or a directory's own name."""
        if not Path(self.name).expanduser().is_dir():
            return self.name
        resolved = self.path.resolve()
        for folder in resolved.parents:
            found = SNAPSHOT.fullmatch(folder.name)
            if found is not None:  # the hub's cache, given by its path
                return f"{found['owner']}/{found['name']}"
        return resolved.name

    def weights_sha256(self) -> str:
        """SHA-256 in hex over all files of weights, in the order of their names."""
        return sha256_over(sorted({f for pattern in WEIGHTS for f in self.path.rglob(pattern)}))


def sha256_over(files: Iterable[Path]) -> str:
    """SHA-256 in hex over the contents of some files, one after the other."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as f:
            while chunk := f.read(READ_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def fetch(name: str, revision: str | None, *, graphs: bool = False) -> Origin:
    """Find a model or adapter in a local directory, or download it from the hub.

    Args:
        name: A directory or hub id.
        revision: The branch, tag or commit of a hub model.
        graphs: Whether ONNX graphs are wanted too, and a file may be one.

    Raises:
        ExportError: There is no such model or adapter.
        OptionError: A revision is given for a local directory.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        if revision is not None:
            raise OptionError("revision applies to hub models, and this is a local directory")
        return Origin(name, path)
    if graphs and path.suffix == ".onnx" and path.is_file():
        return Origin(name, path)
    if path.exists():
        check_file(path, name)
    try:
        path = _download(name, revision, graphs=graphs)
    except (HfHubHTTPError, HFValidationError, OSError, UnicodeError) as e:
        raise ExportError(
            f"{name} is neither a directory nor a model the hub gives: {first_line(e)}"
        ) from e
    return Origin(name, path, path.name)


def _download(name: str, revision: str | None, *, graphs: bool) -> Path:
    """A snapshot, whose directory is named by its commit; from the cache where there is no hub."""
    unneeded = NOT_NEEDED if graphs else [*NOT_NEEDED, *GRAPHS]
    skip = [*unneeded, "*.bin"]
    path = Path(snapshot_download(name, revision=revision, ignore_patterns=skip))
    if not any(path.rglob("*.safetensors")):
        snapshot_download(name, revision=path.name, ignore_patterns=unneeded)
    return path

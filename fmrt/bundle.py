"""A bundle on disk: its manifest, its files checked against it, and which variant to run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmrt.errors import BundleCorruptError, BundleNotFoundError, VariantNotFoundError
from fmrt.manifest import MANIFEST_FILE, REFERENCE_FILE, FileRecord, Head, Manifest, Variant
from fmrt.options import checked, file_path
from fmrt.session import preferred_precisions

_FIX = "copy the bundle again, or export the model again"


@dataclass(frozen=True)
class Reference:
    """Items with the vectors that PyTorch gave them.

    Attributes:
        items: raw: a text without its prompt, or the bytes of an image or sound file.
        prompts: the prompt in front of each.
        lengths: positions that the model computes for each, int64 ``[n]``.
        embeddings: float32 ``[n, dim]``.
    """

    items: list[str | bytes]
    prompts: list[str]
    lengths: NDArray[np.int64]
    embeddings: NDArray[np.float32]


@dataclass(frozen=True)
class HeadReference:
    """Inputs of a head with what PyTorch gave for them.

    Attributes:
        items: of the task, as JSON; those about an image name it by its place among the tower's
            reference items.
        outputs: by name, each ``[n, ...]``.
    """

    items: list[dict[str, Any]]
    outputs: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Bundle:
    """An exported model in a directory. Make one with `Bundle.open`."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Read the manifest of the bundle at ``path``; other files are checked when used.

        Raises:
            BundleNotFoundError: no bundle there.
            SchemaVersionError: a newer fmrt wrote it.
            BundleCorruptError: the manifest is malformed.
        """
        directory = Path(path)
        return cls(directory, Manifest.read(directory))

    @classmethod
    def from_pretrained(
        cls,
        model: str,
        revision: str | None = None,
        variant: str | None = None,
        provider: str = "cpu",
    ) -> Bundle:
        """Open a local bundle, or download from the Hugging Face hub what one variant needs.

        Raises:
            BundleNotFoundError: neither a directory nor a hub repository with a bundle.
        """
        checked(revision=revision, variant=variant, provider=provider)
        if Path(file_path("model", model)).exists() or model.count("/") != 1 or model[0] in "./~":
            return cls.open(model)  # not the owner/name of a hub repository
        from huggingface_hub import hf_hub_download, snapshot_download  # noqa: PLC0415

        try:
            manifest_path = Path(hf_hub_download(model, MANIFEST_FILE, revision=revision))
            remote = cls.open(manifest_path.parent)
            needed = [MANIFEST_FILE, *remote.manifest.files]
            for modality in remote.manifest.modalities:
                chosen = remote.variant(variant, provider, modality)
                needed += [chosen.file, *chosen.external]
            for head in remote.manifest.heads:
                chosen = remote.head_variant(head, variant, provider)
                needed += [chosen.file, *chosen.external]
            return cls.open(snapshot_download(model, revision=revision, allow_patterns=needed))
        except (OSError, ValueError) as e:
            if isinstance(e, VariantNotFoundError | BundleCorruptError):
                raise
            reason = str(e).strip().splitlines()[0]
            raise BundleNotFoundError(
                f"{model!r} is neither a directory nor a bundle that the hub gives: {reason}"
            ) from e

    def variant(
        self, name: str | None = None, provider: str = "cpu", modality: str | None = None
    ) -> Variant:
        """Pick a variant: by name or precision, or the best that needs no asking.

        The best is fp32, and on GPUs fp16 when its parity has been measured; of one precision the
        one made for ``provider``, or else the portable one. One without padding comes first where
        its parity has been measured on ``provider`` itself, and else last.

        Raises:
            VariantNotFoundError: no such variant, or it does not run on ``provider``.
            OptionError: the bundle does not embed ``modality``.
        """
        modality = self.manifest.tower(modality).modality
        own = [v for v in self.manifest.variants if v.modality == modality]
        return self._choose(own, name, provider)

    def head_variant(self, head: Head, name: str | None = None, provider: str = "cpu") -> Variant:
        """Pick a head's variant as `variant` does a tower's; where it lacks ``name``, the default.

        Heads are small next to towers, so a tower's smaller variant may have a full one behind it.

        Raises:
            VariantNotFoundError: none runs on ``provider``.
        """
        known = any(v.name == name and v.provider in ("any", provider) for v in head.variants)
        return self._choose(head.variants, name if known else None, provider)

    def _choose(self, variants: Sequence[Variant], name: str | None, provider: str) -> Variant:
        fits = [v for v in variants if v.provider in ("any", provider)]
        if name is None:
            for precision in preferred_precisions(provider):
                found = [v for v in fits if v.precision == precision and _trusted(v)]
                if found:
                    return min(found, key=_rank)
        named = [v for v in fits if v.name == name]
        # A precision stands for its variant made for the provider, else for the portable one.
        named += sorted((v for v in fits if v.precision == name), key=_rank)
        if named:
            return named[0]
        names = ", ".join(v.name for v in fits) or "none"
        raise VariantNotFoundError(
            f"{self.path} has no variant {name or 'fp32'!r} for provider {provider!r}; "
            f"it has: {names}"
        )

    def check_size(self, name: str, record: FileRecord | Variant) -> Path:
        """Path of a file after a look at its size (no read).

        Raises:
            BundleCorruptError: the file is missing, or its size is not the exported one.
        """
        path = self.path / name
        if not path.is_file():
            raise BundleCorruptError(f"{path} is missing; {_FIX}")
        size = path.stat().st_size
        if size != record.size:
            raise BundleCorruptError(
                f"{path} is corrupt: {size:,} bytes, exported with {record.size:,}; {_FIX}"
            )
        return path

    def check_hash(self, name: str, record: FileRecord | Variant) -> Path:
        """Path of a file after a check of its SHA-256.

        Raises:
            BundleCorruptError: the file is missing or its content is not what was exported.
        """
        path = self.check_size(name, record)
        if sha256(path) != record.sha256:
            raise BundleCorruptError(f"{path} is corrupt: its SHA-256 has changed; {_FIX}")
        return path

    def file(self, name: str) -> Path:
        """Path of one of the manifest's ``files``, its content checked.

        Raises:
            BundleCorruptError: the file is missing or corrupt.
        """
        if name not in self.manifest.files:
            raise BundleCorruptError(f"{self.path / MANIFEST_FILE} does not list {name}; {_FIX}")
        return self.check_hash(name, self.manifest.files[name])

    def graph(self, variant: Variant) -> Path:
        """Path of a variant's graph, the content of its files checked.

        Raises:
            BundleCorruptError: a file is missing or corrupt.
        """
        for name, record in variant.external.items():
            self.check_hash(name, record)
        return self.check_hash(variant.file, variant)

    def reference(self, modality: str | None = None) -> Reference:
        """The reference items of a tower and PyTorch's vectors.

        Raises:
            BundleCorruptError: the file is missing or corrupt.
            OptionError: the bundle does not embed ``modality``.
        """
        from safetensors import safe_open  # noqa: PLC0415

        modality = self.manifest.tower(modality).modality
        with safe_open(self.file(REFERENCE_FILE), framework="np") as f:
            entries: list[dict[str, Any]] = json.loads(f.metadata()[modality])
            return Reference(
                [
                    entry["text"] if "text" in entry else f.get_tensor(entry["bytes"]).tobytes()
                    for entry in entries
                ],
                [entry.get("prompt", "") for entry in entries],
                f.get_tensor(f"{modality}.lengths"),
                f.get_tensor(f"{modality}.embeddings"),
            )

    def head_reference(self, head: Head) -> HeadReference:
        """The reference items of a head and PyTorch's outputs.

        Raises:
            BundleCorruptError: the file is missing or corrupt.
        """
        from safetensors import safe_open  # noqa: PLC0415

        with safe_open(self.file(REFERENCE_FILE), framework="np") as f:
            items: list[dict[str, Any]] = json.loads(f.metadata()[head.task])
            outputs = {name: f.get_tensor(f"{head.task}.{name}") for name in head.outputs}
        return HeadReference(items, outputs)


def _trusted(variant: Variant) -> bool:
    """Whether a variant may be taken without being asked for.

    A portable one that is stored in 16 bits computes in 32, and so is no quicker on a GPU.
    """
    made_for_it = variant.parity is not None and variant.provider != "any"
    return variant.precision == "fp32" or made_for_it


def _rank(variant: Variant) -> tuple[bool, int]:
    """Of variants of one precision that a provider takes, the best has the lowest."""
    proven = variant.packed and variant.checked_on == variant.provider
    return variant.provider == "any", -1 if proven else int(variant.packed)


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def record_of(path: Path) -> FileRecord:
    """Record of a file as it is now."""
    return FileRecord(sha256(path), path.stat().st_size)

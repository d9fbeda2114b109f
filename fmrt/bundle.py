"""A bundle on disk: its manifest, its files checked against it, and which variant to run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from fmrt.checked import Checked, place_inside, record_of, sha256
from fmrt.errors import (
    BundleCorruptError,
    BundleNotFoundError,
    FmrtError,
    VariantNotFoundError,
    quoted,
)
from fmrt.manifest import (
    MANIFEST_FILE,
    REFERENCE_FILE,
    FileRecord,
    Head,
    Manifest,
    Variant,
    manifest_bytes,
)
from fmrt.onnx_files import MalformedGraphError, external_locations
from fmrt.options import checked, file_path
from fmrt.reference import HeadReference, Reference, read_head_reference, read_reference
from fmrt.regular import FIX
from fmrt.session import preferred_precisions

__all__ = ["Bundle", "HeadReference", "Reference", "record_of", "sha256"]


@dataclass(frozen=True)
class Bundle:
    """An exported model in a directory. Make one with `Bundle.open`."""

    path: Path
    manifest: Manifest
    manifest_sha256: str | None = None

    @classmethod
    def open(cls, path: str | Path, sha256: str | None = None) -> Bundle:
        """Read the manifest of the bundle at ``path``; other files are checked when used.

        Args:
            path: directory of the bundle.
            sha256: of its manifest, in hex. The manifest holds the hashes of all files that are
                read, so that this pins the bundle to the last byte.

        Raises:
            BundleNotFoundError: no bundle there.
            SchemaVersionError: a newer fmrt wrote it.
            BundleCorruptError: the manifest is malformed, or not the one of ``sha256``.
            OptionError: ``sha256`` is no SHA-256.
        """
        checked(sha256=sha256)
        directory = Path(file_path("bundle", path))
        data = manifest_bytes(directory)
        found = hashlib.sha256(data).hexdigest()
        if sha256 is not None and found != sha256.lower():
            raise BundleCorruptError(
                f"{directory / MANIFEST_FILE} has the SHA-256 {found}, and {sha256} was asked for: "
                "this is another bundle"
            )
        return cls(directory, Manifest.from_bytes(data, directory / MANIFEST_FILE), found)

    @classmethod
    def opened(cls, bundle: str | Path | Bundle, sha256: str | None = None) -> Bundle:
        """A bundle that may be open already, as of `open`.

        Raises:
            BundleError: as `open`; of an open one, that it is not the one of ``sha256``.
        """
        if isinstance(bundle, Bundle):
            same = sha256 is None or sha256 == bundle.manifest_sha256
            return bundle if same else cls.open(bundle.path, sha256)
        return cls.open(bundle, sha256)

    @classmethod
    def from_pretrained(
        cls,
        model: str,
        revision: str | None = None,
        variant: str | None = None,
        provider: str = "cpu",
        sha256: str | None = None,
    ) -> Bundle:
        """Open a local bundle, or download from the Hugging Face hub what one variant needs.

        ``sha256`` is as of `open`.

        Raises:
            BundleNotFoundError: neither a directory nor a hub repository with a bundle.
        """
        checked(revision=revision, variant=variant, provider=provider, sha256=sha256)
        if Path(file_path("model", model)).exists() or model.count("/") != 1 or model[0] in "./~":
            return cls.open(model, sha256)  # not the owner/name of a hub repository
        from huggingface_hub import hf_hub_download, snapshot_download  # noqa: PLC0415

        try:
            manifest_path = Path(hf_hub_download(model, MANIFEST_FILE, revision=revision))
            remote = cls.open(manifest_path.parent, sha256)
            needed = [MANIFEST_FILE, *remote.manifest.files]
            for modality in remote.manifest.modalities:
                chosen = remote.variant(variant, provider, modality)
                needed += [chosen.file, *chosen.external]
            for head in remote.manifest.heads:
                chosen = remote.head_variant(head, variant, provider)
                needed += [chosen.file, *chosen.external]
            found = snapshot_download(model, revision=revision, allow_patterns=needed)
            return cls.open(found, sha256)
        except (OSError, ValueError) as e:
            if isinstance(e, FmrtError):
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

    def file(self, name: str) -> Path:
        """Path of one of the manifest's ``files``, its content checked.

        Raises:
            BundleCorruptError: the file is missing or corrupt.
        """
        return self.checked(name).path

    def checked(self, name: str) -> Checked:
        """One of the manifest's ``files``, its content checked.

        Raises:
            BundleCorruptError: the file is missing or corrupt.
        """
        if name not in self.manifest.files:
            raise BundleCorruptError(f"{self.path / MANIFEST_FILE} does not list {name}; {FIX}")
        path = place_inside(self.path, name)
        return Checked.of(path, {path: self.manifest.files[name]})

    def graph(self, variant: Variant) -> Path:
        """Path of a variant's graph, the content of its files checked.

        Raises:
            BundleCorruptError: a file is missing or corrupt, or the graph reads another one.
        """
        return self.checked_graph(variant).path

    def checked_graph(self, variant: Variant) -> Checked:
        """A variant's graph, the content of its files checked.

        Raises:
            BundleCorruptError: a file is missing or corrupt, or the graph reads another one.
        """
        path = place_inside(self.path, variant.file)
        own = FileRecord(variant.sha256, variant.size)
        records = {place_inside(self.path, n): r for n, r in variant.external.items()}
        found = Checked.of(path, {**records, path: own})
        try:
            locations = external_locations(path)
        except (MalformedGraphError, OSError) as e:
            raise BundleCorruptError(f"{path} is no graph: {e}; {FIX}") from e
        folder = PurePosixPath(variant.file).parent
        for location in sorted(locations):
            if str(folder / location) not in variant.external:
                raise BundleCorruptError(
                    f"{path} reads {quoted(location)}, which {MANIFEST_FILE} does not list; {FIX}"
                )
        return found

    def reference(self, modality: str | None = None) -> Reference:
        """The reference items of a tower and PyTorch's vectors.

        Raises:
            BundleCorruptError: the file is missing or corrupt, or made with other options.
            OptionError: the bundle does not embed ``modality``.
        """
        tower = self.manifest.tower(modality)
        read = partial(read_reference, manifest=self.manifest, tower=tower)
        return self.checked(REFERENCE_FILE).use(read)

    def head_reference(self, head: Head) -> HeadReference:
        """The reference items of a head and PyTorch's outputs.

        Raises:
            BundleCorruptError: the file is missing or corrupt.
        """
        return self.checked(REFERENCE_FILE).use(partial(read_head_reference, head=head))


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

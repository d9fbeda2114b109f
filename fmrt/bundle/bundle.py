"""A bundle on disk: its manifest, its files checked against it, and which variant to run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from fmrt.bundle.checked import Checked, place_inside, record_of, sha256
from fmrt.bundle.manifest import (
    MANIFEST_FILE,
    NOBODY,
    REFERENCE_FILE,
    FileRecord,
    Manifest,
    TaskHead,
    Variant,
    manifest_bytes,
)
from fmrt.bundle.reference import HeadReference, Reference, read_head_reference, read_reference
from fmrt.bundle.regular import FIX
from fmrt.errors import (
    BundleCorruptError,
    OptionError,
    UnverifiedWarning,
    VariantNotFoundError,
    VerificationError,
    quoted,
)
from fmrt.options import checked, file_path
from fmrt.session import preferred_precisions
from fmrt.session.onnx_files import MalformedGraphError, external_locations
from fmrt.system.archive import SUFFIX, Archive, BundleFile, archive_at
from fmrt.system.user_warning import warn_user

if TYPE_CHECKING:
    from fmrt.bundle.hub import Repository

__all__ = ["Bundle", "HeadReference", "Reference", "is_hub_id", "record_of", "sha256"]


@dataclass(frozen=True)
class Bundle:
    """An exported model in a directory. Make one with `Bundle.open`.

    Attributes:
        path: The directory; of a bundle on the hub, its folder in the local cache; of a bundle in
            one file, that file.
        manifest: The content of ``fmrt.json``.
        manifest_sha256: The SHA-256 of that file, in hex.
        repository: The hub's repository, which gives the files that are not at ``path`` yet.
        archive: The one file that holds the others, as of ``fmrt package --single-file``.
    """

    path: Path
    manifest: Manifest
    manifest_sha256: str | None = None
    repository: Repository | None = None
    archive: Archive | None = None

    @classmethod
    def open(
        cls, path: str | Path, sha256: str | None = None, revision: str | None = None
    ) -> Bundle:
        """Read the manifest of a bundle; other files are checked when used.

        Args:
            path: The directory of the bundle, its one file, or the ``owner/name`` of a repository
                of the Hugging Face hub, whose files are downloaded when used.
            sha256: The SHA-256 of its manifest, in hex. The manifest holds the hashes of all files
                that are read, so that this pins the bundle to the last byte.
            revision: The branch, tag or commit of a bundle on the hub.

        Raises:
            BundleNotFoundError: There is no bundle there.
            SchemaVersionError: A newer fmrt wrote it.
            BundleCorruptError: The manifest is malformed, or not the one of ``sha256``.
            OptionError: ``sha256`` is no SHA-256, or a revision of a directory is asked for.
        """
        checked(sha256=sha256, revision=revision)
        directory, repository = Path(file_path("bundle", path)), None
        if is_hub_id(path):
            from fmrt.bundle.hub import fetch_manifest

            directory, repository = fetch_manifest(str(path), revision)
        elif revision is not None:
            raise OptionError(
                f"revision={quoted(revision)} is for bundles of the hub, and {path} is none"
            )
        archive = archive_at(directory)
        data = manifest_bytes(directory, archive)
        found = hashlib.sha256(data).hexdigest()
        if sha256 is not None and found != sha256.lower():
            raise BundleCorruptError(
                f"{directory / MANIFEST_FILE} has the SHA-256 {found}, and {sha256} was asked for: "
                "this is another bundle"
            )
        manifest = Manifest.from_bytes(data, directory / MANIFEST_FILE)
        if manifest.unverified is not None:
            warn_user(f"{path} is {manifest.unverified}", UnverifiedWarning)
        return cls(directory, manifest, found, repository, archive)

    @classmethod
    def opened(
        cls, bundle: str | Path | Bundle, sha256: str | None = None, revision: str | None = None
    ) -> Bundle:
        """A bundle that may be open already, as `open` gives it.

        Raises:
            BundleError: As `open`; of an open one, that it is not the one of ``sha256``.
        """
        if isinstance(bundle, Bundle):
            same = sha256 is None or sha256 == bundle.manifest_sha256
            return bundle if same else cls.open(bundle.path, sha256)
        return cls.open(bundle, sha256, revision)

    @classmethod
    def from_pretrained(
        cls,
        model: str,
        revision: str | None = None,
        variant: str | None = None,
        provider: str = "cpu",
        sha256: str | None = None,
    ) -> Bundle:
        """Open a bundle as `open` does, and download the graphs of one variant from the hub.

        Their content is checked where they are read.

        Raises:
            BundleError: As `open`; or the bundle has no such variant.
        """
        checked(variant=variant, provider=provider)
        bundle = cls.open(model, sha256, revision)
        for modality in bundle.manifest.modalities:
            bundle._places(bundle.variant(variant, provider, modality))
        for head in bundle.manifest.heads:
            bundle._places(bundle.head_variant(head, variant, provider))
        return bundle

    def variant(
        self, name: str | None = None, provider: str = "cpu", modality: str | None = None
    ) -> Variant:
        """Pick a variant: by name or precision, or the best that needs no asking.

        The best is fp32, and on GPUs fp16 when its parity has been measured; of one precision the
        one made for ``provider``, or else the portable one. Packed ones come last: on an H100 they
        were no faster.

        Raises:
            VariantNotFoundError: There is no such variant, or it does not run on ``provider``.
            OptionError: The bundle does not embed ``modality``.
        """
        modality = self.manifest.tower(modality).modality
        own = [v for v in self.manifest.variants if v.modality == modality]
        return self._choose(own, name, provider)

    def head_variant(
        self, head: TaskHead, name: str | None = None, provider: str = "cpu"
    ) -> Variant:
        """Pick a head's variant as `variant` does a tower's; where it lacks ``name``, the default.

        Heads are small next to towers, so a tower's smaller variant may run with a full one.

        Raises:
            VariantNotFoundError: No variant runs on ``provider``.
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
            if len({v.precision for v in fits}) == 1:  # a package of no other
                return min(fits, key=_rank)
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

    def file(self, name: str) -> BundleFile:
        """Path of one of the manifest's ``files``, its content checked.

        Raises:
            BundleCorruptError: The file is missing or corrupt.
        """
        return self.checked(name).path

    def checked(self, name: str) -> Checked:
        """One of the manifest's ``files``, its content checked.

        Raises:
            BundleCorruptError: The file is missing or corrupt.
        """
        if name not in self.manifest.files:
            raise BundleCorruptError(f"{self.path / MANIFEST_FILE} does not list {name}; {FIX}")
        path = self._place(name, self.manifest.files[name])
        return Checked.of(path, {path: self.manifest.files[name]})

    def graph(self, variant: Variant) -> BundleFile:
        """Path of a variant's graph, the content of its files checked.

        Raises:
            BundleCorruptError: A file is missing or corrupt, or the graph reads another one.
        """
        return self.checked_graph(variant).path

    def checked_graph(self, variant: Variant) -> Checked:
        """A variant's graph, the content of its files checked.

        Raises:
            BundleCorruptError: A file is missing or corrupt, or the graph reads another one.
        """
        records = self._places(variant)
        path = next(iter(records))
        found = Checked.of(path, records)
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

    def in_directory(self) -> Path:
        """The directory of the bundle, for what changes it or reads all of its files.

        Raises:
            OptionError: The bundle is one file.
        """
        if self.archive is not None:
            raise OptionError(
                f"{self.path} is a bundle in one file, which stays as it is: make a directory of "
                f"it with fmrt package {self.path} DIR, and use that"
            )
        return self.path

    def _places(self, variant: Variant) -> dict[BundleFile, FileRecord]:
        """Places of a variant's files, the graph's first, which the hub gives as of `_place`."""
        files = {variant.file: FileRecord(variant.sha256, variant.size), **variant.external}
        return {self._place(name, record): record for name, record in files.items()}

    def _place(self, name: str, record: FileRecord) -> BundleFile:
        """Place of one of the bundle's files, which the hub gives where it is not there yet."""
        if self.archive is not None:
            return self.archive.member(name)
        if self.repository is not None:
            self.repository.fetch(self.path, name, record)
        return place_inside(self.path, name)

    def reference(self, modality: str | None = None) -> Reference:
        """The reference items of a tower and PyTorch's vectors.

        Raises:
            BundleCorruptError: The file is missing or corrupt, or made with other options.
            OptionError: The bundle does not embed ``modality``.
            VerificationError: An adopted bundle has no reference.
        """
        tower = self.manifest.tower(modality)
        if self.manifest.reference == NOBODY:
            raise VerificationError(
                f"{self.path} has no reference vectors to compare or scale with: adopt it again "
                "with --model MODEL, or with --record-reference"
            )
        read = partial(read_reference, manifest=self.manifest, tower=tower)
        return self.checked(REFERENCE_FILE).use(read)

    def head_reference(self, head: TaskHead) -> HeadReference:
        """The reference items of a head and PyTorch's outputs.

        Raises:
            BundleCorruptError: The file is missing or corrupt.
        """
        return self.checked(REFERENCE_FILE).use(partial(read_head_reference, head=head))


def is_hub_id(name: object) -> bool:
    """Whether a name is meant for the hub: ``owner/name``, and no path that exists."""
    if not isinstance(name, str) or name.endswith(SUFFIX) or Path(name).exists():
        return False
    # The owner's name and the repository's; the hub's own rules are stricter, and it says so.
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name, re.ASCII) is not None


def _trusted(variant: Variant) -> bool:
    """Whether a variant may be taken without being asked for.

    A portable one that is stored in 16 bits computes in 32, and so is no quicker on a GPU.
    """
    made_for_it = variant.parity is not None and variant.provider != "any"
    return variant.precision == "fp32" or made_for_it


def _rank(variant: Variant) -> tuple[bool, bool]:
    """A rank among variants of one precision that a provider takes; the best has the lowest.

    In fp32, a GPU's kernels of attention have been wrong where the portable graph was right, so
    that goes first until a GPU has checked the other.
    """
    portable = variant.provider == "any"
    proven = portable or variant.provider in ("cpu", variant.checked_on)
    unproven = variant.precision == "fp32" and not proven
    return portable or unproven, variant.packed or unproven

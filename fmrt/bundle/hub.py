"""Bundles on the Hugging Face hub: their names, and their files, fetched when they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmrt.bundle.checked import record_of
from fmrt.bundle.manifest import MANIFEST_FILE, FileRecord
from fmrt.errors import BundleCorruptError, BundleNotFoundError, FmrtError, quoted

LOG_IN = "hf auth login, or HF_TOKEN"


@dataclass(frozen=True)
class Repository:
    """A repository of the hub at one commit.

    Attributes:
        name: The name, ``owner/name``.
        revision: The commit; None for the newest one.
    """

    name: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.name if self.revision is None else f"{self.name} at {self.revision}"

    def fetch(self, directory: Path, file: str, record: FileRecord) -> None:
        """Have a file of the manifest in the local cache, and see that the hub gave that one.

        Args:
            directory: The cache's directory of the snapshot.
            file: The file's name in the manifest.
            record: The manifest's record of it.

        Raises:
            BundleNotFoundError: The hub does not give it.
            BundleCorruptError: It is not what the manifest says.
        """
        path = directory / file
        if path.is_file() and path.stat().st_size == record.size:
            return  # its content is checked where it is read
        with explained(self.name, self.revision, file):
            # What is there is left of a download that broke off, or was cut later.
            path = Path(_download(self, file, again=path.exists()))
        found = record_of(path)
        if found != record:
            path.resolve().unlink(missing_ok=True)  # the cache would give it again
            raise BundleCorruptError(
                f"the hub gives another {file} of {self} than its {MANIFEST_FILE} states "
                f"({found.size:,} bytes of SHA-256 {found.sha256[:12]}, not {record.size:,} of "
                f"{record.sha256[:12]}): load it again, or ask its owner to push it again"
            )


def fetch_manifest(name: str, revision: str | None) -> tuple[Path, Repository]:
    """Download a bundle's manifest.

    Returns:
        The folder of the cache that it is in, and the repository at the commit that it is of.

    Raises:
        BundleNotFoundError: The hub gives no such bundle, and the cache neither.
    """
    with explained(name, revision, MANIFEST_FILE):
        path = Path(_download(Repository(name, revision), MANIFEST_FILE))
    folder = path.parent
    commit = folder.name if folder.parent.name == "snapshots" else revision
    return folder, Repository(name, commit)


def download_whole(name: str, revision: str | None, directory: Path) -> None:
    """Download all files of a repository to a directory that is not there yet.

    Raises:
        BundleNotFoundError: The hub does not give them.
    """
    import shutil  # start-up stays quick

    from huggingface_hub import snapshot_download

    with explained(name, revision, MANIFEST_FILE):
        snapshot_download(name, revision=revision, local_dir=directory)
    shutil.rmtree(directory / ".cache", ignore_errors=True)


def _download(repository: Repository, file: str, *, again: bool = False) -> str:
    from huggingface_hub import hf_hub_download  # start-up stays quick

    revision = repository.revision
    return str(hf_hub_download(repository.name, file, revision=revision, force_download=again))


@contextmanager
def explained(name: str, revision: str | None, file: str) -> Iterator[None]:
    """Turn whatever the hub's client raises into one line about a bundle that is wanted.

    Raises:
        BundleNotFoundError: The body failed.
    """
    try:
        yield
    except FmrtError:
        raise
    except Exception as e:  # its own kinds, those of the libraries below it, and OSError
        missing = (
            f"it has no {MANIFEST_FILE}; make a bundle of it: fmrt export {name} BUNDLE"
            if file == MANIFEST_FILE
            else f"its {MANIFEST_FILE} lists {file}, and it has no such file; push the bundle again"
        )
        why = reason(e, revision, file, missing)
        raise BundleNotFoundError(
            f"{quoted(name)} is neither a directory nor a bundle that the hub gives: {why}"
        ) from e


def reason(e: Exception, revision: str | None, file: str, missing: str) -> str:
    """Why the hub's client does not give a file, in words.

    Args:
        e: The exception that the hub's client raised.
        revision: The revision that was asked for.
        file: The file that was asked for.
        missing: What to say if the repository has no such file.
    """
    from huggingface_hub import errors  # start-up stays quick

    known: tuple[tuple[type[Exception], str], ...] = (
        (errors.GatedRepoError, f"its owner must grant you access: ask on its page, then {LOG_IN}"),
        (
            errors.RepositoryNotFoundError,
            f"no such repository, or a private one: check the name, or log in ({LOG_IN})",
        ),
        (errors.RevisionNotFoundError, f"it has no revision {revision!r}"),
        (errors.LocalEntryNotFoundError, _not_here(file)),
        (errors.EntryNotFoundError, missing),
    )
    for kind, words in known:
        if isinstance(e, kind):
            return words
    return answer(e)


def _not_here(file: str) -> str:
    from huggingface_hub import constants  # start-up stays quick

    if constants.HF_HUB_OFFLINE:
        return f"HF_HUB_OFFLINE is set, and {file} is not in the cache"
    return f"{constants.ENDPOINT} cannot be reached, and {file} is not in the cache"


def answer(e: Exception) -> str:
    """One line about an error of the hub's client."""
    response = response_of(e)
    if response is not None:
        # The two HTTP libraries that the hub's client has had name it differently.
        said = getattr(response, "reason_phrase", "") or getattr(response, "reason", "")
        said = getattr(e, "server_message", None) or said
        return " ".join(f"the hub answers {response.status_code} {said}".split())
    lines = str(e).strip().splitlines()
    return lines[0] if lines else type(e).__name__


def response_of(e: BaseException | None) -> Any:  # noqa: ANN401  # of an HTTP library
    """The hub's answer that an error, or one that led to it, is about; None where there is none."""
    while e is not None:
        response = getattr(e, "response", None)
        if response is not None:
            return response
        e = e.__cause__
    return None

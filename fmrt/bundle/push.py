"""Publishes a bundle on the Hugging Face hub, and sees that what arrived is what was sent."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmrt.bundle.bundle import Bundle
from fmrt.bundle.card import CARD_FILE, card_bytes, card_for, read_card
from fmrt.bundle.checked import record_of
from fmrt.bundle.hub import LOG_IN, answer, response_of
from fmrt.bundle.manifest import MANIFEST_FILE, FileRecord
from fmrt.errors import FmrtError, HubError, OptionError, quoted
from fmrt.options import checked

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, HfApi

# What the hub's answers mean here.
MEANINGS = {
    401: f"it does not know you: log in ({LOG_IN}) with a token that may write",
    403: "your token may not write there: take one with write access, or another name",
    404: "there is no such repository or branch, or you may not see it",
    409: "it is being changed at the same time: push again",
    412: "it is being changed at the same time: push again",
    413: "it takes no file so large",
    429: "it has had too many requests: wait, and push again",
}
FAILING = 500


def push_bundle(
    bundle: str | Path,
    repository: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
) -> str:
    """Upload a bundle to a repository of the hub in one commit, and return its URL.

    Every file of the manifest is compared with its hash before, and with the hub's after. Files
    that the hub has already are not sent again, so that a push that broke off goes on.

    Args:
        bundle: The directory of the bundle.
        repository: The repository, ``owner/name``; made where it is not there yet.
        private: Whether a repository that is made is private.
        revision: The branch; default the main one.
        message: The message of the commit.

    Raises:
        BundleError: The bundle is missing or corrupt.
        HubError: The hub does not take it, or has another content afterwards.
        OptionError: An argument that makes no sense.
    """
    checked(revision=revision, message=message)
    (private,) = checked(private=private)
    opened = Bundle.open(bundle)
    if opened.repository is not None:
        raise OptionError(f"{bundle} is on the hub already; push a bundle's directory")
    opened.in_directory()
    check_files(opened)
    files = dict(_files(opened, repository))
    from huggingface_hub import HfApi  # start-up stays quick

    api = HfApi(library_name="fmrt")
    with _answers(repository):
        api.create_repo(repository, private=private or None, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        commit = _commit(api, repository, files, revision, message)
        _compare(api, repository, commit.oid, files)
    at = "" if revision is None else f"/tree/{revision}"
    return f"{commit.repo_url}{at}"


def check_files(bundle: Bundle) -> None:
    """Compare every file of the manifest with its hash.

    Raises:
        BundleCorruptError: A file is missing, or its content is another.
    """
    for variant in bundle.manifest.graphs:
        bundle.graph(variant)
    for name in bundle.manifest.files:
        bundle.file(name)


def _files(bundle: Bundle, repository: str) -> Iterator[tuple[str, Path | bytes]]:
    """Each file by its name in the repository; the card's examples name that."""
    listed = {MANIFEST_FILE, *bundle.manifest.files}
    for variant in bundle.manifest.graphs:
        listed |= {variant.file, *variant.external}
    for path in sorted(bundle.path.rglob("*")):
        name = path.relative_to(bundle.path).as_posix()
        hidden = any(part.startswith(".") for part in Path(name).parts)
        # A graph that the manifest does not list was left by a run that was killed.
        stray = path.suffix in (".onnx", ".onnx_data") or ".partial-" in name
        if not path.is_file() or hidden or (stray and name not in listed):
            continue
        if name == CARD_FILE:
            yield name, card_bytes(card_for(bundle, read_card(path), repository))
        else:
            yield name, path


def _commit(
    api: HfApi,
    repository: str,
    files: dict[str, Path | bytes],
    revision: str | None,
    message: str | None,
) -> CommitInfo:
    from huggingface_hub import CommitOperationAdd  # start-up stays quick

    return api.create_commit(
        repository,
        [CommitOperationAdd(name, source) for name, source in files.items()],
        commit_message=message or "A bundle of fmrt",
        revision=revision,
    )


def _compare(api: HfApi, repository: str, commit: str, files: dict[str, Path | bytes]) -> None:
    """Compare what the hub says that it holds with what was sent."""
    found = {f.path: f for f in api.get_paths_info(repository, list(files), revision=commit)}
    for name, source in files.items():
        there = found.get(name)
        if there is None:
            raise HubError(f"{name} did not arrive in {repository}: push again")
        if not _same(there, source):
            raise HubError(f"{repository} has another {name} than was sent: push again")


def _same(there: Any, source: Path | bytes) -> bool:  # noqa: ANN401  # the hub's record of a file
    record = _record(source)
    if there.lfs is not None:
        return bool((there.lfs.sha256, there.lfs.size) == (record.sha256, record.size))
    return bool((there.blob_id, there.size) == (_git_id(source), record.size))


def _record(source: Path | bytes) -> FileRecord:
    if isinstance(source, Path):
        return record_of(source)
    return FileRecord(hashlib.sha256(source).hexdigest(), len(source))


def _git_id(source: Path | bytes) -> str:
    """As git names the content of a file that is not in LFS."""
    data = source.read_bytes() if isinstance(source, Path) else source
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@contextmanager
def _answers(repository: str) -> Iterator[None]:
    """Turn whatever the hub's client raises into one line about a push.

    Raises:
        HubError: The body failed.
    """
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except FmrtError:
        raise
    except HFValidationError as e:
        raise OptionError(
            f"{quoted(repository)} is no name of a repository; give owner/name"
        ) from e
    except Exception as e:  # its own kinds, those of the libraries below it, and OSError
        raise HubError(f"{quoted(repository)} cannot be pushed to: {_why(e)}") from e


def _why(e: Exception) -> str:
    status = getattr(response_of(e), "status_code", None)
    if status in MEANINGS:
        return f"{answer(e)}: {MEANINGS[status]}"
    if status is not None and status >= FAILING:
        return f"{answer(e)}: it fails at the moment; push again later, what arrived is kept"
    return answer(e)

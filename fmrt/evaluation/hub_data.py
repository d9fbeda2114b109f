"""Data sets on the Hugging Face hub, and their files in its cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fmrt.bundle.hub import reason
from fmrt.errors import DataError, FmrtError, quoted
from fmrt.evaluation.layout import CARD

_DATASET = "dataset"
# Chooses the files of a repository that are wanted, from their names and the card; None for all.
Choose = Callable[[Sequence[str], Mapping[str, Any]], Sequence[str] | None]


def hub_folder(name: str, revision: str | None, choose: Choose) -> tuple[Path, str]:
    """A folder of the hub's cache with the files of a data set that are wanted.

    Without a connection, it is the folder that an earlier run has left.

    Args:
        name: The id of the data set, ``owner/name``.
        revision: The branch, tag or commit; None for the newest one.
        choose: Chooses the files that are downloaded.

    Returns:
        The folder, and the commit.

    Raises:
        DataError: Neither the hub nor the cache gives such a data set.
    """
    with _explained(name, revision, "the data set"):
        files, commit = _listed(name, revision)
        if files is None:
            return _kept(name, revision), revision or "the cached commit"
        card = _fetched(name, commit, [CARD]) / CARD if CARD in files else None
        wanted = choose(files, card_of(card))
        about = [CARD] if card is not None else []
        names = [*(files if wanted is None else wanted), *about]
        root = _fetched(name, commit, names)
        # The cache then knows the commit of the revision, for runs without a connection.
        _fetched(name, revision, names[:1])
        return root, commit


def card_of(file: Path | None) -> Mapping[str, Any]:
    """The metadata of a README of the hub; empty where there is none, or it cannot be read."""
    from huggingface_hub import metadata_load  # start-up stays quick

    if file is None or not file.is_file():
        return {}
    try:
        found = metadata_load(file)
    except Exception:  # the README may be any file, and a parser's errors are of many kinds
        return {}
    return found if isinstance(found, dict) else {}


def _listed(name: str, revision: str | None) -> tuple[list[str] | None, str]:
    """The names of the files, and the commit; None for the names if the hub cannot be reached."""
    from huggingface_hub import HfApi, errors  # start-up stays quick

    try:
        info = HfApi().dataset_info(name, revision=revision)
    except (errors.OfflineModeIsEnabled, ConnectionError):
        return None, ""
    return [sibling.rfilename for sibling in info.siblings or ()], str(info.sha)


def _kept(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download  # start-up stays quick

    return Path(
        snapshot_download(name, repo_type=_DATASET, revision=revision, local_files_only=True)
    )


def _fetched(name: str, revision: str | None, files: Sequence[str]) -> Path:
    from huggingface_hub import hf_hub_download  # start-up stays quick

    root = Path()
    for file in dict.fromkeys(files):
        with _explained(name, revision, file):
            found = Path(hf_hub_download(name, file, repo_type=_DATASET, revision=revision))
        root = found.parents[len(Path(file).parts) - 1]
    return root


@contextmanager
def _explained(name: str, revision: str | None, file: str) -> Iterator[None]:
    try:
        yield
    except FmrtError:
        raise
    except Exception as e:  # the hub's own kinds, those of the libraries below it, and OSError
        why = reason(e, revision, file, f"it has no {file}")
        raise DataError(
            f"{quoted(name)} is neither a file or folder nor a data set that the hub gives: {why}"
        ) from e

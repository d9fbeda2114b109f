"""pyarrow, imported when the first parquet file is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from fmrt.data._source import one_line, shown
from fmrt.errors import DataError, MissingExtraError

EMBEDDING = "embedding"


def pyarrow() -> ModuleType:
    """Return pyarrow with its parquet module loaded, or raise ``MissingExtraError``."""
    try:
        import_module("pyarrow.parquet")
        return import_module("pyarrow")
    except ImportError as e:
        raise MissingExtraError("parquet files", "parquet", "pyarrow") from e


@contextmanager
def reading_parquet(source: str) -> Iterator[None]:
    """Turn an error of reading the parquet file ``source`` into a ``DataError``."""
    try:
        yield
    except (OSError, pyarrow().ArrowException) as e:
        raise DataError(f"cannot read {shown(source)} as parquet: {one_line(e)}") from e

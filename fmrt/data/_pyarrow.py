"""pyarrow, imported when the first parquet file is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from fmrt.errors import DataError
from fmrt.system.extras import needing
from fmrt.words import one_line, shown


def pyarrow() -> ModuleType:
    """Return pyarrow with its parquet module loaded, or raise ``MissingExtraError``."""
    with needing("parquet files"):
        import_module("pyarrow.parquet")
        return import_module("pyarrow")


@contextmanager
def reading_parquet(source: str) -> Iterator[None]:
    """Turn an error of reading the parquet or Arrow file ``source`` into a ``DataError``."""
    try:
        yield
    except (OSError, UnicodeDecodeError, pyarrow().ArrowException) as e:
        form = "Arrow" if source.endswith(".arrow") else "parquet"
        raise DataError(f"cannot read {shown(source)} as {form}: {one_line(e)}") from e

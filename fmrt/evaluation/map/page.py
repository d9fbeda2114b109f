"""A map as one page of HTML that needs nothing else."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import numpy as np

from fmrt._version import __version__
from fmrt.evaluation.map.chart import DARK, LIGHT, SHAPES, Chart, mark
from fmrt.evaluation.map.query import QueryModel

# The files are in the order in which they use each other.
_PROGRAM = ("data.js", "plot.js", "pick.js", "search.js", "query.js", "panel.js", "main.js")
# Weights hardly become smaller. The programs that run them become smaller at any level.
_FAST = 1


def page(chart: Chart) -> bytes:
    """The map as UTF-8.

    The page requests nothing from anywhere, and its policy forbids requests. Texts of the data are
    in it as JSON, in which no ``<`` stands for itself. They reach the document only as text.
    """
    folder = files("fmrt.evaluation.map").joinpath("page")
    style = folder.joinpath("page.css").read_text("utf-8")
    program = "".join(folder.joinpath(name).read_text("utf-8") for name in _PROGRAM)
    program = f'"use strict";\n(() => {{\n{program}}})();\n'
    parts = {
        "POLICY": _policy(style, program, chart.query).encode(),
        "STYLE": style.encode(),
        "ABOUT": _json(_about(chart)),
        "TEXTS": _json(list(chart.previews.texts)),
        "PLACES": _json(list(chart.places)),
        "COORDINATES": _base64(chart.coordinates.astype("<f4").tobytes()),
        "GROUPS": _base64(_codes(chart)),
        "VECTORS": _base64(chart.stored.values.tobytes()),
        "ENDS": _base64(chart.previews.ends.astype("<u4").tobytes()),
        "MEDIA": _base64(chart.previews.data),
        "AXES": _base64(_axes(chart)),
        "WORKER": _json(folder.joinpath("worker.js").read_text("utf-8")) if chart.query else b"",
        "MODEL": b"".join(_model(chart.query)),
        "PROGRAM": program.encode(),
    }
    # The template is split before anything is put in. So what is put in is never searched.
    pieces = folder.joinpath("page.html").read_text("utf-8").split("@@")
    return b"".join(parts[p] if i % 2 else p.encode() for i, p in enumerate(pieces))


def _about(chart: Chart) -> dict[str, Any]:
    return {
        "title": chart.title,
        "model": chart.model,
        "modality": chart.modality,
        "axes": chart.axes,
        "notes": list(chart.notes),
        "count": len(chart.places),
        "kept": chart.stored.values.shape[1],
        "dim": chart.stored.dim,
        "mime": chart.previews.mime,
        "light": LIGHT,
        "dark": DARK,
        "shapes": SHAPES,
        "version": __version__,
        "query": chart.query.about if chart.query else None,
        "groupings": [
            {
                "name": g.name,
                "names": list(g.names),
                "counts": g.counts,
                "marks": [mark(i) for i in range(len(g.names))],
            }
            for g in chart.groupings
        ],
    }


def _codes(chart: Chart) -> bytes:
    return np.concatenate([g.codes for g in chart.groupings]).astype("<u2").tobytes()


def _axes(chart: Chart) -> bytes:
    """The axes that turn a query's vector as the stored ones are turned."""
    axes = chart.stored.axes
    return b"" if axes is None or chart.query is None else axes.astype("<f4").tobytes()


def _model(query: QueryModel | None) -> Iterator[bytes]:
    """One element per file of the model that embeds queries, and of the program that runs it."""
    for name, data in query.parts.items() if query else ():
        packed = _base64(gzip.compress(data, _FAST, mtime=0))
        yield f'<script type="text/plain" id="model-{name}">'.encode() + packed + b"</script>\n"


def _json(value: object) -> bytes:
    """JSON that cannot end the element it is in. Half of a surrogate pair stays an escape."""
    text = json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")
    return text.encode("utf-8", "backslashreplace")


def _base64(data: bytes) -> bytes:
    return base64.b64encode(data)


def _policy(style: str, program: str, query: QueryModel | None) -> str:
    """The policy of the page. The program that runs a model is made of the page's own bytes."""
    runs = f"{_hash(program)} blob: 'wasm-unsafe-eval'; worker-src blob:"
    return (
        f"default-src 'none'; script-src {runs if query else _hash(program)}; "
        f"style-src {_hash(style)}; "
        "img-src blob:; media-src blob:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"

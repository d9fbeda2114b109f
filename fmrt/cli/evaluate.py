"""``fmrt evaluate``: what a model's embeddings are worth on a data set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmrt.cli._arguments import Parser, Subparsers, add_embedding, names_in, options_of, positive
from fmrt.cli._say import as_json, print_json, show, tell
from fmrt.cli._text import size, table
from fmrt.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fmrt.evaluation.measures import Measured
    from fmrt.evaluation.report import Against, Evaluation, ModelResult

COLUMNS = ("column", "label", "split", "second", "score")
_SETTINGS = ("seed", "folds", "neighbours", "shots", "points", "resamples", "template")
EMBEDDING = (
    "modality",
    "prompt_name",
    "prompt",
    "truncate_dim",
    "normalize",
    "precision",
    "on_too_long",
    "batch_tokens",
)
_NUMBERS = {"value", "from", "to", "n", "other", "difference", "items/s", "file", "memory"}


def add_parser(subparsers: Subparsers) -> None:
    """Add the command to the program's."""
    parser = subparsers.add_parser(
        "evaluate",
        help="test a model's embeddings on your data",
        description="Embed DATA with each BUNDLE, and test the embeddings: kNN, a linear probe, "
        "few-shot curves and clustering of labelled items; similarity of pairs; retrieval; and "
        "checks that need no labels. See docs/evaluation.md. Needs fmrt[evaluate].",
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "bundles", metavar="BUNDLE", nargs="+", help="a bundle's directory, or its hub id"
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        help="a folder with a subfolder a class, a csv, tsv, jsonl or parquet file, a folder in "
        "BEIR's layout or of save_to_disk, a data set's OWNER/NAME on the hub, or digits or "
        "20newsgroups",
    )
    parser.add_argument(
        "--task",
        metavar="T",
        type=names_in,
        help="tasks, joined with commas: knn, probe, few-shot, clustering, zero-shot, similarity, "
        "bitext, retrieval, segmentation, checks (default: all that DATA does for)",
    )
    parser.add_argument(
        "--against",
        metavar="OTHER",
        help="a variant, another bundle, pytorch or pytorch:DIRECTORY: say what differs from it",
    )
    _add_models(parser)
    add_columns(parser)
    _add_settings(parser)
    _add_output(parser)


def _add_models(parser: Parser) -> None:
    parser.add_argument(
        "--variant", metavar="V", type=names_in, help="variants of each bundle, joined with commas"
    )
    parser.add_argument("--provider", metavar="P", default="cpu", help="as for fmrt embed")
    parser.add_argument("--workers", metavar="N", type=positive, help="as for fmrt embed")
    add_embedding(parser, EMBEDDING)


def add_columns(parser: Parser) -> None:
    """Add the names of columns, and what to do at an item that cannot be used."""
    names = {
        "column": "of the items, or the first ones of pairs",
        "label": "of the classes",
        "split": "of train and test; or a split's own name, to test on that one alone",
        "second": "of the second items of pairs",
        "score": "of pairs",
    }
    for name, about in names.items():
        parser.add_argument(f"--{name}", metavar="C", help=f"{about} (default: by usual names)")
    parser.add_argument(
        "--config", metavar="NAME", help="configuration of a data set of the hub with several"
    )
    parser.add_argument(
        "--data-revision", metavar="R", help="branch, tag or commit of a data set on the hub"
    )
    parser.add_argument(
        "--on-error",
        choices=("fail", "skip"),
        default="fail",
        help="at an item that cannot be used: end, or leave it out and say so (default: fail)",
    )


def _add_settings(parser: Parser) -> None:
    parser.add_argument("--seed", metavar="N", type=whole, default=0, help="(default: 0)")
    parser.add_argument(
        "--folds",
        metavar="N",
        type=positive,
        default=5,
        help="of cross-validation, where DATA has no split (default: 5)",
    )
    parser.add_argument(
        "--neighbours", metavar="N", type=positive, default=5, help="of kNN (default: 5)"
    )
    parser.add_argument(
        "--shots",
        metavar="N,N",
        type=_numbers,
        default=(1, 2, 4, 8, 16),
        help="items of each class of few-shot probes (default: 1,2,4,8,16)",
    )
    parser.add_argument(
        "--points",
        metavar="N,N",
        type=_numbers,
        default=(1, 3, 5),
        help="clicks after which segmentation looks at a mask (default: 1,3,5)",
    )
    parser.add_argument(
        "--resamples",
        metavar="N",
        type=whole,
        default=1000,
        help="for the intervals; 0 for none (default: 1000)",
    )
    parser.add_argument(
        "--template",
        metavar="TEXT",
        default="a photo of a {}",
        help="of a class, for zero-shot (default: %(default)r)",
    )


def _add_output(parser: Parser) -> None:
    parser.add_argument(
        "--json",
        metavar="FILE.json",
        nargs="?",
        const="-",
        help="print the results as JSON, or write them to a file",
    )
    parser.may_follow["--json"] = r"-|.*\.json"
    parser.add_argument(
        "--plot", metavar="FILE.png", help="draw quality against speed, with matplotlib"
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate and print.

    Raises:
        OptionError: ``--plot`` names no picture.
    """
    from fmrt._api import evaluate  # start-up stays quick

    if args.plot is not None and Path(args.plot).suffix not in (".png", ".svg"):
        raise OptionError(f"--plot {args.plot!r}; choose a name that ends in .png or .svg")
    given = (*COLUMNS, *_SETTINGS, "workers", "config", "data_revision")
    options = {name: getattr(args, name) for name in given if getattr(args, name) is not None}
    found = evaluate(
        args.bundles,
        args.data,
        tasks=args.task,
        against=args.against,
        variants=args.variant,
        provider=args.provider,
        on_error=args.on_error,
        options=options_of(args),
        **options,
    )
    for line in found.choices:
        tell(args, line)
    for line in found.notes:
        tell(args, f"note: {line}")
    if args.json == "-":
        print_json(found.to_dict())
    else:
        show(args, as_text(found))
        if args.json is not None:
            Path(args.json).write_text(as_json(found.to_dict()) + "\n", encoding="utf-8")
    if args.plot is not None:
        from fmrt.evaluation.plot import draw  # an extra

        draw(found, Path(args.plot))
    return 0


def as_text(found: Evaluation) -> str:
    """The results as tables."""
    parts = [_tables(found.models[0])] if len(found.models) == 1 else [_side_by_side(found)]
    parts += [_against(m.model["name"], m.against) for m in found.models if m.against is not None]
    parts.append(_costs(found))
    parts += [f"without {task}: {reason}" for task, reason in found.skipped.items()]
    return "\n\n".join(parts)


def _tables(model: ModelResult) -> str:
    header = ("task", "measure", "value", "from", "to", "n")
    rows = [
        (task.task, m.name, _number(m.value), _number(m.low), _number(m.high), f"{m.n:,}")
        for task in model.tasks
        for m in task.measures
    ]
    return table(header, rows, _NUMBERS)


def _side_by_side(found: Evaluation) -> str:
    names = [str(model.model["name"]) for model in found.models]
    rows = [
        (task.task, measure.name, *(_cell(m.tasks[i].measures[j]) for m in found.models))
        for i, task in enumerate(found.models[0].tasks)
        for j, measure in enumerate(task.measures)
    ]
    return table(("task", "measure", *names), rows)


def _against(name: str, found: Against) -> str:
    header = ("task", "measure", "value", "other", "difference", "from", "to", "")
    rows = [
        (
            d.task,
            d.name,
            *(_number(v) for v in (d.value, d.other, d.difference, d.low, d.high)),
            "*" if d.told else "",
        )
        for d in found.differences
    ]
    kept = [f"{m.name}: {_cell(m)}" for m in (found.neighbours_kept, found.rank_correlation)]
    lines = table(header, rows, _NUMBERS)
    return "\n".join([f"{name} against {found.model['name']}", lines, *kept, found.verdict])


def _costs(found: Evaluation) -> str:
    header = ("model", "items/s", "file", "memory")
    rows = [
        (
            str(m.model["name"]),
            f"{m.cost.items_per_second:,.1f}",
            "-" if m.cost.file_bytes is None else size(m.cost.file_bytes),
            "-" if m.cost.memory_bytes is None else size(m.cost.memory_bytes),
        )
        for m in found.models
    ]
    return table(header, rows, _NUMBERS)


def _cell(found: Measured) -> str:
    if found.low is None or found.high is None:
        return _number(found.value)
    return f"{_number(found.value)} [{_number(found.low)}, {_number(found.high)}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def whole(text: str) -> int:
    """Parse a whole number of at least 0."""
    return 0 if text.strip("0") == "" and text else positive(text)


def _numbers(text: str) -> Sequence[int]:
    numbers: list[Any] = [positive(one) for one in names_in(text)]
    if not numbers:
        raise argparse.ArgumentTypeError(f"{text!r} holds no number")
    return tuple(numbers)

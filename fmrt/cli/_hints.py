"""What to say about an option, a command or a choice that there is not."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple


class Hint(NamedTuple):
    """What stands here for an option of other tools.

    Attributes:
        ours: Options, or names of arguments, of which a command has one.
        note: What else there is to say.
    """

    ours: tuple[str, ...]
    note: str = ""


def _table(*entries: tuple[str, Hint]) -> dict[str, Hint]:
    return {flag: hint for flags, hint in entries for flag in flags.split()}


FLAGS: Mapping[str, Hint] = _table(
    (
        "--batch-size --batch --bs -b",
        Hint(("--batch-tokens",), "batches are bounded in tokens, padding included"),
    ),
    (
        "--device --gpu --cpu --cuda --execution-provider --ep --backend",
        Hint(("--provider", "--device"), "as in --provider cuda"),
    ),
    (
        "--max-length --max-seq-length --max-seq-len --max-tokens",
        Hint(
            ("--max-length", "--on-too-long"),
            "a bundle has the model's own length, or that of fmrt export --max-length",
        ),
    ),
    ("--truncation --truncate --no-truncate --no-truncation", Hint(("--on-too-long",))),
    (
        "--model --model-id --model-name --model-name-or-path --model-path --bundle -m",
        Hint(("MODEL", "BUNDLE")),
    ),
    (
        "--output --output-file --output-dir --output-path --out --save --save-path -o",
        Hint(("OUT", "--output")),
    ),
    (
        "--input --input-file --input-path --data --dataset --file --text --texts --image -i",
        Hint(("INPUT", "--texts", "IMAGE")),
    ),
    ("--query", Hint(("QUERY",))),
    (
        "--dtype --torch-dtype --fp16 --half --float16 --bf16 --embedding-dtype --precision",
        Hint(("--precision", "--quantize", "SCHEMES"), "--variant chooses a graph's precision"),
    ),
    (
        "--quantize --quantization --quantized --int8 --load-in-8bit --load-in-4bit",
        Hint(
            ("--quantize", "SCHEMES", "--variant"),
            "fmrt quantize adds variants to a bundle",
        ),
    ),
    (
        "--num-workers --workers --num-proc --processes --jobs --threads --num-threads --parallel "
        "-j -t",
        Hint(("--workers", "--threads"), "by default one a core"),
    ),
    ("--top-k --topk --k --limit --num-results -n", Hint(("-k",))),
    (
        "--cache-dir --cache-folder",
        Hint(("--cache",), "which keeps vectors; models of the hub are kept in HF_HOME"),
    ),
    ("--force --overwrite-output-dir --yes -f -y", Hint(("--overwrite",))),
    ("--silent --no-output", Hint(("--quiet",))),
    ("--verbose --debug -v", Hint((), "warnings are shown without it")),
    (
        "--normalize-embeddings --norm --no-normalize",
        Hint(("--normalize",), "by default vectors are as the model has them"),
    ),
    ("--show-progress-bar --show-progress --progress-bar --tqdm", Hint(("--progress",))),
    (
        "--dim --dims --dimension --dimensions --output-dimension --output-dim --matryoshka-dim",
        Hint(("--truncate-dim",)),
    ),
    (
        "--text-column --column-name --text-field --field --key --image-column",
        Hint(("--column",)),
    ),
    (
        "--instruction --prefix --query-instruction --query-prompt --prompt-text",
        Hint(("--prompt",)),
    ),
    (
        "--prompt-type --input-type --task",
        Hint(("--prompt-name",), "what a model is for is read from its directory"),
    ),
    ("--lora --lora-path --peft --adapter-path", Hint(("--adapter",))),
    ("--skip-errors --ignore-errors --errors", Hint(("--on-error",), "as in --on-error skip")),
    ("--shard-size --rows-per-shard", Hint(("--shard-rows",))),
    ("--resume", Hint((), "a job in a folder goes on when the command is repeated")),
    (
        "--output-format --save-format",
        Hint(("--output",), "its name says the format: .npy, .parquet or .jsonl"),
    ),
)
# Commands of other tools.
COMMANDS: Mapping[str, str] = {
    "encode": "embed",
    "predict": "embed",
    "run": "embed",
    "convert": "export",
    "onnx": "export",
    "benchmark": "bench",
    "query": "search",
    "find": "search",
    "similarity": "search",
    "check": "verify",
    "validate": "verify",
    "test": "verify",
    "show": "info",
    "inspect": "info",
    "describe": "info",
    "optimize": "quantize",
    "compress": "quantize",
    "upload": "push",
    "publish": "push",
    "help": "--help",
    "version": "--version",
}


def near(name: str, known: Iterable[str]) -> str:
    """``; did you mean ...?``, where there is something to be meant, or nothing."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {found[0]}?" if found else ""


def about_flag(flag: str, own: Collection[str], others: Mapping[str, Collection[str]]) -> str:
    """One line about an option that a command has not.

    Args:
        flag: The option.
        own: The command's options, and names of its arguments.
        others: The flags of the other commands, by the command's name.
    """
    line = f"unknown option {flag}"
    plain = flag.replace("_", "-")
    if plain in own:
        return f"{line}; did you mean {plain}?"
    hint = FLAGS.get(plain, Hint(()))
    for name in hint.ours:
        if name in own:
            say = f"say {name}" if name.startswith("-") else f"{name} is given without an option"
            return f"{line}: {say}{hint.note and f' ({hint.note})'}"
    have = [command for command, names in others.items() if plain in names]
    if have:
        line += f", which is one of fmrt {' and fmrt '.join(have)}"
        return line + (f": {hint.note}" if hint.note else "")
    if hint.note:
        return f"{line}: {hint.note}"
    dashed = "" if flag.startswith("--") else "; an argument that begins with - comes after --"
    return line + (near(plain, (name for name in own if name.startswith("--"))) or dashed)


def about_command(name: str, known: Collection[str]) -> str:
    """One line about a command that there is not."""
    line = f"unknown command {name!r}"
    meant = COMMANDS.get(name.lower(), "")
    if meant in known or meant.startswith("-"):
        return f"{line}; did you mean fmrt {meant}?"
    return line + (near(name.lower(), known) or f"; choose from: {', '.join(known)}")

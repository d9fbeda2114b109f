"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from fmrt.cli._hints import about_command, about_flag, near
from fmrt.cli._status import USAGE
from fmrt.cli._text import flat
from fmrt.embed_options import DEFAULTS, SHOWN, EmbedOptions
from fmrt.errors import OptionError
from fmrt.system.limits import DEFAULT

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

    from fmrt.bundle.bundle import Bundle
    from fmrt.data import Reading

Subparsers: TypeAlias = "argparse._SubParsersAction[Parser]"


# Arguments that may be empty texts.
MAY_BE_EMPTY = frozenset({"prompt", "query"})
SEPARATOR = "--"  # after it, nothing is an option
_MOST = 2**31 - 1
_MOST_BYTES = 2**63 - 1
_SHOWN = 60
_READING = ("format", "column", "delimiter", "header")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line with the way out, as all errors of this program are.

    Attributes:
        commands: The commands of the program, by name; this parser is of one of them, or of the
            program itself.
        may_follow: Options that may be given without a value, and the pattern of a value: another
            word that follows is the next argument, and none of the option's.
    """

    commands: Mapping[str, Parser]
    may_follow: dict[str, str]

    def __init__(self, *args: Any, **options: Any) -> None:
        # An abbreviation in a script would change its meaning with the next option we add.
        super().__init__(*args, **{"allow_abbrev": False, **options})
        self.commands, self.may_follow = {}, {}

    # One signature for what argparse declares as overloads.
    def parse_known_args(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        namespace: Any = None,  # noqa: ANN401
    ) -> tuple[Any, list[str]]:
        """Parse, after a look for options and commands that there are not.

        argparse would first ask for what is required, and would name the program's own help.
        """
        given = sys.argv[1:] if args is None else list(args)
        self._check_names(given)
        found, rest = super().parse_known_args(list(self._joined(given)), namespace)
        if rest:
            self.error(f"unexpected argument {rest[0]!r}")
        self._check_values(found)
        return found, rest

    def error(self, message: str) -> NoReturn:
        """Print the error and where help is, and exit with 2."""
        end = "" if message.endswith("?") else ";"
        self.exit(USAGE, f"fmrt: error: {flat(message)}{end} see {self.prog} --help\n")

    def names(self) -> set[str]:
        """Options, and names of other arguments."""
        arguments = (a.metavar for a in self._actions if not a.option_strings)
        return {*self._option_string_actions, *(n for n in arguments if isinstance(n, str))}

    def _check_names(self, given: Sequence[str]) -> None:
        of_program = self in self.commands.values()
        for word in given:
            if word == SEPARATOR:
                return
            if not of_program and not word.startswith("-"):
                if word not in self.commands:
                    self.error(about_command(word, self.commands))
                return  # the rest is the command's
            if self._is_unknown(word):
                flag = word.partition("=")[0]
                others = {n: p.names() for n, p in self.commands.items() if p is not self}
                if not of_program and any(flag in names for names in others.values()):
                    self.error(f"{flag} is an option of commands: say it after the command")
                self.error(about_flag(flag, self.names(), others))

    def _joined(self, given: Sequence[str]) -> Iterator[str]:
        """The arguments, options of `may_follow` with their constant where no value follows."""
        for word, after in pairwise([*given, ""]):
            if word in self.may_follow and not re.fullmatch(self.may_follow[word], after):
                yield f"{word}={self._option_string_actions[word].const}"
            else:
                yield word

    def _is_unknown(self, word: str) -> bool:
        """Whether argparse would take a word for an option, and have no such one."""
        if not re.match(r"-[^\d.\s]", word) or " " in word.partition("=")[0]:
            return False
        known = self._option_string_actions
        attached = not word.startswith("--") and word[:2] in known  # as in -k5
        return not attached and word.partition("=")[0] not in known

    def _check_values(self, found: argparse.Namespace) -> None:
        """Refuse what is no value of any option."""
        for action in self._actions:
            value = getattr(found, action.dest, None)
            values = value if isinstance(value, list) else [value]
            name = "/".join(action.option_strings) or action.metavar
            if "" in values and action.dest not in MAY_BE_EMPTY:
                self.error(f"argument {name}: it is empty")
            if any(isinstance(one, str) and "\0" in one for one in values):
                self.error(f"argument {name}: NUL in {_short(value)}")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        """Refuse in words of our own: argparse's differ between versions of Python."""
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            meant = near(str(value), choices)
            line = f"{_short(value)}; choose from: {', '.join(choices)}{meant}"
            raise argparse.ArgumentError(action, line)

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        """Print, and let an error of writing be one, which argparse would drop."""
        (file or sys.stderr).write(message)


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 3]}..."


def names_in(text: str) -> list[str]:
    """Names joined with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    number = int(text) if re.fullmatch(r"[0-9]{1,10}", text) else 0
    if not 1 <= number <= _MOST:
        raise argparse.ArgumentTypeError(
            f"{_short(text)} is not a whole number from 1 to {_MOST:,}"
        )
    return number


def real(text: str) -> float:
    """Parse a finite number."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{_short(text)} is not a number")
    return number


def prompt_text(text: str) -> str:
    """A prompt that a tokenizer takes."""
    from fmrt.options import text_problem

    problem = text_problem(text)
    if problem is not None:
        raise argparse.ArgumentTypeError(f"{_short(text)}: {problem}")
    return text


_TYPES: dict[str, Callable[[str], Any]] = {"text": str, "number": positive, "prompt": prompt_text}
_UNITS = {"": 1, **{f"{p}B": 1000**i for i, p in enumerate(("", "K", "M", "G", "T"))}}
_UNITS |= {p: 1000**i for i, p in enumerate(("K", "M", "G", "T"), 1)}
_UNITS |= {f"{p}iB": 1024**i for i, p in enumerate(("K", "M", "G", "T"), 1)}


def byte_size(text: str) -> int:
    """Parse a number of bytes: ``8GiB``, ``500MB``, ``500M``, ``1.5GB`` or ``1000000``."""
    found = re.fullmatch(r"([0-9]{1,30}(?:\.[0-9]+)?)\s*([A-Za-z]*)", text.strip())
    size = 0.0 if found is None else float(found[1]) * _UNITS.get(found[2], 0)
    if not 1 <= size <= _MOST_BYTES:
        raise argparse.ArgumentTypeError(
            f"{_short(text)} is no size; say it as 8GiB, 500MB or in bytes"
        )
    return int(size)


def add_model(parser: Parser, provider: str = "cpu") -> None:
    """Add the bundle, its variant and its provider, with that by default."""
    parser.add_argument("bundle", metavar="BUNDLE", help="a bundle's directory, or its hub id")
    add_variant(parser, provider)
    add_pin(parser)


def add_pin(parser: Parser) -> None:
    """Add the hash that a bundle must have, and the revision of one on the hub."""
    parser.add_argument(
        "--revision", metavar="R", help="branch, tag or commit of a bundle on the hub"
    )
    parser.add_argument(
        "--sha256",
        metavar="HASH",
        help="of the bundle's manifest, as fmrt info prints it; another bundle is refused",
    )


def add_variant(parser: Parser, provider: str = "cpu") -> None:
    """Add the choice of a graph and of what it runs on, with that by default."""
    parser.add_argument("--variant", metavar="V", help="as fmrt info lists them")
    what = "cpu" if provider == "cpu" else "what fmrt tune chose, or else cpu"
    parser.add_argument(
        "--provider",
        metavar="P",
        default=provider,
        help="cpu, openvino, cuda, tensorrt, devices as in cuda:1, cuda:0,1 or cuda:all, or auto "
        f"for the best there is (default: {what})",
    )


def add_embedding(parser: Parser, only: Collection[str] = tuple(SHOWN)) -> None:
    """Add the options of `EmbedOptions`, or only some.

    The value of each is checked where an `EmbedOptions` is made of them.
    """
    groups: dict[str, argparse._MutuallyExclusiveGroup] = {}
    for name, shown in SHOWN.items():
        if name not in only:
            continue
        place: Any = parser
        if shown.group is not None:
            if shown.group not in groups:
                groups[shown.group] = parser.add_mutually_exclusive_group()
            place = groups[shown.group]
        how: dict[str, Any] = {"action": "store_const", "const": True}
        if shown.choices is not None:
            how = {"choices": shown.choices}
        elif shown.kind in _TYPES:
            how = {"metavar": shown.metavar, "type": _TYPES[shown.kind]}
        default = getattr(DEFAULTS, name)
        place.add_argument(flag_of(name), help=shown.help, default=default, **how)


def flag_of(name: str) -> str:
    """An option of the API as the command line spells it."""
    return f"--{name.replace('_', '-')}"


def in_flags(message: str) -> str:
    """An error about an option of the API, in the command line's words."""
    found = re.fullmatch(r"(\w+)=('.*?'|[^\s;]+); (.*)", message, re.DOTALL)
    if found is None or found[1] not in SHOWN:
        return message
    return f"{flag_of(found[1])} {found[2]}: {found[3]}"


def options_of(args: argparse.Namespace) -> EmbedOptions:
    """The options that `add_embedding` added."""
    return EmbedOptions(**{name: getattr(args, name) for name in SHOWN if hasattr(args, name)})


def add_reading(parser: Parser) -> None:
    """Add how to read a file of texts."""
    parser.add_argument(
        "--column",
        metavar="C",
        help="to embed (default: text, image, audio, path or file_name, or the only one with "
        "strings)",
    )
    parser.add_argument(
        "--format",
        metavar="F",
        help="txt, jsonl, csv, tsv or parquet (default: as the name ends; txt for -)",
    )
    parser.add_argument(
        "--delimiter",
        metavar="D",
        type=_delimiter,
        help="between the fields of csv or tsv, such as ';' or tab (default: what the file shows)",
    )
    parser.add_argument(
        "--no-header",
        dest="header",
        action="store_false",
        help="csv or tsv without a first line of names: its columns are 1, 2 ...",
    )


def reading_of(args: argparse.Namespace, **more: Any) -> Reading:
    """How to read, as `add_reading` added it; and more of `fmrt.data.Reading`."""
    from fmrt.data import Reading

    return Reading(**{name: getattr(args, name) for name in _READING}, **more)


def check_reading_is_used(args: argparse.Namespace) -> None:
    """Raise where it is said how to read ``--texts``, and there are none.

    Raises:
        OptionError: So it is.
    """
    given = [name for name in _READING if getattr(args, name) not in (None, True)]
    if args.texts is None and given:
        name = "no-header" if given[0] == "header" else given[0]
        raise OptionError(f"--{name} says how to read --texts, which is not given")


def _delimiter(text: str) -> str:
    character = {"tab": "\t", "\\t": "\t"}.get(text, text)
    if len(character) != 1 or character in '"\r\n':
        raise argparse.ArgumentTypeError(f"{text!r} is not one character, nor tab")
    return character


def add_max_item_size(parser: Parser) -> None:
    """Add the limit of an item's memory."""
    parser.add_argument(
        "--max-item-size",
        metavar="SIZE",
        type=byte_size,
        default=DEFAULT.item_bytes,
        help="most memory that one image, sound, text or record may take while it is read "
        "(default: 200MB)",
    )


def open_bundle(args: argparse.Namespace) -> tuple[Bundle, str]:
    """Open the bundle of `add_model`'s arguments, or download it; no graph is loaded.

    Returns:
        The bundle, and the provider with ``auto`` resolved.

    Raises:
        ProviderError: The provider is unknown or cannot be had.
        BundleError: There is no such bundle or variant.
    """
    from fmrt.bundle.bundle import Bundle
    from fmrt.session import resolve_provider

    target = resolve_provider(args.provider)
    bundle = Bundle.from_pretrained(
        args.bundle, args.revision, args.variant, target.name, args.sha256
    )
    bundle.variant(args.variant, target.name)
    return bundle, target.spec

"""How items are embedded: each option declared once, for the API, the command line and jobs."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

from fmrt.errors import OptionError
from fmrt.options import MOST_TOKENS, Check, flag, name_of, optional, text, whole

ON_TOO_LONG = ("truncate-and-warn", "truncate", "error")
F = TypeVar("F", bound=Callable[..., Any])


class Shown(NamedTuple):
    """How the command line shows an option.

    Attributes:
        help: The text for people that says what it does.
        metavar: Stands for the value.
        kind: ``text``, ``number``, ``prompt``, or ``flag`` for an option without a value.
        choices: The values that there are, where they are few and known.
        group: Name of a group of options of which one at a time may be given.
    """

    help: str
    metavar: str | None = None
    kind: Literal["text", "number", "prompt", "flag"] = "text"
    choices: tuple[str, ...] | None = None
    group: str | None = None


def _on_too_long(name: str, value: object) -> str:
    if name_of(name, value) not in ON_TOO_LONG:
        raise OptionError(f"{name}={value!r}; choose from: {', '.join(ON_TOO_LONG)}")
    return str(value)


def _option(default: Any, check: Check, shown: Shown | None = None) -> Any:  # noqa: ANN401
    """A field of `EmbedOptions`; one that is not shown is of no use on the command line."""
    return dataclasses.field(default=default, metadata={"check": check, "shown": shown})


@dataclass(frozen=True, kw_only=True)
class EmbedOptions:
    """Options of `Embedder.embed` and of everything else that embeds.

    A new option is a field here, which the API, ``fmrt embed`` and the journal of a job then have,
    and the place that follows it.

    Attributes:
        modality: ``text``, ``image`` or ``audio`` where the bundle has several and the type of the
            items leaves it open: a string is a text, unless this says that it is a path.
        prompt_name: One of the model's prompts, put before every text; default the model's own
            default.
        prompt: A prompt's text, instead of ``prompt_name``.
        truncate_dim: Keep this many leading dimensions (Matryoshka); vectors that the model
            normalizes are normalized again.
        normalize: True for unit length; default as the model does.
        precision: ``float32``, ``float16``, ``int8``, ``uint8``, or ``binary`` (sign bits, 8 per
            byte).
        show_progress: A progress bar on standard error; default only on a terminal, and not for
            one item.
        on_too_long: What happens to texts over ``max_length`` tokens: cut and warn, ``truncate``
            without a warning, or ``error``.
        dedupe: Remember the latest 64 MiB of vectors, so that an item that comes back is not
            computed again; without it that is so for texts, within some thousand items.
        batch_tokens: Most tokens (patches, frames) of a batch, padding included; default 512, on a
            GPU 16,384.

    Raises:
        OptionError: An option has a wrong type or is out of range; it is named and quoted.
    """

    modality: str | None = _option(
        None,
        optional(name_of),
        Shown(
            "what INPUT holds, for a model with several (default: the model's only one, or text)",
            choices=("text", "image", "audio"),
        ),
    )
    prompt_name: str | None = _option(
        None,
        optional(name_of),
        Shown("one of the model's prompts (default: the model's own default)", "N", group="prompt"),
    )
    prompt: str | None = _option(
        None,
        optional(text),
        Shown("this text before each text, instead of a prompt", "TEXT", "prompt", group="prompt"),
    )
    truncate_dim: int | None = _option(
        None,
        optional(whole(MOST_TOKENS)),
        Shown("keep the first N dimensions (Matryoshka)", "N", "number"),
    )
    normalize: bool | None = _option(
        None,
        optional(flag),
        Shown("bring vectors to unit length (default: as the model does)", kind="flag"),
    )
    precision: str = _option(
        "float32",
        name_of,
        Shown("float32, float16, int8, uint8 or binary (default: float32)", "P"),
    )
    show_progress: bool | None = _option(None, optional(flag))
    on_too_long: str = _option(
        "truncate-and-warn",
        _on_too_long,
        Shown(
            "at a text with too many tokens: truncate-and-warn, truncate, or error "
            "(default: truncate-and-warn)",
            "WHAT",
        ),
    )
    dedupe: bool = _option(
        False,
        flag,
        Shown(
            "remember the latest 64 MiB of vectors, for items that come back (default: texts "
            "within some thousand)",
            kind="flag",
        ),
    )
    batch_tokens: int | None = _option(
        None,
        optional(whole(MOST_TOKENS)),
        Shown("most tokens of a batch (default: 512)", "N", "number"),
    )

    def __post_init__(self) -> None:
        for name, check, default in _CHECKS:
            value = getattr(self, name)
            if value is not default:
                object.__setattr__(self, name, check(name, value))
        if self.prompt is not None and self.prompt_name is not None:
            raise OptionError(
                f"prompt={self.prompt!r} and prompt_name={self.prompt_name!r}; give one of them"
            )

    def but(self, changes: Mapping[str, Any]) -> EmbedOptions:
        """These options with some changed.

        Raises:
            OptionError: A value is wrong.
            TypeError: There is no option of that name.
        """
        if not changes:
            return self
        for name in changes:
            if name not in SHOWN and name != "show_progress":
                from difflib import get_close_matches  # for errors alone

                near = get_close_matches(name, NAMES, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise TypeError(f"{name!r} is no option of embedding{hint}")
        return EmbedOptions(**{**vars(self), **changes})


_CHECKS = tuple((f.name, f.metadata["check"], f.default) for f in dataclasses.fields(EmbedOptions))
NAMES = tuple(field.name for field in dataclasses.fields(EmbedOptions))
# Options of the command line, by name.
SHOWN: Mapping[str, Shown] = {
    field.name: field.metadata["shown"]
    for field in dataclasses.fields(EmbedOptions)
    if field.metadata["shown"] is not None
}
DEFAULTS = EmbedOptions()


def takes_options(
    function: F, also: Callable[..., Any] | None = None, kind: type[Any] = EmbedOptions
) -> F:
    """Show the fields of an options class in a function's signature, instead of ``**changes``.

    Args:
        function: The function that takes them.
        also: A function whose keyword arguments it takes too.
        kind: The class, a dataclass.
    """
    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    options = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type
        )
        for field in dataclasses.fields(kind)
    ]
    if also is not None:
        others = inspect.signature(also).parameters.values()
        names = {option.name for option in options}
        options += [p for p in others if p.kind is p.KEYWORD_ONLY and p.name not in names]
    shown = signature.replace(parameters=[*own, *options])
    function.__signature__ = shown  # type: ignore[attr-defined]  # what inspect looks for
    return function

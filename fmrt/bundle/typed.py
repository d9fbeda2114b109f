"""JSON values to frozen dataclasses: each field checked against its annotation, errors with a path.

What a field may hold beyond its type stands with the type, as ``Annotated[int, Range(1, 10)]``.
What fields say together is checked by a method ``contradictions`` of their class.
"""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from fmrt.errors import quoted

T = TypeVar("T")
Decoder = Callable[[Any, str], Any]
Contradictions = Iterable[tuple[str, str]]

MOST_CHARACTERS = 100_000
MOST_INTEGER = 2**53
MOST_NUMBER = 1e300


class WrongValueError(ValueError):
    """A value that its field may not hold.

    Attributes:
        where: The path of the field, as ``towers[0].dim``.
        reason: The fault, with the value.
    """

    def __init__(self, where: str, reason: str) -> None:
        self.where = where
        self.reason = reason
        super().__init__(f"{where} {reason}" if where else reason)


class Rule(Protocol):
    """What a value of the right type must be beyond that."""

    @property
    def wanted(self) -> str:
        """The words after "must be" in an error."""

    def allows(self, value: Any) -> bool:  # noqa: ANN401  # of the annotated type
        """Whether a value is allowed."""


class Range(NamedTuple):
    """A number from ``low`` to ``high``, both included; NaN is in no range."""

    low: float
    high: float

    @property
    def wanted(self) -> str:
        """The words after "must be" in an error."""
        return f"from {self.low:,} to {self.high:,}"

    def allows(self, value: float) -> bool:
        """Whether a value is allowed."""
        return self.low <= value <= self.high


class Matches(NamedTuple):
    """A string that a regular expression matches as a whole."""

    pattern: str
    wanted: str

    def allows(self, value: str) -> bool:
        """Whether a value is allowed."""
        return re.fullmatch(self.pattern, value) is not None


class Printable(NamedTuple):
    """A string of one line that a terminal shows and does not obey."""

    wanted: str = "a short text of printable characters"
    most: int = 4096
    least: int = 0

    def allows(self, value: str) -> bool:
        """Whether a value is allowed."""
        return self.least <= len(value) <= self.most and value.isprintable()


class OneOf(NamedTuple):
    """One of some strings."""

    values: tuple[str, ...]

    @property
    def wanted(self) -> str:
        """The words after "must be" in an error."""
        return f"one of {', '.join(self.values)}"

    def allows(self, value: str) -> bool:
        """Whether a value is allowed."""
        return value in self.values


class Count(NamedTuple):
    """A list of so many values."""

    low: int
    high: int

    @property
    def wanted(self) -> str:
        """The words after "must be" in an error."""
        several = self.low < self.high
        return f"a list of {f'{self.low} to {self.high:,}' if several else self.low} values"

    def allows(self, value: tuple[Any, ...]) -> bool:
        """Whether a value is allowed."""
        return self.low <= len(value) <= self.high


class Chosen:
    """The class of an object, by the string in another field."""

    def __init__(self, field: str, kinds: Mapping[str, type[Any]]) -> None:
        self.field = field
        self.kinds = kinds


def decode(kind: type[T], value: object, where: str = "") -> T:
    """An object of ``kind``, a dataclass, from a parsed JSON value. Unknown keys are ignored.

    Raises:
        WrongValueError: A value is missing, of another type, out of its range, or contradicts
            another one.
    """
    annotation: Any = kind
    found: T = _decoder(annotation)(value, where)
    return found


def wrong(where: str, value: object, wanted: str) -> WrongValueError:
    """The error for one value."""
    return WrongValueError(where, f"is {quoted(value)}, and must be {wanted}")


@cache
def _decoder(kind: Any) -> Decoder:  # noqa: ANN401, PLR0911  # an annotation
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _object(kind)  # type: ignore[arg-type]
    if origin is Annotated:
        return _ruled(_decoder(arguments[0]), arguments[1:])
    if origin is Literal:
        return _ruled(_string, [OneOf(arguments)])
    if origin in (Union, types.UnionType):
        return _optional(*(a for a in arguments if a is not type(None)))
    if origin is tuple:
        return _list(*arguments)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(_decoder(arguments[0]), _decoder(arguments[1]))
    if kind is Any:
        return lambda value, where: value  # noqa: ARG005
    return _SCALARS[kind]


def _integer(value: object, where: str) -> int:
    if type(value) is not int or not -MOST_INTEGER <= value <= MOST_INTEGER:
        raise wrong(where, value, "a whole number")
    return value


def _number(value: object, where: str) -> float:
    # Comparing keeps NaN and infinity out, and integers that no float holds.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(where, value, "a number")
    if not -MOST_NUMBER <= value <= MOST_NUMBER:
        raise wrong(where, value, "a number")
    return float(value)


def _boolean(value: object, where: str) -> bool:
    if type(value) is not bool:
        raise wrong(where, value, "true or false")
    return value


def _string(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise wrong(where, value, "a string")
    if len(value) > MOST_CHARACTERS:
        raise wrong(where, value, f"a string of at most {MOST_CHARACTERS:,} characters")
    if "\0" in value or not _is_unicode(value):
        raise wrong(where, value, "a string without NUL and lone surrogates")
    return value


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_SCALARS: Mapping[type[Any], Decoder] = {
    int: _integer,
    float: _number,
    bool: _boolean,
    str: _string,
}


def _optional(kind: object) -> Decoder:
    decoder = _decoder(kind)
    return lambda value, where: None if value is None else decoder(value, where)


def _ruled(decoder: Decoder, rules: Iterable[Rule]) -> Decoder:
    def decoded(value: object, where: str) -> object:
        found = decoder(value, where)
        for rule in rules:
            if not rule.allows(found):
                raise wrong(where, value, rule.wanted)
        return found

    return decoded


def _list(*kinds: Any) -> Decoder:
    """The decoder of any number of one kind, ``tuple[T, ...]``, or of one value per kind."""
    repeated = len(kinds) > 1 and kinds[1] is Ellipsis
    decoders = [_decoder(kind) for kind in kinds if kind is not Ellipsis]

    def decoded(value: object, where: str) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise wrong(where, value, "a list")
        if not repeated and len(value) != len(decoders):
            raise wrong(where, value, f"a list of {len(decoders)} values")
        own = decoders * len(value) if repeated else decoders
        pairs = enumerate(zip(own, value, strict=True))
        return tuple(decoder(item, f"{where}[{i}]") for i, (decoder, item) in pairs)

    return decoded


def _mapping(key_decoder: Decoder, decoder: Decoder) -> Decoder:
    def decoded(value: object, where: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise wrong(where, value, "an object")
        return {
            key_decoder(key, where): decoder(item, f"{where}[{quoted(key)}]")
            for key, item in value.items()
        }

    return decoded


def _object(kind: type[Any]) -> Decoder:
    hints = get_type_hints(kind, include_extras=True)
    fields = [(f.name, hints[f.name], _is_required(f)) for f in dataclasses.fields(kind)]
    decoders = [(name, _field(hint), required) for name, hint, required in fields]

    def decoded(value: object, where: str) -> object:
        if not isinstance(value, Mapping):
            raise wrong(where, value, "an object")
        prefix = f"{where}." if where else ""
        found = {}
        for name, decoder, required in decoders:
            if name in value:
                found[name] = decoder(value[name], f"{prefix}{name}", value)
            elif required:
                raise WrongValueError(f"{prefix}{name}", "is missing")
        made = kind(**found)
        for field, reason in _contradictions(made):
            raise WrongValueError(f"{prefix}{field}", reason)
        return made

    return decoded


def _field(hint: object) -> Callable[[Any, str, Mapping[str, Any]], Any]:
    """A decoder that also sees the object that the field is of."""
    rules = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    if rules and isinstance(rules[0], Chosen):
        chosen = rules[0]
        # The field that it goes by is checked before this one.
        return lambda value, where, whole: decode(chosen.kinds[whole[chosen.field]], value, where)
    decoder = _decoder(hint)
    return lambda value, where, _: decoder(value, where)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _contradictions(made: object) -> Iterator[tuple[str, str]]:
    check = getattr(made, "contradictions", None)
    yield from check() if check is not None else ()

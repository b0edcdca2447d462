"""How long a text is in tokens; conversion of untrusted values to structs, with the place of the first mistake."""

import re
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import msgspec

BYTES_PER_TOKEN = 3

T = TypeVar("T")
Fields = Mapping[str, Any]
"""A JSON object."""

_PLACED = re.compile(r"(?P<problem>.*) - at (?:key in )?`\$(?P<path>.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>.*)`")


def tokens(length: int) -> int:
    """Give the tokens of `length` bytes of UTF-8: three bytes each, rounded up."""
    return -(-length // BYTES_PER_TOKEN)


class ShapeError(ValueError):
    """A value has not the shape that was asked for; the text is `path: problem`."""


def inner(fields: Fields, name: str) -> Fields:
    """Give the object that stands in a field, an empty one where there is none."""
    value = fields.get(name)
    return cast("Fields", value) if isinstance(value, dict) else {}


def convert(value: object, shape: type[T]) -> T:
    """Convert `value` to `shape`.

    Raises `ShapeError` whose text names the place with dots, as in
    `messages.0.role: Field required`.
    """
    try:
        return msgspec.convert(value, type=shape)
    except msgspec.ValidationError as error:
        raise ShapeError(_described(str(error))) from None


def _described(text: str) -> str:
    placed = _PLACED.fullmatch(text)
    path, problem = (placed["path"], placed["problem"]) if placed else ("", text)
    steps = re.findall(r"[^.\[\]]+", path)
    if missing := _MISSING.fullmatch(problem):
        steps.append(missing["field"])
        problem = "Field required"
    return f"{'.'.join(steps)}: {problem}" if steps else problem

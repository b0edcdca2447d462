"""Conversion of untrusted values to structs, with the place of the first mistake."""

import re
from typing import TypeVar

import msgspec

T = TypeVar("T")

_PLACED = re.compile(r"(?P<problem>.*) - at (?:key in )?`\$(?P<path>.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>.*)`")


class ShapeError(ValueError):
    """A value has not the shape that was asked for; the text is `path: problem`."""


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

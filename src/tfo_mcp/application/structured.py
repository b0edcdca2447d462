"""Structured output: which schemas a caller may ask with, and what an answer is by them.

Refused is what "JSON Schema limitations" of "Structured outputs" at platform.claude.com (October 2026) says that
the API answers with an error; a request that it cannot serve would stay in the conversation. What else it may not
take, it says itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final, NoReturn, cast

from tfo_mcp.application.ports import SchemaCompiler
from tfo_mcp.domain.errors import InvalidOutputSchema

_MOST_LEVELS: Final = 64

_LIMITS: Final = frozenset(
    {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "maxItems"}
)
"""Limits of numbers, texts and lists, none of which the API takes."""

_SCHEMAS: Final = frozenset({"items", "not", "if", "then", "else", "contains", "propertyNames", "additionalProperties"})
_LISTS_OF_SCHEMAS: Final = frozenset({"anyOf", "allOf", "oneOf", "prefixItems"})
_NAMED_SCHEMAS: Final = frozenset({"properties", "$defs", "definitions", "patternProperties", "dependentSchemas"})
"""Where schemas stand within schemas."""

_ENDED_OTHERWISE: Final = {
    "refusal": "Claude refused to answer",
    "max_tokens": "the answer was cut, because it had as many tokens as it may have (max_tokens)",
    "model_context_window_exceeded": "the answer was cut, because the conversation fills what the model can hold",
}


@dataclass(frozen=True, slots=True)
class Output:
    """What an answer is by a schema: a value, or the problem why it is none, as a sentence."""

    value: Mapping[str, Any] | None
    problem: str | None = None


class OutputSchemas:
    """Checks the schemas that callers want answers to fit.

    Args:
        max_bytes: of one, as JSON.
    """

    def __init__(self, compiler: SchemaCompiler, *, max_bytes: int) -> None:
        self._compiler = compiler
        self._max_bytes = max_bytes

    def check(self, schema: Mapping[str, Any]) -> None:
        """Guard of every send that comes with one.

        Raises:
            InvalidOutputSchema: it is none, too large, not of an object, or the API would not take it.
        """
        size = len(json.dumps(schema, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"))
        if size > self._max_bytes:
            _refuse(f"it has {size} bytes, and {self._max_bytes} are the most (claude.max_output_schema_bytes)")
        if _levels(schema) > _MOST_LEVELS:
            _refuse(f"it is nested deeper than {_MOST_LEVELS} levels")
        if schema.get("type") != "object":
            _refuse("its type must be 'object'")
        try:
            self._compiler.compile(schema)
        except ValueError as error:
            _refuse(str(error))
        within = dict(_schemas(schema, ""))
        for place, inner in within.items():
            _check_supported(place, inner)
        _check_is_finite(within)

    def read(self, schema: Mapping[str, Any], text: str, stop_reason: str) -> Output:
        """What `text`, Claude's last words in a turn that was asked with `schema`, is by it."""
        if stop_reason == "refusal":
            return Output(None, _ENDED_OTHERWISE[stop_reason])
        try:
            value = json.loads(text, parse_constant=_no_number, parse_float=_finite)
            json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair can be escaped, and never sent on
        except (ValueError, RecursionError):
            default = (
                "the answer is not JSON" if stop_reason == "end_turn" else f"the turn was stopped by {stop_reason}"
            )
            return Output(None, _ENDED_OTHERWISE.get(stop_reason, default))
        if _levels(value) > _MOST_LEVELS:
            return Output(None, f"the answer is nested deeper than {_MOST_LEVELS} levels")
        if found := self._compiler.compile(schema)(value):
            return Output(None, f"the answer does not fit the schema: {'; '.join(found)}")
        return Output(cast("Mapping[str, Any]", value))


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number beyond any float")
    return number


def _levels(value: object) -> int:
    """How deep `value` is nested, or one more than is allowed."""
    level, here = 0, [value]
    while here and level <= _MOST_LEVELS:
        level += 1
        here = [inner for outer in here for inner in _inside(outer)]
    return level


def _inside(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from cast("dict[str, object]", value).values()
    elif isinstance(value, list):
        yield from cast("list[object]", value)


def _schemas(schema: object, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """`schema` and every schema within it, with its place as a JSON pointer; references are not followed."""
    if not isinstance(schema, dict):  # true or false
        return
    fields = cast("Mapping[str, Any]", schema)
    yield place, fields
    for name, value in fields.items():
        if name in _SCHEMAS:
            yield from _schemas(value, f"{place}/{name}")
        elif name in _LISTS_OF_SCHEMAS:
            for number, inner in enumerate(value):
                yield from _schemas(inner, f"{place}/{name}/{number}")
        elif name in _NAMED_SCHEMAS:
            for key, inner in value.items():
                yield from _schemas(inner, f"{place}/{name}/{key.replace('~', '~0').replace('/', '~1')}")


def _check_supported(place: str, schema: Mapping[str, Any]) -> None:
    """Guard of each schema within a schema."""
    kinds = schema.get("type")
    is_object = kinds == "object" or (isinstance(kinds, list) and "object" in kinds)
    if is_object and schema.get("additionalProperties") is not False:
        _refuse("Claude's API needs additionalProperties: false in every object", place)
    if limits := _LIMITS & schema.keys():
        _refuse(f"Claude's API takes no {min(limits)}", place)
    if schema.get("minItems", 0) not in {0, 1}:
        _refuse("Claude's API takes no minItems but 0 and 1", place)
    if any(isinstance(choice, dict | list) for choice in schema.get("enum", ())):
        _refuse("Claude's API takes no objects and lists in an enum", place)


def _check_is_finite(schemas: Mapping[str, Mapping[str, Any]]) -> None:
    """Guard of the whole: no schema leads back to itself, by way of what is in it and what that refers to."""
    leads_to: dict[str, list[str]] = {place: [] for place in schemas}
    for place, schema in schemas.items():
        if place:
            leads_to[_around(place, schemas)].append(place)
        if "$ref" in schema:
            leads_to[place].append(_place_of(schema["$ref"]))
    try:
        TopologicalSorter(leads_to).prepare()
    except CycleError as error:
        circle: Sequence[str] = error.args[1]
        reference = next(place for place in circle if "$ref" in schemas.get(place, ()))
        _refuse("Claude's API takes no schema that leads back to itself", reference)


def _around(place: str, schemas: Mapping[str, object]) -> str:
    """The place of the schema in which the one at `place` stands."""
    while True:
        place = place.rpartition("/")[0]
        if place in schemas:
            return place


def _place_of(reference: str) -> str:
    """The place that a reference within the schema names."""
    from urllib.parse import unquote

    return unquote(reference.removeprefix("#"))


def _refuse(problem: str, place: str = "") -> NoReturn:
    raise InvalidOutputSchema(f"{place[:100]}: {problem}" if place else problem)

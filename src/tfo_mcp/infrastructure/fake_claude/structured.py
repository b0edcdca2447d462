"""Structured output: the schemas that the API takes, and the simplest value that fits one.

What it takes is "JSON Schema limitations" of "Structured outputs" at platform.claude.com (October 2026).
"""

from collections.abc import Mapping
from typing import Any, NoReturn, cast

from tfo_mcp.infrastructure.fake_claude.errors import Rejected
from tfo_mcp.infrastructure.fake_claude.shapes import Fields

WHERE = "output_config.format.schema"
ANYWHERE = frozenset({"$defs", "$schema", "$id", "default", "definitions", "description", "examples", "title", "type"})
KEYWORDS: Mapping[str, frozenset[str]] = {
    "object": frozenset({"additionalProperties", "properties", "required"}),
    "array": frozenset({"items", "minItems"}),
    "string": frozenset({"format"}),
    "integer": frozenset(),
    "number": frozenset(),
    "boolean": frozenset(),
    "null": frozenset(),
}
"""What a schema of each type may have besides."""

FORMATS: Mapping[str, str] = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "duration": "P1D",
    "email": "nobody@example.com",
    "hostname": "example.com",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "time": "00:00:00Z",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
"""The formats of a string, each with a text that has it."""

SIMPLEST: Mapping[str, Any] = {"array": [], "boolean": False, "integer": 0, "null": None, "number": 0}
ALTERNATIVES = ("anyOf", "allOf")


def check_schema(schema: Fields) -> None:
    """Refuse a schema that is none, or that the API does not support.

    Raises `Rejected`.
    """
    _check(schema, schema, ())


def simplest(schema: Fields) -> Any:  # noqa: ANN401  # any JSON value
    """Give the simplest value that fits a checked schema: what is required, the first of any choice, else nothing."""
    return _value(schema, schema)


def _check(schema: object, root: Fields, within: tuple[str, ...]) -> None:
    if not isinstance(schema, dict):
        _refuse(f"Invalid schema: {str(schema)[:100]!r} is not an object")
    fields = cast("Fields", schema)
    if "$ref" in fields:
        reference = fields["$ref"]
        if reference in within:
            _refuse("Circular reference detected in schema definitions; recursive schemas are not supported")
        _check(_referred(reference, root), root, (*within, reference))
        return
    for kind in _types(fields):
        _check_type(kind, fields, root, within)
    for name in ALTERNATIVES:
        if name in fields:
            _check_all(name, fields[name], root, within)
    for choice in _listed("enum", fields.get("enum", [])):
        if isinstance(choice, dict | list):
            _refuse("Enum values must be strings, numbers, booleans or null")


def _check_type(kind: str, fields: Fields, root: Fields, within: tuple[str, ...]) -> None:
    known = ANYWHERE | KEYWORDS[kind] | {"enum", "const", *ALTERNATIVES}
    others = KEYWORDS.keys() - {kind} if isinstance(fields.get("type"), list) else ()
    extra = fields.keys() - known.union(*(KEYWORDS[other] for other in others))
    if extra:
        _refuse(f"For '{kind}' type, properties {', '.join(sorted(extra))} are not supported")
    match kind:
        case "object":
            _check_object(fields, root, within)
        case "array":
            if fields.get("minItems", 0) not in {0, 1}:
                _refuse("For 'array' type, 'minItems' values other than 0 or 1 are not supported")
            if "items" in fields:
                _check(fields["items"], root, within)
        case "string" if fields.get("format") not in {None, *FORMATS}:
            _refuse(f"For 'string' type, the format {str(fields['format'])[:100]!r} is not supported")
        case _:
            return


def _check_object(fields: Fields, root: Fields, within: tuple[str, ...]) -> None:
    if fields.get("additionalProperties") is not False:
        _refuse("For 'object' type, 'additionalProperties' must be explicitly set to false")
    properties = fields.get("properties", {})
    if not isinstance(properties, dict):
        _refuse("Invalid schema: 'properties' is not an object")
    for schema in cast("Fields", properties).values():
        _check(schema, root, within)
    for name in _listed("required", fields.get("required", [])):
        if name not in properties:
            _refuse(f"Invalid schema: {str(name)[:100]!r} is required and not among the properties")


def _check_all(name: str, schemas: object, root: Fields, within: tuple[str, ...]) -> None:
    listed = _listed(name, schemas)
    if not listed:
        _refuse(f"Invalid schema: {name!r} is empty")
    for schema in listed:
        _check(schema, root, within)


def _listed(name: str, value: object) -> list[object]:
    if not isinstance(value, list):
        _refuse(f"Invalid schema: {name!r} is not a list")
    return cast("list[object]", value)


def _types(fields: Fields) -> list[str]:
    given = fields.get("type")
    kinds = cast("list[object]", given) if isinstance(given, list) else [given] if given is not None else []
    for kind in kinds:
        if kind not in KEYWORDS:
            _refuse(f"Invalid schema: {str(kind)[:100]!r} is not a type")
    if not kinds and fields and fields.keys().isdisjoint({"enum", "const", *ALTERNATIVES}):
        _refuse("Invalid schema: a schema needs 'type', 'anyOf', 'allOf', 'enum', 'const' or '$ref'")
    return cast("list[str]", kinds)


def _referred(reference: object, root: Fields) -> object:
    steps = str(reference).removeprefix("#/").split("/")
    found: object = root
    if not str(reference).startswith("#/"):
        _refuse(f"External $ref {str(reference)[:100]!r} is not supported")
    for step in steps:
        if not isinstance(found, dict) or step not in found:
            _refuse(f"Invalid schema: $ref {str(reference)[:100]!r} leads nowhere")
        found = cast("Fields", found)[step]
    return found


def _value(schema: Fields, root: Fields) -> Any:  # noqa: ANN401  # any JSON value
    match schema:
        case {"$ref": reference}:
            return _value(cast("Fields", _referred(reference, root)), root)
        case {"const": value}:
            return value
        case {"enum": [first, *_]}:
            return first
        case {"anyOf": [first, *_]}:
            return _value(first, root)
        case {"allOf": [*parts]}:
            return _merged([_value(part, root) for part in parts])
        case _:
            kinds = _types(schema)
            return _simplest_of(kinds[0], schema, root) if kinds else {}


def _simplest_of(kind: str, schema: Fields, root: Fields) -> Any:  # noqa: ANN401  # any JSON value
    if kind == "object":
        return {name: _value(schema["properties"][name], root) for name in schema.get("required", [])}
    if kind == "string":
        return FORMATS.get(schema.get("format", ""), "")
    if kind == "array" and schema.get("minItems"):
        return [_value(schema.get("items", {}), root)]
    return SIMPLEST[kind]


def _merged(values: list[Any]) -> Any:  # noqa: ANN401  # any JSON value
    """Join objects into one; of other values the last holds."""
    if all(isinstance(value, dict) for value in values):
        return {name: inner for value in values for name, inner in value.items()}
    return values[-1]


def _refuse(problem: str) -> NoReturn:
    raise Rejected(f"{WHERE}: {problem}")

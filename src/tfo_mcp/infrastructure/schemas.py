"""JSON Schema 2020-12 by jsonschema-rs: what does not fit becomes short sentences, and nothing is ever fetched."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    import jsonschema_rs

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_VALUE: Final = "\0"
"""Stands for the offending value in the library's messages, until its excerpt is put there."""

_MAX_VIOLATIONS: Final = 10
_MAX_VALUE: Final = 60
_MAX_SENTENCE: Final = 300
"""Characters."""

_MAX_BITS: Final = 64
"""Of integers that are shown; Python refuses to spell out huge ones."""

_MAX_NODES: Final = 2000
"""Values in an instance of which all violations are asked for. The library finds all or one: all of a list of a
million wrong items would take it seconds."""

_BACKTRACK_LIMIT: Final = 10_000
"""Steps of one `pattern` match, where it needs backtracking at all: about a millisecond."""


class JsonSchemas:
    """The `SchemaCompiler`. `format` is an annotation, as 2020-12 has it."""

    def compile(self, schema: Mapping[str, Any]) -> Callable[[object], Sequence[str]]:
        """A function from an instance to its violations, each one sentence that names the field.

        The sentences look like `/path/to/field: 5 is not of type "string"`. At most ten are given, and of a very
        large instance the first.

        Raises:
            ValueError: `schema` is not a schema of this dialect, or refers outside itself.
        """
        import jsonschema_rs

        dialect = schema.get("$schema", _DIALECT)
        if dialect not in (_DIALECT, _DIALECT + "#"):
            raise ValueError(f"the schema says it is {dialect!r:.200}, and only {_DIALECT} is known")
        try:
            validator = jsonschema_rs.Draft202012Validator(
                dict(schema),
                offline=True,
                validate_formats=False,
                mask=_VALUE,
                pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=_BACKTRACK_LIMIT),
            )
        except jsonschema_rs.ValidationError as error:
            raise ValueError(f"the schema cannot be used: {_sentence(error)}") from error

        def violations(instance: object) -> Sequence[str]:
            try:
                if validator.is_valid(instance):
                    return ()
                if _is_small(instance):
                    return [_sentence(error) for error in islice(validator.iter_errors(instance), _MAX_VIOLATIONS)]
                validator.validate(instance)
            except jsonschema_rs.ValidationError as error:
                return [_sentence(error)]
            except ValueError as error:  # half of a surrogate pair, or too many levels
                return [_clipped(f"the value is not JSON that can be checked: {error}")]
            return ()

        return violations


def _is_small(instance: object) -> bool:
    pending, seen = [instance], 0
    while pending and seen <= _MAX_NODES:
        value = pending.pop()
        seen += 1
        if isinstance(value, dict):
            pending.extend(islice(cast("dict[str, object]", value).values(), _MAX_NODES))
        elif isinstance(value, list):
            pending.extend(islice(cast("list[object]", value), _MAX_NODES))
    return seen <= _MAX_NODES


def _sentence(error: jsonschema_rs.ValidationError) -> str:
    kind = error.kind
    match kind.name:
        case "required":
            return _clipped(f"{_pointer([*error.instance_path, kind.value])}: is required")
        case "additionalProperties" | "unevaluatedProperties":
            unknown = [_pointer([*error.instance_path, name]) for name in islice(kind.value, 5)]
            return _clipped(f"{', '.join(unknown)}: no such field exists")
        case "anyOf" | "oneOf":
            branches: Sequence[Sequence[jsonschema_rs.ValidationError]] = getattr(kind, "context", ())
            why = " or ".join(_reason(branch[0]) for branch in islice(branches, 3) if branch)
            reason = _reason(error) + (f" ({why})" if why else "")
            return _clipped(f"{_pointer(error.instance_path)}: {reason}")
        case _:
            return _clipped(f"{_pointer(error.instance_path)}: {_reason(error)}")


def _reason(error: jsonschema_rs.ValidationError) -> str:
    return _clipped(error.message.replace(_VALUE, _excerpt(error.instance)))


def _pointer(path: Iterable[str | int]) -> str:
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in path)
    pointer = "".join(f"/{_quoted(step)}" for step in steps)
    return pointer or "(the whole value)"


def _quoted(text: str) -> str:
    """At most `_MAX_VALUE` characters of `text`, with control characters spelt out."""
    shown = json.dumps(text[:_MAX_VALUE], ensure_ascii=False)[1:-1]
    return shown if len(text) <= _MAX_VALUE else shown + "…"


def _excerpt(value: object) -> str:
    match value:
        case str():
            return f'"{_quoted(value)}"'
        case bool() | None | float():
            return json.dumps(value)
        case int() if value.bit_length() <= _MAX_BITS:
            return str(value)
        case list():
            return "the list"
        case dict():
            return "the object"
        case _:
            return "the number"


def _clipped(sentence: str) -> str:
    return sentence if len(sentence) <= _MAX_SENTENCE else sentence[: _MAX_SENTENCE - 1] + "…"

"""In words what a setting may be, for errors and for the reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from msgspec import NODEFAULT, inspect

from tfo_mcp.infrastructure.config.settings import SECTIONS, settings_of


@dataclass(frozen=True, slots=True)
class Description:
    """A setting in words; `default` is None where it is not set, or where it depends on the user."""

    key: str
    default: object
    expected: str
    meaning: str


def descriptions(section: str) -> Iterator[Description]:
    """The settings of a section, in their order, those of the sections inside it excepted."""
    struct = cast("inspect.StructType", inspect.type_info(SECTIONS[section]))
    fields = {field.name: field for field in struct.fields}
    for key in settings_of(section):
        field = fields[key]
        default = None if field.default is NODEFAULT else field.default
        metadata = cast("dict[str, str]", cast("Any", field.type).extra_json_schema)
        yield Description(key, default, _words(field.type), metadata["description"])


def expected(section: str, key: str) -> str:
    """What `section.key` must be, as the end of a sentence: `a number above 0 and at most 30`."""
    return next(description.expected for description in descriptions(section) if description.key == key)


def _words(kind: inspect.Type) -> str:  # noqa: PLR0911  # a table, one row a kind
    match kind:
        case inspect.Metadata(extra_json_schema={"title": str(title)}):
            return title
        case inspect.Metadata(type=inner):
            return _words(inner)
        case inspect.UnionType(types=(inner, inspect.NoneType())):
            return _words(inner)
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType(ge=least, le=most):
            return f"a whole number from {least} to {most}"
        case inspect.FloatType(gt=None, ge=least, le=most):
            return f"a number from {least:g} to {most:g}"
        case inspect.FloatType(gt=least, le=most):
            return f"a number above {least:g} and at most {most:g}"
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(map(str, values))
        case inspect.StrType(min_length=1, max_length=int(most)):
            return f"text of 1 to {most} characters"
        case _:
            return "text"

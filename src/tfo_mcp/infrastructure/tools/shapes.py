"""Pieces of JSON Schema that the schemas of several tools are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

TEXT: Final[Mapping[str, Any]] = {"type": "string"}
COUNT: Final[Mapping[str, Any]] = {"type": "integer", "minimum": 0}
TEXT_OR_NULL: Final[Mapping[str, Any]] = {"type": ["string", "null"]}


def object_of(properties: Mapping[str, Any], optional: Sequence[str] = ()) -> dict[str, Any]:
    """What a tool gives: all of it is there but for what is `optional`."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def arguments_of(properties: Mapping[str, Any], required: Sequence[str] = ()) -> dict[str, Any]:
    """What a tool takes, and nothing else."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}

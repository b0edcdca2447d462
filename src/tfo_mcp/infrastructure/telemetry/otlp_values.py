"""Attributes as OTLP has them, through protobuf's library. Imported on the pipeline's thread only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue

MAX_VALUE_LENGTH = 1024
"""Characters of one attribute's value; the rest is cut off."""


def key_values(attributes: Mapping[str, object]) -> list[KeyValue]:
    """All attributes, in order."""
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


def any_value(value: object) -> AnyValue:
    """A value as what it is; what OTLP has no type for becomes text."""
    if isinstance(value, bool):  # before int, which it is too
        return AnyValue(bool_value=value)
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, list | tuple):  # libraries' only
        return AnyValue(array_value=ArrayValue(values=[any_value(each) for each in cast("Sequence[object]", value)]))
    return AnyValue(string_value=text(str(value)))


def text(value: str, length: int = MAX_VALUE_LENGTH) -> str:
    """Cut to length; without lone surrogates, which protobuf refuses."""
    value = value[:length]
    return value if value.isascii() else value.encode("utf-8", "replace").decode()

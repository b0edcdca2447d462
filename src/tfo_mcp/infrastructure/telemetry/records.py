"""The one small record that an operation leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from tfo_mcp.application.ports import AttributeValue, SpanKind, TraceContext
from tfo_mcp.domain.execution import Outcome

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

RecordKind = SpanKind | Literal["session", "rejected"]
"""What a record is about. The last two only count: they become no span."""

SpanEvent: TypeAlias = tuple[int, str, Mapping[str, AttributeValue]]
"""Nanoseconds since the epoch, name, attributes."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """One operation that has ended.

    Attributes:
        context: its own ids; None where it becomes no span.
        parent_id: the span id of the operation around it, 0 at the root of a trace.
        start_ns: nanoseconds since the epoch.
        duration_ns: by the monotonic clock, so never below 0.
        attributes: outcome and error type among them, under their conventional names.
    """

    kind: RecordKind
    name: str
    context: TraceContext | None
    parent_id: int
    start_ns: int
    duration_ns: int
    outcome: Outcome
    attributes: Mapping[str, AttributeValue]
    events: tuple[SpanEvent, ...] = ()


Item: TypeAlias = "Record | ReadableSpan"
"""What the ring holds: our own record, or a span of a library that traces itself."""

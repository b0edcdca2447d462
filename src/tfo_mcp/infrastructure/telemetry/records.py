"""What waits for the pipeline: the one small record that an operation leaves behind, and what was logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import msgspec

from tfo_mcp.application.ports import AttributeValue, SpanKind, TraceContext
from tfo_mcp.domain.execution import Outcome
from tfo_mcp.domain.identifiers import LOCAL_PRINCIPAL

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

RecordKind = SpanKind | Literal["session", "error", "rejected"]
"""What a record is about; `table.py` says what becomes of it."""

SpanEvent: TypeAlias = tuple[int, str, Mapping[str, AttributeValue]]
"""Nanoseconds since the epoch, name, attributes."""


JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"


class Record(msgspec.Struct, frozen=True, gc=False):
    """One operation that has ended, or one thing that happened.

    Attributes:
        context: the operation's own ids; of what happened, those of the operation that it happened in, if any.
        parent_id: the span id of the operation around it, 0 at the root of a trace.
        start_ns: nanoseconds since the epoch.
        duration_ns: by the monotonic clock, so never below 0.
        attributes: outcome and error type among them, under their conventional names.
        principal: on whose behalf it ran.
        captured: contents as they came, copied and cut. They may hold secrets: only the pipeline looks at them.
        contents: what the pipeline made of them, JSON without secrets.
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
    principal: str = LOCAL_PRINCIPAL
    captured: Mapping[str, JsonValue] | None = None
    contents: Mapping[str, str] | None = None


class LogEntry(msgspec.Struct, frozen=True, gc=False):
    """One record of the log, as it was logged: not redacted yet.

    Attributes:
        time_ns, observed_ns: nanoseconds since the epoch; when it was logged, and when it came to us.
        level: `logging`'s number and name of it.
        body: the message with its arguments.
        context: ids of the operation in which it was logged.
        attributes: its named values.
    """

    time_ns: int
    observed_ns: int
    level: tuple[int, str]
    body: str
    context: TraceContext | None
    attributes: Mapping[str, AttributeValue]


@dataclass(frozen=True, slots=True)
class LibrarySpan:
    """A span of a library that traces itself, and on whose behalf it ran."""

    span: ReadableSpan
    principal: str


Item: TypeAlias = Record | LogEntry | LibrarySpan
"""What the ring holds."""


class RecordingListener(Protocol):
    """Told, on a thread of telemetry's, what can be read from now on. Neither blocks nor raises."""

    def recorded(self, items: Sequence[Item]) -> None:
        """These have been written."""
        ...

    def health_changed(self) -> None:
        """Something is wrong with telemetry, something else than before, or nothing any more."""
        ...

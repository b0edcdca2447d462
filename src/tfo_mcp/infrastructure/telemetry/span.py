"""One operation while it runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from random import getrandbits

from tfo_mcp.application.attributes import ERROR_TYPE
from tfo_mcp.application.ports import AttributeValue, SpanKind, TraceContext
from tfo_mcp.domain.execution import Outcome
from tfo_mcp.domain.identifiers import LOCAL_PRINCIPAL
from tfo_mcp.infrastructure.telemetry.contents import MOST_WAITING, captured
from tfo_mcp.infrastructure.telemetry.conventions import OUTCOME
from tfo_mcp.infrastructure.telemetry.records import JsonValue, Record, SpanEvent
from tfo_mcp.infrastructure.telemetry.ring import Ring


def new_context(parent: TraceContext | None, principal: str | None = None) -> TraceContext:
    """A new operation's ids: in the trace of `parent`, or in a new one. The generator survives a fork.

    It runs on behalf of `principal`, where that is not the parent's.
    """
    if parent is None:
        return TraceContext(getrandbits(128) or 1, getrandbits(64) or 1, None, principal or LOCAL_PRINCIPAL)
    return TraceContext(
        parent.trace_id or getrandbits(128) or 1, getrandbits(64) or 1, parent.carried, principal or parent.principal
    )


class RecordingSpan:
    """Implements `Span`: two clock readings, one record.

    Args:
        ring: where the record goes.
        parent: the operation around it, None at the root.
        attributes: copied.
        principal: on whose behalf it runs, where that is not the parent's.
    """

    __slots__ = ("_attributes", "_clock", "_events", "_kind", "_parent_id", "_ring", "_start", "context", "name")
    captures_content = False
    _contents: Mapping[str, JsonValue] | None = None

    def __init__(
        self,
        ring: Ring,
        kind: SpanKind,
        name: str,
        parent: TraceContext | None,
        attributes: Mapping[str, AttributeValue],
        principal: str | None = None,
    ) -> None:
        self.context = new_context(parent, principal)
        self.name = name
        self._ring: Ring | None = ring
        self._kind: SpanKind = kind
        self._parent_id = 0 if parent is None else parent.span_id
        self._attributes = dict(attributes)
        self._events: tuple[SpanEvent, ...] = ()
        self._start = time.time_ns()
        self._clock = time.perf_counter_ns()

    def set(self, key: str, value: AttributeValue) -> None:
        """Add an attribute; nothing once the span has ended."""
        if self._ring is not None:
            self._attributes[key] = value

    def set_content(self, key: str, content: object) -> None:
        """Nothing."""

    def add_event(self, name: str, attributes: Mapping[str, AttributeValue] | None = None) -> None:
        """Note an event; nothing once the span has ended."""
        if self._ring is not None:
            at = self._start + time.perf_counter_ns() - self._clock
            self._events = (*self._events, (at, name, attributes or {}))

    def active(self) -> AbstractContextManager[None]:
        """Make it OpenTelemetry's current span, so that libraries nest below it."""
        from tfo_mcp.infrastructure.telemetry.otel_bridge import Activation

        return Activation(self.context)

    def end(self, outcome: Outcome, error_type: str | None = None) -> None:
        """Record it; a second time does nothing."""
        ring, self._ring = self._ring, None
        if ring is None:
            return
        # The wall clock may jump while an operation runs; the monotonic one cannot go back.
        duration = time.perf_counter_ns() - self._clock
        attributes = self._attributes
        attributes[OUTCOME] = outcome
        if error_type is not None:
            attributes[ERROR_TYPE] = error_type
        ring.record(
            Record(
                self._kind,
                self.name,
                self.context,
                self._parent_id,
                self._start,
                duration,
                outcome,
                attributes,
                self._events,
                self.context.principal,
                self._contents,
            )
        )


class CapturingSpan(RecordingSpan):
    """A span that keeps contents too.

    Args:
        length: characters that are to be told of each.
    """

    __slots__ = ("_contents", "_length")
    captures_content = True

    def __init__(
        self,
        ring: Ring,
        kind: SpanKind,
        name: str,
        parent: TraceContext | None,
        attributes: Mapping[str, AttributeValue],
        principal: str | None = None,
        *,
        length: int,
    ) -> None:
        super().__init__(ring, kind, name, parent, attributes, principal)
        self._length = length
        self._contents = None

    def set_content(self, key: str, content: object) -> None:
        """Copy as much of it as may be told; nothing once the span has ended, or while too many others wait."""
        if self._ring is not None and len(self._ring) < MOST_WAITING:
            self._contents = {**(self._contents or {}), key: captured(content, self._length)}


class NullSpan:
    """Implements `Span` where nothing is recorded: it only hands the trace on."""

    __slots__ = ("context", "name")
    captures_content = False

    def __init__(self, name: str, parent: TraceContext | None, principal: str | None = None) -> None:
        self.context = parent if parent is not None and parent.trace_id else new_context(parent, principal)
        self.name = name

    def set(self, key: str, value: AttributeValue) -> None:
        """Nothing."""

    def set_content(self, key: str, content: object) -> None:
        """Nothing."""

    def add_event(self, name: str, attributes: Mapping[str, AttributeValue] | None = None) -> None:
        """Nothing."""

    def active(self) -> AbstractContextManager[None]:
        """Changes nothing."""
        return nullcontext()

    def end(self, outcome: Outcome, error_type: str | None = None) -> None:
        """Nothing."""

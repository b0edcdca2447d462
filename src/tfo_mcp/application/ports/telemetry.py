"""Telemetry, as the core sees it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from tfo_mcp.domain.execution import Outcome
from tfo_mcp.domain.identifiers import LOCAL_PRINCIPAL
from tfo_mcp.domain.session import Session

AttributeValue = str | int | float | bool
SpanKind = Literal["request", "tool", "claude"]
"""What is measured: a request of a client, one run of a tool, one request to Claude."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What travels with a trace beside its ids, from the client to all that happens below.

    Attributes:
        trace_state: W3C `tracestate`, empty where there is none.
        baggage: W3C Baggage, decoded. It is the client's: for libraries and tools to read, in no signal of ours.
    """

    trace_state: str
    baggage: Mapping[str, str]


class TraceContext(NamedTuple):
    """W3C trace context: a 128-bit trace id and a 64-bit span id as integers.

    Both are 0 only in what a client sends that carries something but has no trace: it is nobody's parent.
    Each operation makes one, and a tuple is made in half the time of a frozen dataclass.

    Attributes:
        principal: on whose behalf the operation runs, and all below it.
    """

    trace_id: int
    span_id: int
    carried: Carried | None = None
    principal: str = LOCAL_PRINCIPAL


current_operation: ContextVar[TraceContext | None] = ContextVar("current_operation", default=None)
"""The operation that this task or thread works for: what it logs bears its ids."""


class Span(Protocol):
    """One operation while it runs. It is timed once, classified once, and ends as exactly one record."""

    context: TraceContext
    name: str
    """May be made more precise while it runs; always from a bounded set."""

    def set(self, key: str, value: AttributeValue) -> None:
        """Add what became known meanwhile."""
        ...

    @property
    def captures_content(self) -> bool:
        """Whether `set_content` keeps anything: where it does not, nobody need prepare it."""
        ...

    def set_content(self, key: str, content: object) -> None:
        """Keep what somebody said, asked for or was given, if the operator wants it; nothing elsewhere.

        Of `content`, in the types of JSON, a bounded part is copied at once; what JSON has no form for is named by
        its type.
        """
        ...

    def add_event(self, name: str, attributes: Mapping[str, AttributeValue] | None = None) -> None:
        """Note a point in time within the operation."""
        ...

    def active(self) -> AbstractContextManager[None]:
        """Make this the current span for libraries that trace themselves inside it."""
        ...

    def end(self, outcome: Outcome, error_type: str | None = None) -> None:
        """Stop the clock and hand the record over. Never blocks, never raises."""
        ...


class Telemetry(Protocol):
    """The telemetry client of the diagrams, as the core sees it. No call of it raises, and none blocks but `flush`."""

    def span(
        self,
        kind: SpanKind,
        name: str,
        *,
        parent: TraceContext | None = None,
        principal: str | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
    ) -> Span:
        """Start to measure an operation. `name` comes from a bounded set, never from a client.

        It runs on behalf of `principal`, where that is not the parent's.
        """
        ...

    def record_session_event(self, event: Literal["initialized", "closed"], session: Session) -> None:
        """Note that a session began or ended."""
        ...

    def record_error(self, error_type: str, attributes: Mapping[str, AttributeValue]) -> None:
        """Leave an error record, under the current operation.

        `error_type` names a class of errors, from a bounded set; the attributes hold no error's text.
        """
        ...

    def flush(self, timeout: float) -> bool:
        """Export what was recorded so far, and wait for it at most `timeout` seconds; whether nothing waits."""
        ...

    def record_rejected(self, reason: str) -> None:
        """Count a message that never became an operation. `reason` comes from a bounded set."""
        ...

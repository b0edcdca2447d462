"""What was recorded, as it is told to who asks: operations, their counts, and the processes that ran them.

Times are seconds since the epoch, durations seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfo_mcp.domain.execution import FAILURES


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """A point in time within an operation."""

    at: float
    name: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedSpan:
    """One operation that has ended.

    Attributes:
        kind: request, tool, claude, or library for what a library traced itself.
        process: that ran it, as the recorder numbers them.
        model: that answered, of requests to Claude.
        attributes: those that are no field of their own, under their conventional names.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    kind: str
    name: str
    started_at: float
    duration: float
    outcome: str
    error_type: str | None
    method: str | None
    tool: str | None
    session_id: str | None
    conversation_id: str | None
    model: str | None
    input_tokens: int | None
    output_tokens: int | None
    process: int
    attributes: Mapping[str, Any]
    events: Sequence[RecordedEvent]

    @property
    def has_failed(self) -> bool:
        """Whether it counts as an error."""
        return self.outcome in FAILURES


@dataclass(frozen=True, slots=True)
class Process:
    """A server that recorded. `settings` are those that were not at their defaults, secrets masked."""

    version: str
    settings: Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class OperationCount:
    """The operations of one kind and name that ended within a window.

    Attributes:
        name: the method, the tool or the model.
        percentiles: of their durations: 50, 95 and 99 to seconds, off by 9 % at most.
        errors_by_type: to how many there were.
    """

    kind: str
    name: str
    calls: int = 0
    errors: int = 0
    cancelled: int = 0
    longest: float = 0.0
    percentiles: Mapping[int, float] = field(default_factory=dict[int, float])
    errors_by_type: dict[str, int] = field(default_factory=dict[str, int])
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


@dataclass(frozen=True, slots=True)
class TraceExcerpt:
    """Some of a trace's operations, in the order in which they began, behind `start` others; `total` are known."""

    spans: Sequence[RecordedSpan]
    start: int
    total: int


@dataclass(frozen=True, slots=True)
class QueryAnswer:
    """What a query gave. `complete` is whether that is all of it."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    complete: bool

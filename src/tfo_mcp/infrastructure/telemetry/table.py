"""The one table: what each kind of record becomes, in every sink.

A record is timed and classified once. From this table follow the metrics that it adds to, whether it is a span, of
which kind, or a log record, and how the recorder keeps and counts it; so no sink can say anything else than another.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from tfo_mcp.application import attributes as core
from tfo_mcp.application.ports import AttributeValue
from tfo_mcp.domain.execution import FAILURES
from tfo_mcp.infrastructure.telemetry import conventions as names
from tfo_mcp.infrastructure.telemetry.conventions import Metric
from tfo_mcp.infrastructure.telemetry.records import Item, LogEntry, Record, RecordKind

_NOTHING: Final[Mapping[str, AttributeValue]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """One row of the table: what a record adds to a metric.

    Attributes:
        value: None where the record adds nothing.
        labels: the record's or the event's attributes that become the point's.
        constant: attributes that every point of this row has.
    """

    metric: Metric
    value: Callable[[Record], float | None]
    labels: tuple[str, ...]
    constant: Mapping[str, AttributeValue] = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True, slots=True)
class LogEvent:
    """A log record that has a name, with `.` and the record's own behind it where it ends in `.`."""

    name: str
    level: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Becomes:
    """One row.

    Attributes:
        measures: what it adds to which metrics.
        span: the span's kind; None: it is no span, and no row of the recorder's `spans`.
        event: the log record; None: it is none.
        counted_by: the attribute by which the recorder counts it by the minute; None: it does not.
        is_session: whether it is the beginning or the end of a row of the recorder's `sessions`.
    """

    measures: tuple[Measure, ...]
    span: Literal["server", "internal"] | None = None
    event: LogEvent | None = None
    counted_by: str | None = None
    is_session: bool = False


def signal_of(item: Item) -> Literal["traces", "logs"] | None:
    """The signal in which `item` goes out; None where it is only counted."""
    if isinstance(item, Record):
        row = TABLE[item.kind]
        return "traces" if row.span is not None else "logs" if row.event is not None else None
    return "logs" if isinstance(item, LogEntry) else "traces"


def _one(_: Record) -> float:
    return 1


def _one_error(record: Record) -> float | None:
    return 1 if record.outcome in FAILURES else None


def _seconds(record: Record) -> float:
    return record.duration_ns / 1e9


def _seconds_if_completed(record: Record) -> float | None:
    return _seconds(record) if record.outcome == "completed" else None


def _seconds_unless_completed(record: Record) -> float | None:
    return None if record.outcome == "completed" else _seconds(record)


def _seconds_if_closed(record: Record) -> float | None:
    return _seconds(record) if record.name == "closed" else None


def _opened_or_closed(record: Record) -> float:
    return 1 if record.name == "initialized" else -1


def _tokens(attribute: str) -> Callable[[Record], float | None]:
    def tokens(record: Record) -> float | None:
        value = record.attributes.get(attribute)
        return value if isinstance(value, int) else None

    return tokens


_TOOL = (core.TOOL, names.OUTCOME, core.ERROR_TYPE)
_REQUEST = (
    core.METHOD,
    core.TOOL,
    core.PROMPT,
    names.OUTCOME,
    core.ERROR_TYPE,
    core.ERROR_CODE,
    core.PROTOCOL_VERSION,
    core.TRANSPORT,
)
_CLAUDE = (core.GEN_AI_OPERATION, core.PROVIDER, names.OUTCOME, core.ERROR_TYPE)
_MODELS = (core.REQUEST_MODEL, core.RESPONSE_MODEL)

TABLE: Final[Mapping[RecordKind, Becomes]] = {
    "request": Becomes(
        measures=(Measure(names.OPERATION_DURATION, _seconds, _REQUEST),), span="server", counted_by=core.METHOD
    ),
    "tool": Becomes(
        measures=(
            Measure(names.TOOL_CALLS, _one, _TOOL),
            Measure(names.TOOL_ERRORS, _one_error, _TOOL),
            Measure(names.TOOL_DURATION, _seconds, _TOOL),
        ),
        span="internal",
        counted_by=core.TOOL,
    ),
    "claude": Becomes(
        measures=(  # A model that never answered may be a name that a client invented, and such become no label.
            Measure(names.CLAUDE_DURATION, _seconds_if_completed, (*_CLAUDE, *_MODELS)),
            Measure(names.CLAUDE_DURATION, _seconds_unless_completed, _CLAUDE),
            Measure(
                names.CLAUDE_TOKENS,
                _tokens(core.INPUT_TOKENS),
                (core.GEN_AI_OPERATION, core.PROVIDER, *_MODELS),
                {names.TOKEN_TYPE: "input"},
            ),
            Measure(
                names.CLAUDE_TOKENS,
                _tokens(core.OUTPUT_TOKENS),
                (core.GEN_AI_OPERATION, core.PROVIDER, *_MODELS),
                {names.TOKEN_TYPE: "output"},
            ),
        ),
        span="internal",
        # The model asked for may be a name that a client invented; the one that answered is none.
        counted_by=core.RESPONSE_MODEL,
    ),
    "session": Becomes(
        measures=(
            Measure(names.SESSIONS_ACTIVE, _opened_or_closed, ()),
            Measure(names.SESSION_DURATION, _seconds_if_closed, (core.PROTOCOL_VERSION,)),
        ),
        event=LogEvent(names.SESSION_EVENT, logging.INFO),
        is_session=True,
    ),
    "error": Becomes(
        measures=(Measure(names.ERRORS, _one, (core.ERROR_TYPE,)),), event=LogEvent(names.ERROR_EVENT, logging.ERROR)
    ),
    "rejected": Becomes(measures=(Measure(names.REQUESTS_REJECTED, _one, (names.REASON,)),)),
}
"""What each kind of record becomes in every sink."""

EVENTS: Final[Mapping[str, Measure]] = {
    core.CLAUDE_ATTEMPT: Measure(names.CLAUDE_ATTEMPTS, _one, (core.HTTP_STATUS, core.ERROR_TYPE)),
}
"""What an event adds, by its name: once its operation has ended."""

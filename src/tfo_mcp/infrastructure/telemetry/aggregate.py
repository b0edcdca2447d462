"""From records to metrics: exact, cumulative, with bounded label sets. The table is at the end of the file."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from tfo_mcp.application import attributes as core
from tfo_mcp.application.ports import AttributeValue
from tfo_mcp.infrastructure.telemetry import conventions as names
from tfo_mcp.infrastructure.telemetry.conventions import Metric
from tfo_mcp.infrastructure.telemetry.records import Record, RecordKind

MAX_LABEL_SETS = 500
"""Distinct attribute sets of one metric; what comes after them is counted together as overflow."""

_OVERFLOW: Mapping[str, AttributeValue] = MappingProxyType({names.OVERFLOW: True})
_NOTHING: Mapping[str, AttributeValue] = MappingProxyType({})


@dataclass(slots=True)
class Sum:
    """A counter for one attribute set."""

    attributes: Mapping[str, AttributeValue]
    value: float = 0

    def add(self, value: float) -> None:
        self.value += value

    def copy(self) -> Sum:
        return Sum(self.attributes, self.value)


@dataclass(slots=True)
class Histogram:
    """A distribution for one attribute set; `counts` has one entry more than there are bounds."""

    attributes: Mapping[str, AttributeValue]
    bounds: tuple[float, ...]
    counts: list[int]
    sum: float = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def copy(self) -> Histogram:
        return Histogram(self.attributes, self.bounds, self.counts.copy(), self.sum)


Point: TypeAlias = Sum | Histogram


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


class Aggregate:
    """All metrics of this process, cumulative since it was made. Safe from any thread.

    Attributes:
        started_ns: nanoseconds since the epoch.
        changes: rises with every change, so that a reader sees whether there is anything new.
    """

    def __init__(self, *, max_label_sets: int = MAX_LABEL_SETS) -> None:
        self.started_ns = time.time_ns()
        self.changes = 0
        self._max_label_sets = max_label_sets
        self._lock = threading.Lock()
        self._points: dict[Metric, list[Point]] = {}
        self._known: dict[tuple[Measure | Metric, tuple[object, ...]], Point] = {}

    def fold(self, record: Record) -> None:
        """Add what `record` means to every metric of its kind, and what its events count."""
        with self._lock:
            for measure in TABLE[record.kind]:
                self._add(measure, measure.value(record), record.attributes)
            for _, event, attributes in record.events:
                if (measure := EVENTS.get(event)) is not None:
                    self._add(measure, measure.value(record), attributes)
            self.changes += 1

    def count(self, metric: Metric, value: int, attributes: Mapping[str, AttributeValue] = _NOTHING) -> None:
        """Add to a counter that no record stands for."""
        if value == 0:
            return
        key = (metric, tuple(attributes.values()))
        with self._lock:
            point = self._known.get(key)
            if point is None:
                point = self._new_point(key, metric, attributes)
            point.add(value)
            self.changes += 1

    def total(self, metric: Metric) -> int:
        """What a counter has come to, over all attribute sets."""
        with self._lock:
            return int(sum(point.value for point in self._points.get(metric, ()) if isinstance(point, Sum)))

    def snapshot(self) -> Sequence[tuple[Metric, Sequence[Point]]]:
        """Every point as it is now, in copies."""
        with self._lock:
            return [(metric, [point.copy() for point in points]) for metric, points in self._points.items()]

    def _add(self, measure: Measure, value: float | None, attributes: Mapping[str, AttributeValue]) -> None:
        if value is None:
            return
        key = (measure, tuple(map(attributes.get, measure.labels)))
        point = self._known.get(key)
        if point is None:
            labels = {label: attributes[label] for label in measure.labels if label in attributes}
            point = self._new_point(key, measure.metric, {**measure.constant, **labels})
        point.add(value)

    def _new_point(
        self,
        key: tuple[Measure | Metric, tuple[object, ...]],
        metric: Metric,
        attributes: Mapping[str, AttributeValue],
    ) -> Point:
        points = self._points.setdefault(metric, [])
        if len(points) >= self._max_label_sets:
            if points[-1].attributes is not _OVERFLOW:
                points.append(_empty(metric, _OVERFLOW))
            return points[-1]  # not remembered under its key, or the keys would be what has no bound
        point = _empty(metric, attributes)
        points.append(point)
        self._known[key] = point
        return point


def _empty(metric: Metric, attributes: Mapping[str, AttributeValue]) -> Point:
    if metric.buckets is None:
        return Sum(attributes)
    return Histogram(attributes, metric.buckets, [0] * (len(metric.buckets) + 1))


def _one(_: Record) -> float:
    return 1


def _one_error(record: Record) -> float | None:
    return 1 if record.outcome in {"invalid", "failed", "timed_out"} else None


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

TABLE: Mapping[RecordKind, tuple[Measure, ...]] = {
    "request": (Measure(names.OPERATION_DURATION, _seconds, _REQUEST),),
    "tool": (
        Measure(names.TOOL_CALLS, _one, _TOOL),
        Measure(names.TOOL_ERRORS, _one_error, _TOOL),
        Measure(names.TOOL_DURATION, _seconds, _TOOL),
    ),
    "claude": (
        # A model that never answered may be a name that a client invented, and such become no label.
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
    "session": (
        Measure(names.SESSIONS_ACTIVE, _opened_or_closed, ()),
        Measure(names.SESSION_DURATION, _seconds_if_closed, (core.PROTOCOL_VERSION,)),
    ),
    "error": (Measure(names.ERRORS, _one, (core.ERROR_TYPE,)),),
    "rejected": (Measure(names.REQUESTS_REJECTED, _one, (names.REASON,)),),
}
"""What each kind of record adds to which metric."""

EVENTS: Mapping[str, Measure] = {
    core.CLAUDE_ATTEMPT: Measure(names.CLAUDE_ATTEMPTS, _one, (core.HTTP_STATUS, core.ERROR_TYPE)),
}
"""What an event adds, by its name: once its operation has ended."""

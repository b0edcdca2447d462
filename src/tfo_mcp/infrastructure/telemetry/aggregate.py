"""From records to metrics: exact, cumulative, with bounded label sets. What adds to which stands in `table.py`."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from tfo_mcp.application.ports import AttributeValue
from tfo_mcp.infrastructure.telemetry import conventions as names
from tfo_mcp.infrastructure.telemetry.conventions import Metric
from tfo_mcp.infrastructure.telemetry.records import Record
from tfo_mcp.infrastructure.telemetry.table import EVENTS, TABLE, Measure

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
        self._known: defaultdict[Measure | Metric, dict[tuple[object, ...], Point]] = defaultdict(dict)

    def fold(self, record: Record) -> None:
        """Add what `record` means to every metric of its kind, and what its events count."""
        with self._lock:
            self._add(TABLE[record.kind].measures, record, record.attributes)
            for _, event, attributes in record.events:
                if (measure := EVENTS.get(event)) is not None:
                    self._add((measure,), record, attributes)
            self.changes += 1

    def count(self, metric: Metric, value: int, attributes: Mapping[str, AttributeValue] = _NOTHING) -> None:
        """Add to a counter that no record stands for."""
        if value == 0:
            return
        key = tuple(attributes.values())
        with self._lock:
            point = self._known[metric].get(key) or self._new_point(metric, key, metric, attributes)
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

    def _add(self, measures: Sequence[Measure], record: Record, attributes: Mapping[str, AttributeValue]) -> None:
        labels, key = (), ()
        for measure in measures:
            value = measure.value(record)
            if value is None:
                continue
            if measure.labels is not labels:  # those of a kind have mostly the same
                labels, key = measure.labels, tuple(map(attributes.get, measure.labels))
            point = self._known[measure].get(key)
            if point is None:
                known = {label: attributes[label] for label in labels if label in attributes}
                point = self._new_point(measure, key, measure.metric, {**measure.constant, **known})
            point.add(value)

    def _new_point(
        self,
        source: Measure | Metric,
        key: tuple[object, ...],
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
        self._known[source][key] = point
        return point


def _empty(metric: Metric, attributes: Mapping[str, AttributeValue]) -> Point:
    if metric.buckets is None:
        return Sum(attributes)
    return Histogram(attributes, metric.buckets, [0] * (len(metric.buckets) + 1))

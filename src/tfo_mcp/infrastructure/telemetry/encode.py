"""Records and points as OTLP protobuf. Imported on the pipeline's thread only: protobuf is heavy."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs, SeverityNumber
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics, ScopeMetrics
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from tfo_mcp.application.ports import TraceContext
from tfo_mcp.infrastructure.telemetry.aggregate import Point, Sum
from tfo_mcp.infrastructure.telemetry.conventions import ERROR_EVENT, SCOPE, SESSION_EVENT, Metric
from tfo_mcp.infrastructure.telemetry.records import Item, LogEntry, Record, signal_of
from tfo_mcp.infrastructure.telemetry.spool import MAX_MESSAGE
from tfo_mcp.infrastructure.telemetry.spool_file import Parcel

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext

MAX_VALUE_LENGTH = 1024
"""Characters of one attribute's value; the rest is cut off."""

MAX_BODY_LENGTH = 4096
"""Characters of a log record's body."""

_SHORT = 64
"""Characters of a value up to which an attribute is remembered."""

_KINDS = {"request": Span.SPAN_KIND_SERVER, "tool": Span.SPAN_KIND_INTERNAL, "claude": Span.SPAN_KIND_INTERNAL}
_FAILURES = frozenset({"invalid", "failed", "timed_out"})

# OTLP's `Span.flags`: the sampled bit of W3C trace context; whether the parent is remote, and that we know it.
_SAMPLED, _KNOWN, _REMOTE = 0x1, 0x100, 0x200

_SEVERITIES = (
    (logging.CRITICAL, SeverityNumber.SEVERITY_NUMBER_FATAL),
    (logging.ERROR, SeverityNumber.SEVERITY_NUMBER_ERROR),
    (logging.WARNING, SeverityNumber.SEVERITY_NUMBER_WARN),
    (logging.INFO, SeverityNumber.SEVERITY_NUMBER_INFO),
    (logging.DEBUG, SeverityNumber.SEVERITY_NUMBER_DEBUG),
    (0, SeverityNumber.SEVERITY_NUMBER_TRACE),
)
"""The least level of `logging` to OTLP's severity."""

_CUMULATIVE = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE


class Encoder:
    """Makes parcels.

    Args:
        resource: attributes of this process.
        version: of this package, for its instrumentation scope.
        redact: takes secrets out of what was logged, before it is cut to length.
    """

    def __init__(self, resource: Mapping[str, object], version: str, redact: Callable[[str], str]) -> None:
        self._redact = redact
        self._resource = Resource(attributes=_attributes(resource))
        self._scope = InstrumentationScope(name=SCOPE, version=version)

    def spans(self, items: Sequence[Item]) -> Iterator[Parcel]:
        """The items that become spans, in as few parcels as collectors will take."""
        scopes: dict[tuple[str, str], ScopeSpans] = {}
        count = 0
        for item in items:
            if isinstance(item, LogEntry) or signal_of(item) != "traces":
                continue
            if isinstance(item, Record):
                scope, span = self._scope, _own_span(item)
            else:
                scope, span = _library_scope(item.span), _library_span(item.span)
            key = (scope.name, scope.version)
            if key not in scopes:
                scopes[key] = ScopeSpans(scope=scope)
            scopes[key].spans.append(span)
            count += 1
        if not count:
            return
        resource_spans = ResourceSpans(resource=self._resource, scope_spans=scopes.values())
        body = ExportTraceServiceRequest(resource_spans=[resource_spans]).SerializeToString()
        if len(body) > MAX_MESSAGE and len(items) > 1:
            middle = len(items) // 2
            yield from self.spans(items[:middle])
            yield from self.spans(items[middle:])
        else:
            yield Parcel("traces", body, count)

    def logs(self, items: Sequence[Item]) -> Iterator[Parcel]:
        """The items that become log records, in as few parcels as collectors will take."""
        records = [self._log_record(item) for item in items if signal_of(item) == "logs"]
        if not records:
            return
        scope_logs = ScopeLogs(scope=self._scope, log_records=records)
        resource_logs = ResourceLogs(resource=self._resource, scope_logs=[scope_logs])
        body = ExportLogsServiceRequest(resource_logs=[resource_logs]).SerializeToString()
        if len(body) > MAX_MESSAGE and len(items) > 1:
            middle = len(items) // 2
            yield from self.logs(items[:middle])
            yield from self.logs(items[middle:])
        else:
            yield Parcel("logs", body, len(records))

    def _log_record(self, item: Item) -> LogRecord:
        entry, event = (item, "") if isinstance(item, LogEntry) else _event(cast("Record", item))
        record = LogRecord(
            time_unix_nano=entry.time_ns,
            observed_time_unix_nano=entry.observed_ns,
            severity_number=next(severity for least, severity in _SEVERITIES if entry.level[0] >= least),
            severity_text=_text(entry.level[1]),
            body=AnyValue(string_value=_text(self._redact(entry.body), MAX_BODY_LENGTH)),
            attributes=_attributes(
                {
                    key: self._redact(value) if isinstance(value, str) else value
                    for key, value in entry.attributes.items()
                }
            ),
            event_name=event,
        )
        if entry.context is not None:
            record.trace_id = entry.context.trace_id.to_bytes(16, "big")
            record.span_id = entry.context.span_id.to_bytes(8, "big")
            record.flags = _SAMPLED
        return record

    def metrics(self, snapshot: Iterable[tuple[Metric, Sequence[Point]]], started_ns: int) -> Parcel:
        """All metrics as they are now, cumulative since `started_ns`."""
        now = max(time.time_ns(), started_ns)  # or a clock that was set back would make every point invalid
        scope_metrics = ScopeMetrics(
            scope=self._scope, metrics=[_metric(metric, points, started_ns, now) for metric, points in snapshot]
        )
        resource_metrics = ResourceMetrics(resource=self._resource, scope_metrics=[scope_metrics])
        return Parcel("metrics", ExportMetricsServiceRequest(resource_metrics=[resource_metrics]).SerializeToString())


def _own_span(record: Record) -> Span:
    context = cast("TraceContext", record.context)
    span = Span(
        trace_id=context.trace_id.to_bytes(16, "big"),
        span_id=context.span_id.to_bytes(8, "big"),
        trace_state="" if context.carried is None else context.carried.trace_state,
        # The parent of a request can only be the client's span.
        flags=_SAMPLED | _KNOWN | (_REMOTE if record.kind == "request" and record.parent_id else 0),
        name=_text(record.name),
        kind=_KINDS[record.kind],
        start_time_unix_nano=record.start_ns,
        end_time_unix_nano=record.start_ns + record.duration_ns,
        attributes=_attributes(record.attributes),
        events=[
            Span.Event(time_unix_nano=at, name=name, attributes=_attributes(attributes))
            for at, name, attributes in record.events
        ],
    )
    if record.parent_id:
        span.parent_span_id = record.parent_id.to_bytes(8, "big")
    if record.outcome in _FAILURES:  # without a description: an error's text may hold secrets
        span.status.code = Status.STATUS_CODE_ERROR
    return span


def _event(record: Record) -> tuple[LogEntry, str]:
    """What happened as a log record, and its event's name. Its body is that name in words, for who knows no events."""
    if record.kind == "error":
        name, level = ERROR_EVENT, (logging.ERROR, "ERROR")
    else:
        name, level = f"{SESSION_EVENT}{record.name}", (logging.INFO, "INFO")
    body = name.removeprefix("tfo.").replace(".", " ")
    return LogEntry(record.start_ns, record.start_ns, level, body, record.context, record.attributes), name


def _library_scope(span: ReadableSpan) -> InstrumentationScope:
    scope = span.instrumentation_scope
    return (
        InstrumentationScope() if scope is None else InstrumentationScope(name=scope.name, version=scope.version or "")
    )


def _library_span(source: ReadableSpan) -> Span:
    context = cast("SpanContext", source.get_span_context())
    parent = source.parent
    start = source.start_time or 0
    span = Span(
        trace_id=context.trace_id.to_bytes(16, "big"),
        span_id=context.span_id.to_bytes(8, "big"),
        trace_state=context.trace_state.to_header(),
        flags=int(context.trace_flags) | _KNOWN | (_REMOTE if parent is not None and parent.is_remote else 0),
        name=_text(source.name),
        kind=cast("Span.SpanKind.ValueType", source.kind.value + 1),  # OTLP counts from 1, 0 being "unspecified"
        start_time_unix_nano=start,
        end_time_unix_nano=max(source.end_time or start, start),
        attributes=_attributes(source.attributes or {}),
        events=[
            Span.Event(
                time_unix_nano=event.timestamp, name=_text(event.name), attributes=_attributes(event.attributes or {})
            )
            for event in source.events
        ],
        links=[
            Span.Link(
                trace_id=link.context.trace_id.to_bytes(16, "big"),
                span_id=link.context.span_id.to_bytes(8, "big"),
                attributes=_attributes(link.attributes or {}),
            )
            for link in source.links
        ],
        status=Status(
            code=cast("Status.StatusCode.ValueType", source.status.status_code.value),
            message=_text(source.status.description or ""),
        ),
    )
    if parent is not None:
        span.parent_span_id = parent.span_id.to_bytes(8, "big")
    return span


def _metric(metric: Metric, points: Sequence[Point], started: int, now: int) -> metrics_pb2.Metric:
    encoded = metrics_pb2.Metric(name=metric.name, unit=metric.unit, description=metric.description)
    if metric.buckets is None:
        encoded.sum.aggregation_temporality = _CUMULATIVE
        encoded.sum.is_monotonic = metric.monotonic
    else:
        encoded.histogram.aggregation_temporality = _CUMULATIVE
    for point in points:
        attributes = _attributes(point.attributes)
        if isinstance(point, Sum):
            encoded.sum.data_points.add(
                attributes=attributes, start_time_unix_nano=started, time_unix_nano=now, as_int=int(point.value)
            )
        else:
            encoded.histogram.data_points.add(
                attributes=attributes,
                start_time_unix_nano=started,
                time_unix_nano=now,
                count=sum(point.counts),
                sum=point.sum,
                bucket_counts=point.counts,
                explicit_bounds=point.bounds,
            )
    return encoded


def _attributes(attributes: Mapping[str, object]) -> list[KeyValue]:
    return [
        _remembered(key, value) if isinstance(value, str) and len(value) <= _SHORT else _attribute(key, value)
        for key, value in attributes.items()
    ]


def _attribute(key: str, value: object) -> KeyValue:
    return KeyValue(key=key, value=_value(value))


_remembered = lru_cache(512)(_attribute)
"""Most attributes of a span are those of the span before, and whatever takes one copies it."""


def _value(value: object) -> AnyValue:
    if isinstance(value, bool):  # before int, which it is too
        return AnyValue(bool_value=value)
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, list | tuple):  # libraries' only
        return AnyValue(array_value=ArrayValue(values=[_value(each) for each in cast("Sequence[object]", value)]))
    return AnyValue(string_value=_text(str(value)))


def _text(text: str, length: int = MAX_VALUE_LENGTH) -> str:
    """Cut to length; without lone surrogates, which protobuf refuses."""
    text = text[:length]
    return text if text.isascii() else text.encode("utf-8", "replace").decode()

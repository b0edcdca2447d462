"""Records and points as OTLP protobuf. Imported on the pipeline's thread only: protobuf is heavy."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs, SeverityNumber
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics, ScopeMetrics
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tfo_mcp.infrastructure.telemetry.aggregate import Point, Sum
from tfo_mcp.infrastructure.telemetry.conventions import SCOPE, Metric
from tfo_mcp.infrastructure.telemetry.otlp_values import key_values, text
from tfo_mcp.infrastructure.telemetry.records import Item, LibrarySpan, LogEntry, Record
from tfo_mcp.infrastructure.telemetry.span_bytes import KNOWN, REMOTE, SAMPLED, delimited, own_span
from tfo_mcp.infrastructure.telemetry.spool import MAX_MESSAGE
from tfo_mcp.infrastructure.telemetry.spool_file import Parcel
from tfo_mcp.infrastructure.telemetry.table import TABLE, LogEvent

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext

MAX_BODY_LENGTH = 4096
"""Characters of a log record's body."""

_SEVERITIES = (
    (logging.CRITICAL, SeverityNumber.SEVERITY_NUMBER_FATAL),
    (logging.ERROR, SeverityNumber.SEVERITY_NUMBER_ERROR),
    (logging.WARNING, SeverityNumber.SEVERITY_NUMBER_WARN),
    (logging.INFO, SeverityNumber.SEVERITY_NUMBER_INFO),
    (logging.DEBUG, SeverityNumber.SEVERITY_NUMBER_DEBUG),
    (0, SeverityNumber.SEVERITY_NUMBER_TRACE),
)
"""The least level of `logging` to OTLP's severity."""

# The tags (see `span_bytes`) of `ExportTraceServiceRequest`, `ResourceSpans` and `ScopeSpans`: each lists the next.
_RESOURCE_SPANS = b"\x0a"
_RESOURCE, _SCOPE_SPANS = b"\x0a", b"\x12"
_SCOPE, _SPANS = b"\x0a", b"\x12"

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
        self._resource = Resource(attributes=key_values(resource))
        self._scope = InstrumentationScope(name=SCOPE, version=version)
        self._resource_bytes = self._resource.SerializeToString()
        self._scope_bytes = self._scope.SerializeToString()

    def spans(self, items: Sequence[Item]) -> Iterator[Parcel]:
        """Items of the signal "traces", in as few parcels as collectors will take."""
        scopes: dict[bytes, list[bytes]] = {}
        for item in items:
            if isinstance(item, Record):
                scope, span = self._scope_bytes, own_span(item)
            else:
                library = cast("LibrarySpan", item).span
                scope, span = _library_scope(library), _library_span(library).SerializeToString()
            scopes.setdefault(scope, []).append(delimited(_SPANS, span))
        if not scopes:
            return
        groups = [
            delimited(_SCOPE_SPANS, delimited(_SCOPE, scope) + b"".join(spans)) for scope, spans in scopes.items()
        ]
        body = delimited(_RESOURCE_SPANS, delimited(_RESOURCE, self._resource_bytes) + b"".join(groups))
        if len(body) > MAX_MESSAGE and len(items) > 1:
            middle = len(items) // 2
            yield from self.spans(items[:middle])
            yield from self.spans(items[middle:])
        else:
            yield Parcel("traces", body, len(items))

    def logs(self, items: Sequence[Item]) -> Iterator[Parcel]:
        """Items of the signal "logs", in as few parcels as collectors will take."""
        if not items:
            return
        scope_logs = ScopeLogs(scope=self._scope, log_records=[self._log_record(item) for item in items])
        resource_logs = ResourceLogs(resource=self._resource, scope_logs=[scope_logs])
        body = ExportLogsServiceRequest(resource_logs=[resource_logs]).SerializeToString()
        if len(body) > MAX_MESSAGE and len(items) > 1:
            middle = len(items) // 2
            yield from self.logs(items[:middle])
            yield from self.logs(items[middle:])
        else:
            yield Parcel("logs", body, len(items))

    def _log_record(self, item: Item) -> LogRecord:
        entry, event = (item, "") if isinstance(item, LogEntry) else _event(cast("Record", item))
        record = LogRecord(
            time_unix_nano=entry.time_ns,
            observed_time_unix_nano=entry.observed_ns,
            severity_number=next(severity for least, severity in _SEVERITIES if entry.level[0] >= least),
            severity_text=text(entry.level[1]),
            body=AnyValue(string_value=text(self._redact(entry.body), MAX_BODY_LENGTH)),
            attributes=key_values(
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
            record.flags = SAMPLED
        return record

    def metrics(self, snapshot: Iterable[tuple[Metric, Sequence[Point]]], started_ns: int) -> Parcel:
        """All metrics as they are now, cumulative since `started_ns`."""
        now = max(time.time_ns(), started_ns)  # or a clock that was set back would make every point invalid
        scope_metrics = ScopeMetrics(
            scope=self._scope, metrics=[_metric(metric, points, started_ns, now) for metric, points in snapshot]
        )
        resource_metrics = ResourceMetrics(resource=self._resource, scope_metrics=[scope_metrics])
        return Parcel("metrics", ExportMetricsServiceRequest(resource_metrics=[resource_metrics]).SerializeToString())


def _event(record: Record) -> tuple[LogEntry, str]:
    """What happened as a log record, and its event's name. Its body is that name in words, for who knows no events."""
    event = cast("LogEvent", TABLE[record.kind].event)
    name = f"{event.name}{record.name}" if event.name.endswith(".") else event.name
    level = (event.level, logging.getLevelName(event.level))
    body = name.removeprefix("tfo.").replace(".", " ")
    return LogEntry(record.start_ns, record.start_ns, level, body, record.context, record.attributes), name


def _library_scope(span: ReadableSpan) -> bytes:
    scope = span.instrumentation_scope
    if scope is None:
        return b""
    return InstrumentationScope(name=scope.name, version=scope.version or "").SerializeToString()


def _library_span(source: ReadableSpan) -> Span:
    context = cast("SpanContext", source.get_span_context())
    parent = source.parent
    start = source.start_time or 0
    span = Span(
        trace_id=context.trace_id.to_bytes(16, "big"),
        span_id=context.span_id.to_bytes(8, "big"),
        trace_state=context.trace_state.to_header(),
        flags=int(context.trace_flags) | KNOWN | (REMOTE if parent is not None and parent.is_remote else 0),
        name=text(source.name),
        kind=cast("Span.SpanKind.ValueType", source.kind.value + 1),  # OTLP counts from 1, 0 being "unspecified"
        start_time_unix_nano=start,
        end_time_unix_nano=max(source.end_time or start, start),
        attributes=key_values(source.attributes or {}),
        events=[
            Span.Event(
                time_unix_nano=event.timestamp, name=text(event.name), attributes=key_values(event.attributes or {})
            )
            for event in source.events
        ],
        links=[
            Span.Link(
                trace_id=link.context.trace_id.to_bytes(16, "big"),
                span_id=link.context.span_id.to_bytes(8, "big"),
                attributes=key_values(link.attributes or {}),
            )
            for link in source.links
        ],
        status=Status(
            code=cast("Status.StatusCode.ValueType", source.status.status_code.value),
            message=text(source.status.description or ""),
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
        attributes = key_values(point.attributes)
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

"""Records and points as OTLP protobuf. Imported on the pipeline's thread only: protobuf is heavy."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics, ScopeMetrics
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from tfo_mcp.infrastructure.telemetry.aggregate import Point, Sum
from tfo_mcp.infrastructure.telemetry.conventions import SCOPE, Metric
from tfo_mcp.infrastructure.telemetry.outbox import MAX_MESSAGE, Parcel
from tfo_mcp.infrastructure.telemetry.records import Item, Record

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext

MAX_VALUE_LENGTH = 1024
"""Characters of one attribute's value; the rest is cut off."""

_SHORT = 64
"""Characters of a value up to which an attribute is remembered."""

_KINDS = {"request": Span.SPAN_KIND_SERVER, "tool": Span.SPAN_KIND_INTERNAL, "claude": Span.SPAN_KIND_INTERNAL}
_FAILURES = frozenset({"invalid", "failed", "timed_out"})

# OTLP's `Span.flags`: the sampled bit of W3C trace context; whether the parent is remote, and that we know it.
_SAMPLED, _KNOWN, _REMOTE = 0x1, 0x100, 0x200

_CUMULATIVE = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE


class Encoder:
    """Makes parcels.

    Args:
        resource: attributes of this process.
        version: of this package, for its instrumentation scope.
    """

    def __init__(self, resource: Mapping[str, object], version: str) -> None:
        self._resource = Resource(attributes=_attributes(resource))
        self._scope = InstrumentationScope(name=SCOPE, version=version)

    def spans(self, items: Sequence[Item]) -> Iterator[Parcel]:
        """The items that become spans, in as few parcels as collectors will take."""
        scopes: dict[tuple[str, str], ScopeSpans] = {}
        count = 0
        for item in items:
            if isinstance(item, Record):
                if item.context is None:
                    continue
                scope, span = self._scope, _own_span(item, item.context.trace_id, item.context.span_id)
            else:
                scope, span = _library_scope(item), _library_span(item)
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

    def metrics(self, snapshot: Iterable[tuple[Metric, Sequence[Point]]], started_ns: int) -> Parcel:
        """All metrics as they are now, cumulative since `started_ns`."""
        now = time.time_ns()
        scope_metrics = ScopeMetrics(
            scope=self._scope, metrics=[_metric(metric, points, started_ns, now) for metric, points in snapshot]
        )
        resource_metrics = ResourceMetrics(resource=self._resource, scope_metrics=[scope_metrics])
        return Parcel("metrics", ExportMetricsServiceRequest(resource_metrics=[resource_metrics]).SerializeToString())


def _own_span(record: Record, trace_id: int, span_id: int) -> Span:
    span = Span(
        trace_id=trace_id.to_bytes(16, "big"),
        span_id=span_id.to_bytes(8, "big"),
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


def _text(text: str) -> str:
    """Cut to length; without lone surrogates, which protobuf refuses."""
    text = text[:MAX_VALUE_LENGTH]
    return text if text.isascii() else text.encode("utf-8", "replace").decode()

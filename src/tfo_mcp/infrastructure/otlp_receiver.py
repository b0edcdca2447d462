"""A small OTLP collector in this process: takes spans, metrics and log records over gRPC and shows them as plain data.

For demonstrations and tests. Import it late: it needs grpc and protobuf.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import TYPE_CHECKING, Any, NotRequired, TypeAlias, TypedDict

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
    from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, Metric, NumberDataPoint

Attributes: TypeAlias = dict[str, Any]


class ReceivedEvent(TypedDict):
    """An event of a span. `offset` in seconds since the span's start."""

    name: str
    offset: float
    attributes: Attributes


class ReceivedSpan(TypedDict):
    """A span. Ids in hex, `parent_id` empty at the root; `start` in seconds since the epoch, `duration` in seconds."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    trace_state: str
    start: float
    duration: float
    attributes: Attributes
    status: str
    events: list[ReceivedEvent]
    scope: str
    resource: Attributes


class ReceivedLog(TypedDict):
    """A log record. Ids in hex, empty outside an operation; `event` empty where it is none; times since the epoch."""

    time: float
    observed: float
    severity: int
    level: str
    body: str
    event: str
    trace_id: str
    span_id: str
    attributes: Attributes
    scope: str
    resource: Attributes


class ReceivedPoint(TypedDict):
    """A metric's latest point for one attribute set: `value`, or for a histogram the other three."""

    attributes: Attributes
    value: NotRequired[float]
    count: NotRequired[int]
    sum: NotRequired[float]
    buckets: NotRequired[dict[float, int]]


class OtlpStore:
    """What was received, decoded. Safe from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._spans: list[ReceivedSpan] = []
        self._metrics: dict[str, dict[object, ReceivedPoint]] = {}
        self._logs: list[ReceivedLog] = []

    def spans(self) -> list[ReceivedSpan]:
        """Every span so far, in the order of arrival."""
        with self._changed:
            return list(self._spans)

    def metrics(self) -> dict[str, list[ReceivedPoint]]:
        """Metric name to its latest points, one for each sender and attribute set."""
        with self._changed:
            return {name: list(points.values()) for name, points in self._metrics.items()}

    def logs(self) -> list[ReceivedLog]:
        """Every log record so far, in the order of arrival."""
        with self._changed:
            return list(self._logs)

    def wait_for(self, predicate: Callable[[], bool], timeout: float) -> bool:
        """Wait until `predicate`, asked after each arrival, is true; False where it is not within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(predicate, timeout)

    def add_traces(self, body: bytes) -> bytes:
        """Take an ExportTraceServiceRequest; returns the response.

        Raises:
            google.protobuf.message.DecodeError: it is none.
        """
        request = ExportTraceServiceRequest.FromString(body)
        with self._changed:
            for group in request.resource_spans:
                resource = _attributes(group.resource.attributes)
                for scope in group.scope_spans:
                    self._spans.extend(_span(span, scope.scope.name, resource) for span in scope.spans)
            self._changed.notify_all()
        return ExportTraceServiceResponse().SerializeToString()

    def add_metrics(self, body: bytes) -> bytes:
        """Take an ExportMetricsServiceRequest; returns the response.

        Raises:
            google.protobuf.message.DecodeError: it is none.
        """
        request = ExportMetricsServiceRequest.FromString(body)
        with self._changed:
            for group in request.resource_metrics:
                sender = group.resource.SerializeToString(deterministic=True)
                for scope in group.scope_metrics:
                    for metric in scope.metrics:
                        points = self._metrics.setdefault(metric.name, {})
                        for point in _points(metric):
                            points[sender, tuple(sorted(point["attributes"].items()))] = point
            self._changed.notify_all()
        return ExportMetricsServiceResponse().SerializeToString()

    def add_logs(self, body: bytes) -> bytes:
        """Take an ExportLogsServiceRequest; returns the response.

        Raises:
            google.protobuf.message.DecodeError: it is none.
        """
        request = ExportLogsServiceRequest.FromString(body)
        with self._changed:
            for group in request.resource_logs:
                resource = _attributes(group.resource.attributes)
                for scope in group.scope_logs:
                    self._logs.extend(_log(record, scope.scope.name, resource) for record in scope.log_records)
            self._changed.notify_all()
        return ExportLogsServiceResponse().SerializeToString()


class OtlpReceiver(OtlpStore):
    """An OTLP endpoint over gRPC on the loopback."""

    def __init__(self) -> None:
        super().__init__()
        self._grpc: Any = import_module("grpc")  # it ships no types
        self._server: Any = None
        self.endpoint = ""
        """`http://host:port`, once it has started."""

    def start(self, port: int = 0) -> str:
        """Listen on `port`, 0 for any that is free; returns the endpoint.

        Raises:
            OSError: the port is taken.
        """
        self._server = self._grpc.server(ThreadPoolExecutor(2, "otlp-receiver"), options=[("grpc.so_reuseport", 0)])
        for service, take in (
            ("opentelemetry.proto.collector.trace.v1.TraceService", self._take_traces),
            ("opentelemetry.proto.collector.metrics.v1.MetricsService", self._take_metrics),
            ("opentelemetry.proto.collector.logs.v1.LogsService", self._take_logs),
        ):
            method = self._grpc.unary_unary_rpc_method_handler(take)
            self._server.add_generic_rpc_handlers(
                (self._grpc.method_handlers_generic_handler(service, {"Export": method}),)
            )
        try:
            bound = self._server.add_insecure_port(f"127.0.0.1:{port}")
        except RuntimeError as error:
            raise OSError(f"cannot listen on port {port}") from error
        self._server.start()
        self.endpoint = f"http://127.0.0.1:{bound}"
        return self.endpoint

    def stop(self) -> None:
        """Listen no more; what was received stays."""
        if self._server is not None:
            self._server.stop(grace=None).wait()

    def _take_traces(self, body: bytes, context: Any) -> bytes:  # noqa: ANN401, ARG002  # grpc's, without a type
        return self.add_traces(body)

    def _take_metrics(self, body: bytes, context: Any) -> bytes:  # noqa: ANN401, ARG002  # grpc's, without a type
        return self.add_metrics(body)

    def _take_logs(self, body: bytes, context: Any) -> bytes:  # noqa: ANN401, ARG002  # grpc's, without a type
        return self.add_logs(body)


def _span(span: Span, scope: str, resource: Attributes) -> ReceivedSpan:
    start = span.start_time_unix_nano
    return {
        "name": span.name,
        "kind": Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent_id": span.parent_span_id.hex(),
        "trace_state": span.trace_state,
        "start": start / 1e9,
        "duration": (span.end_time_unix_nano - start) / 1e9,
        "attributes": _attributes(span.attributes),
        "status": Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
        "events": [
            {
                "name": event.name,
                "offset": (event.time_unix_nano - start) / 1e9,
                "attributes": _attributes(event.attributes),
            }
            for event in span.events
        ],
        "scope": scope,
        "resource": resource,
    }


def _log(record: LogRecord, scope: str, resource: Attributes) -> ReceivedLog:
    return {
        "time": record.time_unix_nano / 1e9,
        "observed": record.observed_time_unix_nano / 1e9,
        "severity": record.severity_number,
        "level": record.severity_text,
        "body": _value(record.body),
        "event": record.event_name,
        "trace_id": record.trace_id.hex(),
        "span_id": record.span_id.hex(),
        "attributes": _attributes(record.attributes),
        "scope": scope,
        "resource": resource,
    }


def _points(metric: Metric) -> list[ReceivedPoint]:
    return [
        *map(_number, metric.sum.data_points),
        *map(_number, metric.gauge.data_points),
        *map(_histogram, metric.histogram.data_points),
    ]


def _number(point: NumberDataPoint) -> ReceivedPoint:
    value = point.as_int if point.HasField("as_int") else point.as_double
    return {"attributes": _attributes(point.attributes), "value": value}


def _histogram(point: HistogramDataPoint) -> ReceivedPoint:
    bounds = (*point.explicit_bounds, float("inf"))
    return {
        "attributes": _attributes(point.attributes),
        "count": point.count,
        "sum": point.sum,
        "buckets": dict(zip(bounds, point.bucket_counts, strict=True)),
    }


def _attributes(attributes: Sequence[KeyValue]) -> Attributes:
    return {attribute.key: _value(attribute.value) for attribute in attributes}


def _value(value: AnyValue) -> Any:  # noqa: ANN401  # OTLP's union
    match value.WhichOneof("value"):
        case "array_value":
            return tuple(_value(each) for each in value.array_value.values)
        case "kvlist_value":
            return tuple(sorted((each.key, _value(each.value)) for each in value.kvlist_value.values))
        case None:
            return None
        case kind:
            return getattr(value, kind)

from __future__ import annotations

import os
import platform
import socket
import sys
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Literal

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from support.otlp import DEADLINE, Receiver, Reply, free_port, receiving
from tfo_mcp.application.ports import Carried, TraceContext
from tfo_mcp.infrastructure.telemetry.client import MCPTelemetryClient
from tfo_mcp.infrastructure.telemetry.options import TelemetryOptions
from tfo_mcp.infrastructure.telemetry.transport import connect

Wire = Literal["grpc", "http"]
BOTH = pytest.mark.parametrize("wire", ["grpc", "http"])


def a_client(receiver: Receiver, wire: Wire, **more: Any) -> MCPTelemetryClient:  # noqa: ANN401  # options by name
    quick = {"retry_initial": 0.01, "export_delay": 0.01}
    options: dict[str, Any] = {"endpoint": receiver.endpoint, "protocol": wire, **quick, **more}
    client = MCPTelemetryClient(TelemetryOptions(**options))
    client.start()
    return client


def record_a_call(client: MCPTelemetryClient) -> None:
    client.span("request", "ping", attributes={"mcp.method.name": "ping"}).end("completed")


def value(receiver: Receiver, metric: str, **attributes: str) -> float | None:
    """The value of a counter's point with exactly these attributes; `_` stands for `.`."""
    wanted = {name.replace("_", "."): each for name, each in attributes.items()}
    found = [point.get("value") for point in receiver.metrics().get(metric, []) if point["attributes"] == wanted]
    return found[0] if found else None


@pytest.mark.behaviour(
    "telemetry.serialized", "telemetry.attributes", "telemetry.timestamps", "telemetry.context", "telemetry.tool.event"
)
@BOTH
def test_a_tool_call_arrives_whole(wire: Wire) -> None:
    with receiving(wire) as receiver:
        client = a_client(
            receiver,
            wire,
            service_name="tfo-mcp",
            service_version="9.9",
            namespace="telemetryflow",
            environment="test",
            instance_id="instance-1",
        )
        request = client.span(
            "request",
            "tools/call",
            parent=TraceContext(0xA1, 0xB2, Carried("vendor=1", {"user": "not for us"})),
            attributes={"mcp.method.name": "tools/call", "network.transport": "pipe", "jsonrpc.request.id": "1"},
        )
        request.name = "tools/call echo"
        request.set("gen_ai.tool.name", "echo")
        tool = client.span("tool", "tools.execute", parent=request.context, attributes={"gen_ai.tool.name": "echo"})
        tool.add_event("error", {"attempt": 2, "share": 0.5, "last": True})
        tool.end("timed_out", "timeout")
        request.end("failed", "tool_error")
        assert client.shutdown(DEADLINE)

        resource = {
            "process.pid": os.getpid(),
            "process.runtime.name": sys.implementation.name,
            "process.runtime.version": platform.python_version(),
            "os.type": "windows" if sys.platform == "win32" else sys.platform,
            "service.name": "tfo-mcp",
            "service.version": "9.9",
            "service.namespace": "telemetryflow",
            "service.instance.id": "instance-1",
            "deployment.environment.name": "test",
            "telemetry.sdk.name": "tfo_mcp",
            "telemetry.sdk.language": "python",
            "telemetry.sdk.version": "9.9",
        }
        spans: list[dict[str, Any]] = [dict(span) for span in receiver.spans()]
        for span in spans:
            assert time.time() - DEADLINE < span.pop("start") <= time.time()
            assert 0 <= span.pop("duration") < DEADLINE
        events = spans[0].pop("events")
        assert 0 <= events[0].pop("offset") < DEADLINE
        assert events == [{"name": "error", "attributes": {"attempt": 2, "share": 0.5, "last": True}}]
        assert spans == [
            {
                "name": "tools.execute",
                "kind": "INTERNAL",
                "trace_id": f"{0xA1:032x}",
                "span_id": f"{tool.context.span_id:016x}",
                "parent_id": f"{request.context.span_id:016x}",
                "trace_state": "vendor=1",
                "attributes": {"gen_ai.tool.name": "echo", "outcome": "timed_out", "error.type": "timeout"},
                "status": "ERROR",
                "scope": "tfo_mcp",
                "resource": resource,
            },
            {
                "name": "tools/call echo",
                "kind": "SERVER",
                "trace_id": f"{0xA1:032x}",
                "span_id": f"{request.context.span_id:016x}",
                "parent_id": f"{0xB2:016x}",
                "trace_state": "vendor=1",
                "attributes": {
                    "mcp.method.name": "tools/call",
                    "network.transport": "pipe",
                    "jsonrpc.request.id": "1",
                    "gen_ai.tool.name": "echo",
                    "outcome": "failed",
                    "error.type": "tool_error",
                },
                "status": "ERROR",
                "events": [],
                "scope": "tfo_mcp",
                "resource": resource,
            },
        ]


@pytest.mark.behaviour("telemetry.context")
def test_metrics_and_log_records_say_of_what_process_they_are_as_spans_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving("http") as receiver:
        bodies: list[bytes] = []

        def keep(body: bytes) -> bytes:
            bodies.append(body)
            return b""

        monkeypatch.setattr(receiver, "add_metrics", keep)  # what is decoded there has its points only
        client = a_client(receiver, "http", service_name="tfo-mcp", resource_attributes={"team": "blue"})
        record_a_call(client)
        client.record_error("RuntimeError", {})
        assert client.shutdown(DEADLINE)
        (span, *_), (record, *_) = receiver.spans(), receiver.logs()
        resources = [
            {each.key: each.value.string_value or each.value.int_value for each in group.resource.attributes}
            for body in bodies
            for group in ExportMetricsServiceRequest.FromString(body).resource_metrics
        ]
    assert (span["resource"]["service.name"], span["resource"]["team"]) == ("tfo-mcp", "blue")
    assert resources
    assert all(resource == span["resource"] for resource in [*resources, record["resource"]])


@pytest.mark.behaviour("telemetry.serialized", "telemetry.tool.counted", "telemetry.rejected.counted")
@BOTH
def test_metrics_arrive_whole_and_cumulative(wire: Wire) -> None:
    with receiving(wire) as receiver:
        client = a_client(receiver, wire)
        for _ in range(2):
            client.span("tool", "tools.execute", attributes={"gen_ai.tool.name": "echo"}).end("completed")
            assert client.flush(DEADLINE)
        client.span("tool", "tools.execute", attributes={"gen_ai.tool.name": "echo"}).end(
            "invalid", "invalid_arguments"
        )
        client.record_rejected("parse error")
        assert client.shutdown(DEADLINE)

        completed = {"gen_ai.tool.name": "echo", "outcome": "completed"}
        invalid = {"gen_ai.tool.name": "echo", "outcome": "invalid", "error.type": "invalid_arguments"}
        metrics = receiver.metrics()
        durations = metrics.pop("mcp.tools.duration")
        assert [(point["attributes"], point.get("count")) for point in durations] == [(completed, 2), (invalid, 1)]
        for point in durations:
            buckets = point.get("buckets", {})
            assert list(buckets)[:3] == [0.0001, 0.00025, 0.0005]
            assert sum(buckets.values()) == point.get("count")
        assert metrics == {
            "mcp.tools.calls": [{"attributes": completed, "value": 2}, {"attributes": invalid, "value": 1}],
            "mcp.tools.errors": [{"attributes": invalid, "value": 1}],
            "tfo.mcp.requests.rejected": [{"attributes": {"reason": "parse error"}, "value": 1}],
            "tfo.telemetry.spans.exported": [{"attributes": {}, "value": 2}],
        }


def test_metrics_are_exported_every_interval_without_being_asked() -> None:
    with receiving("http") as receiver:
        client = a_client(receiver, "http", metric_interval=0.1)
        record_a_call(client)
        assert receiver.wait_for(lambda: "mcp.server.operation.duration" in receiver.metrics(), DEADLINE)
        client.shutdown(DEADLINE)


@pytest.mark.behaviour("telemetry.batched")
def test_spans_are_exported_together_after_a_short_delay_without_being_asked() -> None:
    with receiving("http") as receiver:
        client = a_client(receiver, "http", export_delay=0.3, metric_interval=3600)
        record_a_call(client)
        time.sleep(0.15)  # two ticks of the pipeline, so that both calls are encoded apart
        record_a_call(client)
        assert receiver.wait_for(lambda: len(receiver.spans()) == 2, DEADLINE)
        assert [seen.path for seen in receiver.seen] == ["/v1/traces"]
        client.shutdown(DEADLINE)


@pytest.mark.behaviour("telemetry.batched")
def test_no_export_holds_more_than_a_batch() -> None:
    with receiving("http") as receiver:
        client = a_client(receiver, "http", batch_size=10)
        for _ in range(35):
            record_a_call(client)
        assert client.shutdown(DEADLINE)
        assert len(receiver.spans()) == 35
        assert sum(seen.path == "/v1/traces" for seen in receiver.seen) == 4


@pytest.mark.behaviour("telemetry.sent")
@BOTH
def test_every_export_carries_the_configured_headers(wire: Wire) -> None:
    with receiving(wire) as receiver:
        client = a_client(
            receiver,
            wire,
            headers={"X-Tenant": "blue"},
            key_id="tfk_1",
            key_secret="tfs_2",  # noqa: S106  # opens nothing
            collector_id="c3",
        )
        record_a_call(client)
        assert client.shutdown(DEADLINE)
        wanted = {
            "x-tenant": "blue",
            "x-telemetryflow-key-id": "tfk_1",
            "x-telemetryflow-key-secret": "tfs_2",
            "x-telemetryflow-collector-id": "c3",
        }
        assert {seen.path.rsplit("/", 1)[-1] for seen in receiver.seen} == {"traces", "metrics"}
        assert all(wanted.items() <= seen.headers.items() for seen in receiver.seen)


@pytest.mark.behaviour("telemetry.sent")
@pytest.mark.parametrize(("secret", "version"), [(None, "v1"), ("tfs_2", "v2")])
def test_over_http_a_complete_key_goes_to_the_authenticated_path(secret: str | None, version: str) -> None:
    with receiving("http") as receiver:
        client = a_client(receiver, "http", key_id="tfk_1", key_secret=secret)
        record_a_call(client)
        assert client.shutdown(DEADLINE)
        assert {seen.path for seen in receiver.seen} == {f"/{version}/traces", f"/{version}/metrics"}


def test_a_path_of_the_endpoint_is_kept() -> None:
    with receiving("http") as receiver:
        client = a_client(receiver, "http", endpoint=f"{receiver.endpoint}/otlp/")
        record_a_call(client)
        assert client.shutdown(DEADLINE)
        assert {seen.path for seen in receiver.seen} == {"/otlp/v1/traces", "/otlp/v1/metrics"}


@pytest.mark.behaviour("telemetry.compressed")
@pytest.mark.parametrize("compression", [True, False])
def test_what_is_sent_over_http_is_compressed_if_so_set(compression: bool) -> None:  # noqa: FBT001  # a parameter
    with receiving("http") as receiver:
        client = a_client(receiver, "http", compression=compression)
        record_a_call(client)
        assert client.shutdown(DEADLINE)
        assert len(receiver.spans()) == 1
        assert {seen.headers.get("content-encoding") for seen in receiver.seen} == {"gzip" if compression else None}


@pytest.mark.behaviour("telemetry.compressed")
def test_a_collector_that_cannot_read_gzip_gets_it_plain_and_this_is_remembered() -> None:
    with receiving("http", reads_gzip=False) as receiver:
        client = a_client(receiver, "http")
        for _ in range(3):
            record_a_call(client)
            assert client.flush(DEADLINE)
        assert client.shutdown(DEADLINE)
        assert len(receiver.spans()) == 3
        encodings = [seen.headers.get("content-encoding") for seen in receiver.seen]
        assert encodings[:2] == ["gzip", None]
        assert set(encodings[2:]) == {None}


@pytest.mark.behaviour("telemetry.retried")
@pytest.mark.parametrize(
    ("wire", "status"),
    [
        ("http", 408),
        ("http", 429),
        ("http", 500),
        ("http", 502),
        ("http", 503),
        ("grpc", "UNAVAILABLE"),
        ("grpc", "UNKNOWN"),
        ("grpc", "DEADLINE_EXCEEDED"),
    ],
)
def test_a_failure_that_may_pass_is_tried_again_and_loses_nothing(wire: Wire, status: int | str) -> None:
    with receiving(wire, [Reply(status)] * 3) as receiver:
        client = a_client(receiver, wire)
        record_a_call(client)
        assert receiver.wait_for(lambda: len(receiver.spans()) == 1, DEADLINE)
        assert client.shutdown(DEADLINE)
        assert len(receiver.spans()) == 1
        assert len(receiver.seen) >= 4
        failures = receiver.metrics()["tfo.telemetry.export.failures"]
        assert sum(point.get("value", 0) for point in failures) == 3
        assert {point["attributes"]["error.type"] for point in failures} == {str(status)}


@pytest.mark.behaviour("telemetry.retried")
@pytest.mark.parametrize(
    ("wire", "status"),
    [
        ("http", 400),
        ("http", 404),
        ("http", 413),
        ("grpc", "INVALID_ARGUMENT"),
        ("grpc", "RESOURCE_EXHAUSTED"),
    ],
)
def test_a_refusal_for_good_is_dropped_counted_and_logged_once(
    wire: Wire, status: int | str, caplog: pytest.LogCaptureFixture
) -> None:
    with receiving(wire) as receiver:
        client = a_client(receiver, wire, compression=False, metric_interval=3600)
        for _ in range(2):
            receiver.replies = [Reply(status), Reply(status)]  # one for the metrics, one for the span
            record_a_call(client)
            assert client.flush(DEADLINE)
        assert client.shutdown(DEADLINE)
        assert receiver.spans() == []
        assert value(receiver, "tfo.telemetry.spans.dropped", reason="refused") == 2
        refusals = sorted(message for message in caplog.messages if "refused" in message)
        assert [message.split("(")[0] for message in refusals] == [
            "the collector refused metrics for good ",
            "the collector refused traces for good ",
        ]
        assert all(f"({status} " in message for message in refusals)


@pytest.mark.behaviour("telemetry.retried")
@pytest.mark.parametrize(
    ("wire", "status"),
    [("http", 401), ("http", 403), ("grpc", "UNAUTHENTICATED"), ("grpc", "PERMISSION_DENIED")],
)
def test_what_may_not_be_sent_waits_until_it_may(
    wire: Wire, status: int | str, caplog: pytest.LogCaptureFixture
) -> None:
    with receiving(wire) as receiver:
        client = a_client(receiver, wire, compression=False, metric_interval=3600, retry_max=0.05)
        receiver.replies = [Reply(status)] * 6
        record_a_call(client)
        assert client.flush(DEADLINE)
        assert client.shutdown(DEADLINE)
        assert len(receiver.spans()) == 1
        assert "tfo.telemetry.spans.dropped" not in receiver.metrics()
        told = sorted(message.split("(")[0] for message in caplog.messages if "does not let us" in message)
        assert told == [f"the collector does not let us send {signal} " for signal in ("metrics", "traces")]


def test_a_refusal_that_quotes_our_key_puts_no_key_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    body = ExportTraceServiceResponse(
        partial_success=ExportTracePartialSuccess(rejected_spans=1, error_message="the key tfs_hush has expired")
    ).SerializeToString()
    with receiving("grpc") as receiver:
        client = a_client(receiver, "grpc", key_id="tfk_1", key_secret="tfs_hush")  # noqa: S106  # opens nothing
        receiver.replies = [Reply("OK"), Reply("OK", body=body)]
        record_a_call(client)
        assert client.shutdown(DEADLINE)
    assert "the key *** has expired" in caplog.text
    assert "hush" not in caplog.text


@BOTH
def test_what_a_collector_takes_only_in_part_is_counted_as_such(wire: Wire) -> None:
    body = ExportTraceServiceResponse(partial_success=ExportTracePartialSuccess(rejected_spans=2)).SerializeToString()
    success = "OK" if wire == "grpc" else 200
    with receiving(wire) as receiver:
        client = a_client(receiver, wire)
        receiver.replies = [Reply(success), Reply(success, body=body)]  # the metrics' answer, then the spans'
        for _ in range(5):
            record_a_call(client)
        assert client.flush(DEADLINE)
        assert client.shutdown(DEADLINE)
        assert value(receiver, "tfo.telemetry.spans.exported") == 3
        assert value(receiver, "tfo.telemetry.spans.dropped", reason="refused") == 2


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_honoured_as_seconds_and_as_a_date(as_date: bool) -> None:  # noqa: FBT001  # a parameter
    told = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True) if as_date else "1"
    with receiving("http", [Reply(429, {"retry-after": told})]) as receiver:
        client = a_client(receiver, "http", retry_initial=0.001, metric_interval=3600)
        record_a_call(client)
        assert receiver.wait_for(lambda: len(receiver.seen) == 1, DEADLINE)
        started = time.monotonic()
        assert client.flush(DEADLINE)  # being asked to hurry does not make it impolite
        assert time.monotonic() - started > 0.5
        assert len(receiver.spans()) == 1
        client.shutdown(DEADLINE)


def test_a_collector_cannot_make_us_wait_for_longer_than_a_minute() -> None:
    with receiving("http", [Reply(503, {"retry-after": "86400"}), Reply(429, {"retry-after": "soon"})]) as receiver:
        options = TelemetryOptions(endpoint=receiver.endpoint, protocol="http")
        target = options.target()
        assert target is not None
        transport = connect(options, target)
        assert transport.send("traces", b"", DEADLINE).retry_after == 60
        assert transport.send("traces", b"", DEADLINE).retry_after is None
        transport.close()


@BOTH
def test_an_https_endpoint_is_spoken_to_in_tls(wire: Wire) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE)
        endpoint = f"https://127.0.0.1:{listener.getsockname()[1]}"
        client = MCPTelemetryClient(TelemetryOptions(endpoint=endpoint, protocol=wire, timeout=1, export_delay=0.0))
        client.start()
        record_a_call(client)
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(2) == b"\x16\x03"  # a TLS handshake record
        client.shutdown(0.1)


def test_a_shutdown_does_not_wait_for_a_collector_that_asks_for_more_time_than_there_is() -> None:
    with receiving("http", [Reply(429, {"retry-after": "3600"})] * 9) as receiver:
        client = a_client(receiver, "http")
        record_a_call(client)
        started = time.monotonic()
        assert not client.shutdown(5)
        assert time.monotonic() - started < 4


def test_a_collector_that_recovers_during_the_shutdown_still_gets_everything() -> None:
    with receiving("http", [Reply(500)] * 3) as receiver:
        client = a_client(receiver, "http", retry_initial=60)
        record_a_call(client)
        assert client.shutdown(DEADLINE)
        assert len(receiver.spans()) == 1


@pytest.mark.behaviour("telemetry.retried")
@BOTH
def test_spans_recorded_while_the_collector_was_down_arrive_once_it_is_up(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tfo_mcp.telemetry")
    port = free_port()
    client = MCPTelemetryClient(
        TelemetryOptions(
            endpoint=f"http://127.0.0.1:{port}", protocol=wire, retry_initial=0.01, retry_max=0.1, timeout=1
        )
    )
    client.start()
    for _ in range(50):
        record_a_call(client)
    assert not client.flush(0.5)
    with receiving(wire, port=port) as receiver:
        assert receiver.wait_for(lambda: len(receiver.spans()) == 50, DEADLINE)
        assert client.shutdown(DEADLINE)
        assert len({span["span_id"] for span in receiver.spans()}) == 50
    complaints = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(complaints) == len(set(complaints))
    assert "the collector takes traces again" in caplog.text


@pytest.mark.behaviour("telemetry.bounded")
def test_a_queue_that_overflows_drops_the_oldest_spans_and_counts_them() -> None:
    port = free_port()
    client = MCPTelemetryClient(
        TelemetryOptions(endpoint=f"http://127.0.0.1:{port}", protocol="http", spool_bytes=5000, retry_initial=0.01)
    )
    client.start()
    spans = [client.span("request", f"call {number}") for number in range(200)]
    for span in spans:
        span.end("completed")
        if span.name.endswith("0"):
            client.flush(0.01)
    with receiving("http", port=port) as receiver:
        assert client.shutdown(DEADLINE)
        names = [span["name"] for span in receiver.spans()]
        assert "call 199" in names
        assert len(names) < 200
        dropped = value(receiver, "tfo.telemetry.spans.dropped", reason="evicted")
        (counted,) = receiver.metrics()["mcp.server.operation.duration"]
        assert dropped == 200 - len(names)
        assert counted.get("count") == 200


@pytest.mark.behaviour("telemetry.validated")
def test_text_that_protobuf_cannot_hold_and_text_that_is_too_long_still_arrive() -> None:
    with receiving("http") as receiver:
        client = a_client(receiver, "http")
        client.span("request", "ping", attributes={"odd": "a\ud800b", "long": "x" * 5000}).end("completed")
        assert client.shutdown(DEADLINE)
        (span,) = receiver.spans()
        assert span["attributes"] == {"odd": "a?b", "long": "x" * 1024, "outcome": "completed"}

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceResponse,
)

from support.otlp import DEADLINE, Receiver, Reply, free_port, receiving
from tfo_mcp.application.ports import TraceContext, current_operation
from tfo_mcp.domain.session import Session
from tfo_mcp.infrastructure.config import Secret, Settings, TelemetrySettings
from tfo_mcp.infrastructure.logs import report_unforeseen
from tfo_mcp.infrastructure.redaction import Redaction
from tfo_mcp.infrastructure.telemetry.aggregate import Aggregate
from tfo_mcp.infrastructure.telemetry.client import MCPTelemetryClient
from tfo_mcp.infrastructure.telemetry.options import TelemetryOptions
from tfo_mcp.infrastructure.telemetry.records import LogEntry, Record
from tfo_mcp.infrastructure.telemetry.ring import Ring

Wire = Literal["grpc", "http"]
BOTH = pytest.mark.parametrize("wire", ["grpc", "http"])

log = logging.getLogger("tfo_mcp.somewhere")
OPERATION = TraceContext(0xA1, 0xB2)


@contextmanager
def logging_to(endpoint: str, wire: Wire = "http", **more: Any) -> Generator[MCPTelemetryClient]:  # noqa: ANN401  # options by name
    """A client that takes what is logged, and has exported it when the block is left."""
    quick = {"retry_initial": 0.01, "export_delay": 0.01}
    options: dict[str, Any] = {"endpoint": endpoint, "protocol": wire, **quick, **more}
    client = MCPTelemetryClient(TelemetryOptions(**options))
    client.take_logs()
    client.start()
    try:
        yield client
    finally:
        client.shutdown(DEADLINE)


@contextmanager
def within(operation: TraceContext) -> Generator[None]:
    token = current_operation.set(operation)
    yield
    current_operation.reset(token)


def value(receiver: Receiver, metric: str, **attributes: str) -> float | None:
    """The value of a counter's point with exactly these attributes."""
    found = [point.get("value") for point in receiver.metrics().get(metric, []) if point["attributes"] == attributes]
    return found[0] if found else None


def bodies(receiver: Receiver) -> list[str]:
    return [record["body"] for record in receiver.logs()]


@pytest.mark.behaviour("telemetry.logs", "telemetry.serialized")
@BOTH
def test_a_log_record_arrives_whole(wire: Wire) -> None:
    with receiving(wire) as receiver:
        before = time.time()
        with logging_to(receiver.endpoint, wire, instance_id="i") as client:
            request = client.span("request", "ping")
            with within(request.context):
                log.warning("took %d s", 3, extra={"tool": "echo", "seconds": 2.5, "first": True, "none": None})
            request.end("completed")
            assert client.flush(DEADLINE)  # what is counted after it is in the last export of metrics
        (record,) = map(dict[str, Any], receiver.logs())
        (span,) = receiver.spans()
        assert before - 0.001 <= record.pop("time") <= record.pop("observed") <= time.time()
        assert record == {
            "severity": 13,
            "level": "WARNING",
            "body": "took 3 s",
            "event": "",
            "trace_id": span["trace_id"],
            "span_id": span["span_id"],
            "attributes": {"tfo.logger.name": "tfo_mcp.somewhere", "tool": "echo", "seconds": 2.5, "first": True},
            "scope": "tfo_mcp",
            "resource": span["resource"],
        }
        assert value(receiver, "tfo.telemetry.logs.exported") == 1


def test_outside_an_operation_a_log_record_has_no_ids() -> None:
    with receiving("http") as receiver:
        with logging_to(receiver.endpoint):
            log.warning("alone")
        (record,) = receiver.logs()
        assert (record["trace_id"], record["span_id"]) == ("", "")


@pytest.mark.parametrize(
    ("level", "severity"),
    [(5, 1), (logging.DEBUG, 5), (logging.INFO, 9), (25, 9), (logging.WARNING, 13), (logging.ERROR, 17), (50, 21)],
)
def test_every_level_has_its_severity(level: int, severity: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(1, "tfo_mcp")
    with receiving("http") as receiver:
        with logging_to(receiver.endpoint):
            log.log(level, "said")
        assert [record["severity"] for record in receiver.logs()] == [severity]


def test_what_is_below_the_level_of_the_log_does_not_go_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "tfo_mcp")
    with receiving("http") as receiver:
        with logging_to(receiver.endpoint):
            log.warning("not heard")
            log.error("heard")
        assert bodies(receiver) == ["heard"]


@pytest.mark.behaviour("telemetry.logs")
def test_tasks_and_threads_log_under_the_operation_that_they_work_for() -> None:
    async def operations() -> None:
        async def operation(number: int) -> None:
            current_operation.set(TraceContext(number, number))
            await asyncio.sleep(0)
            log.warning("task %d", number)
            here = contextvars.copy_context()
            await asyncio.get_running_loop().run_in_executor(None, lambda: here.run(log.warning, "thread %d", number))

        await asyncio.gather(*(asyncio.create_task(operation(number)) for number in (1, 2)))

    with receiving("http") as receiver:
        with logging_to(receiver.endpoint):
            asyncio.run(operations())
        assert {record["body"]: int(record["trace_id"], 16) for record in receiver.logs()} == {
            "task 1": 1,
            "thread 1": 1,
            "task 2": 2,
            "thread 2": 2,
        }


def test_secrets_are_taken_out_as_on_stderr_before_anything_is_cut() -> None:
    settings = Settings(telemetry=TelemetrySettings(api_key_secret=Secret("an-odd-kéy-of-a-gateway")))
    with receiving("http") as receiver:
        with logging_to(receiver.endpoint, redact=Redaction(settings)):
            log.warning("%s, then %s", "x" * 4080, "an-odd-kéy-of-a-gateway")  # the cut falls into it
            log.warning("key sk-ant-api03-abc", extra={"sent": "Bearer abcdefghijklmnop", "at": ["http://u:pw@host"]})
        cut, quoted = receiver.logs()
        assert cut["body"] == "x" * 4080 + ", then ***"
        assert quoted["body"] == "key ***"
        assert (quoted["attributes"]["sent"], quoted["attributes"]["at"]) == ("Bearer ***", "['http://***@host']")


@pytest.mark.behaviour("telemetry.error-records")
def test_of_an_error_its_type_goes_out_and_its_text_nowhere() -> None:
    error = ConnectionError("the secret 4711")
    with receiving("http") as receiver:
        with logging_to(receiver.endpoint):
            try:
                raise error
            except ConnectionError:
                log.exception("it failed: the secret 4711\nmore of the secret 4711")
            log.warning("it failed with %s", error)
            log.warning("it failed with %(why)r", {"why": error})
            log.warning(error)
            log.warning("it failed", extra={"why": error})
        assert bodies(receiver) == [
            "it failed: …",
            "it failed with ConnectionError",
            "it failed with 'ConnectionError'",
            "ConnectionError",
            "it failed",
        ]
        raised, *_, named = receiver.logs()
        assert raised["attributes"]["exception.type"] == "ConnectionError"
        assert named["attributes"]["why"] == "ConnectionError"
        assert "secret 4711" not in repr(receiver.logs())


def test_what_is_odd_or_too_much_still_arrives_within_its_bounds() -> None:
    class Broken:
        def __str__(self) -> str:
            raise ValueError("no text")

    with receiving("http") as receiver:
        with logging_to(receiver.endpoint):
            log.warning("x" * 100_000, extra={"long": "y" * 100_000})
            log.warning("many", extra={f"value {number}": number for number in range(100)})
            log.warning("a\ud800b", extra={"value": Broken(), "huge": 2**70})
            for record in (
                {"msg": "%d is no number", "args": ("a word",), "levelno": 30},
                {"msg": Broken(), "exc_info": True, "levelno": 30},
            ):
                logging.root.handlers[-1].handle(logging.makeLogRecord(record))
        long, many, odd, unformatted, broken = receiver.logs()
        assert long["body"] == "x" * 4096
        assert long["attributes"]["long"] == "y" * 1024
        assert len(many["attributes"]) == 33  # the logger's name too
        assert odd["body"] == "a?b"
        assert (odd["attributes"]["value"], odd["attributes"]["huge"]) == ("cannot be shown: ValueError", str(2**70))
        assert unformatted["body"] == "%d is no number"
        assert broken["body"] == "cannot be shown: ValueError"


@BOTH
def test_what_the_pipeline_says_of_the_collector_is_not_exported(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tfo_mcp")
    refusal = Reply("INVALID_ARGUMENT" if wire == "grpc" else 415)
    with receiving(wire) as receiver:
        with logging_to(receiver.endpoint, wire, compression=False, metric_interval=3600) as client:
            for number in range(3):
                receiver.replies = [refusal, refusal] if number != 1 else []
                log.warning("record %d", number)
                assert client.flush(DEADLINE)
                exports = len(receiver.seen)
                logging.getLogger("grpc._channel").warning("about a channel")
                assert client.flush(DEADLINE)
                assert [seen.path for seen in receiver.seen[exports:]] in ([], ["/v1/metrics"])
        assert "the collector refused logs for good" in caplog.text
        assert "the collector takes logs again" in caplog.text
        assert bodies(receiver) == ["record 1"]
        assert value(receiver, "tfo.telemetry.logs.dropped", reason="refused") == 2


@pytest.mark.behaviour("telemetry.error-records")
def test_what_is_not_foreseen_goes_out_as_an_error_record_only() -> None:
    with receiving("http") as receiver:
        with logging_to(receiver.endpoint) as client:
            report_unforeseen("0123", ValueError("the secret 4711"))
            with within(OPERATION):
                client.record_error("ValueError", {"tfo.error.id": "0123", "exception.type": "ValueError"})
        (record,) = receiver.logs()
        assert time.time() - DEADLINE < record["time"] == record["observed"]
        assert (record["severity"], record["level"], record["event"]) == (17, "ERROR", "tfo.error")
        assert record["body"] == "error"
        assert record["attributes"] == {
            "error.type": "ValueError",
            "tfo.error.id": "0123",
            "exception.type": "ValueError",
        }
        assert (record["trace_id"], record["span_id"]) == (f"{0xA1:032x}", f"{0xB2:016x}")
        assert value(receiver, "tfo.mcp.errors", **{"error.type": "ValueError"}) == 1


def test_a_session_leaves_an_event_at_its_beginning_and_at_its_end() -> None:
    session = Session()
    session.initialize(protocol_version="2025-11-25", client_name="a client", client_version="1.2")
    with receiving("http") as receiver:
        with logging_to(receiver.endpoint) as client:
            with within(OPERATION):
                client.record_session_event("initialized", session)
            client.record_session_event("closed", session)
        began, ended = receiver.logs()
        assert (began["event"], began["body"], began["severity"]) == (
            "tfo.session.initialized",
            "session initialized",
            9,
        )
        assert (ended["event"], ended["body"]) == ("tfo.session.closed", "session closed")
        assert (began["trace_id"], ended["trace_id"]) == (f"{0xA1:032x}", "")
        for record in (began, ended):
            assert record["attributes"] == {
                "mcp.session.id": session.id,
                "mcp.protocol.version": "2025-11-25",
                "tfo.client.name": "a client",
                "tfo.client.version": "1.2",
            }
        labels = {label for points in receiver.metrics().values() for point in points for label in point["attributes"]}
        assert labels == {"mcp.protocol.version"}


def test_with_logs_turned_off_none_go_out_and_metrics_still_do() -> None:
    with receiving("http") as receiver:
        with logging_to(receiver.endpoint, logs=False) as client:
            log.warning("not heard")
            client.record_error("ValueError", {})
            client.span("request", "ping").end("completed")
        assert {seen.path for seen in receiver.seen} == {"/v1/traces", "/v1/metrics"}
        assert value(receiver, "tfo.mcp.errors", **{"error.type": "ValueError"}) == 1


@pytest.mark.behaviour("telemetry.unasked")
def test_without_an_endpoint_and_after_the_end_nobody_listens_to_the_log() -> None:
    before = list(logging.root.handlers)
    client = MCPTelemetryClient(TelemetryOptions())
    client.take_logs()
    assert logging.root.handlers == before
    with receiving("http") as receiver, logging_to(receiver.endpoint) as listening:
        listening.take_logs()
        assert len(logging.root.handlers) == len(before) + 1
    assert logging.root.handlers == before


@BOTH
def test_over_http_and_grpc_log_records_taken_only_in_part_are_counted_as_such(wire: Wire) -> None:
    body = ExportLogsServiceResponse(
        partial_success=ExportLogsPartialSuccess(rejected_log_records=2)
    ).SerializeToString()
    with receiving(wire, [Reply("OK" if wire == "grpc" else 200, body=body)]) as receiver:
        with logging_to(receiver.endpoint, wire, metric_interval=3600) as client:
            for number in range(5):
                log.warning("record %d", number)
            assert client.flush(DEADLINE)
        assert value(receiver, "tfo.telemetry.logs.exported") == 3
        assert value(receiver, "tfo.telemetry.logs.dropped", reason="refused") == 2


def test_log_records_go_to_the_authenticated_path_with_a_key() -> None:
    with receiving("http") as receiver:
        with logging_to(receiver.endpoint, key_id="tfk_1", key_secret="tfs_2"):  # noqa: S106  # opens nothing
            log.warning("said")
        assert [seen.path for seen in receiver.seen] == ["/v2/logs"]


@BOTH
def test_a_collector_that_was_killed_and_comes_back_gets_what_was_logged_meanwhile(wire: Wire) -> None:
    port = free_port()
    with receiving(wire, port=port) as first:
        client = logging_to(f"http://127.0.0.1:{port}", wire, retry_max=0.1, timeout=1)
        with client as telemetry:
            log.warning("before")
            assert telemetry.flush(DEADLINE)
            assert bodies(first) == ["before"]
            first.stop()
            for number in range(50):
                log.warning("meanwhile %d", number)
            assert not telemetry.flush(0.5)
            with receiving(wire, port=port) as second:
                assert second.wait_for(lambda: len(second.logs()) == 50, DEADLINE)
                assert bodies(second) == [f"meanwhile {number}" for number in range(50)]
                assert telemetry.flush(DEADLINE)
                assert telemetry.shutdown(DEADLINE)
                assert value(second, "tfo.telemetry.logs.exported") == 51
                assert second.metrics().get("tfo.telemetry.logs.dropped") is None


def test_a_flood_of_logs_beyond_the_queue_drops_the_oldest_of_them_and_no_span(tmp_path: Path) -> None:
    port = free_port()
    with logging_to(f"http://127.0.0.1:{port}", spool_bytes=50_000) as client:
        client.span("request", "ping").end("completed")
        for number in range(500):
            log.warning("%d %s", number, "x" * 500)
            if number % 50 == 0:
                for _ in range(2):  # the second one comes when the first one's records are in the spool
                    assert client.settle(DEADLINE)
        with receiving("http", port=port) as receiver:
            assert client.shutdown(DEADLINE)
            arrived = [int(body.partition(" ")[0]) for body in bodies(receiver)]
            assert arrived[-1] == 499
            assert value(receiver, "tfo.telemetry.logs.dropped", reason="evicted") == 500 - len(arrived) > 0
            assert [span["name"] for span in receiver.spans()] == ["ping"]


def test_a_full_ring_drops_log_records_and_counts_them_where_they_would_go_out() -> None:
    aggregate = Aggregate()
    for exports_logs in (False, True):
        ring = Ring(aggregate, None, 0, exports_logs=exports_logs)
        ring.record(LogEntry(0, 0, (30, "WARNING"), "body", None, {}))
        ring.record(Record("session", "initialized", None, 0, 0, 0, "completed", {}))
    points = {metric.name: [vars_of.copy() for vars_of in each] for metric, each in aggregate.snapshot()}
    (dropped,) = points["tfo.telemetry.logs.dropped"]
    assert dropped.attributes == {"reason": "saturated"}
    assert getattr(dropped, "value") == 2  # noqa: B009  # a sum
    assert "tfo.telemetry.spans.dropped" not in points

"""A disk that is full, a spool that is damaged, a clock that jumps: the server goes on, and says what is wrong."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from support.otlp import DEADLINE, HttpReceiver, Receiver, free_port, receiving
from support.server import Server, eventually, serving

ODD = (sys.executable, str(Path(__file__).with_name("odd_server.py")), "serve")

linux = pytest.mark.skipif(sys.platform != "linux", reason="limits of another process are Linux's")


def exporting(port: int) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }


def port_of(receiver: Receiver) -> int:
    return int(receiver.endpoint.rsplit(":", 1)[1])


def telemetry(server: Server) -> Mapping[str, Any]:
    """What `status://health` says of it."""
    content = server.call("health", "resources/read", {"uri": "status://health"})["result"]["contents"][0]
    return json.loads(content["text"])["components"]["telemetry"]


def call(server: Server, names: list[str]) -> None:
    for name in names:
        assert not server.call_tool(name, "echo", {"message": name})["isError"]


def arrived(receiver: Receiver) -> Counter[str]:
    """How often the span of each tool call has."""
    calls = [span for span in receiver.spans() if span["name"] == "tools/call echo"]
    return Counter(str(span["attributes"]["jsonrpc.request.id"]) for span in calls)


def end(server: Server) -> None:
    server.close_input()
    assert server.wait() == 0


def full(server: Server, spool: Path) -> None:
    """No file of this server grows beyond what the spool's log has already."""
    import resource

    log = spool.with_name("spool.db-wal")
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (log.stat().st_size, resource.RLIM_INFINITY))


def has_room(server: Server) -> None:
    import resource

    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


# --- the disk ---


@linux
@pytest.mark.behaviour("telemetry.spool-faults")
def test_what_a_full_disk_does_not_take_waits_in_memory_and_is_sent(tmp_path: Path) -> None:
    port, spool = free_port(), tmp_path / "state" / "spool.db"
    first, second, third = (["a1", "a2"], ["b1", "b2"], ["c1"])
    with serving(tmp_path, env=exporting(port)) as server:
        server.begin("2025-11-25")
        call(server, first)
        eventually(lambda: telemetry(server)["spans_waiting"] >= 2 * len(first))
        full(server, spool)
        call(server, second)
        eventually(lambda: any("spool" in problem for problem in telemetry(server)["problems"]))
        assert telemetry(server)["status"] == "degraded"
        eventually(lambda: telemetry(server)["spans_waiting"] >= 2 * len(first + second))
        assert telemetry(server)["spans_dropped"] == 0
        assert "what is recorded waits in memory" in server.log()
        with receiving("http", port=port) as receiver:
            assert receiver.wait_for(lambda: {*first, *second} <= arrived(receiver).keys(), DEADLINE)
            has_room(server)
            call(server, third)
            assert receiver.wait_for(lambda: {*third} <= arrived(receiver).keys(), DEADLINE)
            eventually(lambda: telemetry(server)["problems"] == [])
            end(server)
        assert arrived(receiver) == Counter([*first, *second, *third])


MANY = 20_000
BURST = 200
MOST_WAITING = 16 * 1024 * 1024
REQUEST_ID = "r" * 120
"""Long, so that the spans of so many requests are more than is kept in memory."""


def flood(server: Server) -> None:
    for start in range(0, MANY, BURST):
        for number in range(start, start + BURST):
            server.request(f"{REQUEST_ID}{number}", "tools/call", {"name": "echo", "arguments": {"message": "m"}})
        for number in range(start, start + BURST):
            server.answer_to(f"{REQUEST_ID}{number}")


@linux
@pytest.mark.behaviour("telemetry.spool-faults", "telemetry.bounded")
@pytest.mark.ci
def test_what_a_full_disk_leaves_in_memory_is_bounded_and_what_goes_is_counted(tmp_path: Path) -> None:
    port, spool = free_port(), tmp_path / "state" / "spool.db"
    with serving(tmp_path, env={**exporting(port), "TELEMETRYFLOW_MCP_LOGGING_LEVEL": "critical"}) as server:
        server.begin("2025-11-25")
        call(server, ["first"])
        eventually(lambda: spool.exists() and telemetry(server)["spans_waiting"] > 0)
        full(server, spool)
        before = server.peak_memory()
        flood(server)
        eventually(lambda: telemetry(server)["spans_dropped"] > 0)
        assert telemetry(server)["bytes_waiting"] < MOST_WAITING
        assert server.peak_memory() - before < 4 * MOST_WAITING
        with receiving("http", port=port) as receiver:
            assert receiver.wait_for(lambda: f"{REQUEST_ID}{MANY - 1}" in arrived(receiver), DEADLINE)
            end(server)
            (lost,) = receiver.metrics()["tfo.telemetry.spans.dropped"]
    looks = sum(answer.get("id") == "health" for answer in server.received)
    assert lost["attributes"] == {"reason": "unwritten"}
    assert len(receiver.spans()) + lost.get("value", 0) == 2 * (MANY + 1) + looks + 1  # the last is the handshake


NO_ROOM = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@linux
@pytest.mark.behaviour("telemetry.spool-faults")
def test_on_a_disk_that_was_full_at_the_start_everything_goes_by_memory(tmp_path: Path) -> None:
    command = (sys.executable, "-c", NO_ROOM, "-m", "tfo_mcp", "serve")
    with receiving("http") as receiver, serving(tmp_path, env=exporting(port_of(receiver)), command=command) as server:
        server.begin("2025-11-25")
        call(server, ["a"])
        assert receiver.wait_for(lambda: "a" in arrived(receiver), DEADLINE)
        told = telemetry(server)
        assert told["status"] == "degraded"
        assert "spool.db' cannot be used" in told["problems"][0]
        end(server)
        assert arrived(receiver) == Counter(["a"])


# --- the spool's file ---


@pytest.mark.behaviour("telemetry.spool-faults")
def test_a_spool_that_is_damaged_before_the_start_is_moved_aside_and_nothing_else_is_harmed(tmp_path: Path) -> None:
    spool, damaged = tmp_path / "state" / "spool.db", b"this is no database, and never was one " * 100
    spool.parent.mkdir()
    spool.write_bytes(damaged)
    with receiving("http") as receiver, serving(tmp_path, env=exporting(port_of(receiver))) as server:
        server.begin("2025-11-25")
        call(server, ["a"])
        assert receiver.wait_for(lambda: "a" in arrived(receiver), DEADLINE)
        assert telemetry(server)["problems"] == []
        assert "is damaged; it was moved to" in server.log()
        end(server)
    assert [each.read_bytes() for each in spool.parent.glob("spool.db.damaged-*")] == [damaged]


@pytest.mark.behaviour("telemetry.spool-faults")
def test_a_spool_that_is_damaged_in_use_is_moved_aside_and_what_comes_then_arrives(tmp_path: Path) -> None:
    spool, port = tmp_path / "state" / "spool.db", free_port()
    with serving(tmp_path, env=exporting(port)) as server:
        server.begin("2025-11-25")
        call(server, ["lost"])
        eventually(lambda: telemetry(server)["spans_waiting"] > 0)
        with closing(sqlite3.connect(spool, isolation_level=None)) as another:
            another.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            with spool.open("r+b") as file:
                file.seek(4096)
                file.write(b"\xff" * (spool.stat().st_size - 4096))
            another.execute("PRAGMA user_version = 1")  # so that nobody trusts in what he has read before
        call(server, ["a"])
        with receiving("http", port=port) as receiver:
            assert receiver.wait_for(lambda: "a" in arrived(receiver), DEADLINE)
            call(server, ["b"])
            assert receiver.wait_for(lambda: "b" in arrived(receiver), DEADLINE)
            eventually(lambda: telemetry(server)["problems"] == [])
            assert "is damaged; it was moved to" in server.log()
            end(server)
    assert list(spool.parent.glob("spool.db.damaged-*"))


# --- the clock ---

HOUR = 3600.0


class Timed(HttpReceiver):
    """Notes the beginning and the end of what each point of a metric is about, in nanoseconds since the epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.intervals: list[tuple[int, int]] = []

    def add_metrics(self, body: bytes) -> bytes:
        for group in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for metric in (metric for scope in group.scope_metrics for metric in scope.metrics):
                points = [*metric.sum.data_points, *metric.histogram.data_points]
                self.intervals += [(point.start_time_unix_nano, point.time_unix_nano) for point in points]
        return super().add_metrics(body)


@pytest.mark.behaviour("telemetry.timestamps", "telemetry.spool-faults")
@pytest.mark.parametrize("seconds", [-HOUR, HOUR])
def test_a_clock_that_jumps_while_calls_run_makes_nothing_negative_and_loses_nothing(
    tmp_path: Path, seconds: float
) -> None:
    port, names = free_port(), ["before", "after"]
    with serving(tmp_path, env=exporting(port), command=ODD) as server:
        server.begin("2025-11-25")
        call(server, names[:1])
        eventually(lambda: telemetry(server)["spans_waiting"] > 0)
        server.request("long", "tools/call", {"name": "wait", "arguments": {"seconds": 0.3}})
        server.call_tool("jump", "jump", {"seconds": seconds})
        assert server.answer_to("long")["result"]["isError"] is False
        call(server, names[1:])
        receiver = Timed()
        receiver.start(port)
        try:
            assert receiver.wait_for(lambda: {*names} <= arrived(receiver).keys(), DEADLINE)
            end(server)
        finally:
            receiver.stop()
    spans = receiver.spans()
    assert arrived(receiver) == Counter(names)
    assert all(0 <= span["duration"] < HOUR / 2 for span in spans)
    assert all(0 <= event["offset"] <= span["duration"] for span in spans for event in span["events"])
    (long,) = [span for span in spans if span["attributes"].get("jsonrpc.request.id") == "long"]
    assert long["duration"] >= 0.3
    metrics = receiver.metrics()
    assert "tfo.telemetry.spans.dropped" not in metrics
    for name in ("mcp.server.operation.duration", "mcp.tools.duration", "mcp.server.session.duration"):
        assert all(0 <= point.get("sum", -1) < HOUR / 2 for point in metrics[name]), name
    assert receiver.intervals
    assert all(start <= end for start, end in receiver.intervals)

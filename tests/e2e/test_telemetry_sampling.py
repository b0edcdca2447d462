"""A limit on what is told of calls, and what is told all the same."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from support.otlp import DEADLINE, Receiver, receiving
from support.server import Server, serving
from tfo_mcp.infrastructure.otlp_receiver import ReceivedSpan

CALLS, LIMIT, FAILURES = 500, 10, 7
ODD = (sys.executable, str(Path(__file__).with_name("odd_server.py")), "serve")
UNSAMPLED = f"00-{0xA1:032x}-{0xB2:016x}-00"


def ask(server: Server) -> None:
    """So many calls in one trace, the last ones fail."""
    for start in range(0, CALLS, 50):
        for number in range(start, start + 50):
            tool = "fail" if number >= CALLS - FAILURES else "echo"
            arguments = {} if tool == "fail" else {"message": "hello"}
            meta = {"traceparent": UNSAMPLED}
            server.request(number, "tools/call", {"name": tool, "arguments": arguments, "_meta": meta})
        for number in range(start, start + 50):
            assert "result" in server.answer_to(number)


@pytest.mark.behaviour("telemetry.sampled", "telemetry.sampled.kept", "telemetry.bounded")
def test_of_many_calls_as_many_are_told_of_as_may_all_that_failed_and_the_counts_of_all(tmp_path: Path) -> None:
    with receiving("http") as receiver:
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "TELEMETRYFLOW_MCP_TELEMETRY_MAX_TRACES_PER_SECOND": str(LIMIT),
        }
        began = time.monotonic()
        with serving(tmp_path, env=env, command=ODD) as server:
            server.initialize()
            assert receiver.wait_for(lambda: bool(receiver.spans()), DEADLINE)
            ask(server)
            assert receiver.wait_for(lambda: len(failures(receiver)) == FAILURES, DEADLINE)  # the last ones
            health = server.call("health", "resources/read", {"uri": "status://health"})
            telemetry = json.loads(health["result"]["contents"][0]["text"])["components"]["telemetry"]
            assert telemetry["status"] == "healthy"
            assert telemetry["spans_dropped"] == 0
            assert CALLS < telemetry["spans_sampled_out"] < 2 * CALLS
            assert 0 < telemetry["sampled_share"] < 0.5
            server.close_input()
            assert server.wait() == 0
        seconds = time.monotonic() - began
        roots = [span for span in receiver.spans() if span["kind"] == "SERVER"]
        assert len(failures(receiver)) == FAILURES
        unusually_slow = CALLS * 0.03
        assert LIMIT <= len(roots) - FAILURES <= LIMIT + LIMIT * seconds + unusually_slow
        stood_for = sum(root["attributes"]["tfo.sampling.adjusted_count"] for root in roots)
        assert len(roots) <= stood_for <= CALLS + 2
        check_counts(receiver)


def failures(receiver: Receiver) -> list[ReceivedSpan]:
    return [span for span in receiver.spans() if span["kind"] == "SERVER" and span["status"] == "ERROR"]


def check_counts(receiver: Receiver) -> None:
    metrics = receiver.metrics()
    assert sum(point.get("value", 0) for point in metrics["mcp.tools.calls"]) == CALLS
    assert sum(point.get("count", 0) for point in metrics["mcp.server.operation.duration"]) == CALLS + 2
    (dropped,) = metrics["tfo.telemetry.spans.dropped"]
    assert dropped["attributes"] == {"reason": "sampled"}
    assert len(receiver.spans()) + dropped.get("value", 0) == 2 * CALLS + 2
    whole = Counter(span["parent_id"] for span in receiver.spans() if span["name"] == "tools.execute")
    called = {span["span_id"] for span in receiver.spans() if span["name"].startswith("tools/call")}
    assert whole == dict.fromkeys(called, 1)

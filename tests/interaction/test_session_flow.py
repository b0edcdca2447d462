"""The whole of one session, from outside: what the client hears, the events, the spans, the counts."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.otlp import receiving
from support.server import ENVELOPE, HANDSHAKE, STATELESS, Server, eventually, serving

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


def log(server: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log().splitlines()]


def events(server: Server) -> list[str]:
    """The domain's events in the log, in order."""
    return [record["event"] for record in log(server) if record["event"].startswith(("Session", "Tool"))]


@pytest.mark.behaviour("session.events.first-request")
def test_a_client_that_never_says_initialized_is_ready_with_its_first_request(tmp_path: Path) -> None:
    with serving(tmp_path, "--log-level", "debug") as server:
        server.call(1, "initialize", HANDSHAKE)
        server.call(2, "ping")
        eventually(lambda: events(server) == ["SessionCreated"])
        server.call(3, "tools/list")
        eventually(lambda: events(server) == ["SessionCreated", "SessionInitialized"])
        server.notify("notifications/initialized")
        server.call(4, "shutdown")
        assert server.wait() == 0
        assert events(server) == ["SessionCreated", "SessionInitialized", "SessionClosed"]


@pytest.mark.behaviour(
    "session.flow",
    "session.events",
    "session.measured",
    "session.flushed",
    "session.closing",
    "session.stored",
    "telemetry.tool.span",
    "telemetry.tool.event",
    "telemetry.tool.counted",
    "telemetry.tool.logged",
    "telemetry.request.recorded",
)
def test_a_session_is_answered_published_and_measured_as_it_is_drawn(tmp_path: Path) -> None:
    with receiving("http") as collector:
        exporting = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
        with serving(tmp_path, "--log-level", "debug", env=exporting) as server:
            assert "result" in server.call(1, "initialize", HANDSHAKE)
            eventually(lambda: events(server) == ["SessionCreated"])
            server.notify("notifications/initialized")
            eventually(lambda: events(server) == ["SessionCreated", "SessionInitialized"])
            assert server.call(2, "tools/list")["result"]["tools"]
            assert server.call_tool(3, "echo", {"message": "the contents"})["isError"] is False
            eventually(lambda: events(server)[2:] == ["ToolExecuted"])
            assert server.call_tool(4, "read_file", {"path": "no-such"})["isError"] is True
            assert server.call(5, "shutdown")["result"] == {}
            assert server.rest() == []
            assert server.wait() == 0
            assert [message["id"] for message in server.received] == [1, 2, 3, 4, 5]
            assert events(server)[3:] == ["ToolExecuted", "SessionClosed"]
            logged = [record for record in log(server) if record["event"] == "ToolExecuted"]
            assert [(record["tool"], record["outcome"]) for record in logged] == [
                ("echo", "completed"),
                ("read_file", "failed"),
            ]
            assert all(record["duration"] >= 0 for record in logged)
            assert "the contents" not in server.log()
        tool_spans = [span for span in collector.spans() if span["name"] == "tools.execute"]
        spans = {span["name"]: span for span in sorted(collector.spans(), key=lambda span: span["start"])}
        metrics = collector.metrics()

    assert [name for name in spans if name != "tools.execute"] == [
        "initialize",
        "tools/list",
        "tools/call echo",
        "tools/call read_file",
        "shutdown",
    ]
    ran = {str(span["attributes"]["gen_ai.tool.name"]): span for span in tool_spans}
    for tool, event in {"echo": "completed", "read_file": "error"}.items():
        assert ran[tool]["parent_id"] == spans[f"tools/call {tool}"]["span_id"]
        assert ran[tool]["trace_id"] == spans[f"tools/call {tool}"]["trace_id"]
        assert [noted["name"] for noted in ran[tool]["events"]] == [event]
    ids = [span["attributes"]["jsonrpc.request.id"] for span in spans.values() if span["kind"] == "SERVER"]
    assert ids == list("12345")
    assert {p["attributes"]["gen_ai.tool.name"]: p.get("value") for p in metrics["mcp.tools.calls"]} == {
        "echo": 1,
        "read_file": 1,
    }
    assert [p["attributes"]["gen_ai.tool.name"] for p in metrics["mcp.tools.errors"]] == ["read_file"]
    assert sum(point.get("count", 0) for point in metrics["mcp.tools.duration"]) == 2
    assert [point.get("value") for point in metrics["tfo.mcp.sessions.active"]] == [0]
    assert [point.get("count") for point in metrics["mcp.server.session.duration"]] == [1]
    with closing(sqlite3.connect(tmp_path / "state" / "tfo-mcp.db")) as database:
        assert database.execute("select state from sessions").fetchall() == [("closed",)]
        assert database.execute("select name from events order by id").fetchall() == [
            ("SessionCreated",),
            ("SessionInitialized",),
            ("SessionClosed",),
        ]


@pytest.mark.behaviour("telemetry.request.trace-context")
@pytest.mark.parametrize("revision", ["2025-11-25", STATELESS])
def test_a_request_is_recorded_below_the_span_of_its_client(tmp_path: Path, revision: str) -> None:
    with receiving("http") as collector:
        exporting = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
        with serving(tmp_path, env=exporting) as server:
            server.begin(revision)
            meta = {**(ENVELOPE if revision == STATELESS else {}), "traceparent": f"00-{TRACE}-{SPAN}-01"}
            server.call(1, "tools/call", {"name": "echo", "arguments": {"message": "x"}, "_meta": meta})
            server.close_input()
            assert server.wait() == 0
        spans = {span["name"]: span for span in collector.spans()}
    assert (spans["tools/call echo"]["trace_id"], spans["tools/call echo"]["parent_id"]) == (TRACE, SPAN)
    assert spans["tools.execute"]["trace_id"] == TRACE
    assert spans["tools.execute"]["parent_id"] == spans["tools/call echo"]["span_id"]

"""What the real server tells a live collector, in all three signals, and what it tells nobody."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

from support.claude import fake_claude
from support.otlp import DEADLINE, Receiver, receiving
from support.server import ENVELOPE, STATELESS, Answer, Server, claude_at, serving
from support.sizes import later

ODD = (sys.executable, str(Path(__file__).with_name("odd_server.py")), "serve")
"""Whose tools fail in ways that no tool should."""

PARENT = f"00-{0xA1:032x}-{0xB2:016x}-01"


@contextmanager
def observed(
    folder: Path,
    receiver: Receiver,
    wire: Literal["grpc", "http/protobuf"] = "http/protobuf",
    *,
    env: Mapping[str, str] | None = None,
    command: Sequence[str] = ODD,
) -> Generator[Server]:
    """A server that tells all that it can to `receiver`; it has ended, and told it, when the block is left."""
    own = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": wire,
        "TELEMETRYFLOW_MCP_LOGGING_LEVEL": "debug",
    }
    with serving(folder, env={**own, **(env or {})}, command=command) as server:
        yield server
        if server.process.poll() is None:
            wait_until_connected(receiver)
            server.close_input()
        assert server.wait() == 0


def wait_until_connected(receiver: Receiver) -> None:
    """On a busy machine all that exporting imports would take more than the end of a process may."""
    assert receiver.wait_for(lambda: bool(receiver.spans()), DEADLINE)


def stderr_records(server: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]


def everything_told(receiver: Receiver, server: Server) -> str:
    return repr((receiver.spans(), receiver.logs(), receiver.metrics())) + server.log()


# --- sessions ---


def close_input(server: Server) -> None:
    server.close_input()


def terminate(server: Server) -> None:
    server.process.send_signal(signal.SIGTERM)


def interrupt(server: Server) -> None:
    server.process.send_signal(signal.SIGINT)


def shut_down(server: Server) -> None:
    server.request("end", "shutdown")


@pytest.mark.behaviour("session.measured", "session.flushed")
@pytest.mark.parametrize(
    ("end", "revision"),
    [
        (close_input, "2025-11-25"),
        (close_input, STATELESS),
        (terminate, "2025-11-25"),
        (shut_down, STATELESS),
        later(terminate, STATELESS),
        later(shut_down, "2025-11-25"),
        later(interrupt, "2025-11-25"),
        later(interrupt, STATELESS),
    ],
)
def test_a_session_is_counted_in_and_out_whatever_ends_it(
    tmp_path: Path, revision: str, end: Callable[[Server], None]
) -> None:
    with receiving("http") as receiver:
        with observed(tmp_path, receiver) as server:
            server.begin(revision)
            server.call_tool(1, "echo", {"message": "hello"})
            wait_until_connected(receiver)
            end(server)
            server.wait()
        metrics = receiver.metrics()
        assert metrics["tfo.mcp.sessions.active"] == [{"attributes": {}, "value": 0}]
        (duration,) = metrics["mcp.server.session.duration"]
        assert (duration["attributes"], duration.get("count")) == ({"mcp.protocol.version": revision}, 1)
        events = [record for record in receiver.logs() if record["event"]]
        assert [record["event"] for record in events] == ["tfo.session.initialized", "tfo.session.closed"]
        (session,) = {record["attributes"]["mcp.session.id"] for record in events}
        assert {span["attributes"]["mcp.session.id"] for span in receiver.spans() if span["kind"] == "SERVER"} == {
            session
        }
        assert {record["attributes"]["tfo.client.name"] for record in events} == {"test"}


@pytest.mark.behaviour("session.measured")
@pytest.mark.parametrize("end", [close_input, terminate])
def test_a_client_that_never_initializes_is_no_session(tmp_path: Path, end: Callable[[Server], None]) -> None:
    with receiving("http") as receiver:
        with observed(tmp_path, receiver) as server:
            assert "error" in server.call(1, "initialize", {"protocolVersion": 7})
            assert "error" in server.call(2, "tools/list")
            end(server)
            server.wait()
        assert receiver.metrics().keys().isdisjoint({"tfo.mcp.sessions.active", "mcp.server.session.duration"})
        assert [record["event"] for record in receiver.logs() if record["event"]] == []


# --- errors ---


def error_id_of(answer: Answer) -> str:
    if "error" in answer:
        assert (answer["error"]["code"], answer["error"]["message"]) == (-32603, "Internal error")
        return answer["error"]["data"]["errorId"]
    assert answer["result"]["isError"]
    return answer["result"]["content"][0]["text"].rpartition(" ")[2]


@pytest.mark.behaviour("telemetry.error-records", "messages.error.internal")
@pytest.mark.parametrize(
    ("revision", "tool", "span", "exception"),
    [
        ("2025-11-25", "no_schema", "tools/call no_schema", "ValueError"),
        (STATELESS, "fail", "tools.execute", "RuntimeError"),
        later(STATELESS, "no_schema", "tools/call no_schema", "ValueError"),
        later("2025-11-25", "fail", "tools.execute", "RuntimeError"),
    ],
)
def test_answer_log_trace_and_error_record_have_one_id(
    tmp_path: Path, revision: str, tool: str, span: str, exception: str
) -> None:
    with receiving("grpc") as receiver:
        with observed(tmp_path, receiver, "grpc") as server:
            server.begin(revision)
            error_id = error_id_of(server.call(1, "tools/call", {"name": tool, "arguments": {}}))
        (traced,) = [each for each in receiver.spans() if each["attributes"].get("tfo.error.id") == error_id]
        assert traced["name"] == span
        ids = (traced["trace_id"], traced["span_id"])
        (record,) = [each for each in receiver.logs() if each["level"] == "ERROR"]
        assert (record["event"], record["trace_id"], record["span_id"]) == ("tfo.error", *ids)
        assert record["attributes"] == {
            "error.type": exception,
            "exception.type": exception,
            "tfo.error.id": error_id,
        }
        (logged,) = [each for each in stderr_records(server) if each["level"] == "error"]
        assert (logged["error_id"], logged["trace_id"], logged["span_id"]) == (error_id, *ids)
        assert "4711" in logged["exception"]  # this machine's log has the text, and nobody else
        assert "secret 4711" not in repr((receiver.spans(), receiver.logs(), receiver.metrics()))
        assert receiver.metrics()["tfo.mcp.errors"] == [{"attributes": {"error.type": exception}, "value": 1}]


@pytest.mark.behaviour("telemetry.error-records")
def test_a_result_that_is_none_is_an_error_record_in_the_trace_of_its_request(tmp_path: Path) -> None:
    with receiving("http") as receiver:
        with observed(tmp_path, receiver) as server:
            server.begin("2025-11-25")
            result = server.call_tool(1, "no_text")
            error_id = result["content"][0]["text"].split()[-1]
        (record,) = [each for each in receiver.logs() if each["event"] == "tfo.error"]
        (traced,) = [each for each in receiver.spans() if each["name"] == "tools.execute"]
        assert record["attributes"]["tfo.error.id"] == error_id
        assert (record["trace_id"], record["span_id"]) == (traced["trace_id"], traced["span_id"])


@pytest.mark.behaviour("telemetry.error-records", "claude.error.recorded")
def test_each_failure_of_claude_is_one_error_record_in_the_trace_of_its_request(tmp_path: Path) -> None:
    script = "replies: [{when: {contains: break}, status: 400}]"
    with receiving("http") as receiver, fake_claude(script) as claude:
        with observed(tmp_path, receiver, env=claude_at(claude.base_url)) as server:
            server.begin("2025-11-25")
            assert server.call_tool(1, "claude_conversation", {"message": "break"})["isError"]
            assert not server.call_tool(2, "claude_conversation", {"message": "hello"})["isError"]
        (record,) = [each for each in receiver.logs() if each["event"] == "tfo.error"]
        failed, _ = [each for each in receiver.spans() if each["name"] == "claude.request"]
        assert (record["trace_id"], record["span_id"]) == (failed["trace_id"], failed["span_id"])
        assert record["attributes"]["error.type"] == failed["attributes"]["error.type"] == "400"
        assert record["attributes"]["gen_ai.conversation.id"] == failed["attributes"]["gen_ai.conversation.id"]
        assert receiver.metrics()["tfo.mcp.errors"] == [{"attributes": {"error.type": "400"}, "value": 1}]


# --- context ---


@pytest.mark.behaviour("telemetry.request.trace-context", "telemetry.tracestate", "claude.headers")
@pytest.mark.parametrize("revision", [later("2025-11-25"), STATELESS])
def test_what_the_client_says_of_its_trace_is_taken_over_and_claude_is_told_nothing(
    tmp_path: Path, revision: str
) -> None:
    meta: dict[str, Any] = {
        **(ENVELOPE if revision == STATELESS else {}),
        "traceparent": PARENT,
        "tracestate": "vendor=state",
        "baggage": "user=baggage-4711",
    }
    with receiving("http") as receiver, fake_claude() as claude:
        with observed(tmp_path, receiver, env=claude_at(claude.base_url)) as server:
            server.begin(revision)
            arguments = {"message": "use the tool system_info"}
            server.request(1, "tools/call", {"name": "claude_conversation", "arguments": arguments, "_meta": meta})
            assert "error" not in server.answer_to(1)
            sent = [request["headers"] for request in claude.requests()]
        spans = [span for span in receiver.spans() if span["trace_id"] == f"{0xA1:032x}"]
        assert {"tools/call claude_conversation", "tools.execute", "claude.request"} <= {span["name"] for span in spans}
        assert {span["trace_state"] for span in spans} == {"vendor=state"}
        assert [span["parent_id"] for span in spans if span["kind"] == "SERVER"] == [f"{0xB2:016x}"]
        logged = [record for record in receiver.logs() if record["trace_id"] == f"{0xA1:032x}"]
        assert {record["body"] for record in logged} >= {"ConversationCreated", "MessageAdded"}
        assert {record["trace_id"] for record in stderr_records(server) if record["event"] == "MessageAdded"} == {
            f"{0xA1:032x}"
        }
        assert sent
        assert all({"traceparent", "tracestate", "baggage"}.isdisjoint(headers) for headers in sent)
        assert "baggage-4711" not in everything_told(receiver, server)


@pytest.mark.behaviour("telemetry.logs")
def test_what_happens_behind_the_first_answer_is_no_part_of_its_request(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no folder")
    with receiving("http") as receiver:
        with observed(tmp_path, receiver) as server:
            server.begin("2025-11-25")
            assert receiver.wait_for(lambda: any(each["level"] == "WARNING" for each in receiver.logs()), DEADLINE)
        warnings = [each for each in receiver.logs() if each["level"] == "WARNING"]
        assert {each["trace_id"] for each in warnings} == {""}


# --- what is told to nobody ---

MARKER = "marker-4711"


def calls_with_the_marker(server: Server) -> None:
    """The marker as argument, file name, file content, invented name and message: through every tool and to Claude."""
    tools = server.call("list", "tools/list")["result"]["tools"]
    for number, tool in enumerate(tools):
        if tool["name"] in {"stay", "block", "say", "open_descriptors", "wait"}:
            continue  # they never end, or make noise
        names = tool["inputSchema"].get("properties", {"x": {}})
        arguments = {name: MARKER for name in names if name not in {"max_tokens", "recursive", "model"}}
        for given in (arguments, {**arguments, MARKER: MARKER}, {name: [MARKER] for name in names}):
            server.call(f"{MARKER}-{number}", "tools/call", {"name": tool["name"], "arguments": given})
    server.call(1, "tools/call", {"name": "read_file", "arguments": {"path": f"{MARKER}.txt"}})
    server.call(2, "tools/call", {"name": MARKER, "arguments": {}})
    server.call(3, MARKER, {MARKER: MARKER})
    server.call(4, "tools/list", {"cursor": MARKER})
    server.call(5, "tools/call", {"name": 7, MARKER: MARKER})
    for message in (f"hello {MARKER}", f"break {MARKER}", f"look at the files and {MARKER}"):
        server.call(6, "tools/call", {"name": "claude_conversation", "arguments": {"message": message}})
    server.send_raw(b'{"jsonrpc": "2.0", "' + MARKER.encode() + b'\n["' + MARKER.encode() + b'"]\n')
    server.notify(f"notifications/{MARKER}", {MARKER: MARKER})


@pytest.mark.behaviour("telemetry.no-contents")
@pytest.mark.parametrize("revision", ["2025-11-25", later(STATELESS)])
def test_contents_are_in_no_signal_and_not_in_the_log(tmp_path: Path, revision: str) -> None:
    script = "replies: [{when: {contains: break}, status: 400}]"
    with receiving("http") as receiver, fake_claude(script) as claude:
        work = tmp_path / "work"
        work.mkdir(parents=True)
        (work / f"{MARKER}.txt").write_text(MARKER)
        with observed(tmp_path, receiver, env=claude_at(claude.base_url)) as server:
            server.begin(revision)
            calls_with_the_marker(server)
        told = [*receiver.spans(), *receiver.logs(), *receiver.metrics().items()]
        # The id of a request is the client's to choose, and is kept by design; it is no content.
        found = [each for each in told if MARKER in repr(each).replace(f"'jsonrpc.request.id': '{MARKER}", "")]
        assert found == []
        assert MARKER not in server.log()
        assert len(told) > 50

"""A session from its first request to Closing, and what goes wrong inside a request (DESIGN §5)."""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from support.claude import fake_claude
from support.server import ENVELOPE, HANDSHAKE, STATELESS, Answer, Server, claude_at, eventually, serving
from support.sizes import later

ODD = (sys.executable, str(Path(__file__).with_name("odd_server.py")), "serve")

OLDER = [later(revision) for revision in ("2024-11-05", "2025-03-26", "2025-06-18")]


def error(request_id: object, code: int, message: str) -> Answer:
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}


@pytest.mark.behaviour(
    "lifecycle.initialize.first",
    "lifecycle.initialize.malformed",
    "lifecycle.version.match",
    "messages.error.method-not-found",
)
@pytest.mark.parametrize("revision", [*OLDER, "2025-11-25"])
def test_before_initialize_only_ping_is_served_and_nothing_is_lost_by_asking(tmp_path: Path, revision: str) -> None:
    with serving(tmp_path) as server:
        for method, params in {"tools/list": {}, "tools/call": {"name": "echo"}, "shutdown": {}}.items():
            answer = server.call(1, method, params)
            assert answer == error(1, -32600, f"{method!r} came before 'initialize'")
        assert server.call(2, "ping")["result"] == {}
        assert server.call(3, "no/such")["error"]["code"] == -32601
        for wrong in ({}, {**HANDSHAKE, "protocolVersion": 5}, {**HANDSHAKE, "clientInfo": {"name": "x"}}):
            answer = server.call(4, "initialize", wrong)
            assert (answer["id"], answer["error"]["code"]) == (4, -32602)
        server.notify("notifications/initialized")
        server.notify("notifications/cancelled", {"requestId": 1})
        assert server.call(5, "tools/list")["error"]["code"] == -32600
        result = server.call(6, "initialize", {**HANDSHAKE, "protocolVersion": revision})["result"]
        assert result["protocolVersion"] == revision
        assert result["serverInfo"]["name"] == "TelemetryFlow-MCP"
        assert "echo" in [tool["name"] for tool in server.call(7, "tools/list")["result"]["tools"]]
        server.notify("notifications/initialized")
        assert server.call_tool(8, "echo", {"message": "hi"})["content"] == [{"type": "text", "text": "hi"}]


@pytest.mark.behaviour("lifecycle.version.unknown")
def test_a_client_of_an_unknown_revision_is_offered_the_latest_handshake(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        result = server.call(1, "initialize", {**HANDSHAKE, "protocolVersion": "1999-01-01"})["result"]
        assert result["protocolVersion"] == "2025-11-25"


@pytest.mark.behaviour("lifecycle.initialized.not-awaited")
def test_requests_that_do_not_wait_for_initialize_find_it_done(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.send(
            {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HANDSHAKE},
            {"jsonrpc": "2.0", "method": "notifications/initialized"},
            {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
            {
                "jsonrpc": "2.0",
                "id": 3,
                "method": "tools/call",
                "params": {"name": "echo", "arguments": {"message": "x"}},
            },
            {"jsonrpc": "2.0", "id": 4, "method": "ping"},
        )
        answers = [server.receive() for _ in range(4)]
        assert {answer["id"] for answer in answers if "result" in answer} == {1, 2, 3, 4}


@pytest.mark.behaviour("stateless.first-request")
@pytest.mark.parametrize("first", ["tools/call", later("tools/list"), later("server/discover"), "shutdown"])
def test_any_stateless_request_may_be_the_first(tmp_path: Path, first: str) -> None:
    with serving(tmp_path, "--log-level", "debug") as server:
        server.begin(STATELESS)
        answer = server.call(1, first, {"name": "echo", "arguments": {"message": "x"}})
        assert answer["result"]["resultType"] == "complete"
        if first != "shutdown":
            eventually(lambda: "SessionInitialized" in server.log())
        server.close_input()
        assert server.wait() == 0
        events = [json.loads(line)["event"] for line in server.log().splitlines()]
        assert [event for event in events if event.startswith("Session")] == [
            "SessionCreated",
            "SessionInitialized",
            "SessionClosed",
        ]


@pytest.mark.behaviour("session.closing", "messages.error.closing")
@pytest.mark.parametrize("revision", [*OLDER, "2025-11-25", STATELESS])
def test_while_closing_every_request_is_refused_and_what_is_under_way_ends(tmp_path: Path, revision: str) -> None:
    with serving(tmp_path, command=ODD) as server:
        server.begin(revision)
        server.request("quick", "tools/call", {"name": "wait", "arguments": {"seconds": 0.3}})
        server.request("never", "tools/call", {"name": "wait", "arguments": {"seconds": 60}})
        server.request("end", "shutdown")
        server.request("list", "tools/list")
        server.request("call", "tools/call", {"name": "echo", "arguments": {"message": "x"}})
        server.request("again", "shutdown")
        server.ask_whether_alive()
        server.request("unknown", "no/such")
        answers = {answer["id"]: answer for answer in server.rest()}
        assert server.wait() == 0
        closing = "the server is shutting down"
        for refused in ("list", "call", "again", "alive", "never"):
            assert answers.pop(refused) == error(refused, -32000, closing)
        assert answers.pop("unknown")["error"]["code"] == -32601
        assert answers.pop("quick")["result"]["content"] == [{"type": "text", "text": "waited 0.3 s"}]
        assert answers.pop("end")["result"] == (
            {} if revision != STATELESS else {"resultType": "complete", "_meta": answers_meta(server)}
        )
        assert answers == {}
        assert [message.get("id") for message in server.received][-1] == "end"


def answers_meta(server: Server) -> Answer:
    """What the server says of itself with each stateless result."""
    return next(message["result"]["_meta"] for message in server.received if "result" in message)


@pytest.mark.behaviour("cancellation.shutdown")
def test_shutdown_cannot_be_cancelled(tmp_path: Path) -> None:
    with serving(tmp_path, command=ODD) as server:
        server.begin("2025-11-25")
        server.request("never", "tools/call", {"name": "wait", "arguments": {"seconds": 60}})
        server.request("end", "shutdown")
        server.notify("notifications/cancelled", {"requestId": "end"})
        assert [answer["id"] for answer in server.rest()] == ["never", "end"]
        assert server.wait() == 0


@pytest.mark.behaviour("session.closing", "stdio.end.input")
def test_shutdown_and_the_end_of_input_at_once_are_one_end(tmp_path: Path) -> None:
    with serving(tmp_path, command=ODD) as server:
        server.begin("2025-11-25")
        server.request("never", "tools/call", {"name": "stay"})
        server.request("end", "shutdown")
        server.close_input()
        closing = error("never", -32000, "the server is shutting down")
        assert server.rest() == [closing, {"jsonrpc": "2.0", "id": "end", "result": {}}]
        assert server.wait() == 0
        assert "SessionClosed" in server.log()


@pytest.mark.behaviour("tools.call.timeout")
@pytest.mark.parametrize("revision", [later("2025-11-25"), STATELESS])
def test_a_turn_that_takes_too_long_is_a_result_that_says_so(tmp_path: Path, revision: str) -> None:
    with fake_claude("replies: [{when: {contains: slow}, text: late, delay: 60}]") as claude:
        environment = claude_at(claude.base_url) | {"TELEMETRYFLOW_MCP_CLAUDE_TURN_TIMEOUT": "1.5"}
        with serving(tmp_path, env=environment) as server:
            server.begin(revision)
            # The first turns may time out while the Claude SDK is being imported.
            eventually(lambda: not server.call_tool(1, "claude_conversation", {"message": "hi"})["isError"])
            result = server.call_tool(2, "claude_conversation", {"message": "slow"})
            assert result["isError"] is True
            assert result["structuredContent"]["stop_reason"] == "timeout"
            assert result["content"][0]["text"].endswith(", stopped by timeout]")
            eventually(lambda: claude.requests()[-1]["disconnected"])


@pytest.mark.behaviour("tools.call.timeout")
@pytest.mark.parametrize("revision", ["2025-11-25", later(STATELESS)])
def test_a_tool_that_takes_too_long_is_a_result_that_says_so(tmp_path: Path, revision: str) -> None:
    environment = {"TELEMETRYFLOW_MCP_MCP_TOOL_TIMEOUT": "0.2", "TELEMETRYFLOW_MCP_TOOLS_THREADS": "1"}
    with serving(tmp_path, env=environment, command=ODD) as server:
        server.begin(revision)
        server.request("block", "tools/call", {"name": "block"})
        server.request("wait", "tools/call", {"name": "wait", "arguments": {"seconds": 60}})
        results = [server.receive()["result"] for _ in range(2)]
        assert sorted(result["content"][0]["text"] for result in results) == [
            "'block' did not finish within 0.2 s and was stopped",
            "'wait' did not finish within 0.2 s and was stopped",
        ]
        assert all(result["isError"] for result in results)
        # The one thread is still held: who waits for it gets the same answer, and everybody else his own.
        assert server.call_tool(3, "system_info")["isError"] is True
        assert server.call_tool(4, "echo", {"message": "x"})["isError"] is False


@pytest.mark.behaviour("messages.error.internal", "tools.call.fault")
@pytest.mark.parametrize("revision", ["2025-11-25", STATELESS])
def test_what_nobody_foresaw_gets_an_error_id_that_the_log_has_and_never_its_text(
    tmp_path: Path, revision: str
) -> None:
    with serving(tmp_path, command=ODD) as server:
        server.begin(revision)
        answer = server.call("no_schema", "tools/call", {"name": "no_schema"})
        error_id = answer["error"]["data"].pop("errorId")
        assert answer["error"] == {"code": -32603, "message": "Internal error", "data": {}}
        eventually(lambda: error_id in server.log())
        for tool in ("fail", "no_text"):
            result = server.call_tool(tool, tool)
            assert result["isError"] is True
            (sentence,) = result["content"]
            error_id = sentence["text"].split()[-1]
            assert sentence["text"] == (
                f"{tool!r} failed for a reason that is not its caller's; the server's log has it as error {error_id}"
            )
            eventually(lambda: error_id in server.log())  # noqa: B023
        assert "the secret 4711" in server.log()
        assert "4711" not in json.dumps(server.received)
        server.ask_whether_alive()
        assert "result" in server.answer_to("alive")


@pytest.mark.behaviour("lifecycle.client.any")
@pytest.mark.parametrize("revision", ["2025-11-25", STATELESS])
def test_of_a_client_that_talks_much_of_itself_little_is_kept(tmp_path: Path, revision: str) -> None:
    client = {"name": "n" * 1_000_000, "version": "v" * 1_000_000}
    with serving(tmp_path) as server:
        if revision == STATELESS:
            meta = {**ENVELOPE, "io.modelcontextprotocol/clientInfo": client}
            assert "result" in server.call(1, "tools/list", {"_meta": meta})
        else:
            assert "result" in server.call(1, "initialize", {**HANDSHAKE, "clientInfo": client})
        server.close_input()
        assert server.wait() == 0
        assert len(server.log()) < 10_000
    with closing(sqlite3.connect(tmp_path / "state" / "tfo-mcp.db")) as database:
        kept = database.execute("SELECT client_name, client_version FROM sessions").fetchall()
    assert kept == [("n" * 200, "v" * 200)]

"""What the server recorded of itself, asked through its tools, resources and prompt."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.claude import fake_claude
from support.server import ENVELOPE, STATELESS, Answer, Server, claude_at, eventually, serving
from tfo_mcp.infrastructure.telemetry.recorder_file import MORE_COLUMNS, SPAN_COLUMNS, ProcessRow, RecorderFile, SpanRow

newest = pytest.mark.parametrize("revision", ["2025-11-25", STATELESS])
SCRIPT = "replies: [{when: {contains: break}, status: 400}, {text: hello, times: 99}]"
LONG = "b" * 32
PAGE = 90_000
"""Bytes of an answer with a page of 72 KiB in it: JSON within JSON has some more."""
OFF = {"TELEMETRYFLOW_MCP_TELEMETRY_RECORDER": "false"}
TOOLS = {"telemetry_summary", "slow_calls", "explain_failure", "get_trace", "query_telemetry"}


def asked(server: Server, asked_tool: str, **arguments: object) -> Mapping[str, Any]:
    """What the tool gives for programs; for people it has a text."""
    result = server.call_tool(f"{asked_tool} {len(server.received)}", asked_tool, arguments)
    assert not result["isError"], result
    (content,) = result["content"]
    assert content["text"]
    return result["structuredContent"]


def refused(server: Server, tool: str, **arguments: object) -> str:
    result = server.call_tool(f"{tool} {len(server.received)}", tool, arguments)
    assert result["isError"]
    return str(result["content"][0]["text"])


def read(server: Server, uri: str) -> Answer:
    answer = server.call(f"{uri} {len(server.received)}", "resources/read", {"uri": uri})
    (content,) = answer["result"]["contents"]
    found: Answer = json.loads(content["text"])
    return found


def ended(server: Server) -> int:
    """The exit code, when it has written all that it recorded."""
    server.close_input()
    return server.wait()


def counts(summary: Mapping[str, Any]) -> Mapping[tuple[str, str], tuple[int, int]]:
    return {(count["kind"], count["name"]): (count["calls"], count["errors"]) for count in summary["operations"]}


@pytest.mark.behaviour("telemetry.summary", "telemetry.reading-is-not-counted")
@newest
def test_the_summary_counts_what_was_called_and_not_who_asks(tmp_path: Path, revision: str) -> None:
    with fake_claude(SCRIPT) as claude, serving(tmp_path, env=claude_at(claude.base_url)) as server:
        server.begin(revision)
        for number in range(7):
            server.call_tool(number, "echo", {"message": "hello"})
        server.call_tool("wrong", "echo", {"massage": "hello"})
        server.call_tool("talk", "claude_conversation", {"message": "hello"})
        server.call("none", "tools/call", {"name": "a name that nobody has", "arguments": {}})
        asked(server, "telemetry_summary")
        read(server, "telemetry://tools/summary")

        summary = asked(server, "telemetry_summary", window="5m")
        found = counts(summary)
        assert found["tool", "echo"] == (8, 1)
        assert found["tool", "claude_conversation"] == (1, 0)
        assert found["tool", "_OTHER"] == (1, 1)
        assert found["request", "tools/call"] == (10, 2)
        assert not {name for _, name in found} & (TOOLS | {"resources/read"})
        (echo,) = [count for count in summary["operations"] if count["name"] == "echo"]
        assert echo["errors_by_type"] == {"invalid_arguments": 1}
        assert 0 < echo["p50_ms"] <= echo["p95_ms"] <= echo["p99_ms"] <= echo["longest_ms"]
        (tokens,) = [count["tokens"] for count in summary["operations"] if count["kind"] == "claude"]
        assert tokens["output"] > 0
        shown = read(server, "telemetry://tools/summary")
        assert {tool["name"]: tool["calls"] for tool in shown["tools"]} == {
            "echo": 8,
            "claude_conversation": 1,
            "_OTHER": 1,
        }


@pytest.mark.behaviour("telemetry.recorder")
def test_requests_that_the_end_has_cut_are_recorded_each(tmp_path: Path) -> None:
    in_good_time = {"TELEMETRYFLOW_MCP_SERVER_SHUTDOWN_TIMEOUT": "20"}
    with (
        fake_claude("replies: [{text: late, delay: 60}]") as claude,
        serving(tmp_path, env={**claude_at(claude.base_url), **in_good_time}) as server,
    ):
        server.initialize()
        for number in range(20):
            server.request(number, "tools/call", {"name": "claude_conversation", "arguments": {"message": "hi"}})
        server.call("alive", "ping")
        server.close_input()
        answers = server.rest()
        assert server.wait() == 0
    assert len([answer for answer in answers if "error" in answer]) == 20

    with closing(sqlite3.connect(tmp_path / "state" / "telemetry.db")) as database:
        query = "SELECT outcome, sum(calls) FROM minutes WHERE kind = 'request' AND name = 'tools/call' GROUP BY 1"
        assert database.execute(query).fetchall() == [("cancelled", 20)]


@pytest.mark.behaviour("telemetry.summary")
def test_what_was_recorded_outlives_the_server(tmp_path: Path) -> None:
    for _ in range(2):
        with serving(tmp_path) as server:
            server.begin("2025-11-25")
            for number in range(5):
                server.call_tool(number, "echo", {"message": "hello"})
            assert ended(server) == 0
    with serving(tmp_path) as server:
        server.begin("2025-11-25")
        assert counts(asked(server, "telemetry_summary"))["tool", "echo"] == (10, 0)


@pytest.mark.behaviour("telemetry.failures")
@newest
def test_a_failed_call_to_claude_is_explained_down_to_its_request_id(tmp_path: Path, revision: str) -> None:
    with fake_claude(SCRIPT) as claude, serving(tmp_path, env=claude_at(claude.base_url)) as server:
        server.begin(revision)
        assert asked(server, "explain_failure") == {}
        server.call_tool("works", "claude_conversation", {"message": "hello"})
        server.call_tool("fails", "claude_conversation", {"message": "break"})
        server.call_tool("other", "echo", {"message": "hello"})

        failure = asked(server, "explain_failure")
        assert failure["call"]["tool"] == "claude_conversation"
        assert (failure["stage"], failure["cause"]["error_type"]) == ("the request to Claude", "400")
        (attempt,) = failure["claude_attempts"]
        assert attempt["attributes"]["tfo.claude.request.id"].startswith("req_")
        assert attempt["attributes"]["http.response.status_code"] == 400
        assert failure["last_worked_at"] is not None
        assert (failure["failed_since"], failure["changed_since"]) == (1, [])
        assert asked(server, "explain_failure", trace_id=failure["call"]["trace_id"]) == failure
        (newest_one, *_) = read(server, "telemetry://errors/recent")["errors"]
        assert newest_one["trace_id"] == failure["call"]["trace_id"]


@pytest.mark.behaviour("telemetry.failures")
@pytest.mark.parametrize(
    ("fault", "meaning"),
    [
        ("text: hello, cut: {events: 3}", "broke off its answer"),
        ("text: hello, stream_error: {type: overloaded_error}", "The API was overloaded."),
    ],
)
def test_an_answer_that_broke_off_is_not_said_to_be_refused_or_asked_for_again(
    tmp_path: Path, fault: str, meaning: str
) -> None:
    with fake_claude(f"replies: [{{{fault}}}]") as claude, serving(tmp_path, env=claude_at(claude.base_url)) as server:
        server.begin("2025-11-25")
        server.call_tool("fails", "claude_conversation", {"message": "hello"})
        failure = asked(server, "explain_failure")
        assert meaning in failure["meaning"]
        (attempt,) = failure["claude_attempts"]
        assert attempt["attributes"]["http.response.status_code"] == 200


@pytest.mark.behaviour("telemetry.failures")
def test_what_has_changed_since_a_call_last_worked_is_told(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "work" / "note").write_text("hello")
    path = str(tmp_path / "work" / "note")
    with serving(tmp_path) as server:
        server.begin("2025-11-25")
        server.call_tool("works", "read_file", {"path": path})
        assert ended(server) == 0
    with serving(tmp_path, env={"TELEMETRYFLOW_MCP_TOOLS_ROOTS": str(tmp_path / "elsewhere")}) as server:
        server.begin("2025-11-25")
        for number in range(3):
            server.call_tool(number, "read_file", {"path": path})
        failure = asked(server, "explain_failure", tool="read_file")
        (change,) = failure["changed_since"]
        assert (change["what"], change["from"], change["to"]) == ("tools.roots", None, [str(tmp_path / "elsewhere")])
        assert (failure["failed_since"], failure["server_restarted_since"]) == (3, True)
        assert failure["cause"]["error_type"] == "path_refused"
        assert "roots" in failure["meaning"]


@pytest.mark.behaviour("telemetry.failures")
@pytest.mark.parametrize(
    ("method", "params", "stage"),
    [
        ("tools/call", {"name": "echo", "arguments": {}}, "the check of the arguments"),
        ("tools/call", {"name": "no such tool", "arguments": {}}, "the search for the tool"),
        ("tools/list", {"cursor": "never given out"}, "the request itself"),
        ("resources/read", {"uri": "nothing://at/all"}, "the request itself"),
        ("tools/call", {"name": "read_file", "arguments": {"path": "no such file"}}, "the run of the tool"),
    ],
)
def test_the_stage_at_which_a_call_failed_is_named(
    tmp_path: Path, method: str, params: Mapping[str, Any], stage: str
) -> None:
    with serving(tmp_path) as server:
        server.begin("2025-11-25")
        server.call("fails", method, params)
        assert asked(server, "explain_failure")["stage"].startswith(stage)


@pytest.mark.behaviour("telemetry.failures")
def test_a_call_that_failed_is_explained_however_long_its_trace_is(tmp_path: Path) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    meta = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
    with serving(tmp_path) as server:
        server.begin("2025-11-25")
        for number in range(510):  # two operations each
            server.call(number, "tools/call", {"name": "echo", "arguments": {"message": "hello"}, "_meta": meta})
        params = {"name": "read_file", "arguments": {"path": "no such file"}, "_meta": meta}
        server.call("fails", "tools/call", params)

        failure = asked(server, "explain_failure", trace_id=trace_id)
        assert (failure["call"]["tool"], failure["stage"]) == ("read_file", "the run of the tool")
        assert asked(server, "explain_failure") == failure
        shown = read(server, f"telemetry://traces/{trace_id}")
        assert len(shown["spans"]) + shown["left_out"] == shown["total"] == 2 * 511


@pytest.mark.behaviour("telemetry.traces")
@newest
def test_a_trace_is_read_whole_and_in_order(tmp_path: Path, revision: str) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    meta = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-00"}
    with fake_claude(SCRIPT) as claude, serving(tmp_path, env=claude_at(claude.base_url)) as server:
        server.begin(revision)
        params: dict[str, Any] = {"name": "claude_conversation", "arguments": {"message": "hello"}}
        envelope = ENVELOPE if revision == STATELESS else {}
        server.call("traced", "tools/call", {**params, "_meta": {**envelope, **meta}})

        trace = asked(server, "get_trace", trace_id=trace_id)
        names = [span["name"] for span in trace["spans"]]
        assert names[:3] == ["tools/call claude_conversation", "tools.execute", "claude.request"]
        assert (trace["total"], trace["next_start"]) == (len(names), None)
        parents = {span["span_id"]: span["parent_id"] for span in trace["spans"]}
        root, tool, request, *library = list(parents)
        assert parents[root] == "b7ad6b7169203331"
        assert (parents[tool], parents[request]) == (root, tool)
        assert {parents[span] for span in library} == {request}
        assert read(server, f"telemetry://traces/{trace_id}")["spans"] == trace["spans"]
        first = asked(server, "get_trace", trace_id=trace_id, limit=1)
        rest = asked(server, "get_trace", trace_id=trace_id, start=first["next_start"])
        assert first["spans"] + rest["spans"] == trace["spans"]

        assert "is kept" in refused(server, "get_trace", trace_id="1" * 32)
        assert "trace_id" in refused(server, "get_trace", trace_id="short")
        for uri in (f"telemetry://traces/{'1' * 32}", "telemetry://traces/x", f"telemetry://traces/{trace_id.upper()}"):
            assert server.call(uri, "resources/read", {"uri": uri})["error"]["code"] == -32602


def a_span(number: int, parent: int, kind: str, name: str, **more: object) -> SpanRow:
    known = {
        "principal": "local",
        "trace_id": LONG,
        "span_id": f"{number:016x}",
        "parent_id": f"{parent:016x}" if parent else None,
        "kind": kind,
        "name": name,
        "ended_at": time.time() + number / 1000,
        "duration": 0.0001,
        "outcome": "completed",
        "reads_telemetry": False,
        **more,
    }
    return tuple(known.get(column) for column in (*SPAN_COLUMNS, *MORE_COLUMNS))


def events(many: int, **attributes: object) -> str:
    return json.dumps([{"at": time.time(), "name": "tfo.claude.attempt", "attributes": attributes}] * many)


@pytest.mark.behaviour("telemetry.traces", "telemetry.failures")
def test_whatever_was_recorded_an_answer_is_no_larger_than_a_page(tmp_path: Path) -> None:
    said = {f"key {number}": "x" * 1024 for number in range(128)}
    attempts = events(11, **{"http.response.status_code": 529, "tfo.claude.request.id": "req_" + "x" * 30})
    rows = [a_span(1, 0, "request", "tools/call claude_conversation", tool="claude_conversation", outcome="failed")]
    rows += [
        a_span(number, 1, "claude", "claude.request", outcome="failed", events=attempts) for number in range(2, 52)
    ]
    rows += [a_span(number, 2, "library", "POST", attributes=json.dumps(said)) for number in (60, 61)]
    rows += [a_span(62, 2, "library", "POST", attributes=json.dumps({"short": 1}), events=events(128, **said))]
    rows += [a_span(number, 2, "library", "GET") for number in range(100, 600)]
    with serving(tmp_path) as server:
        server.begin("2025-11-25")
        asked(server, "telemetry_summary")  # there is a file from now on
        file = RecorderFile(tmp_path / "state" / "telemetry.db")
        file.append(ProcessRow("i", 1, "1.0", "3.11", 0.0, "{}"), rows, [], {})
        file.close()

        failure = asked(server, "explain_failure", trace_id=LONG)
        assert (len(failure["claude_attempts"]), failure["claude_attempts_left_out"]) == (50, 500)
        found: dict[str, Mapping[str, Any]] = {}
        page: Mapping[str, Any] = {"next_start": 0}
        while page["next_start"] is not None:
            page = asked(server, "get_trace", trace_id=LONG, start=page["next_start"], limit=200)
            assert not {span["span_id"] for span in page["spans"]} & set(found)
            found |= {span["span_id"]: span for span in page["spans"]}
        assert len(found) == page["total"] == len(rows)
        assert found[f"{60:016x}"]["left_out"] == ["attributes"]
        assert (found[f"{62:016x}"]["left_out"], found[f"{62:016x}"]["attributes"]) == (["events"], {"short": 1})
        trace = read(server, f"telemetry://traces/{LONG}")
        assert 0 < len(trace["spans"]) == trace["total"] - trace["left_out"]
        for message in server.received:
            assert len(json.dumps(message)) < PAGE
            for content in message["result"].get("contents", []):
                assert len(content["text"]) <= 72 * 1024


@pytest.mark.parametrize("tool", ["telemetry_summary", "slow_calls", "get_trace"])
@pytest.mark.behaviour("telemetry.slow")
def test_a_page_that_no_number_of_sqlite_reaches_is_refused_in_one_sentence(tmp_path: Path, tool: str) -> None:
    with serving(tmp_path) as server:
        server.begin("2025-11-25")
        known = {"trace_id": LONG} if tool == "get_trace" else {}
        assert "/start" in refused(server, tool, start=2**63, **known)


@pytest.mark.behaviour("telemetry.slow")
def test_slow_calls_are_found_in_pages(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.begin("2025-11-25")
        for number in range(9):
            server.call_tool(number, "echo" if number % 3 else "system_info", {"message": "x"} if number % 3 else {})
        found = asked(server, "slow_calls")["calls"]
        durations = [call["duration_ms"] for call in found]
        assert durations == sorted(durations, reverse=True)
        assert {call["name"] for call in found} == {"initialize", "tools/call echo", "tools/call system_info"}
        echoes = asked(server, "slow_calls", tool="echo", limit=4)
        assert (len(echoes["calls"]), echoes["next_start"]) == (4, 4)
        rest = asked(server, "slow_calls", tool="echo", limit=4, start=4)
        assert (len(rest["calls"]), rest["next_start"]) == (2, None)
        assert {call["tool"] for call in (*echoes["calls"], *rest["calls"])} == {"echo"}


@pytest.mark.behaviour("telemetry.query")
@newest
def test_sql_is_answered_over_views_and_refused_in_one_sentence(tmp_path: Path, revision: str) -> None:
    with serving(tmp_path) as server:
        server.begin(revision)
        for number in range(3):
            server.call_tool(number, "echo", {"message": "hello"})
        answer = asked(server, "query_telemetry", sql="SELECT tool, count(*) AS calls FROM tool_calls GROUP BY tool")
        assert answer == {"columns": ["tool", "calls"], "rows": [["echo", 3]], "complete": True}
        assert "not authorized" in refused(server, "query_telemetry", sql="DELETE FROM main.spans")
        assert "prohibited" in refused(server, "query_telemetry", sql="SELECT * FROM main.spans")
        assert "the views are requests" in refused(server, "query_telemetry", sql="SELECT * FROM calls")
        answer = asked(server, "query_telemetry", sql="SELECT client_name, ended_at FROM sessions")
        assert answer["rows"] == [["test", None]]


@pytest.mark.behaviour("telemetry.health")
def test_telemetry_has_a_health_of_its_own(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.begin("2025-11-25")
        health = read(server, "telemetry://health")
        assert (health["status"], health["problems"]) == ("healthy", [])


@pytest.mark.behaviour("telemetry.prompt")
def test_the_prompt_to_diagnose_names_the_tools_there_are(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.begin("2025-11-25")
        filled = server.call("p", "prompts/get", {"name": "diagnose_server", "arguments": {"symptom": "```\nslow"}})
        text = filled["result"]["messages"][0]["content"]["text"]
        offered = {tool["name"] for tool in server.call("t", "tools/list")["result"]["tools"]}
        assert offered >= TOOLS
        assert {name for name in TOOLS if name in text} == TOOLS
        assert "````\n```\nslow\n````" in text


@pytest.mark.behaviour("telemetry.recorder-off")
def test_without_a_recorder_nothing_is_kept_and_nothing_is_offered(tmp_path: Path) -> None:
    for number, env in enumerate((OFF, {"TELEMETRYFLOW_MCP_TELEMETRY_ENABLED": "false"})):
        with serving(tmp_path / f"{number}", env=env) as server:
            server.begin("2025-11-25")
            server.call_tool("e", "echo", {"message": "hello"})
            offered = {tool["name"] for tool in server.call("t", "tools/list")["result"]["tools"]}
            assert not TOOLS & offered
            uris = [resource["uri"] for resource in server.call("r", "resources/list")["result"]["resources"]]
            assert uris == ["config://server", "status://health"]
            prompts = [prompt["name"] for prompt in server.call("p", "prompts/list")["result"]["prompts"]]
            assert "diagnose_server" not in prompts
            assert ended(server) == 0
        assert not list((tmp_path / f"{number}" / "state").glob("telemetry.db*"))


@pytest.mark.behaviour("telemetry.recorder-damaged")
def test_a_damaged_recorder_costs_no_call_and_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "telemetry.db").write_bytes(b"no database" * 1000)
    with serving(tmp_path) as server:
        server.begin("2025-11-25")
        server.call_tool("e", "echo", {"message": "hello"})
        assert counts(asked(server, "telemetry_summary"))["tool", "echo"] == (1, 0)
        eventually(lambda: "is damaged; it was moved to" in server.log())


@pytest.mark.behaviour("telemetry.no-contents")
def test_no_content_is_in_the_recorder(tmp_path: Path) -> None:
    marker = "a marker that nothing else says"
    with fake_claude(SCRIPT) as claude, serving(tmp_path, env=claude_at(claude.base_url)) as server:
        server.begin("2025-11-25")
        server.call_tool(1, "echo", {"message": marker})
        server.call_tool(2, "echo", {marker: 1})
        server.call_tool(3, "claude_conversation", {"message": marker})
        server.call_tool(4, "read_file", {"path": marker})
        server.call(5, "tools/call", {"name": marker, "arguments": {}})
        server.call(6, "resources/read", {"uri": f"nothing://{marker}"})
        assert ended(server) == 0
    kept = b"".join(path.read_bytes() for path in (tmp_path / "state").glob("telemetry.db*"))
    assert b"read_file" in kept
    assert marker.encode() not in kept

"""The server's own log as `notifications/message`: by `logging/setLevel`, or on 2026-07-28 by a request's `_meta`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from support.server import ENVELOPE, REVISIONS, STATELESS, Answer, Server, eventually, serving
from support.sizes import later

ODD = (sys.executable, str(Path(__file__).with_name("odd_server.py")), "serve")

HANDSHAKES = [REVISIONS[-2], *(later(revision) for revision in REVISIONS[:-2])]

LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")

LOG_LEVEL = "io.modelcontextprotocol/logLevel"


def notes(messages: list[Answer], logger: str = "tfo_mcp.odd") -> list[dict[str, Any]]:
    """The params of the log notifications of one logger."""
    found = [message["params"] for message in messages if message.get("method") == "notifications/message"]
    return [params for params in found if params["logger"] == logger]


def log(server: Server, request_id: str, **arguments: object) -> None:
    server.call_tool(request_id, "log", arguments)


@pytest.mark.behaviour("logging.level")
@pytest.mark.parametrize("revision", HANDSHAKES)
def test_a_client_gets_nothing_until_it_asks_and_then_what_is_grave_enough_in_order(
    tmp_path: Path, revision: str
) -> None:
    with serving(tmp_path, command=ODD) as server:
        assert server.initialize(revision)["capabilities"]["logging"] == {}
        log(server, "before", level="critical")
        assert [message["id"] for message in server.received] == ["init", "before"]
        assert server.call("level", "logging/setLevel", {"level": "warning"})["result"] == {}
        for level in ("debug", "info", "warning", "error", "critical"):
            log(server, level, level=level, said="hello")
        server.call("done", "ping")
        assert notes(server.received) == [
            {
                "level": level,
                "logger": "tfo_mcp.odd",
                "data": {"message": f"record 0 at {level}", "said": "hello", "number": 0},
            }
            for level in ("warning", "error", "critical")
        ]


@pytest.mark.behaviour("logging.level")
def test_each_level_lets_those_above_it_through(tmp_path: Path) -> None:
    levels = ["debug", "info", "warning", "error", "critical"]
    through = {"debug": 5, "info": 4, "notice": 3, "error": 2, "alert": 0, "emergency": 0}
    with serving(tmp_path, "--log-level", "error", command=ODD) as server:
        server.initialize()
        for asked, given in through.items():
            before = len(server.received)
            server.call("level", "logging/setLevel", {"level": asked})
            for level in levels:
                log(server, level, level=level)
            server.call("done", "ping")
            assert [note["level"] for note in notes(server.received[before:])] == levels[5 - given :], asked
        server.close_input()
        assert server.wait() == 0
        own = server.log()
        assert "at error" in own  # what the client follows changes nothing on stderr
        assert "at warning" not in own


@pytest.mark.behaviour("logging.level")
def test_a_later_level_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    with serving(tmp_path, command=ODD) as server:
        server.initialize()
        for number, (level, given) in enumerate([("debug", 1), ("error", 0), ("info", 1), ("emergency", 0)]):
            server.call(f"level {number}", "logging/setLevel", {"level": level})
            before = len(server.received)
            log(server, f"log {number}", level="info")
            server.call(f"done {number}", "ping")
            assert len(notes(server.received[before:])) == given


@pytest.mark.behaviour("logging.level.invalid")
def test_an_unknown_level_is_refused_and_the_known_are_named(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.initialize()
        for level in ("verbose", "WARNING", "", 3, None):
            error = server.call(1, "logging/setLevel", {"level": level})["error"]
            assert error["code"] == -32602
            assert all(name in error["message"] for name in LEVELS)
        assert server.call(2, "logging/setLevel")["error"]["code"] == -32602


@pytest.mark.behaviour("lifecycle.initialize.first")
def test_a_level_before_initialize_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        assert server.call(1, "logging/setLevel", {"level": "debug"})["error"]["code"] == -32600


@pytest.mark.behaviour("logging.messages.no-secrets")
def test_secrets_texts_of_errors_and_what_libraries_log_stay_here(tmp_path: Path) -> None:
    secret = "an-odd-key-of-a-gateway"  # noqa: S105  # nobody's
    with serving(tmp_path, command=ODD, env={"ANTHROPIC_API_KEY": secret}) as server:
        server.initialize()
        server.call("level", "logging/setLevel", {"level": "debug"})
        log(server, "text", said=f"the key is {secret}, or sk-ant-api03-abc at https://user:hunter2@host")
        log(server, "deep", said={secret: [secret, {"in": secret}], "n": 7, "f": 0.5, "none": None, "yes": True})
        server.call_tool("fail", "log_and_fail")
        server.call("done", "ping")
        text, deep = (note["data"]["said"] for note in notes(server.received) if "said" in note["data"])
        assert text == "the key is ***, or *** at https://***@host"
        assert deep == {"***": ["***", {"in": "***"}], "n": 7, "f": 0.5, "none": None, "yes": True}
        (unforeseen,) = notes(server.received, "tfo_mcp.unforeseen")
        assert unforeseen["level"] == "error"
        assert unforeseen["data"].keys() == {"message", "error_id"}
        assert "4711" not in str(server.received)
        assert {note["params"]["logger"].partition(".")[0] for note in server.received if "params" in note} == {
            "tfo_mcp"
        }
        eventually(lambda: "4711" in server.log())


@pytest.mark.behaviour("logging.messages.bounded")
@pytest.mark.parametrize("tool", ["log", "log_in_a_thread"])
def test_what_a_client_does_not_read_is_dropped_and_counted_and_stops_no_call(tmp_path: Path, tool: str) -> None:
    with serving(tmp_path, command=ODD, env={"TELEMETRYFLOW_MCP_MCP_WRITE_BUFFER": "1024"}) as server:
        server.initialize()
        server.call("level", "logging/setLevel", {"level": "info"})
        server.request("flood", "tools/call", {"name": tool, "arguments": {"count": 5000}})
        eventually(lambda: "record 4999" in server.log())  # all of it logged, none of it read
        server.answer_to("flood")
        attempts = 0
        while not (found := notes(server.received)) or found[-1]["data"]["said"] != "the end":
            attempts += 1  # until there is room for it
            log(server, f"attempt {attempts}", said="the end")
        dropped = sum(note["data"].get("dropped", 0) for note in found)
        assert dropped > 1000
        assert len(found) + dropped == 5000 + attempts
        numbers = [note["data"]["number"] for note in found if note["data"]["said"] is None]
        assert numbers == sorted(numbers)


@pytest.mark.behaviour("logging.level", "session.closing")
@pytest.mark.parametrize("way", ["shutdown", "end of input", later("SIGTERM")])
def test_who_follows_sees_the_session_close_and_the_server_ends_as_ever(tmp_path: Path, way: str) -> None:
    with serving(tmp_path) as server:
        server.initialize()
        server.call("level", "logging/setLevel", {"level": "debug"})
        match way:
            case "shutdown":
                server.request("end", "shutdown")
            case "end of input":
                server.close_input()
            case _:
                server.process.terminate()
        closed, *answer = server.rest()
        assert closed["params"]["data"]["message"] == "SessionClosed"
        assert [message["id"] for message in answer] == (["end"] if way == "shutdown" else [])
        assert server.wait() == 0
        assert "Traceback" not in server.log()


@pytest.mark.behaviour("lifecycle.capabilities.switched-off")
def test_what_is_switched_off_is_unknown(tmp_path: Path) -> None:
    with serving(tmp_path, command=ODD, env={"TELEMETRYFLOW_MCP_MCP_ENABLE_LOGGING": "false"}) as server:
        assert "logging" not in server.initialize()["capabilities"]
        assert server.call(1, "logging/setLevel", {"level": "debug"})["error"]["code"] == -32601


# --- 2026-07-28 ---


def call_with_level(server: Server, request_id: str, wanted: object, tool: str = "log", **arguments: object) -> Answer:
    params = {"name": tool, "arguments": arguments, "_meta": {**ENVELOPE, LOG_LEVEL: wanted}}
    return server.call(request_id, "tools/call", params)


@pytest.mark.behaviour("stateless.era.methods")
def test_the_stateless_revision_has_no_level_of_a_session(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.begin(STATELESS)
        assert server.call(1, "logging/setLevel", {"level": "debug"})["error"]["code"] == -32601


@pytest.mark.behaviour("logging.per-request")
@pytest.mark.parametrize("tool", ["log", "log_in_a_thread"])
def test_a_stateless_request_that_asks_gets_its_own_records_before_its_answer(tmp_path: Path, tool: str) -> None:
    with serving(tmp_path, command=ODD) as server:
        server.begin(STATELESS)
        server.call("silent", "tools/call", {"name": tool, "arguments": {"level": "critical"}})
        assert call_with_level(server, "asks", "debug", tool, level="debug", count=3)["result"]["isError"] is False
        server.call("silent again", "tools/call", {"name": tool, "arguments": {"level": "critical"}})
        server.ask_whether_alive()
        server.answer_to("alive")
        order = [
            message["params"]["data"]["number"] if "params" in message else message["id"]
            for message in server.received
            if "params" not in message or message["params"]["logger"] == "tfo_mcp.odd"
        ]
        assert order == ["silent", 0, 1, 2, "asks", "silent again", "alive"]


@pytest.mark.behaviour("logging.per-request")
def test_of_two_stateless_requests_at_once_each_gets_what_it_asked_for(tmp_path: Path) -> None:
    with serving(tmp_path, command=ODD) as server:
        server.begin(STATELESS)
        wait = {"name": "wait", "arguments": {"seconds": 60}, "_meta": {**ENVELOPE, LOG_LEVEL: "debug"}}
        server.request("open", "tools/call", wait)
        log(server, "silent", level="critical")
        call_with_level(server, "asks", "error", level="error")
        call_with_level(server, "asks for more", "critical", level="error")
        assert [note["level"] for note in notes(server.received)] == ["error"]


@pytest.mark.behaviour("logging.per-request")
def test_a_stateless_request_that_fails_has_had_its_records(tmp_path: Path) -> None:
    with serving(tmp_path, command=ODD) as server:
        server.begin(STATELESS)
        assert call_with_level(server, "fails", "info", "log_and_fail")["result"]["isError"] is True
        assert [note["data"]["message"] for note in notes(server.received)] == ["about to fail"]


@pytest.mark.behaviour("logging.level.invalid")
def test_an_unknown_level_of_a_stateless_request_is_refused_and_never_a_fault(tmp_path: Path) -> None:
    with serving(tmp_path, command=ODD) as server:
        server.begin(STATELESS)
        assert call_with_level(server, "wrong", "verbose")["error"]["code"] == -32602
        end = {"_meta": {**ENVELOPE, LOG_LEVEL: "verbose"}}
        assert "result" in server.call("not of MCP", "shutdown", end)  # whose params nobody else looks at


@pytest.mark.behaviour("messages.meta.ignored")
@pytest.mark.parametrize("revision", [HANDSHAKES[0]])
def test_a_level_in_meta_means_nothing_before_the_stateless_revision(tmp_path: Path, revision: str) -> None:
    with serving(tmp_path, command=ODD) as server:
        server.begin(revision)
        params = {"name": "log", "arguments": {"level": "critical"}, "_meta": {LOG_LEVEL: "debug"}}
        server.call("asks", "tools/call", params)
        server.call("done", "ping")
        assert notes(server.received) == []


@pytest.mark.behaviour("lifecycle.capabilities.switched-off")
def test_what_is_switched_off_is_so_for_stateless_requests_too(tmp_path: Path) -> None:
    with serving(tmp_path, command=ODD, env={"TELEMETRYFLOW_MCP_MCP_ENABLE_LOGGING": "false"}) as server:
        server.begin(STATELESS)
        call_with_level(server, "asks", "debug", level="critical")
        assert notes(server.received) == []

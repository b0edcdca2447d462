"""Every way to end, and how long it takes: `server.shutdown_timeout` at most, whatever the rest of the world does."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support.claude import fake_claude
from support.otlp import black_hole, free_port, receiving
from support.server import DEADLINE, STATELESS, Answer, Server, claude_at, environment, eventually, serving
from support.sizes import later

ODD = (sys.executable, str(Path(__file__).with_name("odd_server.py")), "serve")

LIMIT = 1.8
"""`server.shutdown_timeout`, seconds."""

ANSWERS = 1.0
"""Seconds of it that requests get to finish, at most."""

NOISE = 0.7
"""Seconds that a busy machine may add to it."""

CLOSING = {"code": -32000, "message": "the server is shutting down"}


def close_input(server: Server) -> None:
    server.close_input()


def terminate(server: Server) -> None:
    server.process.send_signal(signal.SIGTERM)


def interrupt(server: Server) -> None:
    server.process.send_signal(signal.SIGINT)


def shut_down(server: Server) -> None:
    server.request("end", "shutdown")


def stop_reading(server: Server) -> None:
    assert server.process.stdout is not None
    server.process.stdout.close()


WAYS: Mapping[str, Callable[[Server], None]] = {
    "end of input": close_input,
    "SIGTERM": terminate,
    "SIGINT": interrupt,
    "shutdown": shut_down,
}


@contextmanager
def ends_in_time(server: Server, *, code: int = 0, limit: float = LIMIT) -> Generator[None]:
    """The block ends the server, which leaves with `code` within `limit` seconds from now."""
    started = time.monotonic()
    yield
    server.wait()
    took = time.monotonic() - started
    assert server.process.returncode == code, server.log()[-2000:]
    assert took < limit + NOISE, f"{took:.2f} s; stderr: {server.log()[-2000:]}"


def wait_call(server: Server, request_id: str, seconds: float) -> None:
    server.request(request_id, "tools/call", {"name": "wait", "arguments": {"seconds": seconds}})


def by_id(answers: list[Answer]) -> dict[str, Answer]:
    found = {answer["id"]: answer for answer in answers}
    assert len(found) == len(answers), "an answer came twice"
    return found


def exporting_to(endpoint: str, protocol: str = "http/protobuf") -> dict[str, str]:
    """The variables of a server that exports there."""
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}


@contextmanager
def collector(kind: str) -> Generator[dict[str, str]]:
    """The variables of a server with such a collector."""
    with ExitStack() as stack:
        match kind:
            case "working":
                yield exporting_to(stack.enter_context(receiving("http")).endpoint)
            case "refused":
                yield exporting_to(f"http://127.0.0.1:{free_port()}")
            case "black-holed HTTP":
                yield exporting_to(stack.enter_context(black_hole()))
            case "black-holed gRPC":
                yield exporting_to(stack.enter_context(black_hole()), "grpc")
            case _:
                yield {}


KINDS = ("none", "black-holed gRPC", "black-holed HTTP", "refused", "working")

AT_ONCE = {(close_input, "none"), (shut_down, "none"), (interrupt, "none"), (terminate, "black-holed gRPC")}
"""Of all ways and collectors, what a newcomer waits for: each way, and the worst collector."""


@pytest.mark.behaviour(
    "stdio.end.input", "stdio.end.signal", "stdio.end.bounded", "session.closing", "messages.error.closing"
)
@pytest.mark.parametrize(
    ("way", "kind"),
    [(way, kind) if (way, kind) in AT_ONCE else later(way, kind) for way in WAYS.values() for kind in KINDS],
)
def test_what_is_under_way_is_answered_and_the_process_gone_in_time(
    tmp_path: Path, way: Callable[[Server], None], kind: str
) -> None:
    with collector(kind) as settings, serving(tmp_path, env=settings, command=ODD) as server:
        server.begin("2025-11-25")
        wait_call(server, "quick", 0.3)
        wait_call(server, "never", 60)
        server.ask_whether_alive()  # so both are under way, and a signal finds them
        assert server.answer_to("alive")["result"] == {}
        with ends_in_time(server):
            way(server)
            answers = by_id(server.rest())
        assert answers["quick"]["result"]["content"][0]["text"] == "waited 0.3 s"
        assert answers["never"]["error"] == CLOSING
        assert answers.keys() - {"end"} == {"quick", "never"}
        assert ("end" in answers) == (way is shut_down)
        log = server.log()
        assert "SessionClosed" in log
        assert "Traceback" not in log


@pytest.mark.behaviour("stdio.end.input", "session.stored")
@pytest.mark.parametrize("revision", ["2025-11-25", STATELESS])
def test_with_nothing_under_way_the_end_is_quick_and_the_session_stored(tmp_path: Path, revision: str) -> None:
    with serving(tmp_path) as server:
        server.begin(revision)
        server.call_tool(1, "echo", {"message": "x"})
        with ends_in_time(server):
            server.close_input()
            assert server.rest() == []
    with sqlite3.connect(tmp_path / "state" / "tfo-mcp.db") as database:
        assert database.execute("select state, protocol_version from sessions").fetchall() == [("closed", revision)]
    database.close()


@pytest.mark.behaviour("stdio.end.input", "messages.answer.one")
def test_all_that_was_sent_before_the_end_of_input_is_answered(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.send_raw(
            b"".join(b'{"jsonrpc":"2.0","id":%d,"method":"ping"}\n' % number for number in range(2000)).rstrip()
        )
        with ends_in_time(server):
            server.close_input()
            answers = by_id(server.rest())
        assert len(answers) == 2000
        assert all(answer["result"] == {} for answer in answers.values())


@pytest.mark.behaviour("stdio.end.signal", "stdio.end.input")
@pytest.mark.parametrize("way", [terminate, later(interrupt), close_input])
def test_before_initialize_every_end_is_as_clean(tmp_path: Path, way: Callable[[Server], None]) -> None:
    with serving(tmp_path) as server:
        assert server.call(1, "ping")["result"] == {}
        with ends_in_time(server):
            way(server)
            assert server.rest() == []
        assert server.log() == ""


@pytest.mark.behaviour("stdio.only-protocol")
@pytest.mark.parametrize("way", [terminate, interrupt, close_input])
def test_an_end_while_the_process_only_starts_leaves_nothing_on_stdout(
    tmp_path: Path, way: Callable[[Server], None]
) -> None:
    with serving(tmp_path) as server:
        eventually(lambda: b"tfo_mcp" in Path(f"/proc/{server.pid}/cmdline").read_bytes())
        way(server)
        assert server.rest() == []
        server.wait()


@pytest.mark.behaviour("stdio.end.bounded")
@pytest.mark.parametrize("way", [terminate, shut_down, later(interrupt), later(close_input)])
def test_an_end_during_background_loading_does_not_wait_for_it(tmp_path: Path, way: Callable[[Server], None]) -> None:
    # An import that never ends, as from a folder on a network that is gone.
    stalled = tmp_path / "stalled"
    stalled.mkdir()
    (stalled / "anthropic.py").write_text("import threading\nopen('begun', 'w').close()\nthreading.Event().wait()\n")
    path = os.pathsep.join([str(stalled), *filter(None, [os.environ.get("PYTHONPATH")])])
    with serving(tmp_path, env=claude_at("http://127.0.0.1:9") | {"PYTHONPATH": path}) as server:
        server.begin("2025-11-25")
        eventually((tmp_path / "work" / "begun").exists)
        with ends_in_time(server):
            way(server)
            assert [answer["id"] for answer in server.rest()] == (["end"] if way is shut_down else [])


@pytest.mark.behaviour("stdio.end.bounded", "messages.error.closing")
@pytest.mark.parametrize("tool", ["stay", "block"])
@pytest.mark.parametrize("way", [terminate, later(interrupt), later(close_input), later(shut_down)])
def test_a_tool_that_never_gives_up_keeps_nobody(tmp_path: Path, way: Callable[[Server], None], tool: str) -> None:
    with serving(tmp_path, command=ODD) as server:
        server.begin("2025-11-25")
        server.request("never", "tools/call", {"name": tool})
        server.ask_whether_alive()
        assert server.answer_to("alive")["result"] == {}
        with ends_in_time(server):
            started = time.monotonic()
            way(server)
            assert by_id(server.rest())["never"]["error"] == CLOSING
            assert time.monotonic() - started < ANSWERS + NOISE


@pytest.mark.behaviour("stdio.end.bounded", "messages.error.closing")
def test_a_turn_with_claude_is_cut_and_its_connection_closed(tmp_path: Path) -> None:
    with fake_claude("replies: [{text: late, delay: 60}]") as claude:
        with serving(tmp_path, env=claude_at(claude.base_url)) as server:
            server.begin("2025-11-25")
            server.request("turn", "tools/call", {"name": "claude_conversation", "arguments": {"message": "hi"}})
            eventually(lambda: any(request["status"] for request in claude.requests()))
            with ends_in_time(server):
                terminate(server)
                assert by_id(server.rest())["turn"]["error"] == CLOSING
        eventually(lambda: claude.requests()[0]["disconnected"])
        with sqlite3.connect(tmp_path / "state" / "tfo-mcp.db") as database:
            assert database.execute("select state from conversations").fetchall() == [("active",)]
        database.close()


@pytest.mark.behaviour("stdio.end.bounded")
def test_a_client_that_closes_its_read_end_ends_the_server(tmp_path: Path) -> None:
    with serving(tmp_path, command=ODD) as server:
        server.begin("2025-11-25")
        wait_call(server, "never", 60)
        with ends_in_time(server):
            stop_reading(server)


@pytest.mark.behaviour("stdio.end.bounded", "session.flushed")
@pytest.mark.parametrize("way", [terminate, later(interrupt), later(shut_down)])
def test_a_client_that_does_not_read_cannot_hold_the_end_up(tmp_path: Path, way: Callable[[Server], None]) -> None:
    with receiving("http") as otlp, serving(tmp_path, env=exporting_to(otlp.endpoint)) as server:
        server.begin("2025-11-25")
        for number in range(9):  # more than a pipe holds, less than makes the server stop reading
            server.request(number, "tools/call", {"name": "echo", "arguments": {"message": "x" * 10_000}})
        with ends_in_time(server):
            way(server)
        received = [answer["id"] for answer in whole_lines(server)]
        assert received == list(range(len(received)))
        assert 1 <= len(received) < 9
        assert [span["name"] for span in otlp.spans() if span["kind"] == "SERVER"].count("tools/call echo") == 9
    with sqlite3.connect(tmp_path / "state" / "tfo-mcp.db") as database:
        assert database.execute("select state from sessions").fetchall() == [("closed",)]
    database.close()


def whole_lines(server: Server) -> list[Answer]:
    """What is left in the pipe of a server that is gone, without the line that was cut."""
    data = b""
    assert server.process.stdout is not None
    while block := server.process.stdout.read(65536):
        data += block
    return [json.loads(line) for line in data.split(b"\n")[:-1]]


@pytest.mark.behaviour("stdio.end.bounded")
def test_a_database_that_is_locked_cannot_hold_the_end_up(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.begin("2025-11-25")
        path = tmp_path / "state" / "tfo-mcp.db"
        eventually(lambda: path.exists() and "sessions" in tables(path))
        with sqlite3.connect(path, isolation_level=None) as database:
            database.execute("begin immediate")
            with ends_in_time(server):
                server.close_input()
                assert server.rest() == []
            database.execute("rollback")
        database.close()


def tables(path: Path) -> set[str]:
    with sqlite3.connect(path) as database:
        found = {name for (name,) in database.execute("select name from sqlite_master")}
    database.close()
    return found


@pytest.mark.behaviour("stdio.end.bounded")
def test_a_stderr_that_nobody_reads_cannot_hold_the_end_up(tmp_path: Path) -> None:
    theirs, ours = os.pipe()
    os.set_blocking(ours, False)
    with os.fdopen(theirs), os.fdopen(ours, "wb", 0) as stderr:
        while stderr.write(b"x" * 65536):
            pass
        os.set_blocking(stderr.fileno(), True)
        log = tmp_path / "none"
        log.touch()
        with subprocess.Popen(
            ODD, stdin=-1, stdout=-1, stderr=stderr, env=environment(tmp_path), cwd=tmp_path, bufsize=0
        ) as process:
            server = Server(process, log)
            server.begin("2025-11-25")
            wait_call(server, "never", 60)
            with ends_in_time(server):
                server.close_input()
                assert by_id(server.rest())["never"]["error"] == CLOSING


@pytest.mark.behaviour("stdio.end.bounded")
def test_a_shorter_shutdown_timeout_is_kept_too(tmp_path: Path) -> None:
    settings = {"TELEMETRYFLOW_MCP_SERVER_SHUTDOWN_TIMEOUT": "0.6"}
    with serving(tmp_path, env=settings, command=ODD) as server:
        server.begin("2025-11-25")
        wait_call(server, "never", 60)
        server.ask_whether_alive()
        server.answer_to("alive")
        with ends_in_time(server, limit=0.6):
            terminate(server)
            assert by_id(server.rest())["never"]["error"] == CLOSING


@pytest.mark.behaviour("stdio.end.descriptors")
@pytest.mark.ci
def test_the_end_closes_no_descriptor_of_a_thread_that_still_works(tmp_path: Path) -> None:
    for _ in range(20):  # a race, lost in one end of five when a descriptor was closed twice
        with serving(tmp_path, command=ODD) as server:
            server.begin("2025-11-25")
            server.call_tool(1, "open_descriptors")
            with ends_in_time(server):
                server.close_input()
                assert server.rest() == []
        assert "somebody closed it" not in server.log()


@pytest.mark.behaviour("stdio.end.input", "stdio.end.signal")
@pytest.mark.parametrize("ends", [10, later(50)])
def test_of_many_ends_in_a_row_none_hangs(tmp_path: Path, ends: int) -> None:
    """Two at a time, each at another moment of its life."""
    ways = [*WAYS.values(), stop_reading]
    for number in range(ends // 2):
        with serving(tmp_path / "a") as first, serving(tmp_path / "b") as second:
            for offset, server in enumerate((first, second)):
                way = ways[(2 * number + offset) % len(ways)]
                server.request(1, "initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}})
                server.initialize()
                for request_id in range(number):
                    server.request(request_id, "tools/call", {"name": "system_info"})
                way(server)
            for server in (first, second):
                assert server.wait(DEADLINE) == 0, server.log()

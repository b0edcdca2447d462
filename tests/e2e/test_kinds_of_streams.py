"""stdin and stdout as files, terminals and other devices: the same answers, and the same ends, as with pipes."""

from __future__ import annotations

import fcntl
import io
import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from support.server import DEADLINE, STATELESS, Server, environment, eventually, serving
from support.sizes import later

SERVE = (sys.executable, "-m", "tfo_mcp", "serve")
ODD = (sys.executable, str(Path(__file__).with_name("odd_server.py")), "serve")

IN_TIME = 1.8 + 0.7
"""`server.shutdown_timeout`, and what a busy machine may add to it; seconds."""

PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n'
PONG = b'{"jsonrpc":"2.0","id":1,"result":{}}\n'
CLOSING = {"code": -32000, "message": "the server is shutting down"}


def pings(count: int) -> bytes:
    return b"".join(b'{"jsonrpc":"2.0","id":%d,"method":"ping"}\n' % number for number in range(count))


def echo(request_id: int, message: str) -> bytes:
    params = {"name": "echo", "arguments": {"message": message}}
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params}).encode() + b"\n"


INITIALIZE = (
    b'{"jsonrpc":"2.0","id":"init","method":"initialize","params":{"protocolVersion":"2025-11-25",'
    b'"capabilities":{},"clientInfo":{"name":"test","version":"1"}}}\n'
)


def ids(output: bytes) -> list[object]:
    assert output.endswith(b"\n")
    return [json.loads(line)["id"] for line in output.splitlines()]


def sessions(tmp_path: Path) -> list[str]:
    with sqlite3.connect(tmp_path / "state" / "tfo-mcp.db") as database:
        found = [state for (state,) in database.execute("select state from sessions")]
    database.close()
    return found


@contextmanager
def started(
    tmp_path: Path,
    stdin: int | IO[bytes],
    stdout: int | IO[bytes],
    command: Sequence[str] = SERVE,
    env: Mapping[str, str] | None = None,
) -> Generator[subprocess.Popen[bytes]]:
    """A server on these streams, its stderr in a file."""
    with (tmp_path / "stderr.log").open("ab") as stderr:
        process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=environment(tmp_path, env),
            cwd=tmp_path,
            bufsize=0,
            start_new_session=True,
        )
    with process:
        try:
            yield process
        finally:
            process.kill()


def log_of(tmp_path: Path) -> str:
    return (tmp_path / "stderr.log").read_text()


# --- files ---


@pytest.mark.behaviour("stdio.streams", "stdio.lines")
def test_a_file_is_answered_into_a_file_to_its_last_line(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b'\xef\xbb\xbf\n\r\n{"jsonrpc":"2.0","id":1,"method":"ping"}\r\n[]\n' + PING.rstrip())
    (tmp_path / "out").write_bytes(b"a line of before\n")
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("ab") as sink:
        process = subprocess.run(
            SERVE, stdin=source, stdout=sink, stderr=subprocess.PIPE, env=environment(tmp_path), check=False, timeout=60
        )
    before, malformed, *answers = (tmp_path / "out").read_bytes().splitlines(keepends=True)
    assert before == b"a line of before\n"
    assert json.loads(malformed)["error"]["code"] == -32700
    assert (process.returncode, process.stderr) == (0, b"")
    assert sorted(answers) == sorted(
        [
            PONG,
            PONG,
            (
                b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,'
                b'"message":"Invalid Request: batches are not supported"}}\n'
            ),
        ]
    )


@pytest.mark.behaviour("stdio.streams", "messages.answer.one")
@pytest.mark.parametrize("count", [20_000, later(200_000)])
def test_a_reader_that_is_slow_to_begin_gets_every_answer_to_a_file(tmp_path: Path, count: int) -> None:
    (tmp_path / "in").write_bytes(pings(count))
    shutdown_timeout = {"TELEMETRYFLOW_MCP_SERVER_SHUTDOWN_TIMEOUT": "0.2"}
    with (
        (tmp_path / "in").open("rb") as source,
        started(tmp_path, source, subprocess.PIPE, env=shutdown_timeout) as process,
    ):
        assert process.stdout is not None
        # All answers to 20,000 fit into the buffer, so the end has been met by then.
        eventually(lambda: os.lseek(source.fileno(), 0, os.SEEK_CUR) > len(pings(20_000)) * 0.9)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        assert ids(process.stdout.read()) == list(range(count))
        assert process.wait(DEADLINE) == 0


@pytest.mark.behaviour("stdio.backpressure")
def test_a_file_is_read_no_faster_than_its_answers_are(tmp_path: Path) -> None:
    requests = [echo(number, "x" * 20_000) for number in range(500)]
    (tmp_path / "in").write_bytes(INITIALIZE + b"".join(requests))
    with (
        (tmp_path / "in").open("rb") as source,
        started(tmp_path, source, subprocess.PIPE) as process,
    ):
        assert process.stdout is not None
        output = io.BufferedReader(process.stdout)  # pyright: ignore[reportArgumentType]  # it is a FileIO: bufsize=0
        assert b'"init"' in output.readline()
        for _ in range(3):
            before = read_so_far(source)
            assert before < 9_000_000  # of 10; what is in between fills `mcp.write_buffer` and a pipe
            for _ in range(20):
                assert b'"structuredContent"' in output.readline()
            assert 0 <= read_so_far(source) - before < 1_000_000
        assert len(output.read().splitlines()) == len(requests) - 60
        assert process.wait(DEADLINE) == 0
    assert sessions(tmp_path) == ["closed"]


def read_so_far(source: IO[bytes]) -> int:
    """How far somebody else has got in this file, once he gets no further."""
    still = [-1] * 30

    def stopped() -> bool:
        still.append(os.lseek(source.fileno(), 0, os.SEEK_CUR))
        return len(set(still[-30:])) == 1

    eventually(stopped)
    return still[-1]


@pytest.mark.behaviour("stdio.end.input")
def test_at_the_end_of_a_file_what_is_under_way_is_answered_and_the_process_gone_in_time(tmp_path: Path) -> None:
    never = (
        b'{"jsonrpc":"2.0","id":"never","method":"tools/call","params":{"name":"wait","arguments":{"seconds":60}}}\n'
    )
    (tmp_path / "in").write_bytes(INITIALIZE + never)
    with (tmp_path / "in").open("rb") as source, started(tmp_path, source, subprocess.PIPE, ODD) as process:
        assert process.stdout is not None
        assert b'"init"' in process.stdout.readline()
        begun = time.monotonic()
        answer = json.loads(process.stdout.read())
        assert (answer["id"], answer["error"]) == ("never", CLOSING)
        assert process.wait(DEADLINE) == 0
        assert time.monotonic() - begun < IN_TIME


@pytest.mark.behaviour("stdio.end.signal")
def test_a_signal_ends_in_time_what_a_file_would_keep_busy(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(INITIALIZE + b"".join(echo(number, "x" * 20_000) for number in range(500)))
    with (tmp_path / "in").open("rb") as source, started(tmp_path, source, subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b'"init"' in process.stdout.readline()
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0
        assert time.monotonic() - begun < IN_TIME
    assert "SessionClosed" in log_of(tmp_path)


@pytest.mark.behaviour("stdio.streams")
def test_a_pipe_is_answered_into_a_file(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as sink, started(tmp_path, subprocess.PIPE, sink) as process:
        assert process.stdin is not None
        process.stdin.write(PING)
        eventually(lambda: (tmp_path / "out").read_bytes() == PONG)
        process.stdin.write(PING)
        process.stdin.close()
        assert process.wait(DEADLINE) == 0
    assert (tmp_path / "out").read_bytes() == PONG * 2


# --- devices, and none ---


@pytest.mark.behaviour("stdio.streams")
def test_the_null_device_is_an_input_that_ends_and_an_output_that_takes_all(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(PING)
    with Path(os.devnull).open("r+b") as null, (tmp_path / "in").open("rb") as source:
        for stdin, stdout, answers in ((null, subprocess.PIPE, b""), (source, null, b""), (null, null, b"")):
            with started(tmp_path, stdin, stdout) as process:
                if process.stdout is not None:
                    assert process.stdout.read() == answers
                assert process.wait(DEADLINE) == 0
    assert log_of(tmp_path) == ""


@pytest.mark.behaviour("stdio.broken-streams")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_ends_the_server_as_a_failure_and_the_log_says_so(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full, started(tmp_path, subprocess.PIPE, full) as process:
        assert process.stdin is not None
        process.stdin.write(INITIALIZE)  # and stays open
        assert process.wait(DEADLINE) == 1
    log = [json.loads(line) for line in log_of(tmp_path).splitlines()]
    assert [entry["event"] for entry in log if entry["level"] == "error"] == [
        "stdout cannot be written any more: No space left on device"
    ]
    assert "SessionClosed" in log_of(tmp_path)


@pytest.mark.behaviour("stdio.broken-streams")
@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        ("<&-", 0, ""),
        (">&-", 1, "stdout cannot be written any more: Bad file descriptor"),
        later("0>nothing", 1, "stdin cannot be read any more: Bad file descriptor"),
    ],
)
def test_a_stream_that_is_closed_from_the_start_is_an_end(
    tmp_path: Path, redirection: str, code: int, said: str
) -> None:
    shell = ["sh", "-c", f'exec "$@" {redirection}', "sh", *SERVE]
    done = subprocess.run(
        shell, input=PING, capture_output=True, env=environment(tmp_path), cwd=tmp_path, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (code, b"")
    assert (json.loads(done.stderr)["event"] if done.stderr else "") == said


@pytest.mark.behaviour("stdio.broken-streams")
def test_a_reader_that_goes_away_is_an_end_and_no_failure(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(pings(20_000))
    with (tmp_path / "in").open("rb") as source, started(tmp_path, source, subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(DEADLINE) == 0
    assert "nobody reads stdout any more" in log_of(tmp_path)


# --- as on Windows ---

BY_THREADS = """
import sys
sys.modules["uvloop"] = None
from tfo_mcp.cli import main
from tfo_mcp.presentation.transport import pipes
pipes.loop_serves = lambda fd: False
main(["serve"])
"""
"""What is left on Windows: asyncio's own loop, and threads for pipes too."""


@pytest.mark.behaviour("stdio.streams", "stdio.end.input")
@pytest.mark.parametrize("way", ["end of input", "SIGTERM", later("shutdown"), later("nobody reads")])
def test_pipes_can_be_served_by_threads_too(tmp_path: Path, way: str) -> None:
    with serving(tmp_path, command=(sys.executable, "-c", BY_THREADS)) as server:
        server.begin("2025-11-25")
        for number in range(3):
            result = server.call_tool(number, "echo", {"message": "é" * 300_000})
            assert result["structuredContent"] == {"message": "é" * 300_000}
        begun = time.monotonic()
        match way:
            case "end of input":
                server.send_raw(pings(2000))
                server.close_input()
                assert sorted(message["id"] for message in server.rest()) == list(range(2000))
            case "SIGTERM":
                server.process.send_signal(signal.SIGTERM)
            case "shutdown":
                assert server.call("end", "shutdown")["result"] == {}
            case _:
                assert server.process.stdout is not None
                server.process.stdout.close()
                server.request("unread", "ping")
        assert server.wait() == 0
        assert way == "end of input" or time.monotonic() - begun < IN_TIME
        eventually(lambda: "SessionClosed" in server.log())


# --- terminals ---

IN_THE_FOREGROUND = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Makes the terminal on stdin the one that controls the session, as a shell's is."""


class Terminal:
    """A pseudo-terminal: what a person has at `person`, and a program at `program`."""

    def __init__(self) -> None:
        self.person, self.program = os.openpty()
        # So that what comes out is what was written, and what is typed does not come back.
        settings = termios.tcgetattr(self.program)
        settings[1] &= ~termios.OPOST
        settings[3] &= ~termios.ECHO
        termios.tcsetattr(self.program, termios.TCSANOW, settings)
        self.before = self.state()

    def state(self) -> tuple[int, list[Any]]:
        """All that a program could leave changed."""
        return fcntl.fcntl(self.program, fcntl.F_GETFL), termios.tcgetattr(self.program)

    def close(self) -> None:
        """The person closes the window."""
        os.close(self.program)
        os.close(self.person)


@contextmanager
def terminal() -> Generator[Terminal]:
    opened = Terminal()
    try:
        yield opened
        assert opened.state() == opened.before
    finally:
        opened.close()


@contextmanager
def on_terminal(
    tmp_path: Path,
    there: Terminal,
    command: Sequence[str] = SERVE,
    *,
    foreground: bool = True,
    piped: bool = False,
    env: Mapping[str, str] | None = None,
) -> Generator[Server]:
    """A server that somebody started by hand; `piped`: its stdout goes elsewhere."""
    stdout = subprocess.PIPE if piped else there.program
    before = (sys.executable, "-c", IN_THE_FOREGROUND) if foreground else ()
    with ExitStack() as stack:
        process = stack.enter_context(started(tmp_path, there.program, stdout, (*before, *command), env))
        process.stdin = stack.enter_context(os.fdopen(os.dup(there.person), "wb", 0))
        if process.stdout is None:
            process.stdout = stack.enter_context(os.fdopen(os.dup(there.person), "rb", 0))
        yield Server(process, tmp_path / "stderr.log")


@contextmanager
def ends_in_time(server: Server) -> Generator[None]:
    begun = time.monotonic()
    yield
    assert server.wait() == 0, server.log()
    assert time.monotonic() - begun < IN_TIME


def type_end_of_file(server: Server) -> None:
    server.send_raw(b"\x04")


def type_interrupt(server: Server) -> None:
    server.send_raw(b"\x03")


def terminate(server: Server) -> None:
    server.process.send_signal(signal.SIGTERM)


def hang_up(server: Server) -> None:
    server.process.send_signal(signal.SIGHUP)


def shut_down(server: Server) -> None:
    server.request("end", "shutdown")


WAYS: Mapping[str, Callable[[Server], None]] = {
    "Ctrl-D": type_end_of_file,
    "Ctrl-C": type_interrupt,
    "SIGTERM": terminate,
    "SIGHUP": hang_up,
    "shutdown": shut_down,
}


@pytest.mark.behaviour("stdio.streams", "stdio.terminal")
@pytest.mark.parametrize("way", [type_end_of_file, type_interrupt, *map(later, (terminate, hang_up, shut_down))])
@pytest.mark.parametrize("revision", ["2025-11-25", later(STATELESS)])
def test_a_person_is_served_and_the_terminal_left_as_it_was(
    tmp_path: Path, way: Callable[[Server], None], revision: str
) -> None:
    with terminal() as there, on_terminal(tmp_path, there, ODD) as server:
        server.begin(revision)
        assert server.call_tool(1, "echo", {"message": "é"})["structuredContent"] == {"message": "é"}
        server.request("never", "tools/call", {"name": "wait", "arguments": {"seconds": 60}})
        server.ask_whether_alive()
        server.answer_to("alive")
        assert there.state() == there.before
        with ends_in_time(server):
            way(server)
            assert server.answer_to("never")["error"] == CLOSING
            if way is shut_down:
                assert server.answer_to("end")["id"] == "end"
        assert "SessionClosed" in server.log()


@pytest.mark.behaviour("stdio.terminal")
def test_a_person_is_told_what_this_is_and_a_client_is_not(tmp_path: Path) -> None:
    with terminal() as there, on_terminal(tmp_path, there) as server:
        server.call(1, "ping")
        said = server.log()
        assert "an MCP server" in said
        assert "claude mcp add tfo-mcp -- tfo-mcp serve\n" in said
        assert '{"mcpServers": {"tfo-mcp": {"command": "tfo-mcp", "args": ["serve"]}}}\n' in said
        assert "JSON-RPC" in said
        assert "Ctrl-D" in said
        assert len(said.splitlines()) <= 6
    with serving(tmp_path / "by a client") as server:
        server.call(1, "ping")
        assert server.log() == ""


@pytest.mark.behaviour("stdio.terminal")
def test_a_server_that_is_killed_leaves_a_terminal_that_works(tmp_path: Path) -> None:
    with terminal() as there:
        with on_terminal(tmp_path, there) as server:
            server.call(1, "ping")
            server.process.kill()
            assert server.wait() == -signal.SIGKILL
        assert there.state() == there.before
        with on_terminal(tmp_path, there, ("/bin/cat",)) as cat:
            cat.send({"jsonrpc": "2.0", "id": "still here"})
            assert cat.receive()["id"] == "still here"


@pytest.mark.behaviour("stdio.end.input")
@pytest.mark.parametrize("foreground", [True, False])
def test_a_window_that_is_closed_ends_the_server(tmp_path: Path, *, foreground: bool) -> None:
    there = Terminal()
    with on_terminal(tmp_path, there, foreground=foreground) as server:
        server.initialize()
        server.call(1, "ping")
        assert server.process.stdin is not None
        assert server.process.stdout is not None
        server.process.stdin.close()
        server.process.stdout.close()
        with ends_in_time(server):
            there.close()
    assert "SessionClosed" in log_of(tmp_path)


@pytest.mark.behaviour("stdio.backpressure")
def test_a_terminal_whose_output_is_stopped_stops_the_reading_and_no_end(tmp_path: Path) -> None:
    limits = {"TELEMETRYFLOW_MCP_MCP_WRITE_BUFFER": "1024"}
    with terminal() as there, on_terminal(tmp_path, there, env=limits) as server:
        server.begin("2025-11-25")
        server.call(1, "ping")
        for number in range(100):  # more than a terminal holds, of answers that it does not show
            if not is_taken(there.person):
                break
            server.send_raw(echo(number, "x" * 1000))
        else:
            raise AssertionError("everything was read")
        with ends_in_time(server):
            terminate(server)


def is_taken(fd: int) -> bool:
    """Whether one could type on."""
    return bool(select.select((), (fd,), (), 1)[1])


@pytest.mark.behaviour("stdio.streams")
def test_a_person_types_and_a_program_reads_the_answers(tmp_path: Path) -> None:
    with terminal() as there, on_terminal(tmp_path, there, piped=True) as server:
        assert server.call(1, "ping")["result"] == {}
        type_end_of_file(server)
        assert server.rest() == []
        assert server.wait() == 0


@pytest.mark.behaviour("stdio.streams")
def test_a_terminal_that_somebody_else_has_made_non_blocking_is_served_too(tmp_path: Path) -> None:
    there = Terminal()
    with on_terminal(tmp_path, there) as server:
        server.call(1, "ping")
        os.set_blocking(there.program, False)
        assert server.call(2, "ping")["result"] == {}
        assert server.call(3, "ping")["result"] == {}
        assert not os.get_blocking(there.program)
        type_end_of_file(server)
        assert server.wait() == 0
    there.close()

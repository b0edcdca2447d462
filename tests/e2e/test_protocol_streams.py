"""What stands around the messages: nothing but protocol on stdout, any pipe or socket, stderr or none.

Files, terminals and other devices have tests of their own.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.server import DEADLINE, Server, environment, eventually, serving
from support.sizes import later

ODD = (sys.executable, str(Path(__file__).with_name("odd_server.py")), "serve")

SERVE = (sys.executable, "-m", "tfo_mcp", "serve")


@pytest.mark.behaviour("stdio.only-protocol")
def test_whatever_tools_print_reaches_stderr_and_never_the_client(tmp_path: Path) -> None:
    with serving(tmp_path, command=ODD) as server:
        server.begin("2025-11-25")
        assert server.call_tool(1, "say")["content"][0]["text"] == "said"
        for number in range(20):
            server.call_tool(f"echo {number}", "echo", {"message": "x" * 10_000})
        server.request(2, "tools/call", {"name": "wait", "arguments": {"seconds": 60}})
        server.close_input()
        assert [message["id"] for message in server.rest()] == [2]
        assert server.wait() == 0
        noise = set(server.log().splitlines())
        assert {
            "noise from a tool",
            "noise that is flushed",
            "noise that is not flushed",
            "noise by another name",
            "noise from a child",
            "noise from a thread",
        } <= noise


@contextmanager
def connected(tmp_path: Path, stdin: int, stdout: int, ours: tuple[int, int]) -> Generator[Server]:
    """A server on these descriptors; `ours` are the other ends."""
    log = tmp_path / "stderr.log"
    work = tmp_path / "work"
    work.mkdir()
    with log.open("ab") as stderr, os.fdopen(ours[0], "wb", 0) as sending, os.fdopen(ours[1], "rb", 0) as receiving:
        process = subprocess.Popen(
            SERVE, stdin=stdin, stdout=stdout, stderr=stderr, env=environment(tmp_path), cwd=work, bufsize=0
        )
        for descriptor in {stdin, stdout}:
            os.close(descriptor)
        process.stdin, process.stdout = sending, receiving
        try:
            yield Server(process, log)
        finally:
            process.kill()
            process.wait(DEADLINE)


def converse(server: Server) -> None:
    """More than any buffer holds, both ways."""
    server.begin("2025-11-25")
    for number in range(5):
        result = server.call_tool(number, "echo", {"message": "é" * 300_000})
        assert result["structuredContent"] == {"message": "é" * 300_000}


@pytest.mark.behaviour("stdio.streams")
@pytest.mark.parametrize("end", ["close", later("shutdown")])
def test_two_sockets_serve_as_pipes_do(tmp_path: Path, end: str) -> None:
    (in_ours, in_theirs), (out_ours, out_theirs) = socket.socketpair(), socket.socketpair()
    out_ours.shutdown(socket.SHUT_WR)  # as clients do that only read from it
    ours = in_ours.detach(), out_ours.detach()
    with connected(tmp_path, in_theirs.detach(), out_theirs.detach(), ours) as server:
        converse(server)
        if end == "close":
            server.close_input()
        else:
            assert server.call("end", "shutdown")["result"] == {}
        assert server.rest() == []
        assert server.wait() == 0


@pytest.mark.behaviour("stdio.streams")
@pytest.mark.parametrize("end", ["half-close", later("shutdown"), later("close")])
def test_one_socket_serves_for_both(tmp_path: Path, end: str) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        descriptor = theirs.detach()
        with connected(tmp_path, descriptor, descriptor, (os.dup(ours.fileno()), os.dup(ours.fileno()))) as server:
            converse(server)
            if end == "close":
                server.close_input()
                assert server.process.stdout is not None
                server.process.stdout.close()
                ours.close()
            elif end == "half-close":
                server.request("last", "tools/call", {"name": "echo", "arguments": {"message": "x"}})
                ours.shutdown(socket.SHUT_WR)
                assert [message["id"] for message in server.rest()] == ["last"]
            else:
                assert server.call("end", "shutdown")["result"] == {}
                assert server.rest() == []
            assert server.wait() == 0


def run(tmp_path: Path, redirection: str) -> subprocess.CompletedProcess[bytes]:
    """`serve` from a shell, with a ping and the end of input."""
    line = b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n'
    shell = ["sh", "-c", f'exec "$@" {redirection}', "sh", *SERVE]
    return subprocess.run(
        shell, input=line, capture_output=True, env=environment(tmp_path), cwd=tmp_path, timeout=DEADLINE, check=False
    )


@pytest.mark.behaviour("stdio.stderr")
def test_a_closed_stderr_is_no_reason_not_to_serve(tmp_path: Path) -> None:
    done = run(tmp_path, "2>&-")
    assert (done.returncode, done.stdout) == (0, b'{"jsonrpc":"2.0","id":1,"result":{}}\n')


@pytest.mark.behaviour("stdio.lines")
def test_a_last_line_without_its_end_is_a_line(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.send_raw(b'{"jsonrpc":"2.0","id":1,"method":"ping"}')
        server.close_input()
        assert [message["id"] for message in server.rest()] == [1]
        assert server.wait() == 0


@pytest.mark.behaviour("stdio.stderr")
def test_a_stderr_that_nobody_reads_stops_nothing(tmp_path: Path) -> None:
    theirs, ours = os.pipe()
    os.set_blocking(ours, False)
    with os.fdopen(theirs), os.fdopen(ours, "wb", 0) as stderr:
        while stderr.write(b"x" * 65536):
            pass  # until the pipe is full
        os.set_blocking(stderr.fileno(), True)
        log = tmp_path / "none"
        log.touch()
        process = subprocess.Popen(
            [*SERVE, "--log-level", "debug"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment(tmp_path),
            cwd=tmp_path,
            bufsize=0,
        )
        with process:
            server = Server(process, log)
            server.begin("2025-11-25")
            for number in range(300):
                assert not server.call_tool(number, "echo", {"message": "x"})["isError"]
            server.close_input()
            assert server.wait(4) == 0


@pytest.mark.behaviour("stdio.lines")
def test_input_in_any_pieces_is_the_same_input(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.begin("2025-11-25")
        lines = b"".join(
            b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"echo",'
            b'"arguments":{"message":"\xc3\xa9 %d"}}}\r\n\n' % (number, number)
            for number in range(30)
        )
        for place in range(0, len(lines), 7):
            server.send_raw(lines[place : place + 7])
        answers = {(answer := server.receive())["id"]: answer for _ in range(30)}
        assert {key: answer["result"]["structuredContent"]["message"] for key, answer in answers.items()} == {
            number: f"é {number}" for number in range(30)
        }
        eventually(lambda: "SessionCreated" in server.log())

"""Much at once: requests beside each other, clients that do not read, input that is made to cost memory."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.claude import fake_claude
from support.server import ENVELOPE, STATELESS, Answer, Server, claude_at, eventually, serving
from support.sizes import later

ODD = (sys.executable, str(Path(__file__).with_name("odd_server.py")), "serve")

MB = 1024 * 1024

LIMIT = 4 * MB
"""`mcp.max_message_size`, bytes."""


def call(server: Server, request_id: object, tool: str, **arguments: object) -> None:
    server.request(str(request_id), "tools/call", {"name": tool, "arguments": arguments})


def result_text(answer: Answer) -> str:
    return answer["result"]["content"][0]["text"]


@pytest.mark.behaviour("messages.answer.one", "messages.answer.side-by-side")
@pytest.mark.parametrize("revision", [later("2025-11-25"), STATELESS])
def test_sixty_four_requests_at_once_each_get_their_own_answer_once(tmp_path: Path, revision: str) -> None:
    replies = "replies: [{when: {tool_result: false}, text: '<{last_user_text}>', delay: 0.3}]"
    with fake_claude(replies) as claude, serving(tmp_path, env=claude_at(claude.base_url)) as server:
        for number in range(8):
            (tmp_path / "work" / f"file-{number}").write_text(f"content {number}")
        server.begin(revision)
        checks: dict[str, Callable[[Answer], bool]] = {}

        def expect(request_id: str, check: Callable[[Answer], bool]) -> str:
            checks[request_id] = check
            return request_id

        for n in range(8):
            request_id = expect(f"claude {n}", lambda a, n=n: f"<question {n}>" in result_text(a))
            call(server, request_id, "claude_conversation", message=f"question {n}")
            request_id = expect(f"echo {n}", lambda a, n=n: result_text(a) == f"message {n}")
            call(server, request_id, "echo", message=f"message {n}")
            request_id = expect(f"file {n}", lambda a, n=n: result_text(a) == f"content {n}")
            call(server, request_id, "read_file", path=f"file-{n}")
            request_id = expect(f"search {n}", lambda a, n=n: result_text(a) == f"file-{n}")
            call(server, request_id, "search_files", pattern=f"file-{n}")
            request_id = expect(f"wrong {n}", lambda a, n=n: a["result"]["isError"] and f"/x{n}" in result_text(a))
            call(server, request_id, "echo", message="", **{f"x{n}": n})
            request_id = expect(f"unknown {n}", lambda a, n=n: f"no_such_{n}" in a["error"]["message"])
            call(server, request_id, f"no_such_{n}")
            request_id = expect(f"method {n}", lambda a: a["error"]["code"] == -32601)
            server.request(request_id, f"no/such/{n}")
            server.ask_whether_alive(expect(f"alive {n}", lambda a: "result" in a))

        assert len(checks) == 64
        answers = [server.receive() for _ in range(64)]
        assert sorted(answer["id"] for answer in answers) == sorted(checks)
        assert [answer for answer in answers if not checks[answer["id"]](answer)] == []
        assert "claude" in answers[-1]["id"]
        server.close_input()
        assert server.rest() == []


def written(server: Server) -> int:
    """Write calls of the process so far (Linux)."""
    return int(Path(f"/proc/{server.pid}/io").read_text("ascii").partition("syscw: ")[2].split()[0])


@pytest.mark.behaviour("stdio.lines.together")
def test_answers_that_are_ready_together_are_written_together(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.begin(STATELESS)
        before = 0

        def at_rest() -> bool:
            """Whether nothing is written any more by what starts behind the first answer."""
            nonlocal before
            server.call_tool("once more", "echo", {"message": ""})
            earlier, before = before, written(server)
            return before == earlier + 1

        eventually(at_rest)
        call_params = {"_meta": ENVELOPE, "name": "echo", "arguments": {"message": "x"}}
        server.send(*({"jsonrpc": "2.0", "id": n, "method": "tools/call", "params": call_params} for n in range(64)))
        assert [server.receive()["id"] for _ in range(64)] == list(range(64))
        assert written(server) - before <= 8


@pytest.mark.behaviour("stdio.garbage")
def test_garbage_is_collected_but_not_looked_for_in_what_was_loaded(tmp_path: Path) -> None:
    with serving(tmp_path, command=ODD) as server:
        server.begin(STATELESS)

        def told() -> str:
            return server.call_tool("garbage", "tell_of_garbage")["content"][0]["text"]

        eventually(lambda: told() == "collected, but for what was loaded")


def flood(server: Server, line: Callable[[int], bytes], at_most: int) -> tuple[int, bytes]:
    """Write lines and read nothing, until the server stops reading: how many lines, and what is left of the last."""
    pipe = server.process.stdin
    assert pipe is not None
    os.set_blocking(pipe.fileno(), False)
    count, written, pending = 0, 0, b""
    while True:
        if not pending:
            pending = b"".join(line(number) for number in range(count, count + 50))
            count += 50
        try:
            sent = os.write(pipe.fileno(), pending)
        except BlockingIOError:
            if not select.select([], [pipe], [], 1.0)[1]:
                os.set_blocking(pipe.fileno(), True)
                return count, pending
            continue
        written, pending = written + sent, pending[sent:]
        assert written < at_most, "the server reads on, though nobody reads its answers"


def echo_line(number: int) -> bytes:
    arguments = {"message": f"{number} " + "x" * 2000}
    params = {"name": "echo", "arguments": arguments}
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}).encode() + b"\n"


def file_line(number: int) -> bytes:
    params = {"name": "read_file", "arguments": {"path": "file"}}
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}).encode() + b"\n"


def invalid_line(number: int) -> bytes:
    return b"x\n"


IN_FLIGHT = 48 * MB
"""What all that may be in flight takes at most, 20 kB of a file each among it; 22 to 36 MB were seen."""

FLOODS = [
    pytest.param(echo_line, id="answers as large as questions"),
    pytest.param(invalid_line, id="rejections"),
    later(file_line, id="larger answers"),
]


@pytest.mark.behaviour("stdio.backpressure")
@pytest.mark.parametrize("line", FLOODS)
def test_a_client_that_does_not_read_is_not_read_until_it_does(tmp_path: Path, line: Callable[[int], bytes]) -> None:
    with serving(tmp_path) as server:
        (tmp_path / "work" / "file").write_text("y" * 20_000)
        server.begin("2025-11-25")
        before = settled_peak(server, tmp_path)
        count, pending = flood(server, line, at_most=32 * MB)
        assert server.peak_memory() - before < IN_FLIGHT

        sending = threading.Thread(target=server.send_raw, args=(pending,))
        sending.start()
        answers = [server.receive() for _ in range(count)]
        sending.join()
        server.ask_whether_alive()
        assert server.receive()["id"] == "alive"
        if line is invalid_line:
            assert all(answer["error"]["code"] == -32700 for answer in answers)
        else:
            assert sorted(answer["id"] for answer in answers) == list(range(count))
        if line is echo_line:
            assert all(result_text(answer) == f"{answer['id']} " + "x" * 2000 for answer in answers)
        assert server.peak_memory() - before < IN_FLIGHT


@pytest.mark.behaviour("stdio.end.signal", "stdio.end.bounded")
@pytest.mark.parametrize("number", [signal.SIGTERM, later(signal.SIGINT)])
def test_a_server_that_waits_for_its_client_to_read_ends_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    with serving(tmp_path) as server:
        server.begin("2025-11-25")
        flood(server, echo_line, at_most=32 * MB)
        started = time.monotonic()
        server.process.send_signal(number)
        assert server.wait() == 0
        assert time.monotonic() - started < 1.8 + 0.4


def settled_peak(server: Server, folder: Path) -> int:
    """Peak memory when all that is loaded behind the first answer has been."""
    eventually((folder / "state" / "tfo-mcp.db-wal").exists)
    server.call_tool("warm", "echo", {"message": "x" * MB})
    return server.peak_memory()


def filled(unit: bytes) -> bytes:
    """A call whose arguments are a list of as many units as fit."""
    head = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"message":['
    tail = b"]}}}"
    count = (LIMIT - len(head) - len(tail)) // len(unit)
    return head + (unit * count)[:-1] + tail + b"\n"


COSTLY = [
    later(filled(b"[],"), "isError", id="a million lists"),
    later(filled(b"{},"), "isError", id="a million objects"),
    later(filled(b"[[[[[[[[[[]]]]]]]]]],"), "isError", id="lists in lists in lists"),
    pytest.param(filled(b"1,"), "isError", id="two million numbers"),
    later(filled(b'"",'), "isError", id="a million texts"),
    later(b"[" + b"{}," * 1_300_000 + b"{}]\n", "error", id="a batch"),
    later(b"[" * 4_000_000 + b"\n", "error", id="a message too deep"),
]


@pytest.mark.behaviour("stdio.bounded")
@pytest.mark.parametrize(("line", "kind"), COSTLY)
def test_what_a_message_costs_has_a_bound_and_is_given_back(tmp_path: Path, line: bytes, kind: str) -> None:
    with serving(tmp_path) as server:
        server.begin("2025-11-25")
        before = settled_peak(server, tmp_path)
        costs: list[int] = []
        for _ in range(3):
            server.send_raw(line)
            answer = server.receive()
            assert "error" in answer if kind == "error" else answer["result"]["isError"]
            costs.append(server.peak_memory() - before)
        # A list of three characters is a Python object and one of the validator's.
        assert costs[-1] < 160 * LIMIT
        assert costs[-1] - costs[0] < 8 * LIMIT  # what one took is there for the next
        server.ask_whether_alive()
        assert server.receive()["id"] == "alive"


@pytest.mark.behaviour("stdio.bounded")
def test_more_requests_than_may_be_at_work_wait_their_turn(tmp_path: Path) -> None:
    settings = {"TELEMETRYFLOW_MCP_MCP_MAX_REQUESTS_IN_FLIGHT": "4"}
    with serving(tmp_path, env=settings, command=ODD) as server:
        server.begin("2025-11-25")
        for number in range(10):
            call(server, number, "wait", seconds=0.1)
        server.ask_whether_alive()
        answers = [server.receive()["id"] for _ in range(11)]
        assert sorted(answers) == sorted([*map(str, range(10)), "alive"])
        assert answers.index("alive") >= 7  # it was the eleventh, and had to wait for seven to end


@pytest.mark.behaviour("tools.call.result-too-large")
@pytest.mark.parametrize("structured", [False, True])
def test_a_tool_that_floods_gets_one_sentence_and_others_their_answers(tmp_path: Path, *, structured: bool) -> None:
    with serving(tmp_path, command=ODD) as server:
        server.initialize()
        server.request("flood", "tools/call", {"name": "flood", "arguments": {"structured": structured}})
        for number in range(20):
            server.request(number, "ping")
        answers = {answer["id"]: answer["result"] for answer in (server.receive() for _ in range(21))}
        result = answers.pop("flood")
        assert answers == {number: {} for number in range(20)}
        assert result["isError"] is True
        assert "more than 16777216 characters (mcp.max_result_size)" in result["content"][0]["text"]
        assert server.call_tool("after", "echo", {"message": "x"})["isError"] is False

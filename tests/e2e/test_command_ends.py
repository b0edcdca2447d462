"""No program that `execute_command` has started survives its call, nor the server."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import uuid4

import pytest

from support.bubblewrap import SANDBOXES
from support.commands import commanding, processes, script
from support.server import Server, eventually
from support.sizes import later

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="it looks for processes in /proc")

FAMILY = """
sleep {word} &
sh -c 'sleep {word} & exec sleep {word}' &
setsid sleep {word} &
(setsid sh -c 'sleep {word} & exec sleep {word}' &) &
nohup sleep {word} >/dev/null 2>&1 &
echo begun
exec sleep {word}
"""
"""A program with children in its group, in sessions of their own, and orphaned at once."""

SIZE = 8


def begin(server: Server, program: Path, word: str, **arguments: object) -> None:
    """Start the family and wait until all of it is there."""
    server.request("family", "tools/call", {
        "name": "execute_command", "arguments": {"command": str(program), **arguments},
    })  # fmt: skip
    eventually(lambda: len(processes(word)) == SIZE)


def family(folder: Path) -> tuple[Path, str]:
    word = f"1{uuid4().int % 10**8}.5"  # seconds, and no one else's
    return script(folder / "bin" / "family", FAMILY.format(word=word)), word


def close_input(server: Server) -> None:
    server.close_input()


def terminate(server: Server) -> None:
    server.process.send_signal(signal.SIGTERM)


def shut_down(server: Server) -> None:
    server.request("end", "shutdown")


def stop_reading(server: Server) -> None:
    assert server.process.stdout is not None
    server.process.stdout.close()


def kill(server: Server) -> None:
    server.process.kill()


WAYS: Mapping[str, Callable[[Server], None]] = {
    "end of input": close_input,
    "SIGTERM": terminate,
    "shutdown": shut_down,
    "stdout closed": stop_reading,
}


@pytest.mark.behaviour("tools.acting.processes", "tools.call.timeout")
@pytest.mark.parametrize("sandbox", ["none", later("bubblewrap")])
def test_none_survives_a_timeout(tmp_path: Path, sandbox: str) -> None:
    program, word = family(tmp_path)
    with commanding(tmp_path, program, sandbox=sandbox) as server:
        server.initialize()

        begin(server, program, word, timeout=2)
        result = server.answer_to("family")["result"]

        assert (result["isError"], result["structuredContent"]["timed_out"]) == (True, True)
        assert result["structuredContent"]["stdout"] == "begun\n"
        eventually(lambda: processes(word) == set())


@pytest.mark.behaviour("tools.acting.processes", "cancellation.no-answer")
@SANDBOXES
def test_none_survives_a_cancellation(tmp_path: Path, sandbox: str) -> None:
    program, word = family(tmp_path)
    with commanding(tmp_path, program, sandbox=sandbox) as server:
        server.initialize()

        begin(server, program, word)
        server.notify("notifications/cancelled", {"requestId": "family"})

        eventually(lambda: processes(word) == set())
        server.ask_whether_alive()
        assert server.receive()["id"] == "alive"


@pytest.mark.behaviour("tools.acting.processes")
@SANDBOXES
def test_none_survives_its_program(tmp_path: Path, sandbox: str) -> None:
    word = family(tmp_path)[1]
    program = script(tmp_path / "bin" / "parent", f"(setsid sleep {word} &) & sleep {word} & echo $!")
    with commanding(tmp_path, program, sandbox=sandbox) as server:
        server.initialize()

        result = server.call_tool("parent", "execute_command", {"command": str(program)})

        assert result["structuredContent"]["exit_code"] == 0
        eventually(lambda: processes(word) == set())


@pytest.mark.behaviour("tools.acting.processes")
@pytest.mark.parametrize(
    ("sandbox", "way"),
    [
        ("none", "end of input"),
        ("bubblewrap", "SIGTERM"),
        later("none", "SIGTERM"),
        later("bubblewrap", "end of input"),
        *[later(sandbox, way) for sandbox in ("none", "bubblewrap") for way in ("shutdown", "stdout closed")],
    ],
)
def test_none_survives_the_end_of_the_server(tmp_path: Path, sandbox: str, way: str) -> None:
    program, word = family(tmp_path)
    with commanding(tmp_path, program, sandbox=sandbox) as server:
        server.initialize()

        begin(server, program, word)
        WAYS[way](server)
        assert server.wait() == 0

        eventually(lambda: processes(word) == set())


@pytest.mark.behaviour("tools.acting.processes")
def test_in_the_sandbox_none_survives_a_kill_of_the_server(tmp_path: Path) -> None:
    program, word = family(tmp_path)
    with commanding(tmp_path, program, sandbox="bubblewrap") as server:
        server.initialize()

        begin(server, program, word)
        kill(server)
        server.wait()

        eventually(lambda: processes(word) == set())

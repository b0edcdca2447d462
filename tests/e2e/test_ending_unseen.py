"""Ends that a server could miss: while it does not read, and before it is there."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from support.claude import fake_claude
from support.server import claude_at, eventually, serving

SLOW = "replies:\n  - {when: {contains: slow}, delay: 60, text: Nobody waits for this., times: 1000}\n"


@pytest.mark.behaviour("stdio.end.input", "stdio.bounded", "messages.answer.one")
def test_the_end_of_input_is_seen_while_too_much_is_in_flight_to_read_on(tmp_path: Path) -> None:
    limit = {"TELEMETRYFLOW_MCP_MCP_MAX_REQUESTS_IN_FLIGHT": "2"}
    with (
        fake_claude(SLOW) as claude,
        serving(tmp_path, env={**claude_at(claude.base_url), **limit}) as server,
    ):
        server.initialize()
        for number in range(10):
            server.request(number, "tools/call", {"name": "claude_conversation", "arguments": {"message": "slow"}})
        eventually(lambda: len(claude.requests()) == 2)
        server.close_input()
        assert server.wait(5) == 0
        assert sorted(answer["id"] for answer in server.rest()) == list(range(10))


@pytest.mark.behaviour("stdio.end.input")
def test_the_end_of_input_is_seen_while_the_client_does_not_read(tmp_path: Path) -> None:
    limits = {"TELEMETRYFLOW_MCP_MCP_WRITE_BUFFER": "1024", "TELEMETRYFLOW_MCP_MCP_MAX_REQUESTS_IN_FLIGHT": "1"}
    with serving(tmp_path, env=limits) as server:
        server.initialize()
        # The requests fit into a pipe, their answers, which hold the message twice, do not.
        for number in range(18):
            server.request(number, "tools/call", {"name": "echo", "arguments": {"message": "x" * 3000}})
        server.close_input()
        assert server.wait(5) == 0


@pytest.mark.behaviour("stdio.end.signal")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_start_up_is_a_clean_end(tmp_path: Path, number: signal.Signals) -> None:
    with serving(tmp_path) as server:
        # Our first line cannot be seen from outside, but a library that is imported after it can.
        eventually(lambda: "msgspec" in Path(f"/proc/{server.pid}/maps").read_text())
        server.process.send_signal(number)
        assert server.wait(5) == 0
        assert "Traceback" not in server.log()

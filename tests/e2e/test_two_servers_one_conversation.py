"""Several servers with one storage folder, as when a client is open in two windows: one conversation, one line."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.bubblewrap import SANDBOXES, require
from support.claude import FakeClaude, fake_claude
from support.server import STATELESS, Answer, Server, claude_at, eventually, serving
from tfo_mcp.domain.identifiers import ConversationId
from tfo_mcp.infrastructure.persistence.locks import FileLocks

SCRIPT = """
replies:
  - {when: {contains: slowly}, times: 1, delay: 2, text: "You said {last_user_text}."}
  - {text: "You said {last_user_text}.", times: 999}
"""
"""To the first message that says `slowly` the answer takes its time."""


class World:
    """Servers with one storage, and the API that they ask. One conversation has begun, with `hello`."""

    def __init__(self, folder: Path, servers: Sequence[Server], claude: FakeClaude) -> None:
        self.folder = folder
        self.servers = servers
        self.claude = claude
        servers[0].request("hello", "tools/call", {"name": "claude_conversation", "arguments": {"message": "hello"}})
        self.conversation_id = ConversationId(self.result(servers[0], "hello")["conversation_id"])

    def send(self, server: Server, message: str, *, as_id: str | None = None, **more: str) -> None:
        arguments = {"message": message, "conversation_id": self.conversation_id, **more}
        server.request(as_id or message, "tools/call", {"name": "claude_conversation", "arguments": arguments})

    def accepted(self, server: Server, message: str, **more: str) -> None:
        """Send it, and wait until it is in line."""
        self.send(server, message, **more)
        eventually(lambda: message in self.waiting())

    def result(self, server: Server, request_id: str) -> Answer:
        """What was answered, be it that it has come already."""
        come = [message for message in server.received if message.get("id") == request_id]
        result = (come or [server.answer_to(request_id)])[0]["result"]
        assert not result["isError"], result
        return result["structuredContent"]

    def select(self, query: str) -> list[Any]:
        with closing(sqlite3.connect(self.folder / "state" / "tfo-mcp.db")) as database:
            return [row[0] for row in database.execute(query)]

    def waiting(self) -> list[str]:
        """What is in line, the first one first."""
        return [json.loads(row)[-1]["text"] for row in self.select("SELECT content FROM pending_sends ORDER BY id")]

    def said(self) -> list[str]:
        """All that the user said; each message has its answer, and nobody waits."""
        rows = self.select("SELECT json_array(role, json(content)) FROM messages ORDER BY conversation_id, position")
        messages = [json.loads(row) for row in rows]
        texts = [content[-1]["text"] for _, content in messages]
        assert [role for role, _ in messages] == ["user", "assistant"] * (len(messages) // 2)
        assert texts[1::2] == [f"[simulated] No model was asked. You said {text}." for text in texts[::2]]
        assert self.waiting() == []
        return texts[::2]

    @contextmanager
    def held(self) -> Generator[None]:
        """Somebody else works on the conversation meanwhile."""
        locks = FileLocks(self.folder / "state" / "locks")
        assert asyncio.run(locks.try_acquire(self.conversation_id))
        try:
            yield
        finally:
            asyncio.run(locks.release(self.conversation_id))

    @contextmanager
    def stopped_at_work(self, server: Server) -> Generator[None]:
        """The server has asked Claude about `first, slowly`, and does nothing more meanwhile."""
        self.send(server, "first, slowly")
        eventually(lambda: len(self.claude.requests()) == 2)
        server.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            server.process.send_signal(signal.SIGCONT)


@contextmanager
def world(folder: Path, number: int = 2, settings: dict[str, str] | None = None) -> Generator[World]:
    """Its servers speak different revisions of the protocol."""
    with fake_claude(SCRIPT) as claude, ExitStack() as stack:
        shared = {"TELEMETRYFLOW_MCP_STORAGE_FOLDER": str(folder / "state"), **(settings or {})}
        variables = {**claude_at(claude.base_url), **shared}
        servers = [stack.enter_context(serving(folder / str(index), env=variables)) for index in range(number)]
        for index, server in enumerate(servers):
            server.begin(("2025-11-25", STATELESS)[index % 2])
        yield World(folder, servers, claude)


# --- in line ---


@pytest.mark.behaviour("conversation.line")
@pytest.mark.parametrize("number", [2, pytest.param(3, marks=pytest.mark.ci)])
def test_sends_from_several_servers_are_served_in_the_order_in_which_they_were_accepted(
    tmp_path: Path, number: int
) -> None:
    with world(tmp_path, number) as here:
        messages = [f"message {index}" for index in range(3 * number)]
        senders = [here.servers[index % number] for index in range(3 * number)]
        with here.held():
            for message, server in zip(messages, senders, strict=True):
                here.accepted(server, message)
            assert here.waiting() == messages
        for index, (message, server) in enumerate(zip(messages, senders, strict=True)):
            answer = here.result(server, message)
            assert answer["text"].endswith(f"You said {message}.")
            assert answer["turn"] == index + 2
        assert here.said() == ["hello", *messages]


@pytest.mark.behaviour("conversation.line")
@pytest.mark.ci
def test_who_sends_while_another_server_is_at_work_waits_for_it(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        one, other = here.servers
        with here.stopped_at_work(one):
            here.accepted(other, "second")
            here.accepted(other, "third")
            assert here.waiting() == ["second", "third"]
        here.send(one, "fourth")
        for server, message in ((one, "first, slowly"), (other, "second"), (other, "third"), (one, "fourth")):
            assert here.result(server, message)["text"].endswith(f"You said {message}.")
        assert here.said() == ["hello", "first, slowly", "second", "third", "fourth"]


@pytest.mark.behaviour("conversation.line")
@pytest.mark.ci
def test_sends_of_three_servers_at_once_are_all_answered_once(tmp_path: Path) -> None:
    with world(tmp_path, 3) as here:
        sent = [(server, f"{index} of {server.pid}") for index in range(8) for server in here.servers]
        for server, message in sent:
            here.send(server, message)
        for server, message in sent:
            assert here.result(server, message)["text"].endswith(f"You said {message}.")
        said = here.said()
        assert sorted(said) == sorted(["hello", *(message for _, message in sent)])
        for server in here.servers:
            mine = [message for sender, message in sent if sender is server]
            assert [message for message in said if message in mine] == mine


@pytest.mark.behaviour("conversation.line.cancelled")
def test_a_send_that_is_cancelled_in_line_leaves_nothing(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        one, other = here.servers
        with here.held():
            here.accepted(one, "first")
            here.accepted(other, "never mind")
            here.accepted(one, "last")
            other.notify("notifications/cancelled", {"requestId": "never mind"})
            eventually(lambda: here.waiting() == ["first", "last"])
        for message in ("first", "last"):
            here.result(one, message)
        here.send(other, "and now")
        here.result(other, "and now")
        assert here.said() == ["hello", "first", "last", "and now"]


# --- killed ---


@pytest.mark.behaviour("conversation.line.killed")
def test_a_server_that_is_killed_at_work_keeps_nobody_in_line(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        one, other = here.servers
        with here.stopped_at_work(one):
            here.accepted(other, "second")
            one.process.kill()
        answer = here.result(other, "second")
        assert answer["continued"] is True
        assert answer["text"].endswith("You said second.")
        assert here.said() == ["hello", "first, slowly", "second"]


@pytest.mark.behaviour("conversation.line.killed")
@pytest.mark.ci
def test_what_a_server_had_accepted_when_it_was_killed_is_said_in_its_place(tmp_path: Path) -> None:
    with world(tmp_path, 3) as here:
        one, other, third = here.servers
        sent = [(one, "first"), (other, "second"), (third, "third"), (other, "fourth")]
        with here.held():
            for server, message in sent:
                here.accepted(server, message)
            other.process.kill()
        assert here.result(one, "first")["continued"] is False
        assert here.result(third, "third")["continued"] is True
        eventually(lambda: here.waiting() == ["fourth"])  # the next one that is sent takes it along
        here.send(one, "fifth")
        assert here.result(one, "fifth")["continued"] is True
        assert here.said() == ["hello", "first", "second", "third", "fourth", "fifth"]


# --- one key ---


@pytest.mark.behaviour("conversation.idempotent.servers")
def test_one_key_at_two_servers_at_once_is_one_turn_with_one_answer(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        keys = [f"key {index}" for index in range(10)]
        for key in keys:
            for server in here.servers:
                here.send(server, f"message with {key}", as_id=key, idempotency_key=key)
        for key in keys:
            first, second = (here.result(server, key) for server in here.servers)
            assert first == second
        assert sorted(here.said()) == sorted(["hello", *(f"message with {key}" for key in keys)])


@pytest.mark.behaviour("conversation.idempotent.servers")
@pytest.mark.ci
def test_one_key_that_begins_a_conversation_at_two_servers_begins_one(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        arguments = {"message": "another", "idempotency_key": "once"}
        for server in here.servers:
            server.request("new", "tools/call", {"name": "claude_conversation", "arguments": arguments})
        first, second = (here.result(server, "new") for server in here.servers)
        assert first == second
        assert sorted(here.said()) == ["another", "hello"]
        assert here.select("SELECT count(*) FROM conversations") == [2]


@pytest.mark.behaviour("conversation.idempotent.servers", "conversation.line.killed")
def test_the_key_of_a_server_that_was_killed_in_line_keeps_its_place_with_whoever_gives_it_again(
    tmp_path: Path,
) -> None:
    with world(tmp_path) as here:
        one, other = here.servers
        with here.held():
            here.accepted(one, "mine", idempotency_key="once")
            here.accepted(other, "after it")
            one.process.kill()
            here.send(other, "mine", as_id="again", idempotency_key="once")
            eventually(lambda: len(set(here.select("SELECT holder FROM pending_sends"))) == 1)
        assert here.result(other, "again")["turn"] == 2
        assert here.result(other, "after it")["turn"] == 3
        assert here.said() == ["hello", "mine", "after it"]


# --- locks ---


@pytest.mark.behaviour("conversation.line.killed")
@SANDBOXES
def test_a_program_that_a_server_runs_holds_no_lock(tmp_path: Path, sandbox: str) -> None:
    require(sandbox)
    settings = {
        "TELEMETRYFLOW_MCP_TOOLS_EXECUTE_COMMAND_ALLOW": "ls",
        "TELEMETRYFLOW_MCP_TOOLS_EXECUTE_COMMAND_SANDBOX": sandbox,
    }
    with world(tmp_path, 1, settings) as here:
        (one,) = here.servers
        here.send(one, "first, slowly")
        eventually(lambda: len(here.claude.requests()) == 2)
        held = {
            path.readlink().name for path in Path(f"/proc/{one.pid}/fd").iterdir() if ".lock" in str(path.readlink())
        }
        assert f"{here.conversation_id}.lock" in held
        result = one.call_tool("ls", "execute_command", {"command": "ls -l /proc/self/fd"})
        assert not result["isError"], result
        assert ".lock" not in result["structuredContent"]["stdout"]
        here.result(one, "first, slowly")


@pytest.mark.behaviour("conversation.line")
@pytest.mark.ci
def test_a_folder_of_locks_holds_no_more_than_the_processes_that_live(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        for index in range(4):
            server = here.servers[index % 2]
            here.send(server, f"message {index}")
            here.result(server, f"message {index}")
        names = [path.name for path in (tmp_path / "state" / "locks").iterdir()]
        assert len(names) == 2
        assert all(name.startswith("process-") for name in names)

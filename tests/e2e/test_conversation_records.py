"""Conversations that are there, from outside: found, read, forked, and refused."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.claude import FakeClaude, fake_claude
from support.server import STATELESS, Answer, Server, claude_at, eventually, serving

newest = pytest.mark.parametrize("revision", ["2025-11-25", STATELESS])

SCRIPT = """
replies:
  - {text: I look., tool_use: [{name: read_file, input: {path: note}}, {name: echo, input: {message: pong}}]}
  - {text: It says hidden things., times: 99}
"""
"""The first turn of a server uses two tools; every other one answers at once."""


@contextmanager
def talking(
    folder: Path, revision: str, settings: dict[str, str] | None = None
) -> Generator[tuple[Server, FakeClaude]]:
    more = settings or {}
    with fake_claude(SCRIPT) as claude, serving(folder, env={**claude_at(claude.base_url), **more}) as server:
        (folder / "work" / "note").write_text("needle")
        server.begin(revision)
        yield server, claude


def say(server: Server, message: str, conversation_id: str | None = None, **more: str) -> Answer:
    known = {} if conversation_id is None else {"conversation_id": conversation_id}
    result = server.call_tool("say", "claude_conversation", {"message": message, **known, **more})
    assert not result["isError"], result
    return result["structuredContent"]


def given(server: Server, tool: str, **arguments: object) -> Answer:
    result = server.call_tool(tool, tool, arguments)
    assert not result["isError"], result
    return result["structuredContent"]


def stored(folder: Path) -> Sequence[object]:
    """All that is kept of conversations."""
    with closing(sqlite3.connect(folder / "state" / "tfo-mcp.db")) as database:
        tables = ("conversations", "messages", "message_texts", "events")
        return [database.execute(f"SELECT * FROM {table}").fetchall() for table in tables]  # noqa: S608  # names from above


@pytest.mark.behaviour("records.list", "records.search", "records.list.pages", "tools.call.structured")
@newest
def test_conversations_are_listed_and_searched(tmp_path: Path, revision: str) -> None:
    with talking(tmp_path, revision) as (server, _):
        ids = [say(server, f"Tell me about {subject}")["conversation_id"] for subject in ("needles", "hay", "cows")]
        listed = given(server, "list_conversations")
        assert [found["conversation_id"] for found in listed["conversations"]] == ids[::-1]
        assert [found["title"] for found in listed["conversations"]][2] == "Tell me about needles"
        assert [found["messages"] for found in listed["conversations"]] == [2, 2, 5]
        assert listed["next_cursor"] is None

        say(server, "And more of them", ids[1])
        first = given(server, "list_conversations", limit=2)
        assert [found["conversation_id"] for found in first["conversations"]] == [ids[1], ids[2]]
        rest = given(server, "list_conversations", limit=2, cursor=first["next_cursor"])
        assert [found["conversation_id"] for found in rest["conversations"]] == [ids[0]]

        for query, wanted in {
            "hay": [1],
            "ABOUT co": [2],
            "needles": [0],
            "needle": [0],
            "more hay": [1],
            "x": [],
        }.items():
            found = given(server, "list_conversations", query=query)["conversations"]
            assert [each["conversation_id"] for each in found] == [ids[number] for number in wanted], query
        shown = server.call_tool("text", "list_conversations", {"query": "cows"})["content"][0]["text"]
        assert shown.startswith(f"Tell me about cows\n  {ids[2]} · active · ")


@pytest.mark.behaviour("records.get", "records.get.bounded")
@newest
def test_a_conversation_is_read_page_by_page(tmp_path: Path, revision: str) -> None:
    with talking(tmp_path, revision, {"TELEMETRYFLOW_MCP_TOOLS_MAX_PAGE_BYTES": "16384"}) as (server, _):
        conversation_id = say(server, "What does it say?", system_prompt="Be brief.")["conversation_id"]
        for number in range(6):
            say(server, f"{number} " + '"\n' * 800, conversation_id)
        messages: list[Any] = []
        start: int | None = 0
        pages = 0
        while start is not None:
            page = given(server, "get_conversation", conversation_id=conversation_id, start=start)
            assert len(json.dumps(server.received[-1], ensure_ascii=False).encode()) <= 16_384
            assert page["conversation"]["messages"] == 17
            assert page["system_prompt"] == "Be brief."
            messages += page["messages"]
            start, pages = page["next_start"], pages + 1
        assert pages > 1
        assert [message["position"] for message in messages] == list(range(17))
        assert messages[0]["content"] == [{"type": "text", "text": "What does it say?"}]
        called = [block["name"] for block in messages[1]["content"] if block["type"] == "tool_use"]
        assert called == ["read_file", "echo"]
        assert {block["content"] for message in messages[2:4] for block in message["content"]} == {"needle", "pong"}
        (last,) = given(server, "get_conversation", conversation_id=conversation_id, start=-1)["messages"]
        assert last == messages[-1]


@pytest.mark.behaviour("records.fork", "records.fork.answered", "records.fork.apart")
@newest
def test_a_fork_goes_on_where_the_other_one_was(tmp_path: Path, revision: str) -> None:
    with talking(tmp_path, revision) as (server, claude):
        origin = say(server, "What does it say?", system_prompt="Be brief.")["conversation_id"]
        fork = given(server, "fork_conversation", conversation_id=origin, from_message=1)
        assert (fork["forked_from"], fork["forked_at"], fork["messages"]) == (origin, 1, 3)
        page = given(server, "get_conversation", conversation_id=fork["conversation_id"])
        spent = page["conversation"]["usage"]
        assert set(spent.values()) == {0}
        assert page["messages"][1]["usage"] is None
        assert {block["content"] for block in page["messages"][2]["content"]} == {
            "This tool call was not run in this fork of the conversation."
        }

        say(server, "Never mind.", fork["conversation_id"])
        asked = claude.requests()[-1]
        assert asked["status"] == 200
        assert [block["text"] for block in asked["body"]["system"]] == ["Be brief."]
        assert [message["role"] for message in asked["body"]["messages"]] == ["user", "assistant", "user"]
        answers = asked["body"]["messages"][2]["content"]
        assert [block["type"] for block in answers] == ["tool_result", "tool_result", "text"]
        assert given(server, "get_conversation", conversation_id=origin)["conversation"]["messages"] == 5
        found = given(server, "list_conversations", query="never mind")["conversations"]
        assert [each["conversation_id"] for each in found] == [fork["conversation_id"]]


@pytest.mark.behaviour("records.close", "records.fork.apart", "conversation.closed")
@newest
def test_a_closed_conversation_takes_no_more_and_can_be_read_and_forked(tmp_path: Path, revision: str) -> None:
    with talking(tmp_path, revision) as (server, _):
        known = say(server, "Hello")["conversation_id"]
        closed = {"conversation_id": known, "state": "closed"}
        assert given(server, "close_conversation", conversation_id=known) == closed
        before = stored(tmp_path)
        assert given(server, "close_conversation", conversation_id=known) == closed
        refused = server.call_tool("no", "claude_conversation", {"message": "Hello?", "conversation_id": known})
        assert refused["isError"] is True
        assert refused["content"][0]["text"] == (
            f"conversation '{known}' is closed: fork_conversation continues it in a new one"
        )
        assert stored(tmp_path) == before

        (found,) = given(server, "list_conversations", state="closed")["conversations"]
        assert found["conversation_id"] == known
        page = given(server, "get_conversation", conversation_id=known)
        assert page["messages"][0]["content"] == [{"type": "text", "text": "Hello"}]
        fork = given(server, "fork_conversation", conversation_id=known)
        assert say(server, "Hello again", fork["conversation_id"])["text"].endswith("It says hidden things.")
    with closing(sqlite3.connect(tmp_path / "state" / "tfo-mcp.db")) as database:
        names = database.execute("SELECT name FROM events WHERE aggregate_id = ? ORDER BY id", (known,)).fetchall()
        assert [name for (name,) in names].count("ConversationClosed") == 1
        assert names[-1] == ("ConversationClosed",)


@pytest.mark.behaviour("records.close.busy", "records.fork.apart")
@newest
def test_while_a_turn_is_under_way_its_conversation_is_forked_but_not_closed(tmp_path: Path, revision: str) -> None:
    script = "replies: [{when: {contains: slow}, text: late, delay: 60}, {text: Hi., times: 9}]"
    with fake_claude(script) as claude, serving(tmp_path, env=claude_at(claude.base_url)) as server:
        server.begin(revision)
        known = say(server, "Hello")["conversation_id"]
        arguments = {"message": "slow", "conversation_id": known}
        server.request("turn", "tools/call", {"name": "claude_conversation", "arguments": arguments})
        eventually(lambda: len(claude.requests()) == 2)
        refused = server.call_tool("close", "close_conversation", {"conversation_id": known})
        assert refused["isError"] is True
        assert refused["content"][0]["text"].startswith(f"conversation '{known}' is being continued")
        assert given(server, "get_conversation", conversation_id=known)["conversation"]["state"] == "waiting"
        fork = given(server, "fork_conversation", conversation_id=known, from_message=1)
        assert say(server, "quick", fork["conversation_id"])["text"].endswith("Hi.")
        assert not claude.requests()[1]["disconnected"]

        server.notify("notifications/cancelled", {"requestId": "turn"})
        eventually(lambda: not server.call_tool("close", "close_conversation", {"conversation_id": known})["isError"])
        assert given(server, "get_conversation", conversation_id=known)["conversation"]["state"] == "closed"


@pytest.mark.behaviour("records.close")
def test_a_conversation_whose_turn_was_killed_can_be_closed(tmp_path: Path) -> None:
    with fake_claude("replies: [{text: late, delay: 60}]") as claude:
        with serving(tmp_path, env=claude_at(claude.base_url)) as server:
            server.begin("2025-11-25")
            server.request("turn", "tools/call", {"name": "claude_conversation", "arguments": {"message": "slow"}})
            eventually(lambda: len(claude.requests()) == 1)
            server.process.kill()
            server.process.wait()
        with serving(tmp_path, env=claude_at(claude.base_url)) as server:
            server.begin("2025-11-25")
            (found,) = given(server, "list_conversations", state="waiting")["conversations"]
            given(server, "close_conversation", conversation_id=found["conversation_id"])
            (closed,) = given(server, "list_conversations")["conversations"]
            assert (closed["state"], closed["unknown_requests"]) == ("closed", 1)


@pytest.mark.behaviour("records.refused")
@newest
def test_what_cannot_be_meant_is_refused_and_changes_nothing(tmp_path: Path, revision: str) -> None:
    with talking(tmp_path, revision) as (server, _):
        known = say(server, "Hello")["conversation_id"]
        before = stored(tmp_path)
        unknown = f"conv_{'0' * 32}"
        refusals: Sequence[tuple[str, dict[str, Any], str]] = [
            *((tool, {"conversation_id": wrong}, f"there is no conversation '{wrong}'") for wrong in ("x", unknown)
              for tool in ("get_conversation", "fork_conversation", "close_conversation")),
            ("get_conversation", {"conversation_id": known, "start": 5}, "has no message 5: its messages are 0 to 4"),
            ("fork_conversation", {"conversation_id": known, "from_message": 5}, "has no message 5"),
            ("fork_conversation", {"conversation_id": known, "from_message": -1}, "from_message"),
            ("list_conversations", {"query": '"'}, "there is no word to search for"),
            ("list_conversations", {"cursor": "x"}, "the cursor is of no page"),
        ]  # fmt: skip
        for tool, arguments, sentence in refusals:
            result = server.call_tool("refused", tool, arguments)
            assert result["isError"] is True, (tool, arguments)
            assert sentence in result["content"][0]["text"]
        assert stored(tmp_path) == before

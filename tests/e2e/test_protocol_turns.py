"""A conversation with Claude over a real connection: beside other calls, cancelled, and after kill -9."""

from __future__ import annotations

import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from support.claude import FakeClaude, fake_claude
from support.server import STATELESS, Answer, Server, claude_at, eventually, serving
from support.sizes import later


def script(slow: int = 0, drip: int = 0) -> str:
    """Everything is repeated; before, so many answers keep one waiting, and so many come in pieces."""
    replies = ["- {when: {tool_result: false}, text: 'You said {last_user_text}.'}"]
    if drip:
        replies.insert(0, f"- {{when: {{contains: drip}}, text: 1 2 3 4 5 6 7 8, delay_between: 0.5, times: {drip}}}")
    if slow:
        replies.insert(0, f"- {{when: {{contains: slow}}, text: late, delay: 60, times: {slow}}}")
    return "\n".join(["replies:", *replies])


def wait_until_asked(claude: FakeClaude, count: int) -> None:
    """Until so many requests have come, and the last one to its end."""
    eventually(lambda: len(claude.requests()) == count and claude.requests()[-1]["status"] is not None)


def said(claude: FakeClaude) -> list[list[tuple[str, str]]]:
    """The history that each request to Claude carried, as (role, text)."""
    return [[(m["role"], text_of(m)) for m in request["body"]["messages"]] for request in claude.requests()]


def text_of(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(block["text"] for block in content)


def ask(server: Server, request_id: str | int, message: str, conversation: str | None = None) -> None:
    arguments = {"message": message} | ({"conversation_id": conversation} if conversation else {})
    server.request(request_id, "tools/call", {"name": "claude_conversation", "arguments": arguments})


def turn(server: Server, request_id: str | int, message: str, conversation: str | None = None) -> Answer:
    """A whole turn; its structured result."""
    ask(server, request_id, message, conversation)
    result = server.answer_to(request_id)["result"]
    assert result["isError"] is False, result
    return result["structuredContent"]


def descriptors(server: Server) -> Counter[str]:
    """What the process's descriptors lead to; of pipes and sockets the kind. Not databases: their pool grows late."""
    found: Counter[str] = Counter()
    for descriptor in Path(f"/proc/{server.pid}/fd").iterdir():
        with suppress(OSError):  # it has gone meanwhile
            found[str(descriptor.readlink()).partition(":[")[0]] += 1
    return Counter({name: many for name, many in found.items() if ".db" not in name})


def threads(server: Server) -> int:
    return len(list(Path(f"/proc/{server.pid}/task").iterdir()))


@pytest.mark.behaviour(
    "messages.answer.side-by-side", "cancellation.no-answer", "cancellation.upstream", "conversation.cancelled"
)
@pytest.mark.parametrize("revision", ["2025-11-25", later(STATELESS)])
def test_a_slow_turn_delays_nobody_and_cancelled_leaves_nothing_behind(tmp_path: Path, revision: str) -> None:
    late = "{text: late, delay: 60, times: %d}"
    replies = (
        f"replies: [{{text: hi}}, {late % 1}, {{text: well}}, {late % 5}, {{text: 'You said {{last_user_text}}.'}}]"
    )
    with fake_claude(replies) as claude, serving(tmp_path, env=claude_at(claude.base_url)) as server:
        server.begin(revision)
        conversation = turn(server, 1, "hello")["conversation_id"]

        def cancel_a_slow_turn(number: int) -> None:
            ask(server, "slow", "slow", conversation)
            wait_until_asked(claude, number)
            for ping in range(20):
                started = time.monotonic()
                server.ask_whether_alive(f"alive {ping}")
                assert server.receive()["id"] == f"alive {ping}"
                assert time.monotonic() - started < 0.5
            server.notify("notifications/cancelled", {"requestId": "slow", "reason": "the test's"})
            eventually(lambda: claude.requests()[-1]["disconnected"])

        cancel_a_slow_turn(2)
        turn(server, 2, "go on", conversation)
        held, running = descriptors(server), threads(server)
        for number in range(4, 9):
            cancel_a_slow_turn(number)

        # The id is free, and the conversation goes on with all that was said.
        after = turn(server, "slow", "and now", conversation)
        assert after["text"].endswith("You said " + "slow\n" * 5 + "and now.")
        assert [message["id"] for message in server.received].count("slow") == 1
        assert [role for role, _ in said(claude)[-1]] == ["user", "assistant"] * 2 + ["user"]
        eventually(lambda: descriptors(server) == held)
        assert threads(server) <= running + 1  # a pool may have had one to add


@pytest.mark.behaviour("cancellation.id-free")
def test_cancelling_frees_the_id_for_the_very_next_line(tmp_path: Path) -> None:
    with fake_claude(script(slow=1)) as claude, serving(tmp_path, env=claude_at(claude.base_url)) as server:
        server.begin("2025-11-25")
        ask(server, 7, "slow")
        wait_until_asked(claude, 1)
        call = {"name": "echo", "arguments": {"message": "mine"}}
        server.send(
            {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "7"}},
            {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": call},
        )
        assert server.receive()["result"]["structuredContent"] == {"message": "mine"}
        server.ask_whether_alive()
        assert server.receive()["id"] == "alive"


@pytest.mark.behaviour("conversation.cancelled", "cancellation.upstream")
def test_a_cancelled_answer_in_the_middle_leaves_the_conversation_whole(tmp_path: Path) -> None:
    with fake_claude(script(drip=1)) as claude, serving(tmp_path, env=claude_at(claude.base_url)) as server:
        server.begin("2025-11-25")
        conversation = turn(server, 1, "hello")["conversation_id"]
        ask(server, 2, "drip", conversation)
        wait_until_asked(claude, 2)
        server.notify("notifications/cancelled", {"requestId": 2})
        eventually(lambda: claude.requests()[-1]["disconnected"])
        turn(server, 3, "again", conversation)
        history = said(claude)[-1]
        assert history[0] == ("user", "hello")
        # What had arrived is kept; where nothing had, two messages of the user's reach the API as one.
        assert "".join(text for role, text in history[2:] if role == "user") == "dripagain"
        assert [role for role, _ in history] == ["user", "assistant", "user", "assistant", "user"][: len(history)]


@pytest.mark.behaviour("conversation.turn")
@pytest.mark.ci
def test_two_turns_of_one_conversation_follow_each_other(tmp_path: Path) -> None:
    with fake_claude(script()) as claude, serving(tmp_path, env=claude_at(claude.base_url)) as server:
        server.begin("2025-11-25")
        conversation = turn(server, 0, "hello")["conversation_id"]
        for number in range(1, 5):
            ask(server, number, f"message {number}", conversation)
        answers = {(answer := server.receive())["id"]: answer["result"] for _ in range(4)}
        for number, result in answers.items():
            assert result["structuredContent"]["text"].endswith(f"You said message {number}.")
        assert [len(history) for history in said(claude)] == [1, 3, 5, 7, 9]


@pytest.mark.behaviour("conversation.survives", "conversation.continued")
def test_a_conversation_outlives_kill_9_between_two_turns(tmp_path: Path) -> None:
    with fake_claude(script()) as claude:
        with serving(tmp_path, env=claude_at(claude.base_url)) as server:
            server.begin("2025-11-25")
            first = turn(server, 1, "first")
            second = turn(server, 2, "second", first["conversation_id"])
            server.process.send_signal(signal.SIGKILL)
            server.wait()
        with serving(tmp_path, env=claude_at(claude.base_url)) as server:
            server.begin(STATELESS)
            third = turn(server, 1, "third", first["conversation_id"])
        assert third["conversation_id"] == first["conversation_id"]
        assert said(claude)[-1] == [
            ("user", "first"),
            ("assistant", first["text"]),
            ("user", "second"),
            ("assistant", second["text"]),
            ("user", "third"),
        ]


@pytest.mark.behaviour("conversation.survives")
@pytest.mark.parametrize("message", ["drip", later("slow")])
def test_a_conversation_outlives_kill_9_during_a_turn(tmp_path: Path, message: str) -> None:
    with fake_claude(script(slow=1, drip=1)) as claude:
        with serving(tmp_path, env=claude_at(claude.base_url)) as server:
            server.begin("2025-11-25")
            first = turn(server, 1, "first")
            ask(server, 2, message, first["conversation_id"])
            wait_until_asked(claude, 2)
            server.process.send_signal(signal.SIGKILL)
            server.wait()
        eventually(lambda: claude.requests()[1]["disconnected"])
        with serving(tmp_path, env=claude_at(claude.base_url)) as server:
            server.begin("2025-11-25")
            again = turn(server, 1, "again", first["conversation_id"])
        # The turn that was cut is brought to its end before the next one begins, and its lost request is counted.
        assert again["text"].endswith("You said again.")
        assert (again["turn"], again["continued"], again["unknown_requests"]) == (3, True, 0)
        history = said(claude)[-1]
        assert history[:3] == [("user", "first"), ("assistant", first["text"]), ("user", message)]
        assert history[3][1].endswith(f"You said {message}.")
        assert history[4:] == [("user", "again")]


@pytest.mark.behaviour("conversation.error", "conversation.retry")
@pytest.mark.ci
def test_an_upstream_that_fails_is_told_and_the_next_message_retries(tmp_path: Path) -> None:
    refused_once = "replies: [{status: 529}, {text: fine}]"
    settings = {"TELEMETRYFLOW_MCP_CLAUDE_MAX_RETRIES": "0"}
    with fake_claude(refused_once) as claude, serving(tmp_path, env=claude_at(claude.base_url) | settings) as server:
        server.begin("2025-11-25")
        result = server.call_tool(1, "claude_conversation", {"message": "hello"})
        assert result["isError"] is True
        sentence = result["content"][0]["text"]
        assert "overloaded" in sentence
        conversation = sentence.rsplit("'", 2)[1]
        assert turn(server, 2, "again", conversation)["text"].endswith("fine")
        assert said(claude)[-1] == [("user", "helloagain")]

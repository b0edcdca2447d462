"""Killed with -9 at every step of a turn with three tools: what is left, and what a restart makes of it."""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.claude import FakeClaude, fake_claude
from support.measurements import keep
from support.server import Answer, Server, claude_at, serving
from tfo_mcp.domain.conversation import INTERRUPTED, Conversation
from tfo_mcp.domain.identifiers import ConversationId
from tfo_mcp.domain.turn import TurnState
from tfo_mcp.infrastructure.persistence.conversations import SqlConversationRepository
from tfo_mcp.infrastructure.persistence.storage import Storage

SCRIPT = """
replies:
  - {when: {contains: work}, text: I begin., tool_use: [{name: look}, {name: mark}, {name: strike}]}
  - {when: {tool_result: true}, text: All is done.}
  - {when: {contains: thanks}, text: You are welcome.}
  - {when: {contains: hello}, text: Good day.}
"""
SWITCH = Path(__file__).parents[1] / "support" / "kill_switch.py"
LAST_STEP = 34
"""More than a turn has; who wants to kill there finds that it was over before."""

AT_FIRST = (1, 2, 3, 4, 6, 8, 9, 10, 11, 12, 13, 15, 17, 18, 19, 20, 22, 24, 26, 30)
"""The steps of the first size: each kind at least once."""


@dataclass
class Ending:
    """How it stands after the restart.

    Attributes:
        killed: the step at which the first process died, None where it did not.
        strikes: how often the tool ran that must not run twice.
    """

    conversation: Conversation
    answer: Answer
    killed: str | None
    strikes: int


def begin(folder: Path, claude: FakeClaude, kill_at: int) -> Any:  # noqa: ANN401  # the server's context manager
    folder.mkdir(parents=True, exist_ok=True)
    env: Mapping[str, str] = {
        **claude_at(claude.base_url),
        "KILL_AT": str(kill_at),
        "KILL_LOG": str(folder / "steps.log"),
        "TELEMETRYFLOW_MCP_CLAUDE_ALLOW_TOOLS": "look,mark,strike",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    return serving(folder, env=env, command=(sys.executable, str(SWITCH), "serve"))


def send(server: Server, request_id: int, **arguments: str) -> Answer | None:
    """The answer, or None where the server died instead."""
    server.request(request_id, "tools/call", {"name": "claude_conversation", "arguments": arguments})
    while (answer := server.receive_or_end()) is not None:
        if answer.get("id") == request_id:
            assert answer["result"]["isError"] is False, answer
            return answer["result"]["structuredContent"]
    return None


def steps(folder: Path) -> list[str]:
    return (folder / "steps.log").read_text().splitlines()


def one_turn(folder: Path, claude: FakeClaude) -> None:
    """State with a conversation of one turn, and the file `conversation` with its id."""
    with begin(folder, claude, 0) as server:
        server.begin("2025-11-25")
        first = send(server, 1, message="hello")
        assert first is not None
        (folder / "conversation").write_text(first["conversation_id"])
        server.close_input()
        server.wait()
    (folder / "steps.log").write_text("")


def killed_at(folder: Path, template: Path, claude: FakeClaude, kill_at: int, *, again: str) -> Ending:
    """Be killed at a step of the second turn, start again, and repeat the message or send another one (`again`)."""
    shutil.copytree(template, folder)
    conversation_id = (folder / "conversation").read_text()
    with begin(folder, claude, kill_at) as server:
        server.begin("2025-11-25")
        answer = send(server, 1, message="work", conversation_id=conversation_id, idempotency_key="once")
        if answer is None:
            server.wait()
    killed = None if answer is not None else steps(folder)[-1].partition(" ")[2]
    with begin(folder, claude, 0) as server:
        server.begin("2025-11-25")
        if again == "same key":
            answer = send(server, 1, message="work", conversation_id=conversation_id, idempotency_key="once")
        thanked = send(server, 2, message="thanks", conversation_id=conversation_id)
    assert thanked is not None
    conversation = asyncio.run(stored(folder, conversation_id))
    return Ending(conversation, answer or thanked, killed, steps(folder).count("strike"))


async def stored(folder: Path, conversation_id: str) -> Conversation:
    storage = Storage(folder / "state" / "tfo-mcp.db")
    try:
        found = await SqlConversationRepository(storage).get(ConversationId(conversation_id), "local")
    finally:
        await storage.close()
    assert found is not None
    return found


def transcript(conversation: Conversation) -> list[tuple[str, Sequence[str]]]:
    """Who said what, without the ids that are new each time."""
    return [(turn["role"], [told(block) for block in turn["content"]]) for turn in conversation.transcript.turns]


def told(block: Mapping[str, Any]) -> str:
    match block:
        case {"type": "text", "text": text}:
            return text
        case {"type": "tool_use", "name": name}:
            return f"uses {name}"
        case {"type": "tool_result", "content": content, "is_error": failed}:
            return f"failed: {content}" if failed else content
        case _:
            return str(block)


UNDISTURBED = [
    ("user", ["hello"]),
    ("assistant", ["[simulated] No model was asked. Good day."]),
    ("user", ["work"]),
    ("assistant", ["[simulated] No model was asked. I begin.", "uses look", "uses mark", "uses strike"]),
    ("user", ["look was run", "mark was run", "strike was run"]),
    ("assistant", ["[simulated] No model was asked. All is done."]),
    ("user", ["thanks"]),
    ("assistant", ["[simulated] No model was asked. You are welcome."]),
]
CUT = [*UNDISTURBED[:4], ("user", ["look was run", "mark was run", f"failed: {INTERRUPTED}"]), *UNDISTURBED[5:]]


def check(ending: Ending, where: str) -> None:
    found = transcript(ending.conversation)
    if found == CUT:
        # Only where the process died between the commit that the tool begins and that of its answer.
        assert ending.killed is not None, where
        assert ending.strikes <= 1, where
    else:
        assert found == UNDISTURBED, where
        assert ending.strikes == 1, where
    conversation = ending.conversation
    assert conversation.turn is not None
    assert (conversation.turn.number, conversation.turn.state) == (3, TurnState.ENDED), where
    in_stream = (ending.killed or "").startswith("stream")
    assert conversation.unknown_requests in ({1} if in_stream else {0, 1}), where
    answered = [message.usage for message in conversation.messages if message.usage is not None]
    assert conversation.usage == sum(answered[1:], answered[0]), where


def matrix(folder: Path, numbers: Sequence[int]) -> list[str]:
    """Every one of them; returns the steps at which processes died."""
    died: list[str] = []
    with fake_claude(SCRIPT) as claude:
        one_turn(folder / "template", claude)
        for number in numbers:
            again = "same key" if number % 2 else "next message"
            ending = killed_at(folder / f"{len(died)} {number}", folder / "template", claude, number, again=again)
            where = f"killed at {number} ({ending.killed}), then {again}"
            check(ending, where)
            died.append(ending.killed or "over before")
    return died


@pytest.mark.behaviour("conversation.survives.anywhere")
@pytest.mark.parametrize("part", range(4))
def test_killed_at_any_step_of_a_turn_nothing_is_lost_doubled_or_run_twice(tmp_path: Path, part: int) -> None:
    died = matrix(tmp_path, AT_FIRST[part::4])
    assert "over before" not in died


@pytest.mark.behaviour("conversation.survives.anywhere")
@pytest.mark.ci
def test_the_steps_between_those_are_no_other(tmp_path: Path) -> None:
    matrix(tmp_path, [number for number in range(1, LAST_STEP) if number not in AT_FIRST])


@pytest.mark.soak
@pytest.mark.behaviour("conversation.survives.anywhere")
def test_two_hundred_random_steps(tmp_path: Path) -> None:
    began, chosen = time.monotonic(), random.Random(4)  # to be had again
    died = matrix(tmp_path, [chosen.randint(1, LAST_STEP) for _ in range(230)])  # of which some come too late
    steps = Counter(re.sub(r"^\d+ ", "", step) for step in died)
    figures = {"kills": len(died) - steps["over before"], "lost": 0, "doubled": 0, "run twice": 0}
    assert figures["kills"] >= 200
    keep("kill-matrix", began, {**figures, "by step": dict(steps.most_common())})

from __future__ import annotations

import pytest

from tfo_mcp.application.gen_ai_messages import answer_message, new_messages
from tfo_mcp.domain.message import Message, OpaqueBlock, Text, ToolAnswer, ToolUse
from tfo_mcp.domain.transcript import Transcript

ASKED = Message("user", (Text("How many?"),))
CALLED = Message("assistant", (Text("Let me see."), ToolUse("t1", "count", {"what": "sheep"})), stop_reason="tool_use")
ANSWERED = Message("user", (ToolAnswer("t1", "7"),))


@pytest.mark.behaviour("contents.messages")
def test_of_a_request_what_is_said_since_claude_spoke_is_told() -> None:
    assert new_messages(Transcript([ASKED])) == [
        {"role": "user", "parts": [{"type": "text", "content": "How many?"}]},
    ]
    assert new_messages(Transcript([ASKED, CALLED, ANSWERED])) == [
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "t1", "response": "7"}]},
    ]
    assert new_messages(Transcript([ASKED, CALLED, ANSWERED, Message("user", (Text("Go on"),))])) == [
        {
            "role": "user",
            "parts": [
                {"type": "tool_call_response", "id": "t1", "response": "7"},
                {"type": "text", "content": "Go on"},
            ],
        },
    ]
    assert new_messages(Transcript([ASKED, CALLED])) == []


@pytest.mark.behaviour("contents.messages")
def test_of_an_answer_text_thoughts_and_calls_are_told_and_of_all_else_its_type() -> None:
    thought = OpaqueBlock({"type": "thinking", "thinking": "Sheep?", "signature": "x" * 100})
    other = OpaqueBlock({"type": "redacted_thinking", "data": "x" * 100})
    answer = Message("assistant", (thought, other, *CALLED.content), stop_reason="tool_use")
    assert answer_message(answer) == {
        "role": "assistant",
        "parts": [
            {"type": "reasoning", "content": "Sheep?"},
            {"type": "redacted_thinking"},
            {"type": "text", "content": "Let me see."},
            {"type": "tool_call", "id": "t1", "name": "count", "arguments": {"what": "sheep"}},
        ],
        "finish_reason": "tool_call",
    }


@pytest.mark.behaviour("contents.messages")
@pytest.mark.parametrize(
    ("reason", "told"),
    [("end_turn", "stop"), ("max_tokens", "length"), ("refusal", "content_filter"), ("pause_turn", "pause_turn")],
)
def test_why_claude_ended_is_told_as_the_conventions_want_it(reason: str, told: str) -> None:
    assert answer_message(Message("assistant", (Text("x"),), stop_reason=reason))["finish_reason"] == told

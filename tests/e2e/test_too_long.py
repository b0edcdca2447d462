"""What is longer than the model can take is refused where it comes from: nothing makes a conversation unusable."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.claude import fake_claude
from support.server import claude_at, serving

HAIKU = "claude-haiku-4-5"  # 200,000 tokens
FITS = 87_000 * 3
"""Bytes of which two fit, and three do not."""


@pytest.mark.behaviour("conversation.too-long")
def test_results_that_do_not_fit_are_answered_as_too_large_and_the_conversation_goes_on(tmp_path: Path) -> None:
    reads = ", ".join(["{name: read_file, input: {path: long.txt}}"] * 4)
    script = f"replies: [{{tool_use: [{reads}]}}, {{text: Well.}}, {{text: Indeed.}}]"
    with fake_claude(script) as claude, serving(tmp_path, env=claude_at(claude.base_url)) as server:
        server.initialize()
        (tmp_path / "work" / "long.txt").write_text("x" * FITS)
        result = server.call_tool(1, "claude_conversation", {"message": "Read it", "model": HAIKU})
        assert not result["isError"], result
        turn = result["structuredContent"]
        assert (turn["text"].split()[-1], turn["tool_calls"]) == ("Well.", 4)
        *_, answers = claude.requests()[-1]["body"]["messages"]
        told = [block["content"] for block in answers["content"] if block["is_error"]]
        assert len(told) == 2
        assert set(told) == {
            f"The result has {FITS} characters, more than this conversation has room for: ask for less at a time."
        }
        again = {"message": "And?", "conversation_id": turn["conversation_id"]}
        assert server.call_tool(2, "claude_conversation", again)["structuredContent"]["text"].endswith("Indeed.")


@pytest.mark.parametrize("key", [{}, {"idempotency_key": "1"}])
@pytest.mark.behaviour("conversation.too-long")
def test_a_message_that_the_model_cannot_take_is_refused_and_changes_nothing(
    tmp_path: Path, key: dict[str, str]
) -> None:
    with fake_claude() as claude, serving(tmp_path, env=claude_at(claude.base_url)) as server:
        server.initialize()
        first = server.call_tool(1, "claude_conversation", {"message": "Hello", "model": HAIKU})
        conversation_id = first["structuredContent"]["conversation_id"]
        before = server.call_tool(2, "get_conversation", {"conversation_id": conversation_id})
        for number, where in enumerate(({"conversation_id": conversation_id}, {"model": HAIKU}), start=3):
            long = {"message": "x" * 3 * FITS, **where, **key}
            refused = server.call_tool(number, "claude_conversation", long)
            assert refused["isError"]
            sentence = refused["content"][0]["text"]
            assert "more than 'claude-haiku-4-5' can take" in sentence
        assert len(claude.requests()) == 1
        assert server.call_tool(9, "get_conversation", {"conversation_id": conversation_id}) == before
        found = server.call_tool(10, "list_conversations")["structuredContent"]["conversations"]
        assert [one["conversation_id"] for one in found] == [conversation_id]

"""Budgets against what fake-claude counts, which is what the server reckons with where nobody has counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.claude import fake_claude
from support.server import Answer, claude_at, serving

SCRIPT = "replies: [{when: {tool_result: false}, text: '%s'}]" % ("word " * 400)


def tokens(result: Answer) -> int:
    return sum(result["structuredContent"]["usage"].values())


@pytest.mark.behaviour("conversation.budget")
def test_a_budget_is_used_to_its_end_and_what_stands_before_the_messages_counts_once(tmp_path: Path) -> None:
    env = {"TELEMETRYFLOW_MCP_CLAUDE_BUDGET_TURN": "2900", "TELEMETRYFLOW_MCP_CLAUDE_BUDGET_CONVERSATION": "6000"}
    with fake_claude(SCRIPT) as claude, serving(tmp_path, env={**env, **claude_at(claude.base_url)}) as server:
        server.initialize()
        first = {"message": "Hello", "system_prompt": "Be kind. " * 300, "max_tokens": 10}
        answer = server.call_tool(1, "claude_conversation", first)
        prompt = tokens(answer) - 10

        again = {"message": "And?", "conversation_id": answer["structuredContent"]["conversation_id"]}
        second = server.call_tool(2, "claude_conversation", again)
        assert second["structuredContent"]["stop_reason"] == "budget"
        assert abs(tokens(second) - 2900) < 20  # what a message is wrapped in is not counted

        refused = server.call_tool(3, "claude_conversation", again)
        assert refused["isError"], refused
        needed = int(refused["content"][0]["text"].partition("needs about ")[2].partition(":")[0])
        assert tokens(second) < needed < tokens(second) + 100
        assert needed < 2 * prompt
        assert len(claude.requests()) == 2

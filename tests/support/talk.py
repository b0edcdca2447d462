"""Conversations as they are after certain messages, for tests to which it does not matter how they came to be."""

from __future__ import annotations

from support.sends import a_send
from tfo_mcp.domain.conversation import Conversation
from tfo_mcp.domain.message import Message, ToolAnswer


def conversation_of(
    opening: str,
    *following: Message | ToolAnswer,
    principal: str = "local",
    model: str = "claude-test-1",
    system_prompt: str | None = None,
) -> Conversation:
    """A conversation, not yet stored, whose one turn has these messages and is still running."""
    conversation = Conversation.create(principal=principal, model=model)
    conversation.begin_turn(a_send(opening, system_prompt=system_prompt))
    for said in following:
        if isinstance(said, ToolAnswer):
            conversation.add_tool_answer(said)
        else:
            conversation.request_sent()
            conversation.response_received(said)
    return conversation


def reread(conversation: Conversation) -> Conversation:
    """What another process finds in storage after a commit."""
    ledger = conversation.changes.calls.values()
    return Conversation(
        conversation.record(),
        conversation.messages,
        conversation.turn,
        next((call for call in ledger if call.outcome is None), None),
    )

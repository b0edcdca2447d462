"""What a fork of a conversation consists of; the copy itself is made where the messages are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tfo_mcp.domain.events import ConversationCreated, DomainEvent, MessageAdded
from tfo_mcp.domain.identifiers import ConversationId
from tfo_mcp.domain.message import Message, ToolAnswer

_NOT_RUN = "This tool call was not run in this fork of the conversation."


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """A conversation that begins with another one's messages.

    Attributes:
        forked_from: the other one, which stays as it is.
        forked_at: the position of the last message that was taken over.
        messages: how many it has, with the one that answers open tool calls, where there were any.
        created_at: seconds since the epoch.
    """

    id: ConversationId
    principal: str
    model: str
    forked_from: ConversationId
    forked_at: int
    messages: int
    created_at: float

    @property
    def events(self) -> Sequence[DomainEvent]:
        """What happened: it was created, and what it does not share with the other one was added."""
        about: Any = {"aggregate_id": self.id, "principal": self.principal, "occurred_at": self.created_at}
        own = range(self.forked_at + 1, self.messages)
        added = [MessageAdded(**about, position=position, role="user") for position in own]
        return [ConversationCreated(**about, model=self.model), *added]


def closing_answers(ending: Sequence[Message]) -> Message | None:
    """The message that answers the tool calls which the fork's last messages leave open; None where none is.

    Args:
        ending: the messages from the assistant's last one on.
    """
    answered = {block.tool_use_id for message in ending for block in message.content if isinstance(block, ToolAnswer)}
    calls = [call for message in ending[:1] for call in message.tool_uses if call.id not in answered]
    if not calls:
        return None
    return Message("user", tuple(ToolAnswer(call.id, _NOT_RUN, is_error=True) for call in calls))

"""A turn: what a user's message sets going, until Claude has said his last word on it; and what waits to be one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any, Literal

from tfo_mcp.domain.events import DomainEvent
from tfo_mcp.domain.identifiers import ConversationId
from tfo_mcp.domain.message import Block, Message, Text, ToolAnswer, Usage


class TurnState(Enum):
    """How a turn is.

    One that storage has as running while nobody holds its conversation was interrupted, and waits to be continued.
    """

    RUNNING = "running"
    ENDED = "ended"
    """It has its end, be that Claude's or a limit's: `stop_reason` says which."""
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnOptions:
    """What the caller wants of a turn; kept with it, so that whoever continues it wants the same.

    Attributes:
        model: from this turn on; None: the conversation's.
        system_prompt: from this turn on; None: the conversation's.
        max_tokens: of one answer.
        tools: the names of those that Claude may use; None: all that he may use at all.
        effort: the API's `output_config.effort`; None: the model's own.
        thinking: whether Claude may think as far as it sees fit.
        output_schema: JSON Schema of what Claude's text is to be.
    """

    model: str | None = None
    system_prompt: str | None = None
    max_tokens: int
    tools: tuple[str, ...] | None = None
    effort: str | None = None
    thinking: bool = False
    output_schema: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """As storage keeps it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TurnOptions:
        """What `to_json` made `data` from."""
        options: dict[str, Any] = {**data, "tools": None if data["tools"] is None else tuple(data["tools"])}
        return cls(**options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """A user's message on its way into a conversation.

    Attributes:
        idempotency_key: by which its sender knows it again.
        fingerprint: of all that the sender asked for.
    """

    content: Sequence[Block]
    options: TurnOptions
    fingerprint: str
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingSend:
    """A send that was accepted and is no turn yet.

    Attributes:
        id: sends to one conversation become turns in the order of their ids.
        holder: the process at which its sender waits (`ConversationLocks`).
    """

    id: int
    conversation_id: ConversationId
    principal: str
    holder: str
    send: Send


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A turn as storage keeps it. Times in seconds since the epoch.

    Attributes:
        number: counted from 1, within the conversation.
        first_position: of the user's message.
        steps: requests to Claude that were answered.
        usage: what the API said that its requests took, those that were cut included.
        unknown_requests: of which nobody knows what they took, or took in the end.
    """

    number: int
    idempotency_key: str | None
    fingerprint: str
    options: TurnOptions
    state: TurnState
    stop_reason: str | None
    first_position: int
    steps: int
    usage: Usage
    unknown_requests: int
    started_at: float
    ended_at: float | None


Outcome = Literal["completed", "failed", "cut", "cancelled", "lost"]
"""How a request to Claude ended; `lost`: its process died before the answer was committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaudeCall:
    """One request to Claude in the ledger. Times in seconds since the epoch.

    Attributes:
        number: counted from 1, within the conversation.
        outcome: None as long as it has none.
        position: of the message that it gave, if it gave one.
        usage: what the API said that it took, as far as it came to say it; None: it said nothing.
    """

    number: int
    turn: int
    model: str
    started_at: float
    outcome: Outcome | None = None
    request_id: str | None = None
    status: int | None = None
    position: int | None = None
    usage: Usage | None = None
    ended_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """What came of an answer that did not come to its end.

    Attributes:
        begun: whether the message began at all.
        usage: as the API said it last; None: it said nothing.
    """

    begun: bool = False
    text: str = ""
    usage: Usage | None = None
    model: str | None = None
    request_id: str | None = None


NOTHING = Arrived()
"""Nothing came."""


@dataclass(slots=True)
class Changes:
    """What storage does not have yet, beside the row and the messages.

    Attributes:
        turn: whether the last turn is other than storage has it.
        turn_is_new: whether storage does not have it at all.
        calls: requests to Claude that are new or have an outcome now, by number.
        begun_tools: calls of tools that are about to run and must not run twice, by id.
        begun_sends: pending sends that became turns, by id.
        events: what happened.
    """

    turn: bool = False
    turn_is_new: bool = False
    calls: dict[int, ClaudeCall] = field(default_factory=dict[int, ClaudeCall])
    begun_tools: list[str] = field(default_factory=list[str])
    begun_sends: list[int] = field(default_factory=list[int])
    events: list[DomainEvent] = field(default_factory=list[DomainEvent])


def final_text(messages: Sequence[Message]) -> str:
    """Claude's last words: all since the tool's answer before them, in pieces where he was asked to go on."""
    pieces: list[str] = []
    for message in reversed(messages):
        if message.role == "assistant":
            pieces.append(message.text)
        elif pieces and not all(isinstance(block, Text) for block in message.content):
            break
    return "".join(reversed(pieces))


def tool_calls(messages: Sequence[Message]) -> int:
    """How many of Claude's tool calls have an answer."""
    return sum(isinstance(block, ToolAnswer) for message in messages for block in message.content)

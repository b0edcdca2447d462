"""What happened, in the diagrams' names (DESIGN §4).

Events of sessions and conversations are saved in the transaction of their aggregate and published after
it; `ToolExecuted` belongs to no stored aggregate and is published only.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from tfo_mcp.domain.identifiers import LOCAL_PRINCIPAL


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainEvent:
    """One thing that happened to one aggregate.

    Attributes:
        aggregate_id: the session's, conversation's or call's identifier.
        principal: on whose behalf.
        occurred_at: seconds since the epoch.
    """

    aggregate_id: str
    principal: str = LOCAL_PRINCIPAL
    occurred_at: float = field(default_factory=time.time)

    @property
    def name(self) -> str:
        """The event's name, as stored and logged."""
        return type(self).__name__


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionCreated(DomainEvent):
    """A client's `initialize`, or its first stateless request, was accepted."""

    protocol_version: str
    client_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInitialized(DomainEvent):
    """The session is ready for requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFailed(DomainEvent):
    """The initialization failed."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionClosed(DomainEvent):
    """The session ended. `duration` in seconds since it was created."""

    duration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolExecuted(DomainEvent):
    """A tool call ended, however it ended. `duration` in seconds."""

    tool: str
    outcome: str
    duration: float
    error_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationCreated(DomainEvent):
    """A conversation began."""

    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageAdded(DomainEvent):
    """A message was appended at `position`, counted from 0."""

    position: int
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaudeRequestFailed(DomainEvent):
    """A request to Claude failed for good, after the client library's own retries."""

    status: int | None
    request_id: str | None
    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationClosed(DomainEvent):
    """The conversation takes no more messages; it can still be read."""

    reason: str

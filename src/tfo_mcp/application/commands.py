"""Commands: what a client may ask to be done. Their handlers stand in the `*_handler.py` modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tfo_mcp.domain.message import Block


@dataclass(frozen=True, slots=True)
class InitializeSession:
    """`initialize` was accepted with this revision; or the first stateless request came."""

    protocol_version: str
    client_name: str
    client_version: str


@dataclass(frozen=True, slots=True)
class ConfirmInitialized:
    """`notifications/initialized`."""


@dataclass(frozen=True, slots=True)
class CloseSession:
    """`shutdown`, end of input, or a signal."""


@dataclass(frozen=True, slots=True)
class SetLogLevel:
    """`logging/setLevel`: how grave a record of the server's own log must be for the client to get it."""

    level: str


@dataclass(frozen=True, slots=True)
class Subscribe:
    """`resources/subscribe`: from now on the client is told when this resource changes."""

    uri: str


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """`resources/unsubscribe`."""

    uri: str


@dataclass(frozen=True, slots=True)
class Listen:
    """`subscriptions/listen`: until it ends, its stream is told when these resources change."""

    uris: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CallTool:
    """`tools/call`, or a tool call by Claude. Gives a `ToolResult`."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SendMessage:
    """One user message to a conversation, or to a new one. Gives a `TurnResult`.

    Attributes:
        attachments: what stands before the text: pictures, documents.
        tools: the names of those that Claude may use; None: all that he may use at all.
        idempotency_key: by which the sender knows this message again, should he have to repeat it.
        effort: the API's `output_config.effort`.
        output_schema: JSON Schema of what Claude's text is to be.
    """

    message: str
    conversation_id: str | None = None
    system_prompt: str | None = None
    model: str | None = None
    max_tokens: int | None = None
    attachments: tuple[Block, ...] = ()
    tools: tuple[str, ...] | None = None
    idempotency_key: str | None = None
    effort: str | None = None
    thinking: bool | None = None
    output_schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ForkConversation:
    """A new conversation with the messages of another one up to position `last`, or all. Gives a `Fork`."""

    conversation_id: str
    last: int | None


@dataclass(frozen=True, slots=True)
class CloseConversation:
    """No more messages to this conversation."""

    conversation_id: str

"""The server's own resources as JSON: its configuration, its health, and the caller's conversations."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import msgspec

from tfo_mcp.application.ports import ConversationRepository
from tfo_mcp.domain.completion import MOST_VALUES, Completion, first_of
from tfo_mcp.domain.conversation import Conversation, ConversationSummary
from tfo_mcp.domain.errors import UnknownResource
from tfo_mcp.domain.health import HealthReport, moment
from tfo_mcp.domain.identifiers import parse_conversation_id
from tfo_mcp.domain.message import Block, Message, Text, ToolAnswer, ToolUse, Usage
from tfo_mcp.domain.resource import Content, Reader, Resource, ResourceTemplate
from tfo_mcp.domain.session import Session

JSON: Final = "application/json"

_CONVERSATION: Final = "conversation://"


def server_resources(
    configuration: Mapping[str, Any], report: Callable[[Session], Coroutine[Any, Any, HealthReport]]
) -> list[Resource]:
    """`config://server` and `status://health`.

    Args:
        configuration: what is in force, fit to be shown.
        report: measures the server's health.
    """

    async def read_configuration(uri: str, reader: Reader) -> Content:  # noqa: ARG001  # it is one, and the same for all
        return _json(configuration)

    async def read_health(uri: str, reader: Reader) -> Content:  # noqa: ARG001  # it is one
        return _json(_health(await report(reader.session)))

    return [
        Resource(
            uri="config://server",
            name="server-configuration",
            title="Server configuration",
            description="The settings in force and the file that they come from; secrets are masked.",
            mime_type=JSON,
            read=read_configuration,
        ),
        Resource(
            uri="status://health",
            name="server-health",
            title="Server health",
            description="Measured now: storage, audit, telemetry, Claude and this session, and what follows from them.",
            mime_type=JSON,
            read=read_health,
        ),
    ]


def _health(report: HealthReport) -> dict[str, Any]:
    parts = {name: {"status": part.status.value, **part.details} for name, part in report.components.items()}
    return {"status": report.status.value, "version": report.version, "uptime": report.uptime, "components": parts}


def _json(value: object) -> Content:
    return Content(JSON, msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


class ConversationResources:
    """`conversation://{id}`: the caller's own, as storage has them.

    Args:
        max_bytes: of the messages' JSON; the oldest messages are left out where there are more.
    """

    def __init__(self, conversations: ConversationRepository, *, max_bytes: int) -> None:
        self._conversations = conversations
        self._max_bytes = max_bytes

    def template(self) -> ResourceTemplate:
        """The template, which lists the newest ones."""
        return ResourceTemplate(
            uri_template=f"{_CONVERSATION}{{id}}",
            name="conversation",
            title="Conversation with Claude",
            description="A conversation of claude_conversation: its state, messages, tool calls and tokens.",
            mime_type=JSON,
            read=self._read,
            complete=self._complete,
            recent=self._recent,
        )

    async def _read(self, uri: str, reader: Reader) -> Content:
        parsed = parse_conversation_id(uri.removeprefix(_CONVERSATION))
        conversation = None if parsed is None else await self._conversations.get(parsed, reader.principal)
        if conversation is None:
            raise UnknownResource(uri)
        return _json(self._shown(conversation))

    async def _complete(self, written: str, reader: Reader) -> Completion:
        found = await self._conversations.newest(reader.principal, MOST_VALUES + 1, prefix=written)
        return first_of([summary.id for summary in found])

    async def _recent(self, reader: Reader, limit: int, after: str | None) -> Sequence[Resource]:
        last = None if after is None else parse_conversation_id(after.removeprefix(_CONVERSATION))
        if after is not None and (last is None or not after.startswith(_CONVERSATION)):
            raise UnknownResource(after)
        return list(map(self._listed, await self._conversations.newest(reader.principal, limit, after=last)))

    def _listed(self, summary: ConversationSummary) -> Resource:
        return Resource(
            uri=f"{_CONVERSATION}{summary.id}",
            name=summary.id,
            title=f"Conversation of {moment(summary.created_at)}",
            description=f"With {summary.model}, {summary.state.value}, last changed {moment(summary.updated_at)}.",
            mime_type=JSON,
            read=self._read,
        )

    def _shown(self, conversation: Conversation) -> dict[str, Any]:
        messages = self._newest(conversation.messages)
        return {
            "id": conversation.id,
            "model": conversation.model,
            "state": conversation.state.value,
            "system_prompt": conversation.system_prompt,
            "created_at": moment(conversation.created_at),
            "usage": _usage(conversation.usage),
            "messages": messages,
            "omitted_messages": len(conversation.messages) - len(messages),
        }

    def _newest(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """As many as fit, the last ones; of the very last as much as fits."""
        shown: list[dict[str, Any]] = []
        room = self._max_bytes
        for message in reversed(messages):
            shape = _message(message)
            size = len(msgspec.json.encode(shape))
            if size > room:
                if not shown:
                    shown.append(_message(message, room))
                break
            room -= size
            shown.append(shape)
        return shown[::-1]


def _message(message: Message, room: int | None = None) -> dict[str, Any]:
    """One message; with `room`, what it says is cut to as many bytes in all."""
    content: list[dict[str, Any]] = []
    for block in message.content:
        shape = _block(block)
        if room is not None:
            shape, room = _cut(shape, room)
        content.append(shape)
    shown: dict[str, Any] = {"role": message.role, "created_at": moment(message.created_at), "content": content}
    if message.role == "assistant":
        usage = None if message.usage is None else _usage(message.usage)
        shown |= {"model": message.model, "stop_reason": message.stop_reason, "usage": usage}
    return shown


def _block(block: Block) -> dict[str, Any]:
    match block:
        case Text() | ToolUse() | ToolAnswer():
            return block.to_json()
        case _:  # a signature, a search result: of use to the API only
            return {"type": block.data.get("type")}


def _cut(shape: dict[str, Any], room: int) -> tuple[dict[str, Any], int]:
    """`shape` with its text in at most `room` bytes, and how many are left."""
    shape = dict(shape)
    for key in ("text", "content", "input"):
        if key in shape:
            value = shape[key] if isinstance(shape[key], str) else msgspec.json.encode(shape[key]).decode()
            data = value.encode()
            if len(data) > room:
                shape |= {key: data[:room].decode(errors="ignore"), "truncated": True}
            room = max(0, room - len(data))
    return shape, room


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
    }

"""Conversations in the SQL database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import fields as dataclass_fields
from typing import TYPE_CHECKING, Any

from tfo_mcp.domain.conversation import Conversation, ConversationRecord, ConversationState
from tfo_mcp.domain.errors import ConversationBusy
from tfo_mcp.domain.events import DomainEvent
from tfo_mcp.domain.identifiers import ConversationId
from tfo_mcp.domain.message import Message, Usage, block_from_json
from tfo_mcp.infrastructure.persistence.rows import event_row
from tfo_mcp.infrastructure.persistence.search import index_messages
from tfo_mcp.infrastructure.persistence.storage import Storage

if TYPE_CHECKING:
    from sqlalchemy import RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection


class SqlConversationRepository:
    """`ConversationRepository` over SQLAlchemy Core; opens storage where nobody has yet."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def get(self, conversation_id: ConversationId, principal: str) -> Conversation | None:
        """The principal's conversation with all its messages, or None.

        Raises:
            StorageUnavailable: the database cannot be opened or read.
        """
        async with self._storage.read() as connection:
            return await _load(connection, conversation_id, principal)

    async def save(self, conversation: Conversation) -> Sequence[DomainEvent]:
        """Commit row, new messages and events in one transaction; returns the events.

        The conversation must not change meanwhile. Whatever happens, cancellation included, it counts as
        committed if and only if the database has it.

        Raises:
            ConversationBusy: the fence has moved: somebody else appended meanwhile.
            StorageUnavailable: the database cannot be opened or written.
        """

        async def work(connection: AsyncConnection) -> None:
            await _append(connection, conversation)

        return await self._storage.write(work, conversation.mark_committed)


async def _load(connection: AsyncConnection, conversation_id: str, principal: str) -> Conversation | None:
    from sqlalchemy import select

    from tfo_mcp.infrastructure.persistence.schema import conversations, messages

    found = await connection.execute(
        select(conversations).where(conversations.c.id == conversation_id, conversations.c.principal == principal)
    )
    row = found.mappings().one_or_none()
    if row is None:
        return None
    history = await connection.execute(
        select(messages).where(messages.c.conversation_id == conversation_id).order_by(messages.c.position)
    )
    fields: dict[str, Any] = {field.name: row[field.name] for field in dataclass_fields(ConversationRecord)}
    fields["state"] = ConversationState(row["state"])
    return Conversation(ConversationRecord(**fields), [message_of(message) for message in history.mappings()])


async def _append(connection: AsyncConnection, conversation: Conversation) -> None:
    from sqlalchemy import insert, update
    from sqlalchemy.exc import IntegrityError

    from tfo_mcp.infrastructure.persistence.schema import conversations, events, messages

    row = asdict(conversation.record())
    row["state"] = conversation.state.value
    try:
        if conversation.fence == 0:
            await connection.execute(insert(conversations).values(row))
        else:
            mine = (conversations.c.id == conversation.id) & (conversations.c.principal == conversation.principal)
            unmoved = conversations.c.fence == conversation.fence
            moved = await connection.execute(update(conversations).where(mine, unmoved).values(row))
            if moved.rowcount == 0:
                raise ConversationBusy(conversation.id)
        if conversation.uncommitted:
            added = [
                message_row(conversation.id, conversation.principal, position, message)
                for position, message in conversation.uncommitted
            ]
            await connection.execute(insert(messages), added)
            await index_messages(connection, conversation.id, conversation.principal, conversation.uncommitted)
    except IntegrityError as error:  # the row, or a message at that position, is there already
        raise ConversationBusy(conversation.id) from error
    if conversation.uncommitted_events:
        await connection.execute(insert(events), [event_row(event) for event in conversation.uncommitted_events])


def message_row(conversation_id: str, principal: str, position: int, message: Message) -> dict[str, Any]:
    """A row of `messages`."""
    usage = message.usage
    return {
        "conversation_id": conversation_id,
        "position": position,
        "principal": principal,
        "role": message.role,
        "content": [block.to_json() for block in message.content],
        "model": message.model,
        "stop_reason": message.stop_reason,
        "input_tokens": usage and usage.input_tokens,
        "output_tokens": usage and usage.output_tokens,
        "cache_read_tokens": usage and usage.cache_read_tokens,
        "cache_write_tokens": usage and usage.cache_write_tokens,
        "created_at": message.created_at,
    }


def message_of(row: RowMapping) -> Message:
    """The message that a row of `messages` holds."""
    usage = None
    if row["input_tokens"] is not None:
        usage = Usage(row["input_tokens"], row["output_tokens"], row["cache_read_tokens"], row["cache_write_tokens"])
    return Message(
        role=row["role"],
        content=tuple(block_from_json(block) for block in row["content"]),
        usage=usage,
        model=row["model"],
        stop_reason=row["stop_reason"],
        created_at=row["created_at"],
    )

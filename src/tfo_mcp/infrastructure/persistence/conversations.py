"""Conversations in the SQL database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import fields as dataclass_fields
from typing import TYPE_CHECKING, Any

from tfo_mcp.domain.conversation import Conversation, ConversationRecord, ConversationState, ConversationSummary
from tfo_mcp.domain.errors import ConversationBusy
from tfo_mcp.domain.events import DomainEvent
from tfo_mcp.domain.identifiers import ConversationId
from tfo_mcp.domain.message import Message, Usage, block_from_json
from tfo_mcp.infrastructure.persistence.rows import event_row
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

    async def newest(
        self, principal: str, limit: int, *, after: ConversationId | None = None, prefix: str = ""
    ) -> Sequence[ConversationSummary]:
        """At most `limit` of the principal's conversations, those created last first.

        With `after`, those behind that one; none where the principal has it not. With `prefix`, those whose id
        begins so.

        Raises:
            StorageUnavailable: the database cannot be opened or read.
        """
        async with self._storage.read() as connection:
            return await _newest(connection, principal, limit, after, prefix)

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
    return Conversation(ConversationRecord(**fields), [_message(message) for message in history.mappings()])


async def _newest(
    connection: AsyncConnection, principal: str, limit: int, after: str | None, prefix: str
) -> Sequence[ConversationSummary]:
    from sqlalchemy import func, select, tuple_

    from tfo_mcp.infrastructure.persistence.schema import conversations

    columns = conversations.c
    mine = columns.principal == principal
    wanted = select(columns.id, columns.model, columns.state, columns.created_at, columns.updated_at).where(mine)
    if prefix:
        wanted = wanted.where(func.substr(columns.id, 1, len(prefix)) == prefix)
    if after is not None:
        found = await connection.execute(select(columns.created_at, columns.id).where(mine, columns.id == after))
        last = found.one_or_none()
        if last is None:
            return ()
        wanted = wanted.where(tuple_(columns.created_at, columns.id) < tuple_(*last))
    rows = await connection.execute(wanted.order_by(columns.created_at.desc(), columns.id.desc()).limit(limit))
    return [
        ConversationSummary(
            id=row["id"],
            model=row["model"],
            state=ConversationState(row["state"]),
            created_at=row["created_at"],
            updated_at=row["updated_at"],
        )
        for row in rows.mappings()
    ]


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
            added = [_message_row(conversation, position, message) for position, message in conversation.uncommitted]
            await connection.execute(insert(messages), added)
    except IntegrityError as error:  # the row, or a message at that position, is there already
        raise ConversationBusy(conversation.id) from error
    if conversation.uncommitted_events:
        await connection.execute(insert(events), [event_row(event) for event in conversation.uncommitted_events])


def _message_row(conversation: Conversation, position: int, message: Message) -> dict[str, Any]:
    usage = message.usage
    return {
        "conversation_id": conversation.id,
        "position": position,
        "principal": conversation.principal,
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


def _message(row: RowMapping) -> Message:
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

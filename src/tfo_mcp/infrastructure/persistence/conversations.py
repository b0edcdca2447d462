"""Conversations in the SQL database: each change is one append, in one transaction, behind a fence."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfo_mcp.application.ports import RecordedTurn
from tfo_mcp.domain.conversation import Conversation
from tfo_mcp.domain.errors import ConversationBusy, ConversationNotFound
from tfo_mcp.domain.identifiers import ConversationId
from tfo_mcp.domain.turn import PendingSend, Send, Turn
from tfo_mcp.infrastructure.persistence.conversation_rows import (
    call_row,
    conversation_row,
    message_of,
    message_row,
    open_call_of,
    pending_of,
    pending_row,
    record_of,
    turn_of,
    turn_row,
)
from tfo_mcp.infrastructure.persistence.rows import event_row
from tfo_mcp.infrastructure.persistence.search import index_messages
from tfo_mcp.infrastructure.persistence.storage import Storage

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table


class SqlConversationRepository:
    """`ConversationRepository` over SQLAlchemy Core; opens storage where nobody has yet."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def get(
        self, conversation_id: ConversationId, principal: str, known: Conversation | None = None
    ) -> Conversation | None:
        """The principal's conversation with all its messages, or None; `known` itself, where nothing has changed.

        Raises:
            StorageUnavailable: the database cannot be opened or read.
        """
        return await self._storage.read(lambda connection: _load(connection, conversation_id, principal, known))

    async def save(self, conversation: Conversation) -> None:
        """Commit row, new messages, turn, ledger and events in one transaction.

        The conversation must not change meanwhile. Whatever happens, cancellation included, it counts as
        committed if and only if the database has it.

        Raises:
            ConversationBusy: the fence has moved: somebody else appended meanwhile.
            StorageUnavailable: the database cannot be opened or written.
        """

        def work(connection: Connection) -> None:
            _append(connection, conversation)

        await self._storage.write(work, lambda _: conversation.mark_committed())

    async def accept(
        self, conversation_id: ConversationId, principal: str, holder: str, send: Send, created: Conversation | None
    ) -> PendingSend | RecordedTurn:
        """Commit `send` as the last that waits, with `created` where it begins a conversation.

        Where its idempotency key is known already, nothing is committed, and what has the key is returned: a turn,
        or a send that still waits. Where it is cancelled, it may be accepted all the same.

        Raises:
            ConversationNotFound: it was deleted; nothing is accepted.
            StorageUnavailable: the database cannot be opened or written; nothing is accepted.
        """

        def work(connection: Connection) -> PendingSend | RecordedTurn:
            known = _by_key(connection, principal, send.idempotency_key)
            if known is not None:
                return known
            if created is not None:
                _append(connection, created)
            return _wait_in_line(connection, conversation_id, principal, holder, send)

        def committed(found: PendingSend | RecordedTurn) -> None:
            if created is not None and found.conversation_id == created.id:
                created.mark_committed()

        return await self._storage.write(work, committed)

    async def next_for(
        self, pending: PendingSend, known: Conversation | None = None
    ) -> tuple[Conversation | None, Sequence[PendingSend]]:
        """Its conversation, as `get` gives it, and what was accepted for it and is no turn yet, in order.

        The latter up to `pending` itself, which comes last, if it still is there.

        Raises:
            StorageUnavailable: the database cannot be opened or read.
        """
        from sqlalchemy import select

        from tfo_mcp.infrastructure.persistence.schema import pending_sends

        columns = pending_sends.c
        until_it = (columns.conversation_id == pending.conversation_id) & (columns.id <= pending.id)

        def work(connection: Connection) -> tuple[Conversation | None, Sequence[PendingSend]]:
            rows = connection.execute(select(pending_sends).where(until_it).order_by(columns.id))
            line = [pending_of(row) for row in rows.mappings()]
            return _load(connection, pending.conversation_id, pending.principal, known), line

        return await self._storage.read(work)

    async def adopt(self, pending: PendingSend, holder: str) -> bool:
        """Let another process wait with `pending`, whose holder is dead; whether it was still there to be taken.

        Raises:
            StorageUnavailable: the database cannot be opened or written.
        """
        from sqlalchemy import update

        from tfo_mcp.infrastructure.persistence.schema import pending_sends

        columns = pending_sends.c
        same = (columns.id == pending.id) & (columns.holder == pending.holder)
        adopting = update(pending_sends).where(same).values(holder=holder)
        return await self._storage.write(lambda connection: connection.execute(adopting).rowcount == 1)

    async def withdraw(self, pending: PendingSend) -> None:
        """Forget a send that is no turn yet, and the conversation that it was to begin, where it is empty.

        Raises:
            StorageUnavailable: the database cannot be opened or written; it stays, and is delivered with the next.
        """
        await self._storage.write(lambda connection: _forget(connection, pending))

    async def turn(self, conversation_id: ConversationId, number: int) -> tuple[Turn, int | None] | None:
        """One turn, and the position where the next one begins; None for the latter where it is the last.

        Raises:
            StorageUnavailable: the database cannot be opened or read.
        """
        from sqlalchemy import select

        from tfo_mcp.infrastructure.persistence.schema import turns

        columns = turns.c
        wanted = select(turns).where(
            columns.conversation_id == conversation_id, columns.number.in_((number, number + 1))
        )
        in_order = wanted.order_by(columns.number)
        rows = await self._storage.read(lambda connection: connection.execute(in_order).mappings().all())
        if not rows or rows[0]["number"] != number:
            return None
        return turn_of(rows[0]), rows[1]["first_position"] if len(rows) > 1 else None

    async def begun_tools(self, conversation_id: ConversationId) -> frozenset[str]:
        """The ids of the calls by Claude of tools that must not run twice and began to run.

        Raises:
            StorageUnavailable: the database cannot be opened or read.
        """
        from sqlalchemy import select

        from tfo_mcp.infrastructure.persistence.schema import tool_starts

        wanted = select(tool_starts.c.tool_use_id).where(tool_starts.c.conversation_id == conversation_id)
        return await self._storage.read(lambda connection: frozenset(connection.execute(wanted).scalars()))

    async def tokens_since(self, principal: str, since: float) -> int:
        """What the principal's requests to Claude took that were sent at `since` or later, as far as it is known.

        Raises:
            StorageUnavailable: the database cannot be opened or read.
        """
        from sqlalchemy import func, select

        from tfo_mcp.infrastructure.persistence.schema import claude_requests

        columns = claude_requests.c
        parts = (columns.input_tokens, columns.output_tokens, columns.cache_read_tokens, columns.cache_write_tokens)
        total = sum((func.coalesce(func.sum(part), 0) for part in parts[1:]), func.coalesce(func.sum(parts[0]), 0))
        wanted = select(total).where(columns.principal == principal, columns.started_at >= since)
        return await self._storage.read(lambda connection: int(connection.execute(wanted).scalar_one()))


def _load(
    connection: Connection, conversation_id: str, principal: str, known: Conversation | None
) -> Conversation | None:
    from sqlalchemy import select

    from tfo_mcp.infrastructure.persistence.schema import claude_requests, conversations, messages, turns

    wanted = select(conversations).where(conversations.c.id == conversation_id, conversations.c.principal == principal)
    row = connection.execute(wanted).mappings().one_or_none()
    if row is None:
        return None
    record = record_of(row)
    if known is not None and known.fence == record.fence and known.is_committed:
        return known
    history = select(messages).where(messages.c.conversation_id == conversation_id).order_by(messages.c.position)
    said = [message_of(message) for message in connection.execute(history).mappings()]
    turn = call = None
    if record.turns:
        last = select(turns).where(turns.c.conversation_id == conversation_id, turns.c.number == record.turns)
        turn = turn_of(connection.execute(last).mappings().one())
    if record.open_request is not None:
        ledger = claude_requests.c
        sent = (ledger.conversation_id == conversation_id) & (ledger.number == record.open_request)
        call = open_call_of(connection.execute(select(claude_requests).where(sent)).mappings().one())
    return Conversation(record, said, turn, call)


def _append(connection: Connection, conversation: Conversation) -> None:
    from sqlalchemy import insert, update
    from sqlalchemy.exc import IntegrityError

    from tfo_mcp.infrastructure.persistence.schema import conversations, events, messages

    row = conversation_row(conversation.record())
    try:
        if conversation.fence == 0:
            connection.execute(insert(conversations), row)
        else:
            mine = (conversations.c.id == conversation.id) & (conversations.c.principal == conversation.principal)
            unmoved = conversations.c.fence == conversation.fence
            moved = connection.execute(update(conversations).where(mine, unmoved), row)
            if moved.rowcount == 0:
                raise ConversationBusy(conversation.id)
        if conversation.uncommitted:
            added = [
                message_row(conversation.id, conversation.principal, position, message)
                for position, message in conversation.uncommitted
            ]
            connection.execute(insert(messages), added)
            index_messages(connection, conversation.id, conversation.principal, conversation.uncommitted)
        _append_changes(connection, conversation)
    except IntegrityError as error:  # the row, or a message at that position, is there already
        raise ConversationBusy(conversation.id) from error
    if conversation.uncommitted_events:
        connection.execute(insert(events), [event_row(event) for event in conversation.uncommitted_events])


def _append_changes(connection: Connection, conversation: Conversation) -> None:
    from sqlalchemy import delete, insert

    from tfo_mcp.infrastructure.persistence.schema import claude_requests, pending_sends, tool_starts, turns

    changes, principal = conversation.changes, conversation.principal
    if changes.turn and conversation.turn is not None:
        _put(connection, turns, turn_row(conversation.id, principal, conversation.turn), new=changes.turn_is_new)
    for call in changes.calls.values():
        row = call_row(conversation.id, principal, call)
        _put(connection, claude_requests, row, new=call.outcome is None)
    if changes.begun_sends:
        connection.execute(delete(pending_sends).where(pending_sends.c.id.in_(changes.begun_sends)))
    if changes.begun_tools:
        common = {"conversation_id": conversation.id, "principal": principal, "started_at": time.time()}
        begun = [{**common, "tool_use_id": tool_use_id} for tool_use_id in changes.begun_tools]
        connection.execute(insert(tool_starts), begun)


def _put(connection: Connection, table: Table, row: dict[str, Any], *, new: bool) -> None:
    """Insert `row`, or bring the one that has its number up to it; in words that every database has.

    One that is new may have been changed before it was stored.
    """
    from sqlalchemy import insert, update

    same = (table.c.conversation_id == row["conversation_id"]) & (table.c.number == row["number"])
    if new or connection.execute(update(table).where(same), row).rowcount == 0:
        connection.execute(insert(table), row)


def _by_key(connection: Connection, principal: str, key: str | None) -> PendingSend | RecordedTurn | None:
    from sqlalchemy import select

    from tfo_mcp.infrastructure.persistence.schema import pending_sends, turns

    if key is None:
        return None
    wanted = select(turns).where(turns.c.principal == principal, turns.c.idempotency_key == key)
    row = connection.execute(wanted).mappings().one_or_none()
    if row is not None:
        return RecordedTurn(ConversationId(row["conversation_id"]), row["number"], row["fingerprint"])
    waiting = select(pending_sends).where(
        pending_sends.c.principal == principal, pending_sends.c.idempotency_key == key
    )
    row = connection.execute(waiting).mappings().one_or_none()
    return None if row is None else pending_of(row)


def _wait_in_line(
    connection: Connection, conversation_id: ConversationId, principal: str, holder: str, send: Send
) -> PendingSend:
    from sqlalchemy import insert
    from sqlalchemy.exc import IntegrityError

    from tfo_mcp.infrastructure.persistence.schema import pending_sends

    row = {**pending_row(conversation_id, principal, holder, send), "accepted_at": time.time()}
    try:
        added = connection.execute(insert(pending_sends).values(row))
    except IntegrityError as error:  # the conversation was deleted meanwhile: nothing else can be in the way
        raise ConversationNotFound(conversation_id) from error
    key = added.inserted_primary_key
    assert key is not None  # noqa: S101  # one row was inserted
    return PendingSend(id=key[0], conversation_id=conversation_id, principal=principal, holder=holder, send=send)


def _forget(connection: Connection, pending: PendingSend) -> None:
    from sqlalchemy import delete, exists, select

    from tfo_mcp.infrastructure.persistence.schema import conversations, events, messages, pending_sends

    connection.execute(delete(pending_sends).where(pending_sends.c.id == pending.id))
    mine = conversations.c.id == pending.conversation_id
    said = exists().where(messages.c.conversation_id == conversations.c.id)
    waiting = exists().where(pending_sends.c.conversation_id == conversations.c.id)
    empty = select(conversations.c.id).where(mine, ~said, ~waiting)
    if connection.execute(empty).first() is not None:
        connection.execute(delete(events).where(events.c.aggregate_id == pending.conversation_id))
        connection.execute(delete(conversations).where(mine))

"""Conversations as a whole: read from the first message to the last, and removed, by name or by age.

What is removed leaves no trace in the database file once `Archive.wipe` has run: the freed places are overwritten
with zeros (`secure_delete`), the search index is written anew without its words, and the write-ahead log is emptied.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from tfo_mcp.application.ports import ConversationLocks
from tfo_mcp.domain.errors import ConversationBusy
from tfo_mcp.domain.identifiers import ConversationId
from tfo_mcp.domain.message import Message
from tfo_mcp.infrastructure.persistence.conversation_rows import message_of
from tfo_mcp.infrastructure.persistence.search import merge_index
from tfo_mcp.infrastructure.persistence.storage import Storage

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

_CHUNK: Final = 1 << 20
"""Characters of messages' JSON that are read in one transaction, roughly."""

_BATCH: Final = 200
"""Conversations or sessions that one statement is about."""
_TEXTS: Final = 50
"""Texts that one transaction takes out of the search at most: others that write get their turn in between."""

_ATTEMPTS: Final = 5
_PAUSE: Final = 0.2
"""Times to try to empty the write-ahead log, and seconds in between; those who read need it for moments only."""


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed, or would be; `kept` are conversations that somebody works on."""

    conversations: int = 0
    messages: int = 0
    sessions: int = 0
    kept: int = 0


class Archive:
    """All conversations of a database, over SQLAlchemy Core; opens storage where nobody has yet.

    Args:
        locks: those of the processes that work on the same conversations.
    """

    def __init__(self, storage: Storage, locks: ConversationLocks) -> None:
        self._storage = storage
        self._locks = locks

    async def ids(self, principal: str) -> Sequence[ConversationId]:
        """All of the principal's conversations, the oldest first.

        Raises:
            StorageUnavailable: the database cannot be opened or read.
        """
        from sqlalchemy import select

        from tfo_mcp.infrastructure.persistence.schema import conversations

        columns = conversations.c
        wanted = select(columns.id).where(columns.principal == principal).order_by(columns.created_at, columns.id)
        names = await self._storage.read(lambda connection: connection.execute(wanted).scalars().all())
        return [ConversationId(name) for name in names]

    async def messages(
        self, conversation_id: ConversationId, *, start: int, end: int
    ) -> AsyncGenerator[tuple[int, Message]]:
        """The messages from position `start` up to that before `end`, each with its position.

        A part of them is in memory at a time, and no transaction is open while the caller works. They end early
        where the conversation is deleted meanwhile.

        Raises:
            StorageUnavailable: the database cannot be opened or read.
        """
        while start < end:
            chunk = await self._chunk(conversation_id, start, end)
            if not chunk:
                return
            for position, message in chunk:
                yield position, message
            start = chunk[-1][0] + 1

    async def delete(self, conversation_id: ConversationId, principal: str) -> int | None:
        """Remove the principal's conversation from every table; how many messages it had, None where there is none.

        It is gone at once, in one transaction. Of a long one the texts that search goes through go before it, in
        transactions of their own, so that no other process waits for long.

        Raises:
            ConversationBusy: somebody works on it, or has a message accepted for it; it stays.
            StorageUnavailable: the database or the lock cannot be had; it stays.
        """
        from tfo_mcp.infrastructure.persistence.schema import conversations

        return await self._delete(conversation_id, conversations.c.principal == principal)

    async def outdated(self, before: float) -> Removed:
        """What `purge` would remove, if nobody works on any of it.

        Raises:
            StorageUnavailable: the database cannot be opened or read.
        """
        from sqlalchemy import func, select

        from tfo_mcp.infrastructure.persistence.schema import conversations, messages, sessions

        old = conversations.c.updated_at < before
        these = select(conversations.c.id).where(old)
        wanted = select(
            select(func.count()).select_from(conversations).where(old).scalar_subquery(),
            select(func.count()).where(messages.c.conversation_id.in_(these)).scalar_subquery(),
            select(func.count()).select_from(sessions).where(_ended(before)).scalar_subquery(),
        )
        return await self._storage.read(lambda connection: Removed(*connection.execute(wanted).one()))

    async def purge(self, before: float) -> Removed:
        """Remove every principal's conversations that have not changed since `before`, and sessions that ended earlier.

        Each conversation is gone in a transaction of its own; one that somebody works on stays.

        Raises:
            StorageUnavailable: the database or a lock cannot be had; what is gone until then is gone.
        """
        from tfo_mcp.infrastructure.persistence.schema import conversations

        old = conversations.c.updated_at < before
        removed = messages = kept = 0
        last = (float("-inf"), "")
        while batch := await self._batch(old, last):
            for updated_at, conversation_id in batch:
                last = (updated_at, conversation_id)
                try:
                    count = await self._delete(conversation_id, old)
                except ConversationBusy:
                    kept += 1
                    continue
                if count is not None:
                    removed += 1
                    messages += count
        return Removed(removed, messages, await self._delete_sessions(before), kept)

    async def wipe(self, *, vacuum: bool = False) -> bool:
        """Leave no trace of what was removed; whether none is left, which a process that reads can prevent for now.

        With `vacuum` the file is written anew, so that it becomes smaller; nobody else can write meanwhile.

        Raises:
            StorageUnavailable: the database cannot be opened or written.
        """
        more = await self._storage.write(partial(merge_index, first=True))
        while more:
            more = await self._storage.write(partial(merge_index, first=False))
        for _ in range(_ATTEMPTS):
            if await self._storage.wipe(vacuum=vacuum):
                return True
            vacuum = False
            await asyncio.sleep(_PAUSE)
        return False

    async def _chunk(self, conversation_id: str, start: int, end: int) -> Sequence[tuple[int, Message]]:
        from sqlalchemy import String, func, select, type_coerce

        from tfo_mcp.infrastructure.persistence.schema import messages

        place = messages.c.position
        mine = (messages.c.conversation_id == conversation_id) & (place >= start) & (place < end)
        size = func.length(type_coerce(messages.c.content, String)).label("size")
        wanted = select(messages, size).where(mine).order_by(place)

        def work(connection: Connection) -> Sequence[tuple[int, Message]]:
            chunk: list[tuple[int, Message]] = []
            read = 0
            with connection.execute(wanted) as rows:  # SQLite gives each when it is asked for
                for row in rows.mappings():
                    chunk.append((row["position"], message_of(row)))
                    read += row["size"]
                    if read >= _CHUNK:
                        break
            return chunk

        return await self._storage.read(work)

    async def _batch(self, old: ColumnElement[bool], last: tuple[float, str]) -> Sequence[tuple[float, ConversationId]]:
        """Conversations behind `last`, in the order of their last change."""
        from sqlalchemy import select, tuple_

        from tfo_mcp.infrastructure.persistence.schema import conversations

        columns = conversations.c
        place = tuple_(columns.updated_at, columns.id)
        behind = select(columns.updated_at, columns.id).where(old, place > tuple_(*last))
        wanted = behind.order_by(columns.updated_at, columns.id).limit(_BATCH)
        rows = await self._storage.read(lambda connection: connection.execute(wanted).all())
        return [(updated_at, ConversationId(name)) for updated_at, name in rows]

    async def _delete(self, conversation_id: ConversationId, condition: ColumnElement[bool]) -> int | None:
        """Remove it, if `condition` holds when nobody else can change that any more."""
        if not await self._locks.try_acquire(conversation_id):
            raise ConversationBusy(conversation_id)
        try:
            abandoned = await self._abandoned_by(conversation_id)

            def work(connection: Connection) -> tuple[bool, int | None]:
                """Whether it is done, and how many messages it had, if it was there."""
                if not _is_there(connection, conversation_id, condition):
                    return True, None
                if not abandoned.issuperset(_holders(connection, conversation_id)):
                    raise ConversationBusy(conversation_id)
                if _thin_out(connection, conversation_id) == _TEXTS:
                    return False, None
                return True, _remove(connection, conversation_id)

            done, messages = False, None
            while not done:
                done, messages = await self._storage.write(work)
        finally:
            await self._locks.release(conversation_id)
        return messages

    async def _abandoned_by(self, conversation_id: str) -> frozenset[str]:
        """Processes that accepted a message for it and are dead."""
        holders = await self._storage.read(partial(_holders, conversation_id=conversation_id))
        return frozenset([holder for holder in holders if not await self._locks.lives(holder)])

    async def _delete_sessions(self, before: float) -> int:
        """Of one that is alive in spite of its age the row comes back with its next change."""
        removed, batch = 0, _BATCH
        while batch == _BATCH:
            batch = await self._storage.write(partial(_remove_sessions, before=before))
            removed += batch
        return removed


def _ended(before: float) -> ColumnElement[bool]:
    """Sessions of before that moment; of one that never ended, because its process was killed, the beginning counts."""
    from sqlalchemy import func

    from tfo_mcp.infrastructure.persistence.schema import sessions

    return func.coalesce(sessions.c.closed_at, sessions.c.created_at) < before


def _is_there(connection: Connection, conversation_id: str, condition: ColumnElement[bool]) -> bool:
    from sqlalchemy import select

    from tfo_mcp.infrastructure.persistence.schema import conversations

    wanted = select(conversations.c.id).where(conversations.c.id == conversation_id, condition)
    return connection.execute(wanted).first() is not None


def _holders(connection: Connection, conversation_id: str) -> Sequence[str]:
    """The processes at which somebody waits to have sent a message."""
    from sqlalchemy import select

    from tfo_mcp.infrastructure.persistence.schema import pending_sends

    wanted = select(pending_sends.c.holder).where(pending_sends.c.conversation_id == conversation_id)
    return connection.execute(wanted.distinct()).scalars().all()


def _thin_out(connection: Connection, conversation_id: str) -> int:
    """Take some of its texts out of the search, which is most of the work; how many, `_TEXTS` where there are more."""
    from sqlalchemy import delete, select

    from tfo_mcp.infrastructure.persistence.schema import message_texts

    columns = message_texts.c
    some = select(columns.id).where(columns.conversation_id == conversation_id).limit(_TEXTS)
    return connection.execute(delete(message_texts).where(columns.id.in_(some))).rowcount


def _remove(connection: Connection, conversation_id: str) -> int:
    """Its rows in every table, those first that refer to others; how many messages there were."""
    from sqlalchemy import delete

    from tfo_mcp.infrastructure.persistence.schema import conversations, events, messages, metadata

    count = 0
    for table in reversed(metadata.sorted_tables):
        if "conversation_id" in table.c:
            gone = connection.execute(delete(table).where(table.c.conversation_id == conversation_id))
            if table is messages:
                count = gone.rowcount
    connection.execute(delete(events).where(events.c.aggregate_id == conversation_id))
    connection.execute(delete(conversations).where(conversations.c.id == conversation_id))
    return count


def _remove_sessions(connection: Connection, before: float) -> int:
    """Some of those that ended, with their events; how many, `_BATCH` where there may be more."""
    from sqlalchemy import delete, select

    from tfo_mcp.infrastructure.persistence.schema import events, sessions

    some = connection.execute(select(sessions.c.id).where(_ended(before)).limit(_BATCH)).scalars().all()
    connection.execute(delete(events).where(events.c.aggregate_id.in_(some)))
    connection.execute(delete(sessions).where(sessions.c.id.in_(some)))
    return len(some)

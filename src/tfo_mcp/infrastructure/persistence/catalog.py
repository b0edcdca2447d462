"""Conversations in the SQL database, to be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfo_mcp.domain.catalog import CatalogPlace, ConversationPage, ConversationSummary, words_of
from tfo_mcp.domain.conversation_record import ConversationState
from tfo_mcp.domain.identifiers import ConversationId
from tfo_mcp.domain.message import Usage
from tfo_mcp.infrastructure.persistence.conversation_rows import message_of
from tfo_mcp.infrastructure.persistence.search import said_in
from tfo_mcp.infrastructure.persistence.storage import Storage

if TYPE_CHECKING:
    from sqlalchemy import Connection, RowMapping, Select


class SqlConversationCatalog:
    """`ConversationCatalog` over SQLAlchemy Core; opens storage where nobody has yet."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def find(
        self,
        principal: str,
        *,
        text: str = "",
        state: ConversationState | None = None,
        limit: int,
        after: CatalogPlace | None = None,
    ) -> Sequence[ConversationSummary]:
        """At most `limit` of the principal's conversations, those changed last first; with `after`, those behind it.

        With `text`, those in which the user or Claude said each of its words (`words_of`), the last one or one that
        begins so; none where there are no words in it. A pass from one result's last place to the next result gives
        each conversation once, whatever is added meanwhile; one that changes before its turn moves to the front.

        Raises:
            StorageUnavailable: the database cannot be opened or read.
        """
        from sqlalchemy import tuple_

        from tfo_mcp.infrastructure.persistence.schema import conversations

        if text and not words_of(text):
            return ()
        columns = conversations.c
        wanted = _summaries(principal).where(*said_in(conversations, text))
        if state is not None:
            wanted = wanted.where(columns.state == state.value)
        if after is not None:
            wanted = wanted.where(tuple_(columns.updated_at, columns.id) < tuple_(after.updated_at, after.id))
        return await self._read(wanted.order_by(columns.updated_at.desc(), columns.id.desc()).limit(limit))

    async def newest(
        self, principal: str, limit: int, *, after: ConversationId | None = None, prefix: str = ""
    ) -> Sequence[ConversationSummary]:
        """At most `limit` of the principal's conversations, those created last first.

        With `after`, those behind that one; none where the principal has it not. With `prefix`, those whose id
        begins so.

        Raises:
            StorageUnavailable: the database cannot be opened or read.
        """
        from sqlalchemy import func, select, tuple_

        from tfo_mcp.infrastructure.persistence.schema import conversations

        columns = conversations.c
        wanted = _summaries(principal)
        if prefix:
            wanted = wanted.where(func.substr(columns.id, 1, len(prefix)) == prefix)
        if after is not None:
            last = select(columns.created_at, columns.id).where(columns.principal == principal, columns.id == after)
            wanted = wanted.where(tuple_(columns.created_at, columns.id) < last.scalar_subquery())
        return await self._read(wanted.order_by(columns.created_at.desc(), columns.id.desc()).limit(limit))

    async def page(
        self, conversation_id: ConversationId, principal: str, *, start: int, limit: int
    ) -> ConversationPage | None:
        """The principal's conversation with at most `limit` of its messages from position `start` on, or None.

        A negative `start` counts from the end, back to the first at most; behind the last there are none.

        Raises:
            StorageUnavailable: the database cannot be opened or read.
        """
        from sqlalchemy import select

        from tfo_mcp.infrastructure.persistence.schema import conversations, messages

        one = _summaries(principal).add_columns(conversations.c.system_prompt)

        def work(connection: Connection) -> ConversationPage | None:
            row = connection.execute(one.where(conversations.c.id == conversation_id)).mappings().one_or_none()
            if row is None:
                return None
            count = row["messages"]
            first = min(start, count) if start >= 0 else max(0, count + start)  # no number is too large for SQL
            place = messages.c.position
            history = select(messages).where(messages.c.conversation_id == conversation_id, place >= first)
            shown = connection.execute(history.order_by(place).limit(limit))
            return ConversationPage(
                summary=_summary(row),
                system_prompt=row["system_prompt"],
                start=first,
                messages=[message_of(message) for message in shown.mappings()],
            )

        return await self._storage.read(work)

    async def _read(self, wanted: Select[Any]) -> Sequence[ConversationSummary]:
        return await self._storage.read(
            lambda connection: [_summary(row) for row in connection.execute(wanted).mappings()]
        )


_COPIED = ("id", "model", "created_at", "updated_at", "title", "turns", "requests", "unknown_requests")
_ORIGIN = ("forked_from", "forked_at")
_TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")


def _summaries(principal: str) -> Select[Any]:
    """All that a summary tells, of every conversation of `principal`."""
    from sqlalchemy import func, select

    from tfo_mcp.infrastructure.persistence.schema import conversations, messages

    # The last position is at the end of an index; to count would walk along all of it.
    end = select(func.coalesce(func.max(messages.c.position) + 1, 0)).where(
        messages.c.conversation_id == conversations.c.id
    )
    told = [conversations.c[name] for name in ("state", *_COPIED, *_ORIGIN, *_TOKENS)]
    return select(*told, end.scalar_subquery().label("messages")).where(conversations.c.principal == principal)


def _summary(row: RowMapping) -> ConversationSummary:
    return ConversationSummary(
        **{name: row[name] for name in ("messages", *_COPIED, *_ORIGIN)},
        state=ConversationState(row["state"]),
        usage=Usage(**{name: row[name] for name in _TOKENS}),
    )

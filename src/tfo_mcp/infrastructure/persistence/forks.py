"""Forks of conversations, copied inside the SQL database."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from tfo_mcp.domain.conversation_record import ConversationState
from tfo_mcp.domain.errors import ConversationNotFound, MessageNotFound
from tfo_mcp.domain.events import DomainEvent
from tfo_mcp.domain.fork import Fork, closing_answers
from tfo_mcp.domain.identifiers import ConversationId, new_conversation_id
from tfo_mcp.domain.message import Message
from tfo_mcp.infrastructure.persistence.conversation_rows import message_of, message_row
from tfo_mcp.infrastructure.persistence.rows import event_row
from tfo_mcp.infrastructure.persistence.storage import Storage

if TYPE_CHECKING:
    from sqlalchemy import Connection, RowMapping, Table


class SqlConversationForks:
    """`ConversationForks` over SQLAlchemy Core; opens storage where nobody has yet."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def fork(
        self,
        conversation_id: ConversationId,
        principal: str,
        last: int | None,
        committed: Callable[[Sequence[DomainEvent]], None],
    ) -> Fork:
        """Store a new conversation of the principal with the messages up to position `last`; None: with all.

        It sees what is committed and waits for nobody's turn. `committed` gets the events if and only if the new
        conversation is stored.

        Raises:
            ConversationNotFound: the principal has no such conversation; nothing is stored.
            MessageNotFound: there is no message at `last`; nothing is stored.
            StorageUnavailable: the database cannot be opened or written; nothing is stored.
        """
        work = partial(_copy, conversation_id=conversation_id, principal=principal, last=last)
        return await self._storage.write(work, lambda fork: committed(fork.events))


def _copy(connection: Connection, *, conversation_id: str, principal: str, last: int | None) -> Fork:
    from sqlalchemy import insert, select

    from tfo_mcp.infrastructure.persistence.schema import conversations, events, message_texts, messages

    mine = (conversations.c.id == conversation_id) & (conversations.c.principal == principal)
    origin = connection.execute(select(conversations).where(mine)).mappings().one_or_none()
    if origin is None:
        raise ConversationNotFound(conversation_id)
    cut = _cut(connection, conversation_id, last)
    answers = closing_answers(_ending(connection, conversation_id, cut))
    fork = Fork(
        id=new_conversation_id(),
        principal=principal,
        model=origin["model"],
        forked_from=ConversationId(conversation_id),
        forked_at=cut,
        messages=cut + (1 if answers is None else 2),
        created_at=time.time(),
    )
    connection.execute(insert(conversations).values(_row(origin, fork)))
    uncounted = {column.name: None for column in messages.c if column.name.endswith("_tokens")}
    _copy_rows(connection, messages, fork, {"conversation_id": fork.id, **uncounted})
    _copy_rows(connection, message_texts, fork, {"conversation_id": fork.id}, own=("id",))
    if answers is not None:
        connection.execute(insert(messages).values(message_row(fork.id, principal, cut + 1, answers)))
    connection.execute(insert(events), [event_row(event) for event in fork.events])
    return fork


def _cut(connection: Connection, conversation_id: str, last: int | None) -> int:
    """The position of the last message to be taken over."""
    from sqlalchemy import func, select

    from tfo_mcp.infrastructure.persistence.schema import messages

    ends = select(func.max(messages.c.position)).where(messages.c.conversation_id == conversation_id)
    end = connection.execute(ends).scalar()
    count = 0 if end is None else end + 1
    cut = max(0, count - 1) if last is None else last
    if not 0 <= cut < count:
        raise MessageNotFound(conversation_id, cut, count)
    return cut


def _ending(connection: Connection, conversation_id: str, cut: int) -> Sequence[Message]:
    """The messages from the assistant's last one up to the cut; none where the assistant has not spoken yet."""
    from sqlalchemy import func, select

    from tfo_mcp.infrastructure.persistence.schema import messages

    kept = (messages.c.conversation_id == conversation_id) & (messages.c.position <= cut)
    spoke = select(func.max(messages.c.position)).where(kept, messages.c.role == "assistant").scalar_subquery()
    rows = connection.execute(select(messages).where(kept, messages.c.position >= spoke).order_by(messages.c.position))
    return [message_of(row) for row in rows.mappings()]


def _row(origin: RowMapping, fork: Fork) -> dict[str, Any]:
    """The fork's own row: what was spent is the origin's, so every count begins at 0."""
    return {
        "id": fork.id,
        "principal": fork.principal,
        "model": fork.model,
        "system_prompt": origin["system_prompt"],
        "state": ConversationState.ACTIVE.value,
        "failures": 0,
        "fence": 1,
        "created_at": fork.created_at,
        "updated_at": fork.created_at,
        "forked_from": fork.forked_from,
        "forked_at": fork.forked_at,
        "title": origin["title"],
    }


def _copy_rows(
    connection: Connection, table: Table, fork: Fork, instead: dict[str, Any], own: Sequence[str] = ()
) -> None:
    """The origin's rows up to the cut once more, with the values of `instead`; columns of `own` are made anew."""
    from sqlalchemy import insert, literal, select

    names = [column.name for column in table.c if column.name not in own]
    values = [literal(instead[name], table.c[name].type) if name in instead else table.c[name] for name in names]
    rows = select(*values).where(table.c.conversation_id == fork.forked_from, table.c.position <= fork.forked_at)
    connection.execute(insert(table).from_select(names, rows))

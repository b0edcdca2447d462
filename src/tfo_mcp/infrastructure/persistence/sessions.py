"""Sessions in the SQL database, written behind: nothing that a session does waits for storage."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from tfo_mcp.domain.errors import StorageUnavailable
from tfo_mcp.domain.events import DomainEvent
from tfo_mcp.domain.session import Session
from tfo_mcp.infrastructure.persistence.behind import WriteBehind
from tfo_mcp.infrastructure.persistence.rows import event_row
from tfo_mcp.infrastructure.persistence.storage import Storage

if TYPE_CHECKING:
    from sqlalchemy import Connection

_logger = logging.getLogger(__name__)

_MOST_PENDING = 1000
"""Sessions that wait for storage at most, as many as a server has at once."""


@dataclass(slots=True)
class _Pending:
    """A session's newest state and all its events that storage does not have."""

    row: dict[str, Any]
    events: list[DomainEvent]


class SqlSessionRepository:
    """`SessionRepository` over SQLAlchemy Core.

    What is saved waits in memory until somebody has asked for storage to be open, so that a session's
    first save does not bring the imports into the way of its first answer.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._pending: dict[str, _Pending] = {}
        self._behind = WriteBehind(storage, self._write_all, self._pending.__len__)
        self._dropped = 0

    def save(self, session: Session, events: Sequence[DomainEvent]) -> None:
        """Take the session's present state and its events, to be committed together, in order.

        Never raises. Over `_MOST_PENDING` sessions the oldest goes, and is counted in the log.
        """
        row = _row(session)
        pending = self._pending.setdefault(session.id, _Pending(row, []))
        pending.row = row
        pending.events.extend(events)
        if len(self._pending) > _MOST_PENDING:
            del self._pending[next(iter(self._pending))]
            self._dropped += 1
        self._behind.wake()

    async def flush(self, timeout: float) -> None:  # noqa: ASYNC109  # a budget, not a deadline: it never raises
        """Commit what is pending, opening storage for it, for at most `timeout` seconds; the rest is logged."""
        if left := await self._behind.flush(timeout):
            _logger.warning("sessions that could not be stored: %d", left)

    async def _write_all(self) -> None:
        while self._pending:
            await self._write_oldest()
        if self._dropped:
            _logger.warning("sessions that storage was unavailable for too long to take: %d", self._dropped)
            self._dropped = 0

    async def _write_oldest(self) -> None:
        session_id, pending = next(iter(self._pending.items()))
        row, events = pending.row, tuple(pending.events)

        def written(_: None = None) -> None:
            self._forget(session_id, pending, row, len(events))

        try:
            await self._storage.write(partial(_write, row=row, events=events), written)
        except StorageUnavailable:
            raise
        except Exception:  # what cannot be written must not keep the others waiting
            _logger.exception("session %s could not be stored", session_id)
            written()

    def _forget(self, session_id: str, pending: _Pending, row: dict[str, Any], events: int) -> None:
        """Drop what was written; what came meanwhile stays."""
        del pending.events[:events]
        if pending.row is row and self._pending.get(session_id) is pending:
            del self._pending[session_id]


def _write(connection: Connection, *, row: dict[str, Any], events: Sequence[DomainEvent]) -> None:
    from sqlalchemy import insert, select, update

    from tfo_mcp.infrastructure.persistence.schema import events as events_table
    from tfo_mcp.infrastructure.persistence.schema import sessions

    this = sessions.c.id == row["id"]
    stored = connection.execute(select(sessions.c.version).where(this)).scalar()
    if stored is None:
        connection.execute(insert(sessions).values(row))
    elif stored < row["version"]:
        connection.execute(update(sessions).where(this).values(row))
    if events:
        connection.execute(insert(events_table), [event_row(event) for event in events])


def _row(session: Session) -> dict[str, Any]:
    return {
        "id": session.id,
        "principal": session.principal,
        "protocol_version": session.protocol_version,
        "client_name": session.client_name,
        "client_version": session.client_version,
        "state": session.state.value,
        "version": session.version,
        "created_at": session.created_at,
        "closed_at": session.closed_at,
    }

"""The audit in SQL: an intent is committed before its tool runs, its outcome is written behind."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tfo_mcp.application.ports import Intent
from tfo_mcp.domain.execution import Outcome
from tfo_mcp.infrastructure.persistence.behind import WriteBehind
from tfo_mcp.infrastructure.persistence.storage import Storage

if TYPE_CHECKING:
    from sqlalchemy import Connection

_logger = logging.getLogger(__name__)

_MAX_ARGUMENT: Final = 8192
"""Characters of JSON of one argument; of a longer one the beginning is kept."""
_MAX_NAMES: Final = 64
_MAX_NAME: Final = 100
"""Arguments whose names are kept, and characters of a name."""

_MOST_PENDING: Final = 10_000
"""Outcomes that wait for storage at most; beyond it a row stays without one."""


class SqlAuditTrail:
    """`AuditTrail` over SQLAlchemy Core; opens its storage where nobody has yet.

    Args:
        storage: of `audit.db`.
        max_rows: intents that are kept; with each new one the oldest beyond it go.
    """

    def __init__(self, storage: Storage, *, max_rows: int) -> None:
        self._storage = storage
        self._max_rows = max_rows
        self._pending: list[dict[str, Any]] = []
        self._behind = WriteBehind(storage, self._write_all, self._pending.__len__)

    async def intend(self, intent: Intent) -> int:
        """Commit what is about to happen; returns the id to conclude it by.

        Raises:
            StorageUnavailable: it is not committed, so it must not happen.
        """
        row = _row(intent)
        committed: list[int] = []
        try:
            return await self._storage.write(partial(_insert, row=row, max_rows=self._max_rows), committed.append)
        except asyncio.CancelledError:
            for intent_id in committed:  # it is there, and will not happen
                self.conclude(intent_id, "cancelled", None, 0.0)
            raise

    def conclude(self, intent_id: int, outcome: Outcome, error_type: str | None, duration: float) -> None:
        """Note how it ended. Never raises, never waits."""
        if len(self._pending) >= _MOST_PENDING:
            _logger.warning("the audit cannot take the outcome of intent %d: storage is unavailable", intent_id)
            return
        ending = {"outcome": outcome, "error_type": error_type, "duration": duration, "ended_at": time.time()}
        self._pending.append({"intent_id": intent_id, **ending})
        self._behind.wake()

    async def flush(self, timeout: float) -> None:  # noqa: ASYNC109  # a budget, not a deadline: it never raises
        """Write the outcomes that are pending, for at most `timeout` seconds; the rest is logged."""
        if left := await self._behind.flush(timeout):
            _logger.warning("outcomes that the audit could not store: %d", left)

    async def _write_all(self) -> None:
        while self._pending:
            endings = tuple(self._pending)
            await self._storage.write(partial(_update, endings=endings), self._forget)

    def _forget(self, count: int) -> None:
        del self._pending[:count]


def _insert(connection: Connection, *, row: dict[str, Any], max_rows: int) -> int:
    from sqlalchemy import delete, insert

    from tfo_mcp.infrastructure.persistence.audit_schema import intents

    statement = insert(intents).values(row).returning(intents.c.id)
    intent_id = connection.execute(statement).scalar_one()
    connection.execute(delete(intents).where(intents.c.id <= intent_id - max_rows))
    return intent_id


def _update(connection: Connection, *, endings: tuple[dict[str, Any], ...]) -> int:
    """Write them; how many there were."""
    from sqlalchemy import bindparam, update

    from tfo_mcp.infrastructure.persistence.audit_schema import intents

    columns = ("outcome", "error_type", "duration", "ended_at")
    statement = update(intents).where(intents.c.id == bindparam("intent_id"))
    connection.execute(statement.values({name: bindparam(name) for name in columns}), endings)
    return len(endings)


def _row(intent: Intent) -> dict[str, Any]:
    return {
        "principal": intent.principal,
        "session_id": intent.session_id,
        "request_id": None if intent.request_id is None else str(intent.request_id)[:_MAX_NAME],
        "trace_id": f"{intent.trace.trace_id:032x}",
        "span_id": f"{intent.trace.span_id:016x}",
        "tool": intent.tool,
        "argument_names": [name[:_MAX_NAME] for name in intent.argument_names[:_MAX_NAMES]],
        "arguments": {name: _bounded(value) for name, value in intent.arguments.items()},
        "started_at": intent.started_at,
    }


def _bounded(value: object) -> object:
    text = json.dumps(value)
    return value if len(text) <= _MAX_ARGUMENT else text[:_MAX_ARGUMENT] + "…"

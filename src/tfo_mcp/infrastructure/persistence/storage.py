"""Whether storage is open, and how it comes to be.

Nothing heavy is imported here: a Storage is made at start-up and opened later, in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from contextvars import Context
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tfo_mcp.domain.errors import StorageUnavailable
from tfo_mcp.domain.health import ComponentHealth, HealthStatus, moment
from tfo_mcp.infrastructure.persistence.migrations import STATE, History
from tfo_mcp.infrastructure.persistence.threads import Threads

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tfo_mcp.infrastructure.persistence.sqlite import Database

_logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_RETRY_AFTER = 1.0
"""Seconds in which a failed opening is not tried again: whoever asks is told the same."""

_CONNECTIONS = 4
"""Connections at most, each used by one thread at a time: only one of them writes, the others read."""

_PROBE_TIMEOUT = 2.0
"""Seconds that storage has to show that it takes writes."""

_SHUTTING_DOWN = "storage is closed, because the server is shutting down"


class Storage:
    """One database: that of sessions, conversations and their events, or another with a `history` of its own.

    Args:
        path: the database file; its folder is made where it is missing.
        history: how its schema came to be.

    Attributes:
        wanted: set as soon as anybody has asked for storage to be open.
    """

    def __init__(self, path: Path, history: History = STATE) -> None:
        self.path = path.absolute()
        self._history = history
        self.wanted = asyncio.Event()
        self._database: Database | None = None
        self._opening: asyncio.Task[None] | None = None
        self._problem: str | None = None
        self._retry_at = 0.0
        self._closed = False
        self._threads = Threads("storage", _CONNECTIONS)
        self._last_failure: tuple[float, str] | None = None
        self._write_failed = False
        self._probe: asyncio.Task[str | None] | None = None

    async def open(self) -> None:
        """Open it where it is not open yet: import, migrate, connect, all in a thread.

        Everybody who calls meanwhile waits for the same attempt. To be cancelled here stops the wait, not
        the attempt.

        Raises:
            StorageUnavailable: it cannot be opened; a call after `_RETRY_AFTER` tries again.
        """
        await self._opened()

    async def close(self) -> None:
        """Close it for good."""
        self._closed = True
        database, self._database = self._database, None
        if database is not None:
            await self._threads.run(database.close)
        self._threads.close()  # there is one, too, where it could not be opened

    async def read(self, work: Callable[[Connection], _T]) -> _T:
        """What `work` returns, in a read transaction; it sees one state of the database, from a thread.

        To be cancelled here stops the wait.

        Raises:
            StorageUnavailable: the database cannot be opened or read.
        """
        database = await self._opened()
        with self._noted():
            return await self._threads.run(partial(database.read, work))

    async def write(self, work: Callable[[Connection], _T], committed: Callable[[_T], object] | None = None) -> _T:
        """What `work` returns, in a write transaction of its own, from a thread.

        `committed` gets it too, if and only if the transaction is committed, and before anything else can. For
        that, a cancellation that comes before the transaction stops it, and one that comes during it is raised
        at its end.

        Raises:
            StorageUnavailable: the database cannot be opened or written; nothing was.
        """
        database = await self._opened()
        async with database.turn:
            transaction = asyncio.create_task(self._transact(database, work, committed))
            try:
                return await asyncio.shield(transaction)
            except asyncio.CancelledError:
                while not transaction.done():
                    with suppress(asyncio.CancelledError):
                        await asyncio.wait([transaction])
                if not transaction.cancelled():
                    transaction.exception()  # seen: the caller does not want to know any more
                raise

    async def wipe(self, *, vacuum: bool) -> bool:
        """Let the write-ahead log forget what was deleted; whether it has, which a process that reads can delay.

        With `vacuum` the file is written anew first, and becomes smaller. Nobody else writes meanwhile.

        Raises:
            StorageUnavailable: the database cannot be opened or written.
        """
        database = await self._opened()
        async with database.turn:
            with self._noted(writing=True):
                return await self._threads.run(partial(database.wipe, vacuum=vacuum))

    async def _transact(
        self, database: Database, work: Callable[[Connection], _T], committed: Callable[[_T], object] | None
    ) -> _T:
        with self._noted(writing=True):
            result = await self._threads.run(partial(database.write, work))
        if committed is not None:
            committed(result)
        return result

    @contextmanager
    def _noted(self, *, writing: bool = False) -> Generator[None]:
        """Remember what goes wrong inside, for those who ask how storage is."""
        try:
            yield
        except StorageUnavailable as error:
            self._last_failure = time.time(), str(error)
            self._write_failed = self._write_failed or writing
            raise
        self._write_failed = self._write_failed and not writing

    async def health(self) -> ComponentHealth:
        """Whether it takes writes now, by a transaction that writes what is there; opens it where nobody has."""
        probe = self._probe
        if probe is None or probe.done():
            probe = self._probe = asyncio.create_task(self._try_to_write())
        done, _ = await asyncio.wait([probe], timeout=_PROBE_TIMEOUT)
        problem = probe.result() if done else f"it has not taken a write for {_PROBE_TIMEOUT:g} seconds"
        if done and problem is not None:
            status = HealthStatus.UNHEALTHY
        elif problem is not None or self._write_failed:
            status = HealthStatus.DEGRADED
        else:
            status = HealthStatus.HEALTHY
        failed_at, failure = self._last_failure or (None, None)
        details = {
            "path": str(self.path),
            "open": self._database is not None,
            "writable": problem is None,
            "problem": problem,
            "last_failure": failure,
            "last_failure_at": moment(failed_at),
        }
        return ComponentHealth(status, details)

    async def _try_to_write(self) -> str | None:
        """Why not, or None."""
        try:
            database = await self._opened()
            async with database.turn:
                await self._threads.run(database.probe)
            return None
        except StorageUnavailable as error:
            return str(error)
        except Exception:
            _logger.exception("storage could not be probed")
            return "it cannot be probed, for a reason that the log tells"

    async def _opened(self) -> Database:
        if self._database is not None:
            return self._database
        self.wanted.set()
        if self._closed:
            raise StorageUnavailable(_SHUTTING_DOWN)
        if self._opening is None:
            if self._problem is not None and time.monotonic() < self._retry_at:
                raise StorageUnavailable(self._problem)
            # In a context of its own: it is no part of the request that happened to need storage first.
            self._opening = asyncio.create_task(self._open(), context=Context())
        await asyncio.shield(self._opening)
        if self._database is None:
            raise StorageUnavailable(self._problem or _SHUTTING_DOWN)
        return self._database

    async def _open(self) -> None:
        """One attempt. It tells its outcome by the attributes, because there may be nobody left to raise to."""
        try:
            database = await self._threads.run(self._import_and_open)
            self._problem = None
            if self._closed:
                await self._threads.run(database.close)
                self._threads.close()
            else:
                self._database = database
        except StorageUnavailable as error:
            self._failed(str(error))
            _logger.warning("%s", error)
        except Exception:
            self._failed(f"the database {str(self.path)!r} cannot be opened, for a reason that the log tells")
            _logger.exception("storage could not be opened")
        finally:
            self._opening = None

    def _failed(self, problem: str) -> None:
        self._problem = problem
        self._last_failure = time.time(), problem
        self._retry_at = time.monotonic() + _RETRY_AFTER

    def _import_and_open(self) -> Database:
        from tfo_mcp.infrastructure.persistence.sqlite import open_database

        _check_log(self.path)
        return open_database(self.path, self._history, connections=_CONNECTIONS)


def check_storage(path: Path, history: History = STATE) -> None:
    """Refuse what opening the database at `path` would, as far as can be told without changing anything. Blocks.

    Raises:
        StorageUnavailable: one sentence that says why not.
    """
    folder = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    if not os.path.isdir(folder):  # noqa: PTH112  # Path's raises where it may not look
        raise StorageUnavailable(f"storage.folder: {str(folder)!r} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageUnavailable(f"storage.folder: this user may not write to {str(folder)!r}")
    _check_log(path.absolute())
    if os.path.lexists(path):
        from tfo_mcp.infrastructure.persistence.sqlite import check_database

        check_database(path.absolute(), history)


def _check_log(path: Path) -> None:
    """A write-ahead log without its database is refused: SQLite would delete it, and what was committed last with it.

    Looked for in this order, which no start and no end of another process makes untrue.
    """
    log = path.with_name(path.name + "-wal")
    try:
        has_log = log.stat().st_size > 0
    except OSError:
        return
    if has_log and not os.path.lexists(path):
        raise StorageUnavailable(
            f"the database {str(path)!r} is not there, but {str(log)!r} is, which has what was committed to it last: "
            "put the database back, or move that away too"
        )

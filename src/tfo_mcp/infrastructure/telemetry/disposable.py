"""A SQLite file of telemetry: it is not migrated and not repaired.

Damaged, or with another version's schema, it is moved aside, and a new one begins: telemetry is worth no start that
fails. Spool and recorder have one each, so that neither's damage harms the other.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tfo_mcp.infrastructure.persistence.database_file import create, identity, kind_of
from tfo_mcp.infrastructure.persistence.file_lock import lock_file, unlock_and_remove

_log = logging.getLogger("tfo_mcp.telemetry")


@dataclass(frozen=True, slots=True)
class Layout:
    """What a file holds.

    Attributes:
        what: is in it, in a word for people.
        version: of `tables`, which rises with every change of them.
        tables: statements that make an empty file one of these.
        synchronous: SQLite's: NORMAL survives the end of the process, FULL that of the power too.
        busy_timeout: seconds to wait for another process's commit.
    """

    what: str
    version: int
    tables: str
    synchronous: Literal["NORMAL", "FULL"]
    busy_timeout: float


class DisposableDatabase:
    """One process's way to the file. One thread at a time may use it.

    Args:
        path: None: a database in memory, which only this process has.

    Raises:
        OSError, sqlite3.Error: it cannot be opened.
    """

    def __init__(self, path: Path | None, layout: Layout) -> None:
        self.path = path
        self._layout = layout
        self.connection, self._identity = self._opened()

    def __str__(self) -> str:
        return "in memory" if self.path is None else repr(str(self.path))

    def close(self) -> None:
        """Close it."""
        self.connection.close()

    @contextmanager
    def transaction(self) -> Generator[sqlite3.Connection]:
        """What is executed inside is committed at the end, or nothing of it where it raises."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield self.connection
            self.connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self.connection.execute("ROLLBACK")
            raise

    @property
    def is_gone(self) -> bool:
        """Whether the file was moved, deleted or replaced, so that what is written now is lost; or none is open."""
        return self.path is not None and (self._identity is None or identity(self.path) != self._identity)

    def begin_anew(self, *, damaged: bool = False) -> None:
        """Open the file that is there now, or an empty one; with `damaged` the one in use is moved aside.

        One of another version stays where it is: a process of that version has just put it there, and the two would
        move each other's aside with every commit.

        Raises:
            OSError, sqlite3.Error: it cannot be made.
        """
        self.connection.close()
        used, self._identity = self._identity, None
        if damaged and self.path is not None and used is not None:
            self._move_aside(self.path, used, "is damaged")
        self.connection, self._identity = self._opened(again=True)

    def _opened(self, *, again: bool = False) -> tuple[sqlite3.Connection, tuple[int, int] | None]:
        """The connection, and which file had the name before it: should that change meanwhile, `is_gone` tells."""
        if self.path is None:
            return self._connected(), None
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        create(self.path)
        found = identity(self.path)
        try:
            return self._connected(), found
        except sqlite3.DatabaseError as error:
            is_other = isinstance(error, _OtherSchema)
            if found is None or not is_damaged(error) or (is_other and again):
                raise
            self._move_aside(self.path, found, str(error) if is_other else "is damaged")
        create(self.path)
        found = identity(self.path)
        return self._connected(), found

    def _move_aside(self, path: Path, which: tuple[int, int], why: str) -> None:
        """Unless another process is faster: what has the name then is the new file, or is about to be."""
        moving = path.with_name(path.name + ".moving")
        lock = lock_file(moving)
        if lock is None:
            return
        try:
            if identity(path) != which:
                return
            for suffix in ("-wal", "-shm"):  # first, or they would be taken for those of the next file
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
            path.rename(aside)
        finally:
            unlock_and_remove(moving, lock)
        _log.warning("the %s %s %s; it was moved to %r, and a new one begins", self._layout.what, self, why, str(aside))

    def _connected(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            ":memory:" if self.path is None else f"{self.path.as_uri()}?mode=rwc",
            self._layout.busy_timeout,
            isolation_level=None,
            check_same_thread=False,
            uri=True,
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {self._layout.synchronous}")
            connection.execute("BEGIN IMMEDIATE")
            self._bring_up(connection)
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def _bring_up(self, connection: sqlite3.Connection) -> None:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version == 0 and not connection.execute("SELECT 1 FROM sqlite_master").fetchall():
            for statement in self._layout.tables.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {self._layout.version}")
        elif version != self._layout.version:
            raise _OtherSchema(f"has the schema {version} of another version")


def is_damaged(error: sqlite3.Error) -> bool:
    """Whether nothing can be done with the file any more."""
    damaged = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return isinstance(error, _OtherSchema) or kind_of(error) in damaged


class _OtherSchema(sqlite3.DatabaseError):
    """The file is none that this version can use."""

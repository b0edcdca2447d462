"""Everything that is so because the database is SQLite. Imported only when storage is opened."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import URL, Connection, Engine, NullPool, QueuePool, create_engine, event
from sqlalchemy.exc import DatabaseError, IntegrityError

from tfo_mcp.domain.errors import StorageUnavailable
from tfo_mcp.infrastructure.persistence.database_file import create, identity, kind_of
from tfo_mcp.infrastructure.persistence.file_lock import try_lock
from tfo_mcp.infrastructure.persistence.migrations import History

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

_T = TypeVar("_T")

_BUSY_TIMEOUT = 5.0
_LOCK_TIMEOUT = 10.0
"""Seconds to wait for another process: for its transaction, and for its migrations."""

_WIPE_TIMEOUT = 0.25
"""Seconds to wait for those who read, and nobody can write meanwhile."""

_WHY = {
    sqlite3.SQLITE_BUSY: f"another program has kept it locked for {_BUSY_TIMEOUT:g} seconds",
    sqlite3.SQLITE_LOCKED: "another program keeps it locked",
    sqlite3.SQLITE_READONLY: "this user may not write to it",
    sqlite3.SQLITE_PERM: "this user may not use it",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; is it there, and may this user write to its folder?",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk does not let it be read or written; it may be full or broken",
    sqlite3.SQLITE_CORRUPT: "it is damaged; restore it from a backup, or move it away to start with an empty one",
    sqlite3.SQLITE_NOTADB: "it is not a database; move it away, or keep tfo-mcp's state in another folder",
}


class Database:
    """An open SQLite database with the newest schema.

    Attributes:
        turn: who writes. SQLite has one writer at a time, and waiters of one process that queue here are
            served in order, while those that poll for its lock can starve one another.
    """

    def __init__(self, path: Path, *, connections: int) -> None:
        self._path = path
        self._file = identity(path)
        self._engine = create_engine(
            _url(path),
            # One thread after the other uses a connection, never two at once.
            connect_args={**_CONNECT_ARGS, "check_same_thread": False},
            poolclass=QueuePool,
            pool_size=connections,
            max_overflow=0,
            hide_parameters=True,  # what was said is no part of an error, which the log gets
        )
        _set_up(self._engine)
        self._writer = self._engine.execution_options(immediate=True)
        self._giving_back = threading.Lock()
        self._closed = False
        self.turn = asyncio.Lock()

    def read(self, work: Callable[[Connection], _T]) -> _T:
        """What `work` returns, in a transaction that sees one state of the database. Blocks.

        Raises:
            StorageUnavailable: the database could not be read.
        """
        with _translated(self._path), self._connection(self._engine) as connection:
            return work(connection)

    def write(self, work: Callable[[Connection], _T]) -> _T:
        """What `work` returns, in a transaction that is then committed, or rolled back if it raises. Blocks.

        Raises:
            StorageUnavailable: the database could not be written; nothing of the transaction is there.
            IntegrityError: a row was there already.
        """
        with _translated(self._path), self._connection(self._writer) as connection, connection.begin():
            return work(connection)

    def probe(self) -> None:
        """Let the disk take a write that changes nothing. Blocks.

        Raises:
            StorageUnavailable: it does not.
        """
        self.write(_write_what_is_there)

    @contextmanager
    def _connection(self, engine: Engine) -> Generator[Connection]:
        connection = engine.connect()
        try:
            self._check_in_place()
            yield connection
        finally:
            with self._giving_back:
                if self._closed:
                    connection.detach()  # nobody would close it in the pool
                connection.close()

    def wipe(self, *, vacuum: bool) -> bool:
        """Empty the write-ahead log; whether nobody who reads needs it still. Blocks.

        With `vacuum` the file is written anew first, without what is free in it.

        Raises:
            StorageUnavailable: the database cannot be used.
        """
        self._check_in_place()
        try:
            with closing(sqlite3.connect(f"{self._path.as_uri()}?mode=rw", _BUSY_TIMEOUT, uri=True)) as connection:
                if vacuum:
                    connection.execute("VACUUM")
                connection.execute(f"PRAGMA busy_timeout = {_WIPE_TIMEOUT * 1000:.0f}")
                busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            raise StorageUnavailable(f"the database {str(self._path)!r} cannot be used: {_why(error)}") from error
        return not busy

    def _check_in_place(self) -> None:
        """What is written to a file without a name is lost, and with a write-ahead log SQLite does not look."""
        if identity(self._path) != self._file:
            raise StorageUnavailable(
                f"the database {str(self._path)!r} cannot be used: it was moved, deleted or replaced while it was "
                "open; put it back, or start tfo-mcp again"
            )

    def close(self) -> None:
        """Close the connections that nobody uses; the others close when they are given back. Blocks."""
        with self._giving_back:
            self._closed = True
            self._engine.dispose()


def open_database(path: Path, history: History, *, connections: int) -> Database:
    """Create the file and bring its schema to the head of `history` as far as needed, then open it. Blocks.

    `connections` is how many threads may use it at once.

    Raises:
        StorageUnavailable: one sentence that says why not.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(path.with_name(path.name + ".lock")), _translated(path):
            create(path)
            engine = create_engine(_url(path), connect_args=_CONNECT_ARGS, poolclass=NullPool)
            _set_up(engine)
            with engine.execution_options(immediate=True).begin() as connection:
                _write_what_is_there(connection)  # who may not write learns it now
                _migrate(connection, path, history)
    except OSError as error:
        raise StorageUnavailable(f"the database {str(path)!r} cannot be used: {error.strerror}") from error
    return Database(path, connections=connections)


def check_database(path: Path, history: History) -> None:
    """Refuse what `open_database` would of a file that is there, and leave it as it is. Blocks.

    Raises:
        StorageUnavailable: one sentence that says why not.
    """
    try:
        uri = f"{path.as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, _BUSY_TIMEOUT, isolation_level=None, uri=True)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_WRITE_WHAT_IS_THERE)
            _revision(lambda query: [str(row[0]) for row in connection.execute(query)], path, history)
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise StorageUnavailable(f"the database {str(path)!r} cannot be used: {_why(error)}") from error


def _write_what_is_there(connection: Connection) -> None:
    """Nothing changes, and yet the disk has to take it."""
    connection.exec_driver_sql(_WRITE_WHAT_IS_THERE)


def _migrate(connection: Connection, path: Path, history: History) -> None:
    found = _revision(lambda query: connection.exec_driver_sql(query).scalars().all(), path, history)
    if found != history.head:
        history.upgrade(connection)


def _revision(ask: Callable[[str], Sequence[str]], path: Path, history: History) -> str | None:
    """Of the schema, None where the database is empty; `ask` gives the first column of a query's rows."""
    tables = ask("SELECT name FROM sqlite_master WHERE type = 'table'")
    if not tables:
        return None
    if "alembic_version" not in tables:
        raise StorageUnavailable(f"the database {str(path)!r} belongs to another program")
    found = next(iter(ask("SELECT version_num FROM alembic_version")), None)
    if found is not None and found not in history.revisions:
        raise StorageUnavailable(
            f"this tfo-mcp is older than the database {str(path)!r} "
            f"(its schema is {found!r}, the newest known here {history.head!r}): update tfo-mcp"
        )
    return found


@contextmanager
def _locked(path: Path) -> Generator[None]:
    """Hold a lock that dies with its holder, so that only one process migrates."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while True:
            try:
                try_lock(descriptor)
                break
            except (BlockingIOError, PermissionError):  # Windows says the latter
                if time.monotonic() > deadline:
                    raise StorageUnavailable(
                        f"another process has kept {str(path)!r} locked for {_LOCK_TIMEOUT:g} seconds"
                    ) from None
            time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


# Without an isolation level of its own the driver leaves transactions to `_begin`.
_WRITE_WHAT_IS_THERE = "PRAGMA user_version = 0"  # the value that it always has

_CONNECT_ARGS = {"timeout": _BUSY_TIMEOUT, "isolation_level": None}


def _url(path: Path) -> URL:
    """A URL that opens an existing file only: who creates it is `create`."""
    return URL.create("sqlite", database=path.as_uri(), query={"mode": "rw", "uri": "true"})


def _set_up(engine: Engine) -> None:
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)


def _configure(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    # What is deleted is overwritten, so that no message of somebody's stays in a free place of the file.
    for setting in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "secure_delete = ON"):
        cursor.execute(f"PRAGMA {setting}")
    cursor.close()


def _begin(connection: Connection) -> None:
    # A deferred transaction that comes to write fails at once when another one has written meanwhile.
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


@contextmanager
def _translated(path: Path) -> Generator[None]:
    try:
        yield
    except IntegrityError:
        raise
    except DatabaseError as error:
        raise StorageUnavailable(f"the database {str(path)!r} cannot be used: {_why(error.orig)}") from error


def _why(error: BaseException | None) -> str:
    if not isinstance(error, sqlite3.Error):
        return str(error)
    return _WHY.get(kind_of(error)) or f"SQLite says {error}"

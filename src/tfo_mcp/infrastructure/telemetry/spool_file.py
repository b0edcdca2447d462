"""The spool's SQLite file: what it holds, how it is opened, and every statement about it.

`spool.db` lies beside the other databases and apart from them, so that neither's damage harms another. It is not
migrated: a spool of another schema, or a damaged one, is moved aside, and a new one begins.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from tfo_mcp.infrastructure.persistence.database_file import create, identity
from tfo_mcp.infrastructure.persistence.file_lock import lock_file
from tfo_mcp.infrastructure.telemetry.options import Durability

Signal = Literal["traces", "metrics", "logs"]
_log = logging.getLogger("tfo_mcp.telemetry")

_SCHEMA: Final = 1
_TABLES: Final = """
CREATE TABLE parcels (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    signal TEXT NOT NULL,
    source TEXT NOT NULL,
    items INTEGER NOT NULL,
    size INTEGER NOT NULL,
    created_at REAL NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX parcels_by_signal ON parcels (signal, id, items, size);
CREATE INDEX parcels_by_source ON parcels (source, signal, id, items, size);
CREATE TABLE dead (
    id INTEGER PRIMARY KEY,
    signal TEXT NOT NULL,
    source TEXT NOT NULL,
    items INTEGER NOT NULL,
    size INTEGER NOT NULL,
    created_at REAL NOT NULL,
    died_at REAL NOT NULL,
    code TEXT NOT NULL,
    detail TEXT NOT NULL,
    body BLOB NOT NULL
);
"""
# An id is given once only (AUTOINCREMENT): the sender may have the rows of one that was evicted in its hands.

_CONTENT: Final = "signal, source, items, size, created_at, body"
_COLUMNS: Final = f"id, {_CONTENT}"
_SYNCHRONOUS: Final[dict[Durability, str]] = {"process": "NORMAL", "power": "FULL"}
_BUSY_TIMEOUT: Final = 1.0
"""Seconds to wait for another process's commit."""

_OLDEST: Final = 64
"""Parcels that make room in one step."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """One export, ready to be sent: an OTLP request as protobuf, and how many spans or log records it holds.

    Attributes:
        rows: those that it was taken from; none where it was not.
    """

    signal: Signal
    body: bytes
    items: int = 0
    rows: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """A parcel that waits, without its body."""

    id: int
    items: int
    size: int


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in the spool.

    Attributes:
        items: spans or log records that wait, by signal; of metrics, exports.
        oldest: seconds since the epoch, None where nothing waits.
        dead: spans, log records and exports that the collector refused, kept to be looked at or sent again.
    """

    items: dict[str, int]
    bytes: int
    oldest: float | None
    dead: int


class SpoolFile:
    """One process's way to the spool. One thread at a time may use it.

    Args:
        path: None: a database in memory, which only this process has.
        source: this process, by which its metrics are known.

    Raises:
        OSError, sqlite3.Error: it cannot be opened.
    """

    def __init__(self, path: Path | None, source: str, durability: Durability) -> None:
        self.path = path
        self._source = source
        self._lock: int | None = None
        self._durability: Durability = durability
        self._open()

    def __str__(self) -> str:
        return "in memory" if self.path is None else repr(str(self.path))

    def close(self) -> None:
        """Close it, and let another process send."""
        self._database.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # --- writing ---

    def append(self, parcels: Sequence[Parcel]) -> None:
        """Commit parcels, in order; one of metrics takes the place of this process's last one."""
        now = time.time()
        with self._transaction():
            for parcel in parcels:
                if parcel.signal == "metrics":
                    self._database.execute(
                        "DELETE FROM parcels WHERE source = ? AND signal = 'metrics'", (self._source,)
                    )
                self._database.execute(
                    f"INSERT INTO parcels ({_CONTENT}) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608  # names from above
                    (parcel.signal, self._source, parcel.items, len(parcel.body), now, parcel.body),
                )

    def evict(self, max_bytes: int, max_age: float, kept: Collection[int]) -> Sequence[tuple[Signal, int]]:
        """Remove what is too old, and the oldest of the signal that has most until all have `max_bytes` at most.

        `kept` are ids of those that are just being sent. Returns signal and items of each that is gone.
        """
        with self._transaction():
            gone = self._remove_old(time.time() - max_age, kept)
            found = self._database.execute("SELECT signal, sum(size) FROM parcels GROUP BY signal")
            sizes: dict[Signal, int] = dict(found.fetchall())
            while sum(sizes.values()) > max_bytes:
                signal = max(sizes, key=sizes.__getitem__)
                rows = [row for row in self.rows(signal, 0, _OLDEST + len(kept), own=False) if row.id not in kept]
                if not rows:
                    break
                for row in rows:
                    self._remove(row.id)
                    gone.append((signal, row.items))
                    sizes[signal] -= row.size
                    if sum(sizes.values()) <= max_bytes:
                        break
        return gone

    def delete(self, ids: Collection[int]) -> None:
        """Forget parcels that were accepted."""
        with self._transaction():
            for row in ids:
                self._remove(row)

    def bury(self, row: int, code: str, detail: str, max_bytes: int) -> None:
        """Keep a parcel that was refused apart from the others; the oldest of those make room."""
        with self._transaction():
            self._database.execute(
                f"INSERT OR IGNORE INTO dead ({_COLUMNS}, died_at, code, detail) "  # noqa: S608  # names from above
                f"SELECT {_COLUMNS}, ?, ?, ? FROM parcels WHERE id = ?",
                (time.time(), code, detail, row),
            )
            self._remove(row)
            self._database.execute(
                "DELETE FROM dead WHERE id IN (SELECT id FROM "
                "(SELECT id, sum(size) OVER (ORDER BY id DESC) AS total FROM dead) WHERE total > ?)",
                (max_bytes,),
            )

    def replay(self) -> int:
        """Let everything that was refused wait once more; how many parcels."""
        with self._transaction():
            moved = self._database.execute(
                f"INSERT INTO parcels ({_CONTENT}) SELECT {_CONTENT} FROM dead ORDER BY id"  # noqa: S608  # as above
            )
            self._database.execute("DELETE FROM dead")
            return moved.rowcount

    # --- reading ---

    def rows(self, signal: Signal, after: int, limit: int, *, own: bool) -> Sequence[Row]:
        """The next parcels of a signal, oldest first; only this process's with `own`."""
        mine = " AND source = :source" if own else ""
        query = (
            f"SELECT id, items, size FROM parcels WHERE signal = :signal AND id > :after{mine} ORDER BY id LIMIT :limit"  # noqa: S608  # one of two
        )
        values = {"signal": signal, "after": after, "source": self._source, "limit": limit}
        return [Row(*row) for row in self._database.execute(query, values)]

    def bodies(self, ids: Sequence[int]) -> Sequence[bytes]:
        """The bodies of parcels, in order."""
        marks = ", ".join("?" * len(ids))
        query = f"SELECT body FROM parcels WHERE id IN ({marks}) ORDER BY id"  # noqa: S608  # question marks
        return [body for (body,) in self._database.execute(query, ids)]

    def own_waits(self) -> bool:
        """Whether anything that this process has put is still there."""
        query = "SELECT EXISTS (SELECT 1 FROM parcels WHERE source = ?)"
        return bool(self._database.execute(query, (self._source,)).fetchone()[0])

    def contents(self) -> Contents:
        """What is there now."""
        query = "SELECT signal, sum(max(items, 1)), sum(size) FROM parcels GROUP BY signal"
        found = self._database.execute(query).fetchall()
        oldest = self._database.execute("SELECT created_at FROM parcels ORDER BY id LIMIT 1").fetchone()
        dead = int(self._database.execute("SELECT total(max(items, 1)) FROM dead").fetchone()[0])
        items = {signal: int(count) for signal, count, _ in found}
        return Contents(items, sum(size for *_, size in found), None if oldest is None else oldest[0], dead)

    # --- who sends ---

    def may_send(self) -> bool:
        """Whether this process sends for all: it has the lock, or has just got it."""
        if self.path is None or self._lock is not None:
            return True
        self._lock = lock_file(self.path.with_name(self.path.name + ".lock"))
        return self._lock is not None

    # --- opening ---

    @property
    def is_gone(self) -> bool:
        """Whether the file was moved, deleted or replaced: what is written now would be lost."""
        return self.path is not None and identity(self.path) != self._identity

    def begin_anew(self, *, damaged: bool = False) -> None:
        """Open the file that is there now, or an empty one; with `damaged` the one in use is moved aside.

        Raises:
            OSError, sqlite3.Error: it cannot be made.
        """
        self._database.close()
        if damaged and self.path is not None and not self.is_gone:  # another process may have been faster
            self._move_aside(self.path)
        self._open()

    def _open(self) -> None:
        self._database = self._opened()
        self._identity = None if self.path is None else identity(self.path)

    def _opened(self) -> sqlite3.Connection:
        if self.path is not None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            create(self.path)
        try:
            return _connect(self.path, self._durability)
        except sqlite3.DatabaseError as error:
            if self.path is None or not is_damaged(error):
                raise
        self._move_aside(self.path)
        return _connect(self.path, self._durability)

    def _move_aside(self, path: Path) -> None:
        aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
        path.rename(aside)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        _log.warning("the spool %s is damaged; it was moved to %r, and a new one begins", self, str(aside))

    def _remove_old(self, before: float, kept: Collection[int]) -> list[tuple[Signal, int]]:
        gone: list[tuple[Signal, int]] = []
        last, is_old = 0, True
        query = "SELECT id, signal, items, created_at < ? FROM parcels WHERE id > ? ORDER BY id LIMIT ?"
        while is_old and (rows := self._database.execute(query, (before, last, _OLDEST)).fetchall()):
            for last, signal, items, is_old in rows:
                if not is_old:
                    break
                if last not in kept:
                    self._remove(last)
                    gone.append((signal, items))
        return gone

    def _remove(self, row: int) -> None:
        self._database.execute("DELETE FROM parcels WHERE id = ?", (row,))

    @contextmanager
    def _transaction(self) -> Generator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise


def is_damaged(error: sqlite3.Error) -> bool:
    """Whether nothing can be done with the file any more."""
    damaged = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return isinstance(error, _OtherSchema) or getattr(error, "sqlite_errorcode", 0) & 0xFF in damaged


class _OtherSchema(sqlite3.DatabaseError):
    """The file is no spool that this version can use."""


def _connect(path: Path | None, durability: Durability) -> sqlite3.Connection:
    database = sqlite3.connect(
        ":memory:" if path is None else f"{path.as_uri()}?mode=rwc",
        _BUSY_TIMEOUT,
        isolation_level=None,
        check_same_thread=False,
        uri=True,
    )
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[durability]}")
        database.execute("BEGIN IMMEDIATE")
        _bring_up(database)
        database.execute("COMMIT")
    except BaseException:
        database.close()
        raise
    return database


def _bring_up(database: sqlite3.Connection) -> None:
    version = int(database.execute("PRAGMA user_version").fetchone()[0])
    if version == 0 and not database.execute("SELECT 1 FROM sqlite_master").fetchall():
        for statement in _TABLES.split(";"):
            database.execute(statement)
        database.execute(f"PRAGMA user_version = {_SCHEMA}")
    elif version != _SCHEMA:
        raise _OtherSchema(f"its schema is {version}")

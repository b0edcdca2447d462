"""The spool's SQLite file, `spool.db`: what it holds, and every statement about it."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from tfo_mcp.infrastructure.persistence.file_lock import lock_file
from tfo_mcp.infrastructure.telemetry.disposable import DisposableDatabase, Layout
from tfo_mcp.infrastructure.telemetry.options import Durability

Signal = Literal["traces", "metrics", "logs"]

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
_SYNCHRONOUS: Final[dict[Durability, Literal["NORMAL", "FULL"]]] = {"process": "NORMAL", "power": "FULL"}
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
        oldest: of what has been written, in seconds since the epoch; None where nothing has.
        dead: spans, log records and exports that the collector refused, kept to be looked at or sent again.
    """

    items: dict[str, int]
    bytes: int
    oldest: float | None
    dead: int


class SpoolFile(DisposableDatabase):
    """One process's way to the spool. One thread at a time may use it.

    Args:
        path: None: a database in memory, which only this process has.
        source: this process, by which its metrics are known.

    Raises:
        OSError, sqlite3.Error: it cannot be opened.
    """

    def __init__(self, path: Path | None, source: str, durability: Durability) -> None:
        super().__init__(path, Layout("spool", _SCHEMA, _TABLES, _SYNCHRONOUS[durability], _BUSY_TIMEOUT))
        self._source = source
        self._lock: int | None = None

    def close(self) -> None:
        """Close it, and let another process send."""
        super().close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # --- writing ---

    def append(self, parcels: Sequence[Parcel]) -> None:
        """Commit parcels, in order; one of metrics takes the place of this process's last one."""
        now = time.time()
        with self.transaction():
            for parcel in parcels:
                if parcel.signal == "metrics":
                    self.connection.execute(
                        "DELETE FROM parcels WHERE source = ? AND signal = 'metrics'", (self._source,)
                    )
                self.connection.execute(
                    f"INSERT INTO parcels ({_CONTENT}) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608  # names from above
                    (parcel.signal, self._source, parcel.items, len(parcel.body), now, parcel.body),
                )

    def evict(self, max_bytes: int, max_age: float, kept: Collection[int]) -> Sequence[tuple[Signal, int]]:
        """Remove what is too old, and the oldest of the signal that has most until all have `max_bytes` at most.

        `kept` are ids of those that are just being sent. Returns signal and items of each that is gone.
        """
        with self.transaction():
            gone = self._remove_old(time.time() - max_age, kept)
            found = self.connection.execute("SELECT signal, sum(size) FROM parcels GROUP BY signal")
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
        with self.transaction():
            for row in ids:
                self._remove(row)

    def bury(self, row: int, code: str, detail: str, max_bytes: int) -> None:
        """Keep a parcel that was refused apart from the others; the oldest of those make room."""
        with self.transaction():
            self.connection.execute(
                f"INSERT OR IGNORE INTO dead ({_COLUMNS}, died_at, code, detail) "  # noqa: S608  # names from above
                f"SELECT {_COLUMNS}, ?, ?, ? FROM parcels WHERE id = ?",
                (time.time(), code, detail, row),
            )
            self._remove(row)
            self.connection.execute(
                "DELETE FROM dead WHERE id IN (SELECT id FROM "
                "(SELECT id, sum(size) OVER (ORDER BY id DESC) AS total FROM dead) WHERE total > ?)",
                (max_bytes,),
            )

    def replay(self) -> int:
        """Let everything that was refused wait once more; how many parcels."""
        with self.transaction():
            moved = self.connection.execute(
                f"INSERT INTO parcels ({_CONTENT}) SELECT {_CONTENT} FROM dead ORDER BY id"  # noqa: S608  # as above
            )
            self.connection.execute("DELETE FROM dead")
            return moved.rowcount

    # --- reading ---

    def rows(self, signal: Signal, after: int, limit: int, *, own: bool) -> Sequence[Row]:
        """The next parcels of a signal, oldest first; only this process's with `own`."""
        mine = " AND source = :source" if own else ""
        query = (
            f"SELECT id, items, size FROM parcels WHERE signal = :signal AND id > :after{mine} ORDER BY id LIMIT :limit"  # noqa: S608  # one of two
        )
        values = {"signal": signal, "after": after, "source": self._source, "limit": limit}
        return [Row(*row) for row in self.connection.execute(query, values)]

    def bodies(self, ids: Sequence[int]) -> Sequence[bytes]:
        """The bodies of parcels, in order."""
        marks = ", ".join("?" * len(ids))
        query = f"SELECT body FROM parcels WHERE id IN ({marks}) ORDER BY id"  # noqa: S608  # question marks
        return [body for (body,) in self.connection.execute(query, ids)]

    def own_waits(self) -> bool:
        """Whether anything that this process has put is still there."""
        query = "SELECT EXISTS (SELECT 1 FROM parcels WHERE source = ?)"
        return bool(self.connection.execute(query, (self._source,)).fetchone()[0])

    def contents(self) -> Contents:
        """What is there now."""
        query = "SELECT signal, sum(max(items, 1)), sum(size) FROM parcels GROUP BY signal"
        found = self.connection.execute(query).fetchall()
        oldest = self.connection.execute("SELECT created_at FROM parcels ORDER BY id LIMIT 1").fetchone()
        dead = int(self.connection.execute("SELECT total(max(items, 1)) FROM dead").fetchone()[0])
        items = {signal: int(count) for signal, count, _ in found}
        return Contents(items, sum(size for *_, size in found), None if oldest is None else oldest[0], dead)

    # --- who sends ---

    def may_send(self) -> bool:
        """Whether this process sends for all: it has the lock, or has just got it."""
        if self.path is None or self._lock is not None:
            return True
        self._lock = lock_file(self.path.with_name(self.path.name + ".lock"))
        return self._lock is not None

    def _remove_old(self, before: float, kept: Collection[int]) -> list[tuple[Signal, int]]:
        gone: list[tuple[Signal, int]] = []
        last, is_old = 0, True
        query = "SELECT id, signal, items, created_at < ? FROM parcels WHERE id > ? ORDER BY id LIMIT ?"
        while is_old and (rows := self.connection.execute(query, (before, last, _OLDEST)).fetchall()):
            for last, signal, items, is_old in rows:
                if not is_old:
                    break
                if last not in kept:
                    self._remove(last)
                    gone.append((signal, items))
        return gone

    def _remove(self, row: int) -> None:
        self.connection.execute("DELETE FROM parcels WHERE id = ?", (row,))

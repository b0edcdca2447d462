"""The recorder's SQLite file, `telemetry.db`: what it holds, and every statement that writes it.

Four tables: `spans`, each operation by itself; `minutes`, the same operations counted, which are kept for longer;
`sessions`; and `processes`, those that wrote here, each with its version and settings.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from tfo_mcp.domain.execution import FAILURES
from tfo_mcp.infrastructure.telemetry.disposable import DisposableDatabase, Layout
from tfo_mcp.infrastructure.telemetry.minutes import Count, Key

HAS_FAILED: Final = f"outcome IN ({', '.join(map(repr, FAILURES))})"
"""As the index has it: SQLite uses it only for what is asked in the same words."""

_TABLES: Final = f"""
CREATE TABLE processes (
    id INTEGER PRIMARY KEY,
    instance TEXT NOT NULL,
    pid INTEGER NOT NULL,
    version TEXT NOT NULL,
    python TEXT NOT NULL,
    started_at REAL NOT NULL,
    settings TEXT NOT NULL
);
CREATE TABLE spans (
    id INTEGER PRIMARY KEY,
    process INTEGER NOT NULL,
    principal TEXT NOT NULL,
    trace_id TEXT NOT NULL,
    span_id TEXT NOT NULL,
    parent_id TEXT,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    ended_at REAL NOT NULL,
    duration REAL NOT NULL,
    outcome TEXT NOT NULL,
    error_type TEXT,
    method TEXT,
    tool TEXT,
    session_id TEXT,
    reads_telemetry INTEGER NOT NULL,
    attributes TEXT,
    conversation_id TEXT,
    request_model TEXT,
    response_model TEXT,
    input_tokens INTEGER,
    output_tokens INTEGER,
    cache_read_tokens INTEGER,
    cache_write_tokens INTEGER,
    events TEXT,
    run_span_id TEXT,
    run_ended_at REAL,
    run_duration REAL,
    run_outcome TEXT,
    run_error_type TEXT
);
CREATE INDEX spans_that_failed ON spans (ended_at) WHERE {HAS_FAILED};
CREATE TABLE minutes (
    minute INTEGER NOT NULL,
    principal TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    outcome TEXT NOT NULL,
    error_type TEXT NOT NULL,
    bucket INTEGER NOT NULL,
    calls INTEGER NOT NULL,
    seconds REAL NOT NULL,
    longest REAL NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    PRIMARY KEY (minute, principal, kind, name, outcome, error_type, bucket)
) WITHOUT ROWID;
CREATE TABLE sessions (
    session_id TEXT PRIMARY KEY,
    process INTEGER NOT NULL,
    principal TEXT NOT NULL,
    client_name TEXT,
    client_version TEXT,
    protocol_version TEXT,
    started_at REAL NOT NULL,
    ended_at REAL
) WITHOUT ROWID;
CREATE INDEX sessions_by_start ON sessions (started_at);
"""

VERSION: Final = 1
"""Of the tables."""

_LAYOUT: Final = Layout("recorder", VERSION, _TABLES, "NORMAL", 0.25)

# Every row of `spans` costs its writer; an index would cost as much again. They are written in about the order in which
# they ended, and to read all of them takes a reader some 0.2 s.

_READING_TIMEOUT: Final = 1.0
"""Seconds to wait for who has the file locked."""

_STEP: Final = 1000
"""Rows that are removed in one transaction: others wait for it."""


SPAN_COLUMNS: Final = (
    "principal",
    "trace_id",
    "span_id",
    "parent_id",
    "kind",
    "name",
    "ended_at",
    "duration",
    "outcome",
    "error_type",
    "method",
    "tool",
    "session_id",
    "reads_telemetry",
    "attributes",
)
"""What a row of `spans` has beside its process; times in seconds, since the epoch and long."""

MORE_COLUMNS: Final = (
    "conversation_id",
    "request_model",
    "response_model",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "events",
)
"""What a row has besides that stands for a request to Claude, or for a library's span."""

RUN_COLUMNS: Final = ("run_span_id", "run_ended_at", "run_duration", "run_outcome", "run_error_type")
"""What a row has besides that stands for a tool's run too, the only thing that its request did: most calls are such."""

OPERATIONS: Final = (
    f"SELECT id, process, {', '.join((*SPAN_COLUMNS, *MORE_COLUMNS))} FROM main.spans UNION ALL "  # noqa: S608  # names from above
    "SELECT id, process, principal, trace_id, run_span_id, span_id, 'tool', 'tools.execute', run_ended_at, "
    "run_duration, run_outcome, run_error_type, NULL, tool, NULL, reads_telemetry, NULL"
    f"{', NULL' * len(MORE_COLUMNS)} FROM main.spans WHERE run_span_id IS NOT NULL"
)
"""Every operation as a row of its own."""

SpanRow: TypeAlias = tuple[object, ...]
"""Values for `SPAN_COLUMNS`, or for those and one of the others: a plain tuple, because there are many."""


class SessionRow(NamedTuple):
    """A row of `sessions`. `ended_at` is None while it is open, and of a process that was killed for good."""

    session_id: str
    principal: str
    client_name: object
    client_version: object
    protocol_version: object
    started_at: float
    ended_at: float | None


class ProcessRow(NamedTuple):
    """A row of `processes`. `settings` is JSON: those that are not at their defaults, secrets masked."""

    instance: str
    pid: int
    version: str
    python: str
    started_at: float
    settings: str


_ADD_PROCESS = f"INSERT INTO processes ({', '.join(ProcessRow._fields)}) VALUES (?, ?, ?, ?, ?, ?)"  # noqa: S608  # names from above
_IS_PROCESS = "SELECT 1 FROM processes WHERE id = ? AND pid = ? AND started_at = ?"
_ADD_SPAN = {
    len(columns): f"INSERT INTO spans (process, {', '.join(columns)}) VALUES (?{', ?' * len(columns)})"  # noqa: S608  # as above
    for columns in (SPAN_COLUMNS, (*SPAN_COLUMNS, *MORE_COLUMNS), (*SPAN_COLUMNS, *RUN_COLUMNS))
}
"""By the length of the row."""
_ADD_MINUTE = (
    f"INSERT INTO minutes VALUES (?{', ?' * (len(Key._fields) + 6)}) ON CONFLICT DO UPDATE SET "  # noqa: S608  # as above
    "calls = calls + excluded.calls, seconds = seconds + excluded.seconds, "
    "longest = max(longest, excluded.longest), input_tokens = input_tokens + excluded.input_tokens, "
    "output_tokens = output_tokens + excluded.output_tokens, "
    "cache_read_tokens = cache_read_tokens + excluded.cache_read_tokens, "
    "cache_write_tokens = cache_write_tokens + excluded.cache_write_tokens"
)
_ADD_SESSION = (
    f"INSERT INTO sessions (process, {', '.join(SessionRow._fields)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?) "  # noqa: S608  # as above
    "ON CONFLICT DO UPDATE SET ended_at = excluded.ended_at"
)


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A connection that can write nothing.

    Raises:
        sqlite3.Error: there is no file, or none that can be read.
    """
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", _READING_TIMEOUT, isolation_level=None, uri=True)


class RecorderFile(DisposableDatabase):
    """One process's way to write to the recorder. One thread at a time may use it.

    Raises:
        OSError, sqlite3.Error: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, _LAYOUT)
        self._process = 0

    def append(
        self,
        process: ProcessRow,
        spans: Sequence[SpanRow],
        sessions: Sequence[SessionRow],
        minutes: Mapping[Key, Count],
    ) -> None:
        """Commit all of it, and who writes it, or nothing where it raises."""
        with self.transaction() as database:
            number = self._number(database, process)
            for length, statement in _ADD_SPAN.items():
                database.executemany(statement, [(number, *row) for row in spans if len(row) == length])
            database.executemany(_ADD_SESSION, [(number, *row) for row in sessions])
            database.executemany(_ADD_MINUTE, [(*key, *count.row) for key, count in minutes.items()])

    def _number(self, database: sqlite3.Connection, process: ProcessRow) -> int:
        """The id of `process` in the other rows.

        It is noted again where the file is another one, and where its row was removed with the last one that was its:
        the id may be another's since then.
        """
        found = database.execute(_IS_PROCESS, (self._process, process.pid, process.started_at)).fetchone()
        if found is None:
            self._process = database.execute(_ADD_PROCESS, process).lastrowid or 0
        return self._process

    def remove_old(self, spans_before: float, minutes_before: float, max_bytes: int) -> bool:
        """Remove some of what is too old or too much, the oldest first; whether there is more to remove.

        Single operations go before the counts, which say less but of a longer time.
        """
        with self.transaction() as database:
            removed = _remove(database, "spans", "id", f"ended_at < {spans_before!r}")
            removed += _remove(database, "sessions", "started_at", f"started_at < {spans_before!r}")
            removed += _remove(database, "minutes", "minute", f"minute < {minutes_before!r}")
            if not removed and _used(database) > max_bytes:
                removed = _remove(database, "spans", "id") or _remove(database, "minutes", "minute")
            if not removed:
                database.execute(
                    "DELETE FROM processes WHERE started_at < ? AND id NOT IN (SELECT process FROM spans) "
                    "AND id NOT IN (SELECT process FROM sessions)",
                    (spans_before,),
                )
        return removed > 0


def _remove(database: sqlite3.Connection, table: str, order: str, which: str = "true") -> int:
    """Among the oldest rows in this order remove those of `which`; how many.

    Where the clock was put back for a while, some that are young stand before some that are old.
    """
    edge = database.execute(
        f"SELECT max({order}) FROM (SELECT * FROM {table} ORDER BY {order} LIMIT {_STEP}) WHERE {which}"  # noqa: S608  # names from above
    ).fetchone()[0]
    if edge is None:
        return 0
    return database.execute(f"DELETE FROM {table} WHERE {order} <= ? AND {which}", (edge,)).rowcount  # noqa: S608  # as above


def _used(database: sqlite3.Connection) -> int:
    """Bytes of the file that hold something."""
    pages, free, size = (
        database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size

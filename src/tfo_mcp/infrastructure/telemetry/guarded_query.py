"""SQL that anybody may send: it reads the documented views, of one principal, for so long and so much.

What keeps it to that is SQLite itself: a connection that cannot write, an authorizer that is asked about every table
and function while the statement is prepared, limits on what a statement may hold, and an interrupt. Nothing is looked
for in the text.

The authorizer is told through which view a table is read, and a common table expression can bear any name. So the
public views read from inner ones whose names nobody can know, and only those may read the tables.
"""

from __future__ import annotations

import math
import secrets
import sqlite3
import threading
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from tfo_mcp.domain.errors import InvalidQuery
from tfo_mcp.domain.recorded import QueryAnswer
from tfo_mcp.infrastructure.persistence.database_file import kind_of
from tfo_mcp.infrastructure.telemetry.recorder_file import HAS_FAILED, OPERATIONS


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """What one query may take: seconds, and bytes of all that it gives, as JSON."""

    timeout: float
    max_size: int


@dataclass(frozen=True, slots=True)
class View:
    """What a query may read: columns of a table or query, the rows of one principal for which `where` holds."""

    columns: str
    source: str
    where: str = "true"
    group_by: str = ""


_OPERATIONS: Final = f"({OPERATIONS})"
_SPAN: Final = (
    "trace_id, span_id, parent_id, ended_at - duration AS started_at, "
    "strftime('%Y-%m-%dT%H:%M:%fZ', ended_at - duration, 'unixepoch') AS started, ended_at, duration, outcome, "
    f"{HAS_FAILED} AS is_error, error_type, attributes, "
)

VIEWS: Final[Mapping[str, View]] = {
    "requests": View(_SPAN + "method, tool, session_id", _OPERATIONS, "kind = 'request' AND NOT reads_telemetry"),
    "tool_calls": View(
        _SPAN + "tool, CASE name WHEN 'tools.execute' THEN 'client' ELSE 'claude' END AS caller",
        _OPERATIONS,
        "kind = 'tool' AND NOT reads_telemetry",
    ),
    "claude_calls": View(
        _SPAN + "conversation_id, request_model, response_model, input_tokens, output_tokens, cache_read_tokens, "
        "cache_write_tokens, events",
        _OPERATIONS,
        "kind = 'claude'",
    ),
    "spans": View(_SPAN + "kind, name, method, tool, session_id, conversation_id, events", _OPERATIONS),
    "sessions": View(
        "session_id, client_name, client_version, protocol_version, started_at, ended_at", "main.sessions"
    ),
    "minutes": View(
        "minute, kind, name, outcome, nullif(error_type, '') AS error_type, sum(calls) AS calls, "
        "sum(seconds) AS seconds, max(longest) AS longest, sum(input_tokens) AS input_tokens, "
        "sum(output_tokens) AS output_tokens, sum(cache_read_tokens) AS cache_read_tokens, "
        "sum(cache_write_tokens) AS cache_write_tokens",
        "main.minutes",
        group_by=" GROUP BY minute, kind, name, outcome, minutes.error_type",
    ),
}
"""By name; documented in docs/reference/telemetry.md."""

_FUNCTIONS: Final = frozenset({
    "abs", "avg", "cast", "ceil", "ceiling", "char", "coalesce", "count", "cume_dist", "date", "datetime",
    "dense_rank", "exp", "first_value", "floor", "format", "glob", "group_concat", "hex", "ifnull", "iif", "instr",
    "json", "json_array", "json_array_length", "json_extract", "json_group_array", "json_group_object",
    "json_object", "json_type", "json_valid", "julianday", "lag", "last_value", "lead", "length", "like",
    "likelihood", "likely", "ln", "log", "log10", "log2", "lower", "ltrim", "max", "min", "mod", "nth_value",
    "ntile", "nullif", "percent_rank", "pow", "power", "printf", "quote", "rank", "replace", "round", "row_number",
    "rtrim", "sign", "sqrt", "strftime", "string_agg", "substr", "substring", "sum", "time", "timediff", "total",
    "trim", "trunc", "typeof", "unicode", "unixepoch", "unlikely", "upper", "->", "->>",
})  # fmt: skip
_TABLE_FUNCTIONS: Final = frozenset({"json_each", "json_tree"})

_AGAIN: Final = 0.05
"""Seconds from one interrupt to the next."""

_SCHEMA_TABLES: Final = frozenset({"sqlite_master", "sqlite_schema", "sqlite_temp_master", "sqlite_temp_schema"})

_LIMITS: Final = {
    sqlite3.SQLITE_LIMIT_LENGTH: 200_000,  # characters of one value: one function over one is never long
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 20_000,
    sqlite3.SQLITE_LIMIT_COLUMN: 200,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 100,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 20,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 30,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 200,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}


def guarded_query(
    connection: sqlite3.Connection, principal: str, sql: str, limit: int, limits: QueryLimits
) -> QueryAnswer:
    """What `sql` gives, `limit` rows at most. The connection is good for nothing else afterwards. Blocks.

    Raises:
        InvalidQuery: it is no SELECT over the views, it gives no rows or one that is too large, or it took too long.
    """
    inner = _make_views(connection, principal)
    tables = {str(name).lower() for (name,) in connection.execute("SELECT name FROM main.sqlite_master")}
    for name in _TABLE_FUNCTIONS:  # SQLite makes them at their first use, which the authorizer would not allow
        connection.execute(f"SELECT 1 FROM {name}('[]')")  # noqa: S608  # names from above
    for category, most in _LIMITS.items():
        connection.setlimit(category, most)
    connection.set_authorizer(_Authorizer(tables | _SCHEMA_TABLES, inner))
    try:
        with _interrupted_after(connection, limits.timeout):
            cursor = connection.execute(sql)
            if cursor.description is None:
                raise InvalidQuery("the query gives no rows: ask with SELECT")
            columns = [str(column[0]) for column in cursor.description]
            return _answer(columns, cursor, limit, limits.max_size)
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            raise InvalidQuery(
                f"the query took more than {limits.timeout:g} s and was stopped: ask for less, or a shorter time"
            ) from error
        if kind_of(error) in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL}:
            raise InvalidQuery("the query takes too much room to sort or group in: ask for less") from error
        hint = f"; the views are {', '.join(VIEWS)}" if "no such table" in str(error) else ""
        raise InvalidQuery(f"the query cannot be run: {error}{hint}") from error
    except (sqlite3.Error, sqlite3.Warning, UnicodeError, ValueError) as error:
        raise InvalidQuery(f"the query cannot be run: {error}") from error


def _answer(columns: list[str], cursor: sqlite3.Cursor, limit: int, room: int) -> QueryAnswer:
    """As many rows as there are, `limit` and `room` bytes allow.

    Raises:
        InvalidQuery: there is no room for the first one.
    """
    rows: list[list[Any]] = []
    room -= _size(columns)
    for row in cursor:
        values = [_in_json(value) for value in row]
        room -= _size(values)
        if room < 0 and not rows:
            break
        if len(rows) >= limit or room < 0:
            return QueryAnswer(columns, rows, complete=False)
        rows.append(values)
    if room < 0:
        raise InvalidQuery("one row is more than an answer may be: ask for fewer columns, or for substr() of long ones")
    return QueryAnswer(columns, rows, complete=True)


def _size(values: Sequence[object]) -> int:
    return len(msgspec.json.encode(values)) + 1


def _in_json(value: Any) -> str | int | float | None:  # noqa: ANN401  # whatever SQLite gives
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _make_views(connection: sqlite3.Connection, principal: str) -> Collection[str]:
    """Make them; the names of the inner ones."""
    (quoted,) = connection.execute("SELECT quote(?)", (principal,)).fetchone()
    inner = {name: f"view_{secrets.token_hex(16)}" for name in VIEWS}
    for name, view in VIEWS.items():
        connection.execute(
            f"CREATE TEMP VIEW {inner[name]} AS SELECT {view.columns} FROM {view.source} "  # noqa: S608  # names from above
            f"WHERE {view.where} AND principal = {quoted}{view.group_by}"
        )
        connection.execute(f"CREATE TEMP VIEW {name} AS SELECT * FROM {inner[name]}")  # noqa: S608  # as above
    return frozenset(inner.values())


class _Authorizer:
    """Says yes to what is known to be harmless, and no to the rest."""

    def __init__(self, tables: Collection[str], inner: Collection[str]) -> None:
        self._tables = tables
        self._inner = inner

    def __call__(
        self, action: int, first: str | None, second: str | None, database: str | None, through: str | None
    ) -> int:
        match action:
            case sqlite3.SQLITE_SELECT | sqlite3.SQLITE_RECURSIVE:
                allowed = True
            case sqlite3.SQLITE_READ:
                allowed = self._may_read((first or "").lower(), second, database, through)
            case sqlite3.SQLITE_FUNCTION:
                allowed = (second or "").lower() in _FUNCTIONS
            case _:
                allowed = False
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    def _may_read(self, table: str, column: str | None, database: str | None, through: str | None) -> bool:
        if database == "main":
            return through in self._inner or table in _TABLE_FUNCTIONS
        if database == "temp":
            return table in VIEWS or table in self._inner
        # No column of a common table expression; of a table SQLite does not always say the database.
        return database is None and not column and table not in self._tables


@contextmanager
def _interrupted_after(connection: sqlite3.Connection, seconds: float) -> Generator[None]:
    """Again and again: an interrupt while a statement is prepared does not stop its run."""
    done = threading.Event()

    def interrupt() -> None:
        wait = seconds
        while not done.wait(wait):
            connection.interrupt()
            wait = _AGAIN

    thread = threading.Thread(target=interrupt, name="query-deadline", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()  # or it could interrupt what is closed already

"""Runs one guarded query in a process of its own, which may take little memory, little disk and little time.

SQLite prepares a statement before it looks at any interrupt, and a short one can make it fill memory for minutes; a
sort can fill a disk. In the server that would harm everybody.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import msgspec

from tfo_mcp.domain.errors import InvalidQuery
from tfo_mcp.domain.recorded import QueryAnswer
from tfo_mcp.infrastructure.telemetry.guarded_query import QueryLimits, guarded_query
from tfo_mcp.infrastructure.telemetry.recorder_file import open_for_reading

_MEMORY: Final = 512 * 1024 * 1024
_DISK: Final = 128 * 1024 * 1024
"""Bytes that the process may have; of the second, in one file."""

_START: Final = 5.0
"""Seconds beyond the query's own that the process gets: to start, and to stop what heeds no interrupt at once."""

_TOO_MUCH: Final = "the query takes too much memory: ask for less, or in simpler terms"


class _Question(msgspec.Struct):
    path: str
    principal: str
    sql: str
    limit: int
    timeout: float
    max_size: int


class _Answer(msgspec.Struct):
    """`refused` says why there is none."""

    columns: list[str] = []
    rows: list[list[str | int | float | None]] = []
    complete: bool = True
    refused: str | None = None


def ask(path: Path, principal: str, sql: str, limit: int, limits: QueryLimits) -> QueryAnswer:
    """What `sql` gives of the recorder at `path`, `limit` rows at most. Blocks.

    Raises:
        InvalidQuery: see `guarded_query`; or it took too much.
        OSError: no process can be started.
    """
    question = _Question(str(path), principal, sql, limit, limits.timeout, limits.max_size)
    try:
        ended = subprocess.run(  # noqa: S603  # this module, by this interpreter
            [sys.executable, "-c", f"from {__name__} import main; main()"],
            input=msgspec.json.encode(question),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONPATH": os.pathsep.join(sys.path), **_only("PATH", "TMPDIR", "SYSTEMROOT")},
            timeout=limits.timeout + _START,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InvalidQuery(f"the query took more than {limits.timeout:g} s and was stopped: ask for less") from None
    except UnicodeEncodeError as error:
        raise InvalidQuery(f"the query cannot be run: {error}") from error
    try:
        answer = msgspec.json.decode(ended.stdout, type=_Answer)
    except msgspec.DecodeError:  # it was killed, or could not even say so
        raise InvalidQuery(_TOO_MUCH) from None
    if answer.refused is not None:
        raise InvalidQuery(answer.refused)
    return QueryAnswer(answer.columns, answer.rows, answer.complete)


def main() -> None:
    """Answer the question on stdin, on stdout."""
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=_Question)
    _limit(question.timeout)
    limits = QueryLimits(question.timeout, question.max_size)
    try:
        with closing(open_for_reading(Path(question.path))) as connection:
            given = guarded_query(connection, question.principal, question.sql, question.limit, limits)
        answer = _Answer(list(given.columns), [list(row) for row in given.rows], given.complete)
    except InvalidQuery as refused:
        answer = _Answer(refused=str(refused))
    except MemoryError:
        answer = _Answer(refused=_TOO_MUCH)
    except sqlite3.Error as error:
        answer = _Answer(refused=f"the recorder cannot be read: {error}")
    sys.stdout.buffer.write(msgspec.json.encode(answer))


def _limit(seconds: float) -> None:
    """What the process may take from now on; it ends by itself too, should nobody be left to end it."""
    try:
        import resource
    except ImportError:  # Windows
        return
    processor = int(seconds + _START) + 1
    for what, most in (
        (resource.RLIMIT_AS, _MEMORY),
        (resource.RLIMIT_FSIZE, _DISK),
        (resource.RLIMIT_CPU, processor),
        (resource.RLIMIT_CORE, 0),
    ):
        with suppress(ValueError, OSError):  # less is allowed already
            resource.setrlimit(what, (most, most))


def _only(*names: str) -> dict[str, str]:
    """Of the environment: what starting a program takes, and no secret."""
    return {name: os.environ[name] for name in names if name in os.environ}

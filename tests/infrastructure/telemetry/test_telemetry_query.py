"""`query_telemetry`'s SQL: what it sees, and that it sees nothing else."""

from __future__ import annotations

import resource
import sqlite3
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from tfo_mcp.domain.errors import InvalidQuery
from tfo_mcp.domain.recorded import QueryAnswer
from tfo_mcp.infrastructure.telemetry import query_process
from tfo_mcp.infrastructure.telemetry.guarded_query import VIEWS, QueryLimits, guarded_query
from tfo_mcp.infrastructure.telemetry.minutes import Count, Key
from tfo_mcp.infrastructure.telemetry.recorder_file import (
    SPAN_COLUMNS,
    ProcessRow,
    RecorderFile,
    SessionRow,
    SpanRow,
)

NOW = 1_800_000_000.0
LIMITS = QueryLimits(timeout=0.5, max_size=10_000)


def a_span(principal: str, number: int, **known: object) -> SpanRow:
    row: Mapping[str, object] = {
        "principal": principal,
        "trace_id": f"{number:032x}",
        "span_id": f"{number:016x}",
        "kind": "request",
        "name": "ping",
        "ended_at": NOW + number,
        "duration": 0.5,
        "outcome": "completed",
        "method": "ping",
        "reads_telemetry": False,
        **known,
    }
    return tuple(row.get(column) for column in SPAN_COLUMNS)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Two operations, a session and a count of `local`, and as much of somebody else."""
    path = tmp_path / "telemetry.db"
    file = RecorderFile(path)
    process = ProcessRow("i", 1, "1.0", "3.11", NOW, '{"claude.base_url": "internal"}')
    for principal, first in (("local", 1), ("o'brien", 10)):
        file.append(
            process,
            [a_span(principal, first), a_span(principal, first + 1, kind="tool", name="tools.execute", tool="echo")],
            [SessionRow(f"session of {principal}", principal, "client", "1", "2025-11-25", NOW, None)],
            {Key(0, principal, "request", "ping", "completed", "", bucket): Count(calls=first) for bucket in (1, 2)},
        )
    file.close()
    return path


def ask(
    path: Path, sql: str, *, principal: str = "local", limit: int = 100, limits: QueryLimits = LIMITS
) -> QueryAnswer:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)) as connection:
        return guarded_query(connection, principal, sql, limit, limits)


@pytest.mark.behaviour("telemetry.query")
def test_everybody_sees_his_own(recorded: Path) -> None:
    for principal, first in (("local", 1), ("o'brien", 10)):
        for view, wanted in {"spans": 2, "requests": 1, "tool_calls": 1, "sessions": 1, "minutes": 1}.items():
            assert ask(recorded, f"SELECT count(*) FROM {view}", principal=principal).rows == [[wanted]]  # noqa: S608
        assert ask(recorded, "SELECT calls FROM minutes", principal=principal).rows == [[2 * first]]
        assert ask(recorded, "SELECT min(ended_at) FROM spans", principal=principal).rows == [[NOW + first]]
    assert ask(recorded, "SELECT * FROM spans", principal="nobody").rows == []


@pytest.mark.behaviour("telemetry.query")
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT trace_id FROM main.spans",
        "SELECT count(*) FROM main.spans",
        "SELECT count(*) FROM processes",
        "SELECT settings FROM Processes",
        "SELECT exists(SELECT 1 FROM processes)",
        "WITH requests AS (SELECT * FROM main.spans) SELECT * FROM requests",
        "WITH processes AS (SELECT settings FROM main.processes) SELECT * FROM processes",
        "WITH c AS (SELECT count(*) AS n FROM main.spans) SELECT n FROM c",
        "SELECT (SELECT max(principal) FROM main.spans) FROM requests",
        "SELECT principal FROM spans",
        "SELECT * FROM requests WHERE trace_id IN main.spans",
        "SELECT * FROM sqlite_master",
        "SELECT sql FROM temp.sqlite_schema",
        "SELECT name FROM pragma_table_info('spans')",
        "PRAGMA table_info(spans)",
        "PRAGMA query_only = OFF",
        "ATTACH 'other.db' AS other",
        "DELETE FROM main.spans",
        "DROP VIEW spans",
        "CREATE TEMP TABLE mine (a)",
        "INSERT INTO spans VALUES (1)",
        "BEGIN",
        "VACUUM INTO 'copy.db'",
        "SELECT load_extension('evil')",
        "SELECT readfile('/etc/passwd')",
        "SELECT randomblob(1000000000)",
        "SELECT zeroblob(1000000000)",
        "SELECT 1; SELECT 2",
        "SELECT * FROM nothing",
        "not SQL",
        "SELECT \ud800",
        "SELECT 1 \0",
        "",
        "-- nothing",
    ],
)
def test_nothing_else_can_be_asked(recorded: Path, tmp_path: Path, sql: str) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InvalidQuery) as refused:
        ask(recorded, sql)
    assert "view_" not in str(refused.value)
    assert (
        set(before)
        <= set(tmp_path.iterdir())
        <= {*before, *(recorded.with_name(f"telemetry.db-{s}") for s in ("wal", "shm"))}
    )


def test_what_sql_is_good_for_can_be_used(recorded: Path) -> None:
    for sql, rows in {
        "WITH c AS (SELECT * FROM spans) SELECT count(*) FROM c": [[2]],
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 3) SELECT * FROM c": [[1], [2], [3]],
        "SELECT a.tool FROM tool_calls a JOIN spans b USING (trace_id)": [["echo"]],
        "SELECT row_number() OVER (ORDER BY ended_at) FROM spans": [[1], [2]],
        "SELECT value FROM json_each('[1, 2]')": [[1], [2]],
        "SELECT started FROM requests": [["2027-01-15T08:00:00.500Z"]],
        "SELECT x'00ff', NULL, 1e999, 'a' || 1": [["00ff", None, "inf", "a1"]],
        "VALUES (1), (2)": [[1], [2]],
    }.items():
        assert ask(recorded, sql).rows == rows


def test_every_view_can_be_read_whole(recorded: Path) -> None:
    for view in VIEWS:
        assert "principal" not in ask(recorded, f"SELECT * FROM {view}").columns  # noqa: S608


@pytest.mark.parametrize(
    "sql",
    [
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c",
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c ORDER BY x DESC",
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c WHERE x < 0",
    ],
)
def test_a_query_that_takes_too_long_is_stopped(recorded: Path, sql: str) -> None:
    began = time.monotonic()
    with pytest.raises(InvalidQuery, match=r"took more than 0\.5 s"):
        ask(recorded, sql)
    assert time.monotonic() - began < 10


def test_a_query_whose_preparation_takes_all_the_time_is_stopped_after_it(recorded: Path) -> None:
    doubled = ", ".join(f"c{n}(x) AS (SELECT a.x FROM c{n - 1} a, c{n - 1} b)" for n in range(1, 11))  # noqa: S608
    endless = "r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r LIMIT 50000000)"
    with pytest.raises(InvalidQuery, match="took more than"):
        ask(
            recorded,
            f"WITH RECURSIVE c0(x) AS (SELECT 1), {doubled}, {endless} SELECT (SELECT count(*) FROM r) FROM c10",  # noqa: S608
            limits=QueryLimits(timeout=0.0001, max_size=10_000),
        )


def test_an_answer_is_cut_at_its_limits_and_says_so(recorded: Path) -> None:
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 5000) SELECT x FROM c"

    cut = ask(recorded, endless, limit=10)
    assert (len(cut.rows), cut.complete) == (10, False)
    exact = ask(recorded, endless.replace("5000", "10"), limit=10)
    assert (len(exact.rows), exact.complete) == (10, True)
    large = ask(recorded, "SELECT printf('%.2000c', 'x') FROM json_each('[1,2,3,4,5,6,7,8]')")
    assert (len(large.rows), large.complete) == (4, False)
    for sql in (
        "SELECT printf('%.20000c', 'x')",
        f"SELECT *, * FROM (SELECT 1 AS {'x' * 6000})",  # noqa: S608  # names of columns need room too
        "SELECT replace(printf('%.2000c', 'x'), 'x', char(0))",  # six characters each, in JSON
    ):
        with pytest.raises(InvalidQuery, match="one row is more than an answer may be"):
            ask(recorded, sql)
    with pytest.raises(InvalidQuery, match="too big"):
        ask(recorded, "SELECT group_concat(x) FROM (SELECT printf('%.150000c', 'x') AS x FROM json_each('[1,2]'))")


def doubling(levels: int) -> str:
    """A short statement that takes twice as much to prepare for each level."""
    steps = [f"c{n}(x) AS (SELECT a.x FROM c{n - 1} a, c{n - 1} b)" for n in range(1, levels)]  # noqa: S608  # of ours
    return f"WITH {', '.join(['c0(x) AS (SELECT 1)', *steps])} SELECT * FROM c{levels - 1}"  # noqa: S608  # of ours


ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT "


@pytest.mark.behaviour("telemetry.query")
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps a process to its memory")
@pytest.mark.parametrize(
    ("sql", "why"),
    [
        (doubling(26), "memory"),
        (ENDLESS + "x, count(*) FROM c GROUP BY printf('%.199000c', 'a') || x", "room|took more than"),
        (ENDLESS + "count(*) FROM c", "took more than"),
    ],
)
def test_a_query_that_takes_too_much_harms_only_its_own_process(recorded: Path, sql: str, why: str) -> None:
    began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidQuery, match=why):
        query_process.ask(recorded, "local", sql, 10, QueryLimits(timeout=1.0, max_size=10_000))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - began < 20_000


def test_a_query_in_its_own_process_gives_what_it_gives_here(recorded: Path) -> None:
    for sql in ("SELECT * FROM spans", "SELECT x'00ff', NULL, 1e999, 'a' || 1", "SELECT 1 WHERE 0"):
        assert query_process.ask(recorded, "local", sql, 10, LIMITS) == ask(recorded, sql, limit=10)
    with pytest.raises(InvalidQuery, match="the views are"):
        query_process.ask(recorded, "local", "SELECT * FROM calls", 10, LIMITS)
    with pytest.raises(InvalidQuery, match="cannot be run"):
        query_process.ask(recorded, "local", "SELECT \ud800", 10, LIMITS)


def test_no_secret_of_the_environment_reaches_the_process_of_a_query(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told"
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nenv > {told}\nexec {sys.executable} "$@"\n')
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-a-secret")

    assert query_process.ask(recorded, "local", "SELECT 1", 10, LIMITS).rows == [[1]]
    assert "PYTHONPATH" in told.read_text()
    assert "sk-ant" not in told.read_text()

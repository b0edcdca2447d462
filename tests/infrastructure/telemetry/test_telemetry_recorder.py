from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.otlp import DEADLINE
from support.server import eventually
from tfo_mcp.application.ports import AttributeValue
from tfo_mcp.domain.session import Session
from tfo_mcp.infrastructure.telemetry import recorder as recorder_module
from tfo_mcp.infrastructure.telemetry.client import MCPTelemetryClient
from tfo_mcp.infrastructure.telemetry.options import RecorderOptions, TelemetryOptions
from tfo_mcp.infrastructure.telemetry.recorder_file import OPERATIONS

ECHO: Mapping[str, AttributeValue] = {"gen_ai.tool.name": "echo"}


def kept_in(folder: Path, *, max_bytes: int = 2**28, settings: Mapping[str, object] | None = None) -> TelemetryOptions:
    kept = RecorderOptions(
        path=folder / "telemetry.db", days=7, summary_days=90, max_bytes=max_bytes, settings=settings or {}
    )
    return TelemetryOptions(recorder=kept, service_version="1.2.3")


@contextmanager
def recording(options: TelemetryOptions) -> Generator[MCPTelemetryClient]:
    client = MCPTelemetryClient(options)
    client.start()
    try:
        yield client
    finally:
        client.shutdown(DEADLINE)


def end_one(client: MCPTelemetryClient, attributes: Mapping[str, AttributeValue] = ECHO) -> None:
    client.span("tool", "tools.execute", attributes=attributes).end("completed")


def rows(folder: Path, query: str) -> Sequence[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{folder / 'telemetry.db'}?mode=ro", uri=True)) as database:
        return database.execute(query).fetchall()


@pytest.mark.behaviour("telemetry.recorder")
def test_each_operation_is_a_row_and_counted_in_its_minute(tmp_path: Path) -> None:
    with recording(kept_in(tmp_path)) as client:
        request = client.span("request", "tools/call echo", attributes={"mcp.method.name": "tools/call", **ECHO})
        tool = client.span("tool", "tools.execute", parent=request.context, attributes=ECHO)
        tool.add_event("error")
        tool.end("failed", "tool_error")
        request.end("failed", "tool_error")
        assert client.settle(DEADLINE)

        query = f"SELECT trace_id, span_id, parent_id, kind, tool, outcome FROM ({OPERATIONS}) ORDER BY kind DESC"  # noqa: S608
        inner, outer = rows(tmp_path, query)
        assert rows(tmp_path, "SELECT count(*) FROM spans") == [(1,)]
    ids = (f"{request.context.trace_id:032x}", f"{request.context.span_id:016x}")
    assert outer == (*ids, None, "request", "echo", "failed")
    assert inner == (ids[0], f"{tool.context.span_id:016x}", ids[1], "tool", "echo", "failed")
    counted = rows(tmp_path, "SELECT kind, name, outcome, error_type, sum(calls) FROM minutes GROUP BY 1, 2, 3, 4")
    assert set(counted) == {
        ("request", "tools/call", "failed", "tool_error", 1),
        ("tool", "echo", "failed", "tool_error", 1),
    }


@pytest.mark.behaviour("telemetry.recorder")
def test_runs_that_share_no_row_with_their_request_have_their_own(tmp_path: Path) -> None:
    with recording(kept_in(tmp_path)) as client:
        request = client.span("request", "tools/call", attributes={"mcp.method.name": "tools/call"})
        for known in (
            ECHO,
            {"gen_ai.tool.name": "other"},
            {**ECHO, "tfo.error.id": "e"},
        ):  # of the first's request no tool is known
            client.span("tool", "tools.execute", parent=request.context, attributes=known).end("completed")
        for _ in range(2):
            client.span("tool", "execute_tool echo", parent=request.context, attributes=ECHO).end("completed")
        end_one(client)
        request.end("completed")
        alone = client.span("request", "ping", attributes={"mcp.method.name": "ping"})
        client.span("tool", "tools.execute", parent=alone.context, attributes=ECHO).end("completed")

    assert rows(tmp_path, "SELECT count(*) FROM spans") == [(8,)]
    counted = rows(tmp_path, f"SELECT kind, count(*) FROM ({OPERATIONS}) GROUP BY 1")  # noqa: S608
    assert dict(counted) == {"tool": 7, "request": 1}


@pytest.mark.behaviour("telemetry.recorder")
def test_several_processes_add_to_the_same_counts(tmp_path: Path) -> None:
    with recording(kept_in(tmp_path)) as one, recording(kept_in(tmp_path)) as other:
        for client in (one, other, one):
            end_one(client)
        assert one.settle(DEADLINE)
        assert other.settle(DEADLINE)

    assert rows(tmp_path, "SELECT sum(calls) FROM minutes") == [(3,)]
    assert rows(tmp_path, "SELECT count(DISTINCT process), count(*) FROM spans") == [(2, 3)]
    assert rows(tmp_path, "SELECT version FROM processes") == [("1.2.3",)] * 2


@pytest.mark.behaviour("telemetry.recorder")
def test_operations_that_the_ring_cannot_take_are_counted_all_the_same(tmp_path: Path) -> None:
    client = MCPTelemetryClient(replace(kept_in(tmp_path), ring_capacity=10))
    for _ in range(25):
        end_one(client)
    client.start()
    assert client.shutdown(DEADLINE)

    assert rows(tmp_path, "SELECT sum(calls) FROM minutes") == [(25,)]
    assert rows(tmp_path, "SELECT count(*) FROM spans") == [(10,)]


def test_sessions_are_kept_with_their_client_and_their_end(tmp_path: Path) -> None:
    session = Session(principal="alice")
    with recording(kept_in(tmp_path)) as client:
        client.record_session_event("initialized", session)
        assert client.settle(DEADLINE)
        assert rows(tmp_path, "SELECT principal, ended_at FROM sessions") == [("alice", None)]
        client.record_session_event("closed", session)

    ((started, ended),) = rows(tmp_path, "SELECT started_at, ended_at FROM sessions")
    assert 0 <= ended - started < DEADLINE


def test_what_only_reads_telemetry_is_kept_but_not_counted(tmp_path: Path) -> None:
    with recording(kept_in(tmp_path)) as client:
        end_one(client, attributes={**ECHO, "tfo.telemetry.read": True})

    assert rows(tmp_path, "SELECT reads_telemetry FROM spans") == [(1,)]
    assert rows(tmp_path, "SELECT count(*) FROM minutes") == [(0,)]


def test_a_text_that_no_database_can_hold_costs_no_other_operation_its_row(tmp_path: Path) -> None:
    with recording(kept_in(tmp_path)) as client:
        end_one(client, attributes={"gen_ai.tool.name": "half \ud800", "more": "\udfff"})
        end_one(client)
        assert client.settle(DEADLINE)
        end_one(client)

    assert rows(tmp_path, "SELECT tool FROM spans ORDER BY id") == [("half ?",), ("echo",), ("echo",)]
    assert rows(tmp_path, "SELECT sum(calls) FROM minutes") == [(3,)]


def test_what_is_too_old_goes_the_single_operations_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "_LOOK_FOR_OLD", 0.0)
    with recording(kept_in(tmp_path)) as client:
        for _ in range(2500):
            end_one(client)
    with closing(sqlite3.connect(tmp_path / "telemetry.db")) as database, database:
        database.execute("UPDATE spans SET ended_at = ended_at - 8 * 86400")
        database.execute("UPDATE minutes SET minute = minute - 8 * 86400")

    with recording(kept_in(tmp_path)) as client:
        end_one(client)
        deadline = time.monotonic() + DEADLINE
        while rows(tmp_path, "SELECT count(*) FROM spans") != [(1,)]:
            assert time.monotonic() < deadline
            assert client.settle(DEADLINE)

    assert rows(tmp_path, "SELECT sum(calls) FROM minutes") == [(2501,)]


def test_the_file_keeps_to_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "_LOOK_FOR_OLD", 0.0)
    limit = 400_000
    with recording(kept_in(tmp_path, max_bytes=limit)) as client:
        for _ in range(20):
            for _ in range(1000):
                end_one(client)
            assert client.settle(DEADLINE)

        def used() -> int:
            ((pages, free, size),) = rows(
                tmp_path,
                "SELECT page_count, freelist_count, page_size "
                "FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()",
            )
            return (pages - free) * size

        deadline = time.monotonic() + DEADLINE
        while used() > limit:
            assert time.monotonic() < deadline
            assert client.settle(DEADLINE)

    assert rows(tmp_path, "SELECT sum(calls) FROM minutes") == [(20_000,)]
    ((left, newest),) = rows(tmp_path, "SELECT count(*), max(id) FROM spans")
    assert 0 < left < 5000
    assert newest == 20_000


@pytest.mark.behaviour("telemetry.recorder-damaged")
@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_damaged_recorder_is_moved_aside_and_a_new_one_begins(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "telemetry.db").write_bytes(content)

    with recording(kept_in(tmp_path)) as client:
        end_one(client)

    (aside,) = tmp_path.glob("telemetry.db.damaged-*")
    assert aside.read_bytes() == content
    assert rows(tmp_path, "SELECT count(*) FROM spans") == [(1,)]


@pytest.mark.behaviour("telemetry.recorder-damaged")
def test_a_recorder_that_is_deleted_while_it_runs_begins_anew(tmp_path: Path) -> None:
    with recording(kept_in(tmp_path)) as client:
        end_one(client)
        assert client.settle(DEADLINE)
        for path in tmp_path.glob("telemetry.db*"):
            path.unlink()
        end_one(client)

    assert rows(tmp_path, "SELECT count(*) FROM spans") == [(1,)]
    assert rows(tmp_path, "SELECT count(*) FROM processes") == [(1,)]


@pytest.mark.behaviour("telemetry.recorder-unwritable")
def test_what_the_disk_does_not_take_waits_and_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "state"
    folder.write_text("a file where the folder should be")
    with recording(kept_in(folder)) as client:
        end_one(client)
        assert client.settle(DEADLINE)
        assert "waits in memory" in caplog.text
        folder.unlink()
        end_one(client)

    assert rows(folder, "SELECT count(*) FROM spans") == [(2,)]
    assert rows(folder, "SELECT sum(calls) FROM minutes") == [(2,)]


@pytest.mark.behaviour("telemetry.recorder-unwritable")
def test_what_waits_for_the_disk_is_written_though_nothing_else_is_recorded(tmp_path: Path) -> None:
    with recording(kept_in(tmp_path)) as client:
        end_one(client)
        assert client.settle(DEADLINE)
        with closing(sqlite3.connect(tmp_path / "telemetry.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            end_one(client)
            assert client.settle(DEADLINE)
        eventually(lambda: rows(tmp_path, "SELECT count(*) FROM spans") == [(2,)])


@pytest.mark.behaviour("telemetry.recorder-unwritable")
def test_a_shutdown_waits_within_its_time_for_who_has_locked_the_recorder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(sqlite3.connect(tmp_path / "telemetry.db", isolation_level=None, check_same_thread=False)) as other:
        with recording(kept_in(tmp_path)) as client:
            end_one(client)
            assert client.settle(DEADLINE)
            other.execute("BEGIN EXCLUSIVE")
            end_one(client)
            assert client.settle(DEADLINE)
            release = threading.Timer(1.0, other.execute, ("COMMIT",))  # longer than one commit waits
            release.start()
        release.join()
    assert rows(tmp_path, "SELECT count(*), (SELECT sum(calls) FROM minutes) FROM spans") == [(2, 2)]
    assert "shut down" not in caplog.text

    with closing(sqlite3.connect(tmp_path / "telemetry.db", isolation_level=None)) as other:
        with recording(kept_in(tmp_path)) as client:
            end_one(client)
            assert client.settle(DEADLINE)
            other.execute("BEGIN EXCLUSIVE")
            end_one(client)
            assert client.settle(DEADLINE)
            client.shutdown(1.0)
        eventually(lambda: "shut down before the recorder took 1 operations" in caplog.text)


@pytest.mark.behaviour("telemetry.recorder-unwritable")
def test_a_recorder_that_comes_back_is_used_again(tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "telemetry.db", tmp_path / "elsewhere.db"
    with recording(kept_in(tmp_path)) as client:
        end_one(client)
        assert client.settle(DEADLINE)
        path.rename(elsewhere)
        path.mkdir()
        end_one(client)
        assert client.settle(DEADLINE)
        path.rmdir()
        elsewhere.rename(path)
        end_one(client)

    assert rows(tmp_path, "SELECT count(*) FROM spans") == [(3,)]
    assert rows(tmp_path, "SELECT sum(calls) FROM minutes") == [(3,)]


@pytest.mark.behaviour("telemetry.recorder")
def test_a_number_of_a_library_that_no_database_can_hold_costs_no_other_operation_its_row(tmp_path: Path) -> None:
    with recording(kept_in(tmp_path)) as client:
        tracer = client.tracer_provider().get_tracer("library")
        for number in (2**63, -(2**63) - 1, 2**63 - 1):
            tracer.start_span("asked", attributes={"gen_ai.usage.input_tokens": number, "other": number}).end()
        end_one(client)

    kept = rows(tmp_path, "SELECT input_tokens FROM spans WHERE kind = 'library' ORDER BY id")
    assert kept == [(2.0**63,), (-(2.0**63),), (2**63 - 1,)]
    assert rows(tmp_path, "SELECT sum(calls) FROM minutes") == [(1,)]


def test_settings_that_are_not_at_their_defaults_are_kept_with_the_process(tmp_path: Path) -> None:
    with recording(kept_in(tmp_path, settings={"mcp.page_size": 7})) as client:
        end_one(client)

    ((settings,),) = rows(tmp_path, "SELECT settings FROM processes")
    assert json.loads(settings) == {"mcp.page_size": 7}


def test_a_setting_that_is_no_text_of_unicode_s_does_not_turn_the_recorder_off(tmp_path: Path) -> None:
    settings = {"storage.folder": "/caf\udce9", "files.roots": ["/caf\udce9"]}
    with recording(kept_in(tmp_path, settings=settings)) as client:
        end_one(client)

    ((kept,),) = rows(tmp_path, "SELECT settings FROM processes")
    assert json.loads(kept) == {"storage.folder": "/caf?", "files.roots": ["/caf?"]}

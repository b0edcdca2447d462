from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tfo_mcp.infrastructure.persistence.file_lock import lock_file, unlock_and_remove
from tfo_mcp.infrastructure.telemetry.disposable import DisposableDatabase, Layout
from tfo_mcp.infrastructure.telemetry.recorder_file import SPAN_COLUMNS, ProcessRow, RecorderFile, SpanRow

FIRST = ProcessRow("i", 1, "1.0", "3.11", 1000.0, "{}")
SECOND = ProcessRow("i", 2, "1.0", "3.11", 2000.0, "{}")
EVERYTHING = 2**40

ONE_VERSION = Layout("recorder", 1, "CREATE TABLE one (at REAL)", "NORMAL", 0.25)
ANOTHER_VERSION = Layout("recorder", 2, "CREATE TABLE another (at REAL)", "NORMAL", 0.25)


def ended(*moments: float) -> list[SpanRow]:
    known: dict[str, object] = dict.fromkeys(SPAN_COLUMNS, "")
    return [tuple({**known, "ended_at": at, "duration": 0.0, "reads_telemetry": 0}.values()) for at in moments]


def found(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(query).fetchall()


@pytest.mark.behaviour("telemetry.recorder")
def test_what_is_young_stays_though_the_clock_was_back_for_a_while_after_it(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.db"
    with closing(RecorderFile(path)) as file:
        file.append(FIRST, ended(9000.0, 9001.0, 100.0, 9002.0), (), {})
        while file.remove_old(5000.0, 0.0, EVERYTHING):
            pass

    assert found(path, "SELECT ended_at FROM spans ORDER BY id") == [(9000.0,), (9001.0,), (9002.0,)]


@pytest.mark.behaviour("telemetry.recorder")
def test_a_process_that_wrote_nothing_for_long_is_known_again_and_as_no_other(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.db"
    with closing(RecorderFile(path)) as file, closing(RecorderFile(path)) as other:
        file.append(FIRST, ended(1001.0), (), {})
        while file.remove_old(5000.0, 0.0, EVERYTHING):
            pass
        other.append(SECOND, ended(6000.0), (), {})
        file.append(FIRST, ended(7000.0), (), {})
        file.append(FIRST, ended(7001.0), (), {})

    query = "SELECT pid, ended_at FROM spans JOIN processes ON processes.id = process ORDER BY ended_at"
    assert found(path, query) == [(2, 6000.0), (1, 7000.0), (1, 7001.0)]
    assert found(path, "SELECT count(*) FROM processes") == [(2,)]


@pytest.mark.behaviour("telemetry.recorder-damaged")
def test_two_versions_do_not_move_each_other_s_file_aside_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.db"
    with (
        closing(DisposableDatabase(path, ONE_VERSION)) as one,
        closing(DisposableDatabase(path, ANOTHER_VERSION)) as other,
    ):
        assert one.is_gone
        for _ in range(2):
            with pytest.raises(sqlite3.DatabaseError, match="has the schema 2 of another version"):
                one.begin_anew()
            assert one.is_gone
        assert not other.is_gone
        assert len(list(tmp_path.glob("telemetry.db.damaged-*"))) == 1

        for file in tmp_path.glob("telemetry.db*"):
            file.unlink()
        one.begin_anew()
        assert not one.is_gone


@pytest.mark.behaviour("telemetry.recorder-damaged")
def test_a_file_that_another_process_moves_aside_is_left_to_it(tmp_path: Path) -> None:
    path, moving = tmp_path / "telemetry.db", tmp_path / "telemetry.db.moving"
    path.write_bytes(b"no database at all" * 100)
    lock = lock_file(moving)
    assert lock is not None

    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        DisposableDatabase(path, ONE_VERSION)
    assert sorted(tmp_path.iterdir()) == [path, moving]

    unlock_and_remove(moving, lock)
    with closing(DisposableDatabase(path, ONE_VERSION)) as database:
        assert not database.is_gone
        assert path.stat().st_mode & 0o077 == 0
    assert len(list(tmp_path.glob("telemetry.db.damaged-*"))) == 1
    assert not moving.exists()

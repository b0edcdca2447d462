from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tfo_mcp.infrastructure.persistence.file_lock import lock_file, unlock_and_remove
from tfo_mcp.infrastructure.telemetry.disposable import DisposableDatabase, Layout

ONE_VERSION = Layout("recorder", 1, "CREATE TABLE one (at REAL)", "NORMAL", 0.25)
ANOTHER_VERSION = Layout("recorder", 2, "CREATE TABLE another (at REAL)", "NORMAL", 0.25)


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

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from tfo_mcp.domain.session import Session
from tfo_mcp.infrastructure.persistence.sessions import SqlSessionRepository
from tfo_mcp.infrastructure.persistence.storage import Storage

if TYPE_CHECKING:
    import pytest

DEADLINE = 20.0


def save_new(sessions: SqlSessionRepository, client_name: str = "test") -> Session:
    session = Session()
    session.initialize(protocol_version="2025-11-25", client_name=client_name, client_version="1")
    sessions.save(session, session.collect_events())
    return session


def stored(path: Path) -> list[tuple[str, str]]:
    """(session id, state), oldest first."""
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT id, state FROM sessions ORDER BY rowid").fetchall()


def stored_events(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return [name for (name,) in database.execute("SELECT name FROM events ORDER BY id")]


def are_stored(path: Path, count: int) -> bool:
    """Looks into a database in WAL mode only: there a reader is in nobody's way."""
    try:
        return path.with_name(f"{path.name}-wal").exists() and len(stored(path)) >= count
    except sqlite3.OperationalError:  # the tables are not there yet
        return False


async def until_stored(storage: Storage, count: int) -> None:
    deadline = time.monotonic() + DEADLINE
    while not are_stored(storage.path, count):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def test_a_save_opens_no_storage_and_is_committed_when_somebody_has(tmp_path: Path) -> None:
    async def scenario() -> None:
        storage = Storage(tmp_path / "tfo-mcp.db")
        sessions = SqlSessionRepository(storage)
        session = save_new(sessions)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not storage.wanted.is_set()
        await storage.open()
        await until_stored(storage, 1)
        assert stored(storage.path) == [(session.id, "initializing")]
        await storage.close()

    asyncio.run(scenario())


def test_the_last_flush_opens_storage_for_what_is_pending(tmp_path: Path) -> None:
    async def scenario() -> None:
        storage = Storage(tmp_path / "tfo-mcp.db")
        sessions = SqlSessionRepository(storage)
        session = save_new(sessions)
        session.begin_closing()
        session.close()
        sessions.save(session, session.collect_events())
        await sessions.flush(DEADLINE)
        assert stored(storage.path) == [(session.id, "closed")]
        assert stored_events(storage.path) == ["SessionCreated", "SessionClosed"]
        await storage.close()

    asyncio.run(scenario())


def test_a_flush_with_nothing_pending_opens_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        storage = Storage(tmp_path / "tfo-mcp.db")
        await SqlSessionRepository(storage).flush(DEADLINE)
        assert not storage.wanted.is_set()

    asyncio.run(scenario())


def test_sessions_wait_for_storage_that_cannot_be_opened_yet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        obstacle = tmp_path / "state"
        obstacle.write_text("a file where the folder should be")
        storage = Storage(obstacle / "tfo-mcp.db")
        sessions = SqlSessionRepository(storage)
        save_new(sessions)
        await sessions.flush(DEADLINE)
        assert "cannot be used: File exists" in caplog.text
        assert "could not be stored: 1" in caplog.text
        save_new(sessions)
        obstacle.unlink()
        await until_stored(storage, 2)
        assert stored_events(storage.path) == ["SessionCreated", "SessionCreated"]
        await storage.close()

    asyncio.run(scenario())


def test_a_flush_keeps_its_budget_and_writes_nothing_twice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        storage = Storage(tmp_path / "tfo-mcp.db")
        await storage.open()
        sessions = SqlSessionRepository(storage)
        with closing(sqlite3.connect(storage.path, isolation_level=None)) as another:
            another.execute("BEGIN IMMEDIATE")
            session = save_new(sessions)
            begun = time.monotonic()
            await sessions.flush(0.1)
            assert time.monotonic() - begun < 2
            assert "could not be stored: 1" in caplog.text
        await sessions.flush(DEADLINE)
        assert stored(storage.path) == [(session.id, "initializing")]
        assert stored_events(storage.path) == ["SessionCreated"]
        await storage.close()

    asyncio.run(scenario())


def test_what_is_saved_during_a_write_follows_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        storage = Storage(tmp_path / "tfo-mcp.db")
        await storage.open()
        sessions = SqlSessionRepository(storage)
        with closing(sqlite3.connect(storage.path, isolation_level=None)) as another:
            another.execute("BEGIN IMMEDIATE")
            session = save_new(sessions)
            for _ in range(20):  # the write is under way, and waits for the other program
                await asyncio.sleep(0)
            session.become_ready()
            sessions.save(session, session.collect_events())
        await sessions.flush(DEADLINE)
        assert stored(storage.path) == [(session.id, "ready")]
        assert stored_events(storage.path) == ["SessionCreated", "SessionInitialized"]
        await storage.close()

    asyncio.run(scenario())


def test_of_too_many_the_oldest_go_and_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        storage = Storage(tmp_path / "tfo-mcp.db")
        sessions = SqlSessionRepository(storage)
        ids = [save_new(sessions).id for _ in range(1005)]
        await sessions.flush(DEADLINE)
        assert [session_id for session_id, _ in stored(storage.path)] == ids[5:]
        assert "too long to take: 5" in caplog.text
        await storage.close()

    asyncio.run(scenario())


def test_a_session_that_cannot_be_written_keeps_no_other_waiting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        storage = Storage(tmp_path / "tfo-mcp.db")
        sessions = SqlSessionRepository(storage)
        poisoned = save_new(sessions, client_name="half a \ud83d character")
        sound = save_new(sessions)
        await sessions.flush(DEADLINE)
        assert stored(storage.path) == [(sound.id, "initializing")]
        assert f"session {poisoned.id} could not be stored" in caplog.text
        await storage.close()

    asyncio.run(scenario())

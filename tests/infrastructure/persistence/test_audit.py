from __future__ import annotations

import asyncio
import json
import sqlite3
import stat
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from support.fakes import InMemoryAudit
from support.server import eventually
from tfo_mcp.application.ports import AuditTrail, Intent, TraceContext
from tfo_mcp.domain.errors import StorageUnavailable
from tfo_mcp.infrastructure.persistence.audit import SqlAuditTrail
from tfo_mcp.infrastructure.persistence.migrations import AUDIT
from tfo_mcp.infrastructure.persistence.storage import Storage

PATIENCE = 10.0


def intent(**changes: Any) -> Intent:  # noqa: ANN401  # any field
    fields: dict[str, Any] = {
        "principal": "local",
        "session_id": "sess_1",
        "request_id": 7,
        "trace": TraceContext(0xABC, 0xDEF),
        "tool": "write_file",
        "argument_names": ["content", "path"],
        "arguments": {"path": "a.txt"},
        "started_at": 1000.5,
    }
    return Intent(**{**fields, **changes})


@asynccontextmanager
async def audit(path: Path, max_rows: int = 100) -> AsyncGenerator[SqlAuditTrail]:
    storage = Storage(path, AUDIT)
    try:
        yield SqlAuditTrail(storage, max_rows=max_rows)
    finally:
        await storage.close()


def rows(path: Path, columns: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(f"SELECT {columns} FROM intents ORDER BY id").fetchall()  # noqa: S608  # the test's own


@pytest.mark.behaviour("tools.acting.intent")
def test_an_intent_is_on_disk_before_anything_else_happens(tmp_path: Path) -> None:
    path = tmp_path / "state" / "audit.db"

    async def scenario() -> list[Any]:
        async with audit(path) as trail:
            await trail.intend(intent())
            return rows(path, "principal, session_id, request_id, tool, argument_names, arguments, started_at, outcome")

    [row] = asyncio.run(scenario())
    assert row == (
        "local", "sess_1", "7", "write_file", json.dumps(["content", "path"]), json.dumps({"path": "a.txt"}), 1000.5,
        None,
    )  # fmt: skip
    assert rows(path, "trace_id, span_id") == [(f"{0xABC:032x}", f"{0xDEF:016x}")]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_outcome_is_written_behind_to_its_own_intent(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"

    async def scenario() -> None:
        async with audit(path) as trail:
            first, second = await trail.intend(intent()), await trail.intend(intent())
            trail.conclude(second, "failed", "tool_error", 0.25)
            assert rows(path, "outcome") == [(None,), (None,)]
            await trail.flush(PATIENCE)
            trail.conclude(first, "completed", None, 0.5)
            await trail.flush(PATIENCE)

    asyncio.run(scenario())
    assert rows(path, "outcome, error_type, duration, ended_at > started_at") == [
        ("completed", None, 0.5, 1),
        ("failed", "tool_error", 0.25, 1),
    ]


def test_outcomes_are_written_without_being_flushed(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"

    async def scenario() -> None:
        async with audit(path) as trail:
            trail.conclude(await trail.intend(intent()), "completed", None, 0.5)
            await asyncio.to_thread(eventually, lambda: rows(path, "outcome") == [("completed",)])

    asyncio.run(scenario())


def test_the_oldest_rows_go(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"

    async def scenario() -> Sequence[int]:
        async with audit(path, max_rows=3) as trail:
            return [await trail.intend(intent()) for _ in range(5)]

    ids = asyncio.run(scenario())
    assert rows(path, "id") == [(each,) for each in ids[-3:]]


def test_what_is_kept_of_arguments_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    huge = intent(argument_names=["n" * 1000] * 1000, arguments={"command": ["x" * 1000] * 1000}, request_id="r" * 1000)

    async def scenario() -> None:
        async with audit(path) as trail:
            await trail.intend(huge)

    asyncio.run(scenario())
    [(names, arguments, request_id)] = rows(path, "argument_names, arguments, request_id")
    assert len(names) < 10_000
    assert len(arguments) < 20_000
    assert json.loads(arguments)["command"].startswith('["xxx')
    assert len(request_id) == 100


def test_an_intent_that_cannot_be_stored_is_refused_and_taken_later(tmp_path: Path) -> None:
    obstacle = tmp_path / "state"
    obstacle.write_text("a file where the folder should be")

    async def scenario() -> None:
        async with audit(obstacle / "audit.db") as trail:
            with pytest.raises(StorageUnavailable):
                await trail.intend(intent())
            obstacle.unlink()
            async with asyncio.timeout(PATIENCE):
                while True:
                    try:
                        return await _conclude(trail)
                    except StorageUnavailable:
                        await asyncio.sleep(0.02)

    asyncio.run(scenario())
    assert rows(obstacle / "audit.db", "outcome") == [("completed",)]


async def _conclude(trail: SqlAuditTrail) -> None:
    trail.conclude(await trail.intend(intent()), "completed", None, 0.1)
    await trail.flush(PATIENCE)


def test_a_call_cancelled_while_its_intent_is_committed_is_not_taken_for_one_under_way(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"

    async def scenario() -> None:
        async with audit(path) as trail:
            await trail.intend(intent())
            for _ in range(20):
                waiting = asyncio.create_task(trail.intend(intent()))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            await trail.flush(PATIENCE)

    asyncio.run(scenario())
    first, *others = rows(path, "outcome")
    assert first == (None,)
    assert set(others) == {("cancelled",)}


def test_two_new_databases_can_be_opened_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        storages = [Storage(tmp_path / f"{number}" / "x.db", AUDIT) for number in range(4)]
        storages += [Storage(tmp_path / f"{number}" / "y.db") for number in range(4)]
        await asyncio.gather(*(storage.open() for storage in storages))
        for storage in storages:
            await storage.close()

    asyncio.run(scenario())


def test_the_fake_refuses_and_concludes_as_the_real_one() -> None:
    async def scenario() -> None:
        fake = InMemoryAudit()
        trail: AuditTrail = fake
        intent_id = await trail.intend(intent())
        trail.conclude(intent_id, "failed", "tool_error", 0.1)
        assert [(row.outcome, row.error_type) for row in fake.rows] == [("failed", "tool_error")]
        fake.problem = "no"
        with pytest.raises(StorageUnavailable):
            await trail.intend(intent())

    asyncio.run(scenario())

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from support.sends import a_send
from support.talk import conversation_of
from tfo_mcp.domain.conversation import Conversation
from tfo_mcp.domain.errors import StorageUnavailable
from tfo_mcp.domain.health import HealthStatus
from tfo_mcp.domain.identifiers import ConversationId, new_conversation_id
from tfo_mcp.infrastructure.persistence.conversations import SqlConversationRepository
from tfo_mcp.infrastructure.persistence.schema import tool_starts
from tfo_mcp.infrastructure.persistence.storage import Storage

if TYPE_CHECKING:
    from sqlalchemy import Connection

DEADLINE = 20.0


@asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[Storage]:
    storage = Storage(path)
    await storage.open()
    try:
        yield storage
    finally:
        await storage.close()


async def eventually(attempt: Callable[[], Awaitable[None]]) -> None:
    """Repeat `attempt` until it finds storage available."""
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            return await attempt()
        except StorageUnavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)


def started(text: str = "hello") -> Conversation:
    return conversation_of(text)


def run_python(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)


# --- opening -----------------------------------------------------------------------------------------------


def test_making_storage_imports_neither_sqlalchemy_nor_alembic() -> None:
    script = """
import sys
from pathlib import Path
from tfo_mcp.infrastructure.persistence.conversations import SqlConversationRepository
from tfo_mcp.infrastructure.persistence.sessions import SqlSessionRepository
from tfo_mcp.infrastructure.persistence.storage import Storage
storage = Storage(Path("/nowhere/tfo-mcp.db"))
SqlConversationRepository(storage), SqlSessionRepository(storage)
print({"sqlalchemy", "alembic", "sqlite3"} & set(sys.modules))
"""
    assert run_python(script).stdout == "set()\n"


OPEN_AND_LEAVE = """
import asyncio, sys
from pathlib import Path
from tfo_mcp.infrastructure.persistence.storage import Storage
storage = Storage(Path(sys.argv[1]))
async def main():
    await storage.open()
    await storage.read(lambda connection: connection.exec_driver_sql("SELECT 1").all())
    print("alembic" in sys.modules)
asyncio.run(main())
"""


def test_alembic_is_imported_only_while_the_schema_is_behind(tmp_path: Path) -> None:
    path = str(tmp_path / "tfo-mcp.db")
    assert [run_python(OPEN_AND_LEAVE, path).stdout for _ in range(2)] == ["True\n", "False\n"]


def test_a_process_that_does_not_close_storage_ends_at_once(tmp_path: Path) -> None:
    finished = run_python(OPEN_AND_LEAVE, str(tmp_path / "tfo-mcp.db"))
    assert (finished.returncode, finished.stderr) == (0, "")


def test_a_process_ends_at_once_while_storage_is_being_opened(tmp_path: Path) -> None:
    path = tmp_path / "tfo-mcp.db"
    asyncio.run(create(path))
    script = """
import asyncio, sys, time
from pathlib import Path
from tfo_mcp.infrastructure.persistence import sqlite
from tfo_mcp.infrastructure.persistence.storage import Storage
async def main():
    opening = asyncio.create_task(Storage(Path(sys.argv[1])).open())
    await asyncio.wait([opening], timeout=0.1)
    print(opening.done(), flush=True)
asyncio.run(main())
print(time.monotonic())
"""
    with closing(sqlite3.connect(path, isolation_level=None)) as another:
        another.execute("BEGIN IMMEDIATE")
        finished = run_python(script, str(path))
        ended = time.monotonic()
    done, left_the_loop = finished.stdout.split()
    assert (done, finished.returncode, finished.stderr) == ("False", 0, "")
    assert ended - float(left_the_loop) < 2


READ_ONLY = """
import asyncio, os, sys
from pathlib import Path
from tfo_mcp.domain.errors import StorageUnavailable
from tfo_mcp.infrastructure.persistence.storage import Storage, check_storage

path, owner = Path(sys.argv[1]), os.geteuid()

async def main():
    first = Storage(path)
    await first.open()  # imports what another user may not
    await first.close()
    path.chmod(0o444)
    path.with_name("tfo-mcp.db.lock").unlink()
    if owner == 0:
        os.seteuid(65534)  # root may write to everything
    storage = Storage(path)
    try:
        await storage.open()
    except StorageUnavailable as refused:
        print(refused)
    try:
        check_storage(path)
    except StorageUnavailable as refused:
        print(refused)
    os.seteuid(owner)
    path.chmod(0o600)
    while (await storage.health()).details["problem"] is not None:
        pass
    await storage.close()

asyncio.run(main())
"""


def test_a_database_that_may_only_be_read_is_refused_until_it_may_be_written() -> None:
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)  # a database has files beside it
        path = Path(folder) / "tfo-mcp.db"
        finished = run_python(READ_ONLY, str(path))
    sentence = f"the database '{path}' cannot be used: this user may not write to it\n"
    assert (finished.stdout, finished.stderr, finished.returncode) == (2 * sentence, sentence, 0)  # the log says it too


async def create(path: Path) -> None:
    async with opened(path):
        pass


def test_folder_and_files_are_their_owners_only(tmp_path: Path) -> None:
    folder = tmp_path / "share" / "state"

    async def scenario() -> None:
        async with opened(folder / "tfo-mcp.db") as storage:
            await SqlConversationRepository(storage).save(started())
            names = sorted(path.name for path in folder.iterdir())
            assert names == ["tfo-mcp.db", "tfo-mcp.db-shm", "tfo-mcp.db-wal", "tfo-mcp.db.lock"]
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}

    before = os.umask(0)
    try:
        asyncio.run(scenario())
    finally:
        os.umask(before)


def test_every_connection_has_our_settings(tmp_path: Path) -> None:
    async def scenario() -> None:
        both = threading.Barrier(2, timeout=DEADLINE)

        def settings(connection: Connection) -> list[object]:
            both.wait()  # so that they are two
            return [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            ]

        async with opened(tmp_path / "tfo-mcp.db") as storage:
            found = await asyncio.gather(storage.read(settings), storage.read(settings))
        assert list(found) == [["wal", 2, 1, 5000]] * 2

    asyncio.run(scenario())


def another_connection(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)


def test_a_write_locks_before_it_reads_and_a_read_locks_nobody_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path / "tfo-mcp.db") as storage:
            with closing(another_connection(storage.path)) as another:

                def read(connection: Connection) -> None:
                    connection.exec_driver_sql("SELECT * FROM sessions")
                    another.execute("BEGIN IMMEDIATE")
                    another.execute("ROLLBACK")

                def write(_: Connection) -> None:
                    with pytest.raises(sqlite3.OperationalError, match="locked"):
                        another.execute("BEGIN IMMEDIATE")

                await storage.read(read)
                await storage.write(write)

    asyncio.run(scenario())


def openings(before: Collection[threading.Thread]) -> int:
    """Threads of storages that were not there `before`; another test's may live on."""
    return sum(thread.name == "storage" for thread in set(threading.enumerate()).difference(before))


def test_all_who_ask_wait_for_one_opening_and_a_cancelled_one_takes_it_from_nobody(tmp_path: Path) -> None:
    before = threading.enumerate()

    async def scenario() -> None:
        storage = Storage(tmp_path / "tfo-mcp.db")
        with (tmp_path / "tfo-mcp.db.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the opening waits
            impatient, *others = [asyncio.create_task(storage.open()) for _ in range(5)]
            for _ in range(5):
                await asyncio.sleep(0)
            impatient.cancel()
            await asyncio.wait([impatient])
            assert impatient.cancelled()
            assert openings(before) == 1
        await asyncio.gather(*others)
        await storage.read(lambda connection: connection.exec_driver_sql("SELECT * FROM sessions").all())
        await storage.close()
        with pytest.raises(StorageUnavailable, match="shutting down"):
            await storage.open()

    asyncio.run(scenario())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tfo-mcp.db", "tfo-mcp.db.lock"]


def test_a_storage_that_could_not_be_opened_leaves_no_thread_when_it_is_closed(tmp_path: Path) -> None:
    async def scenario() -> None:
        storage = Storage(tmp_path / "tfo-mcp.db")
        a_folder(storage.path)
        with pytest.raises(StorageUnavailable):
            await storage.open()
        (thread,) = set(threading.enumerate()) - before
        await storage.close()
        thread.join(DEADLINE)
        assert not thread.is_alive()

    before = set(threading.enumerate())
    asyncio.run(scenario())


def test_an_opening_waits_for_the_process_that_migrates(tmp_path: Path) -> None:
    async def scenario() -> None:
        storage = Storage(tmp_path / "tfo-mcp.db")
        with (tmp_path / "tfo-mcp.db.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            opening = asyncio.create_task(storage.open())
            await asyncio.wait([opening], timeout=0.5)
            assert not opening.done()
            assert not storage.path.exists()
        await opening
        await storage.close()

    asyncio.run(scenario())


def test_a_path_may_hold_what_means_something_in_a_url(tmp_path: Path) -> None:
    path = tmp_path / "a b%20?mode=memory#ä" / "tfo-mcp.db"
    asyncio.run(create(path))
    assert path.is_file()


# --- what cannot be opened -----------------------------------------------------------------------------------


def garbage(path: Path) -> None:
    path.write_bytes(b"these are not the bytes you are looking for" * 100)


def newer(path: Path) -> None:
    asyncio.run(create(path))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")


def of_another_program(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE bookmarks (url)")


def damaged(path: Path) -> None:
    asyncio.run(create(path))
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 3000)


def a_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (garbage, "cannot be used: it is not a database; "),
        (newer, "this tfo-mcp is older than the database "),
        (of_another_program, "belongs to another program"),
        (damaged, "cannot be used: it is damaged; "),
        (a_folder, "cannot be used: it cannot be opened; "),
    ],
)
def test_a_file_that_is_no_database_of_ours_is_refused_and_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, make: Callable[[Path], None], sentence: str
) -> None:
    path = tmp_path / "tfo-mcp.db"
    make(path)
    before = path.read_bytes() if path.is_file() else b""

    async def scenario() -> None:
        storage = Storage(path)
        with pytest.raises(StorageUnavailable, match=sentence) as refused:
            await storage.open()
        assert str(path) in str(refused.value)
        assert "\n" not in str(refused.value)
        assert str(refused.value) in caplog.messages
        with pytest.raises(StorageUnavailable, match=re.escape(str(refused.value))):
            await SqlConversationRepository(storage).save(started())
        await storage.close()

    asyncio.run(scenario())
    if make is not of_another_program:  # that one becomes a WAL database, its content stays
        assert (path.read_bytes() if path.is_file() else b"") == before


def test_a_failed_opening_is_repeated_on_request_but_not_at_once(tmp_path: Path) -> None:
    obstacle = tmp_path / "state"
    obstacle.write_text("a file where the folder should be")

    async def scenario() -> None:
        storage = Storage(obstacle / "tfo-mcp.db")
        with pytest.raises(StorageUnavailable, match="cannot be used: File exists"):
            await storage.open()
        obstacle.unlink()
        with pytest.raises(StorageUnavailable):  # too soon to have been tried again
            await storage.open()
        await eventually(storage.open)
        await SqlConversationRepository(storage).save(started())
        await storage.close()

    asyncio.run(scenario())


# --- transactions --------------------------------------------------------------------------------------------


def test_a_save_cancelled_at_any_moment_is_committed_or_not_and_knows_which(tmp_path: Path) -> None:
    async def scenario() -> set[bool]:
        outcomes: set[bool] = set()
        async with opened(tmp_path / "tfo-mcp.db") as storage:
            repository = SqlConversationRepository(storage)
            for steps in range(60):
                conversation = started()
                save = asyncio.create_task(repository.save(conversation))
                for _ in range(steps):
                    await asyncio.sleep(0)
                save.cancel()
                save.cancel()
                await asyncio.wait([save])
                found = await repository.get(conversation.id, "local")
                assert (found is not None) == (conversation.fence == 1) == (not conversation.uncommitted)
                outcomes.add(found is not None)

                conversation.begin_turn(a_send("go on"))
                await repository.save(conversation)
                again = await repository.get(conversation.id, "local")
                assert again is not None
                assert again.messages == conversation.messages
        return outcomes

    assert asyncio.run(scenario()) == {True, False}


def test_a_read_cancelled_at_any_moment_harms_no_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path / "tfo-mcp.db") as storage:
            repository = SqlConversationRepository(storage)
            conversation = started()
            await repository.save(conversation)
            for steps in range(60):
                load = asyncio.create_task(repository.get(conversation.id, "local"))
                for _ in range(steps):
                    await asyncio.sleep(0)
                load.cancel()
                await asyncio.wait([load])
                assert await repository.get(conversation.id, "local") is not None

    asyncio.run(scenario())


def test_a_write_that_fails_says_why_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path / "tfo-mcp.db") as storage:
            repository = SqlConversationRepository(storage)
            conversation = started()
            with closing(sqlite3.connect(storage.path, isolation_level=None)) as another:
                another.execute("ALTER TABLE events RENAME TO mislaid")  # the last statement of a save fails
                with pytest.raises(StorageUnavailable, match="SQLite says no such table: events"):
                    await repository.save(conversation)
                assert another.execute("SELECT count(*) FROM messages").fetchone() == (0,)
                assert len(conversation.uncommitted) == 1
                another.execute("ALTER TABLE mislaid RENAME TO events")
            await repository.save(conversation)
            assert await repository.get(ConversationId(conversation.id), "local") is not None

    asyncio.run(scenario())


# --- health --------------------------------------------------------------------------------------------------


def test_a_write_that_failed_is_remembered_until_one_succeeds(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path / "tfo-mcp.db") as storage:
            repository = SqlConversationRepository(storage)
            assert (await storage.health()).status is HealthStatus.HEALTHY
            with closing(sqlite3.connect(storage.path, isolation_level=None)) as another:
                another.execute("ALTER TABLE events RENAME TO mislaid")
                with pytest.raises(StorageUnavailable):
                    await repository.save(started())
                another.execute("ALTER TABLE mislaid RENAME TO events")
            await repository.get(new_conversation_id(), "local")  # to read is no proof that writing works
            ill = await storage.health()
            assert (ill.status, ill.details["writable"]) == (HealthStatus.DEGRADED, True)
            assert "no such table: events" in ill.details["last_failure"]
            await repository.save(started())
            well = await storage.health()
            assert (well.status, well.details["last_failure"]) == (HealthStatus.HEALTHY, ill.details["last_failure"])

    asyncio.run(scenario())


def test_asking_how_storage_is_opens_it_and_changes_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        storage = Storage(tmp_path / "tfo-mcp.db")
        found = await asyncio.gather(*(storage.health() for _ in range(20)))
        assert {health.status for health in found} == {HealthStatus.HEALTHY}
        assert {health.details["open"] for health in found} == {True}
        with closing(sqlite3.connect(storage.path)) as another:
            before = list(another.iterdump())
            assert (await storage.health()).details["problem"] is None
            assert list(another.iterdump()) == before
            assert another.execute("PRAGMA user_version").fetchall() == [(0,)]
        await storage.close()
        closed = await storage.health()
        assert (closed.status, closed.details["open"]) == (HealthStatus.UNHEALTHY, False)

    asyncio.run(scenario())


def test_what_was_to_be_written_is_no_part_of_an_error(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path / "tfo-mcp.db") as storage:

            def work(connection: Connection) -> None:
                row = {"conversation_id": "conv_1", "tool_use_id": "a secret", "principal": "local", "started_at": 1.0}
                connection.execute(insert(tool_starts), [row])

            with pytest.raises(IntegrityError) as refused:
                await storage.write(work)
        assert "a secret" not in str(refused.value)

    asyncio.run(scenario())

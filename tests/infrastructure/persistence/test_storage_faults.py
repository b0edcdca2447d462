"""Storage among real processes: racing, starved, killed."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from support import appender
from tfo_mcp.domain.conversation import Conversation
from tfo_mcp.domain.errors import StorageUnavailable
from tfo_mcp.domain.identifiers import ConversationId
from tfo_mcp.infrastructure.persistence.conversations import SqlConversationRepository
from tfo_mcp.infrastructure.persistence.storage import Storage, check_storage

DEADLINE = 60.0
TESTS = Path(appender.__file__).parents[1]


class Appender:
    """One process of `tests/support/appender.py`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._stdin, self._stdout = process.stdin, process.stdout

    def start(self) -> None:
        assert self.line() == "ready"
        self._stdin.write("\n")
        self._stdin.flush()

    def line(self) -> str:
        return self._stdout.readline().rstrip("\n")

    def rest(self) -> list[str]:
        lines = self._stdout.read().splitlines()
        self.process.wait(DEADLINE)
        return lines


@contextmanager
def appending(database: Path, *options: str) -> Generator[Appender]:
    command = [sys.executable, "-m", appender.__name__, str(database), *options]
    with subprocess.Popen(command, cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Appender(process)
        finally:
            process.kill()


def stored(database: Path, ids: Sequence[str]) -> dict[str, int]:
    """How many messages each conversation has, as a later process finds it."""

    async def scenario() -> dict[str, int]:
        storage = Storage(database)
        repository = SqlConversationRepository(storage)
        found = {key: await repository.get(ConversationId(key), "local") for key in ids}
        await storage.close()
        return {key: len(conversation.messages) for key, conversation in found.items() if conversation}

    return asyncio.run(scenario())


def test_processes_that_start_at_once_on_an_empty_folder_all_succeed(tmp_path: Path) -> None:
    database = tmp_path / "state" / "tfo-mcp.db"
    with ExitStack() as stack:
        processes = [stack.enter_context(appending(database)) for _ in range(4)]
        for process in processes:
            process.start()
        ids: list[str] = []
        for process in processes:
            committed, end = process.rest()
            assert end == "done"
            ids.append(committed.split()[0])
    assert stored(database, ids) == dict.fromkeys(ids, 1)


def test_two_processes_that_append_at_once_lose_nothing(tmp_path: Path) -> None:
    database = tmp_path / "tfo-mcp.db"
    conversation = Conversation.create(principal="local", model="m")

    async def create() -> None:
        storage = Storage(database)
        await SqlConversationRepository(storage).save(conversation)
        await storage.close()

    asyncio.run(create())
    with ExitStack() as stack:
        options = ("--appends", "50", "--to", conversation.id)
        processes = [stack.enter_context(appending(database, *options)) for _ in range(2)]
        for process in processes:
            process.start()
        said = [process.rest() for process in processes]
    assert [lines[-1] for lines in said] == ["done", "done"]
    counts = [int(line.split()[1]) for lines in said for line in lines[:-1]]
    assert sorted(counts) == list(range(1, 101))
    assert stored(database, [conversation.id]) == {conversation.id: 100}


def killed_after(database: Path, appends: int) -> tuple[str, int]:
    """The conversation, and how many appends the process told of before it was killed: so many or more."""
    with appending(database, "--appends", "100000") as process:
        process.start()
        lines = [process.line() for _ in range(appends)]
        process.process.kill()
        lines += process.rest()
    conversation_id, told = lines[-1].split()
    return conversation_id, int(told)


def test_what_was_saved_survives_a_kill(tmp_path: Path) -> None:
    database = tmp_path / "tfo-mcp.db"
    conversation_id, told = killed_after(database, 40)
    found = stored(database, [conversation_id])[conversation_id]
    assert told <= found <= told + 1  # it may have died between the commit and the line
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT fence FROM conversations").fetchall() == [(found,)]
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (found + 1,)


def test_what_was_committed_last_is_not_lost_where_the_database_was_moved_without_its_log(tmp_path: Path) -> None:
    database = tmp_path / "tfo-mcp.db"
    conversation_id, told = killed_after(database, 3)
    database.rename(tmp_path / "moved")

    async def scenario() -> None:
        storage = Storage(database)
        with pytest.raises(StorageUnavailable, match=r"tfo-mcp.db' is not there, but '.*tfo-mcp.db-wal' is") as refused:
            await storage.open()
        with pytest.raises(StorageUnavailable, match=re.escape(str(refused.value))):
            check_storage(database)
        await storage.close()

    asyncio.run(scenario())
    (tmp_path / "moved").rename(database)
    check_storage(database)
    assert stored(database, [conversation_id])[conversation_id] >= told


def test_a_full_disk_refuses_an_append_whole_and_takes_it_later(tmp_path: Path) -> None:
    database = tmp_path / "tfo-mcp.db"
    options = ("--appends", "1000", "--size", "10000", "--largest-file", "300000")
    with appending(database, *options) as process:
        process.start()
        *before, unavailable, after = process.rest()
    assert before
    assert unavailable.startswith(f"unavailable the database '{database}' cannot be used: the disk ")
    conversation_id = after.split()[0]
    assert after == f"{conversation_id} {len(before) + 1}"
    assert stored(database, [conversation_id]) == {conversation_id: len(before) + 1}


def test_a_folder_that_may_not_be_written_is_said_so(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o500)
    with appending(folder / "tfo-mcp.db", "--as-nobody") as process:
        process.start()
        said = process.rest()
    assert said == [f"unavailable the database '{folder / 'tfo-mcp.db'}' cannot be used: Permission denied"]

"""Conversations read from end to end, and removed without a trace."""

from __future__ import annotations

import asyncio
import sqlite3
import time
import tracemalloc
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.sends import a_send
from support.talk import conversation_of
from tfo_mcp.domain.conversation import Conversation
from tfo_mcp.domain.errors import ConversationBusy, ConversationNotFound
from tfo_mcp.domain.identifiers import ConversationId, new_conversation_id
from tfo_mcp.domain.message import Message, Text, ToolAnswer, ToolUse, Usage
from tfo_mcp.domain.session import Session
from tfo_mcp.infrastructure.persistence.archive import Archive, Removed
from tfo_mcp.infrastructure.persistence.catalog import SqlConversationCatalog
from tfo_mcp.infrastructure.persistence.conversations import SqlConversationRepository
from tfo_mcp.infrastructure.persistence.locks import FileLocks
from tfo_mcp.infrastructure.persistence.sessions import SqlSessionRepository
from tfo_mcp.infrastructure.persistence.storage import Storage

if TYPE_CHECKING:
    from sqlalchemy import Connection

DAY = 86_400.0


@dataclass
class World:
    """An open database and its archive; `server_locks` are another process's."""

    storage: Storage
    folder: Path

    def __post_init__(self) -> None:
        self.repository = SqlConversationRepository(self.storage)
        self.catalog = SqlConversationCatalog(self.storage)
        self.locks = FileLocks(self.folder / "locks")
        self.server_locks = FileLocks(self.folder / "locks")
        self.archive = Archive(self.storage, self.locks)

    async def said(self, *texts: str, principal: str = "local", days_ago: float = 0) -> Conversation:
        """A stored conversation: a user's message, and an answer by Claude for each further text."""
        conversation = conversation_of(texts[0], *map(by_claude, texts[1:]), principal=principal)
        await self.repository.save(conversation)
        at = time.time() - days_ago * DAY
        # In a thread: who writes meanwhile needs the loop to come to an end.
        await asyncio.to_thread(self.write, "UPDATE conversations SET updated_at = ? WHERE id = ?", at, conversation.id)
        return conversation

    def write(self, statement: str, *values: object) -> None:
        with closing(sqlite3.connect(self.storage.path)) as database, database:
            database.execute(statement, values)

    def copy(self, conversation: Conversation, times: int) -> None:
        """Have so many more like this one, at the same age and without messages."""
        with closing(sqlite3.connect(self.storage.path)) as database, database:
            database.row_factory = sqlite3.Row
            row = database.execute("SELECT * FROM conversations WHERE id = ?", (conversation.id,)).fetchone()
            copies = [{**row, "id": new_conversation_id()} for _ in range(times)]
            names = ", ".join(f":{name}" for name in row.keys())  # noqa: SIM118  # a Row is iterated by its values
            database.executemany(f"INSERT INTO conversations VALUES ({names})", copies)  # noqa: S608  # its own columns

    def count(self, table: str) -> int:
        with closing(sqlite3.connect(self.storage.path)) as database:
            return database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608  # the test's own

    def bytes_on_disk(self) -> bytes:
        """All files of the database, its log included."""
        return b"".join(path.read_bytes() for path in sorted(self.folder.glob("tfo-mcp.db*")))

    async def found(self, text: str) -> Sequence[str]:
        return [summary.id for summary in await self.catalog.find("local", text=text, limit=100)]


def by_claude(text: str) -> Message:
    return Message("assistant", (Text(text),), stop_reason="end_turn", usage=Usage(1, 2, 3, 4), model="claude-test-1")


@asynccontextmanager
async def opened(folder: Path) -> AsyncGenerator[World]:
    storage = Storage(folder / "tfo-mcp.db")
    await storage.open()
    try:
        yield World(storage, folder)
    finally:
        await storage.close()


def in_world(folder: Path, scenario: Callable[[World], Coroutine[object, object, None]]) -> None:
    async def run() -> None:
        async with opened(folder) as world:
            await scenario(world)

    asyncio.run(run())


async def read(world: World, conversation_id: ConversationId, start: int, end: int) -> list[tuple[int, Message]]:
    return [each async for each in world.archive.messages(conversation_id, start=start, end=end)]


# --- to read ---


def test_messages_come_in_order_and_whole_wherever_one_begins(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        texts = [f"{number} " + "ä" * (number * 4_000) for number in range(40)]  # several chunks
        conversation = await world.said(*texts)
        await world.said("another one")
        expected = list(enumerate(conversation.messages))
        for start, end in ((0, 40), (7, 31), (39, 40), (0, 99), (40, 99), (5, 5)):
            assert await read(world, conversation.id, start, end) == expected[start:end], (start, end)
        assert await read(world, new_conversation_id(), 0, 10) == []

    in_world(tmp_path, scenario)


def test_a_conversation_that_is_deleted_while_it_is_read_ends_early(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        conversation = await world.said(*("x" * 400_000 for _ in range(20)))
        positions: list[int] = []
        async for position, _ in world.archive.messages(conversation.id, start=0, end=20):
            if not positions:
                assert await world.archive.delete(conversation.id, "local") == 20
            positions.append(position)
        assert 0 < len(positions) < 20

    in_world(tmp_path, scenario)


def test_a_long_conversation_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        conversation = await world.said(*("x" * 200_000 for _ in range(100)))
        identifier = conversation.id
        del conversation
        tracemalloc.start()
        count = 0
        async for _ in world.archive.messages(identifier, start=0, end=100):
            count += 1
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == 100
        assert peak < 15_000_000, peak

    in_world(tmp_path, scenario)


# --- to delete ---


def test_a_deleted_conversation_leaves_no_trace_in_the_files(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        kept = await world.said("Keep the zebrafish", "Yes, the zebrafish.")
        using_tools = conversation_of(
            "Remember xylograph",
            Message("assistant", (ToolUse("toolu_1", "echo", {"message": "quixotry"}),), stop_reason="tool_use"),
            ToolAnswer("toolu_1", "quixotry"),
        )
        await world.repository.save(using_tools)
        (call,) = using_tools.messages[1].tool_uses
        using_tools.begin_tool(call)
        using_tools.request_sent()
        using_tools.response_received(by_claude("Of course: xylograph."))
        await world.repository.save(using_tools)
        await world.repository.accept(using_tools.id, "local", "0" * 32, a_send("and borborygm"), None)
        before = world.bytes_on_disk()
        for trace in (b"xylograph", b"quixotry", b"borborygm", using_tools.id.encode()):
            assert trace in before

        assert await world.archive.delete(using_tools.id, "local") == 4
        assert await world.archive.wipe()

        after = world.bytes_on_disk()
        for trace in (b"xylograph", b"quixotry", b"borborygm", using_tools.id.encode()):
            assert trace not in after, trace
        assert await world.found("zebrafish") == [kept.id]
        assert await read(world, kept.id, 0, 9) == list(enumerate(kept.messages))
        with closing(sqlite3.connect(world.storage.path)) as database:
            assert database.execute("PRAGMA foreign_key_check").fetchall() == []
            database.execute("INSERT INTO messages_fts (messages_fts, rank) VALUES ('integrity-check', 1)")

    in_world(tmp_path, scenario)


def test_a_long_conversation_is_deleted_while_others_write(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        long = await world.said(*(f"word{number} of many" for number in range(700)))
        left: list[int] = []

        def write(connection: Connection) -> None:
            left.append(connection.exec_driver_sql("SELECT count(*) FROM message_texts").scalar_one())

        deleting = asyncio.create_task(world.archive.delete(long.id, "local"))
        while not deleting.done():
            await world.storage.write(write)  # gets its turn behind whoever writes now
        assert await deleting == 700
        steps = [before - after for before, after in pairwise(left)]
        assert max(steps) <= 100, steps
        assert sum(steps) >= 500, steps
        assert await world.found("word3") == []

    in_world(tmp_path, scenario)


def test_a_conversation_that_somebody_works_on_stays(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        conversation = await world.said("Hello", "Hello.")
        assert await world.server_locks.try_acquire(conversation.id)
        with pytest.raises(ConversationBusy):
            await world.archive.delete(conversation.id, "local")
        assert await read(world, conversation.id, 0, 9) == list(enumerate(conversation.messages))
        await world.server_locks.release(conversation.id)
        assert await world.archive.delete(conversation.id, "local") == 2

    in_world(tmp_path, scenario)


def test_a_message_that_is_accepted_keeps_its_conversation_while_its_process_lives(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        waiting, abandoned = await world.said("one"), await world.said("two")
        holder = await world.server_locks.register()
        await world.repository.accept(waiting.id, "local", holder, a_send("more"), None)
        await world.repository.accept(abandoned.id, "local", "0" * 32, a_send("more"), None)
        with pytest.raises(ConversationBusy):
            await world.archive.delete(waiting.id, "local")
        assert await world.archive.delete(abandoned.id, "local") == 1
        assert world.count("pending_sends") == 1
        assert await world.server_locks.try_acquire(waiting.id), "the lock was given back"

    in_world(tmp_path, scenario)


def test_a_message_that_is_accepted_at_the_last_moment_keeps_its_conversation(tmp_path: Path) -> None:
    class LateLocks(FileLocks):
        """A message comes as soon as the lock is taken, and a process is there for it."""

        async def try_acquire(self, conversation_id: ConversationId) -> bool:
            taken = await super().try_acquire(conversation_id)
            await arrive(conversation_id)
            return taken

        async def lives(self, holder: str) -> bool:
            await arrive(conversations[0])
            return False

    conversations: list[ConversationId] = []
    holders = iter(["0" * 32, "1" * 32])

    async def arrive(conversation_id: ConversationId) -> None:
        holder = next(holders, None)
        if holder is not None:
            await repositories[0].accept(conversation_id, "local", holder, a_send("more"), None)

    repositories: list[SqlConversationRepository] = []

    async def scenario(world: World) -> None:
        conversations.append((await world.said("one")).id)
        repositories.append(world.repository)
        with pytest.raises(ConversationBusy):
            await Archive(world.storage, LateLocks(world.folder / "locks")).delete(conversations[0], "local")
        assert world.count("pending_sends") == 2
        assert await world.found("one") == conversations

    in_world(tmp_path, scenario)


def test_nobody_elses_conversation_is_deleted(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        theirs = await world.said("theirs", principal="bob")
        assert await world.archive.delete(theirs.id, "local") is None
        assert await world.archive.delete(new_conversation_id(), "local") is None
        assert await world.archive.ids("local") == []
        assert await world.archive.ids("bob") == [theirs.id]
        assert list((world.folder / "locks").glob("conv_*")) == []

    in_world(tmp_path, scenario)


def test_no_message_is_accepted_for_a_deleted_conversation(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        conversation = await world.said("one")
        await world.archive.delete(conversation.id, "local")
        with pytest.raises(ConversationNotFound):
            await world.repository.accept(conversation.id, "local", "0" * 32, a_send("more"), None)
        assert world.count("pending_sends") == 0

    in_world(tmp_path, scenario)


# --- by age ---


def test_what_has_not_changed_for_so_long_goes_whoevers_it_is(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        old = [await world.said("old", "answer", principal=who, days_ago=31) for who in ("local", "bob")]
        world.copy(old[0], 203)
        new = await world.said("new", days_ago=29)
        busy = await world.said("busy", days_ago=50)
        await world.server_locks.try_acquire(busy.id)
        before = time.time() - 30 * DAY

        assert await world.archive.outdated(before) == Removed(206, 5, 0)
        assert await world.archive.purge(before) == Removed(205, 4, 0, kept=1)
        assert await world.archive.ids("local") == [new.id, busy.id]
        assert world.count("messages") == 2
        assert await world.archive.purge(before) == Removed(0, 0, 0, kept=1)

    in_world(tmp_path, scenario)


def test_a_conversation_that_is_continued_at_the_last_moment_stays(tmp_path: Path) -> None:
    class LateLocks(FileLocks):
        """Before the lock can be had somebody has continued the conversation."""

        async def try_acquire(self, conversation_id: ConversationId) -> bool:
            worlds[0].write("UPDATE conversations SET updated_at = ?", time.time())
            return await super().try_acquire(conversation_id)

    worlds: list[World] = []

    async def scenario(world: World) -> None:
        worlds.append(world)
        conversation = await world.said("old", days_ago=31)
        archive = Archive(world.storage, LateLocks(world.folder / "locks"))
        assert await archive.purge(time.time() - 30 * DAY) == Removed()
        assert await archive.ids("local") == [conversation.id]

    in_world(tmp_path, scenario)


def test_sessions_go_with_their_events_some_days_after_their_end(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        sessions = SqlSessionRepository(world.storage)
        saved: list[Session] = []
        for number in range(4):
            session = Session()
            session.initialize(protocol_version="2025-11-25", client_name=f"client {number}", client_version="1")
            sessions.save(session, session.collect_events())
            saved.append(session)
        await sessions.flush(10)
        ages = [(40, 31), (40, 29), (31, None), (29, None)]  # days since the beginning and since the end
        for session, (begun, ended) in zip(saved, ages, strict=True):
            closed = None if ended is None else time.time() - ended * DAY
            world.write(
                "UPDATE sessions SET created_at = ?, closed_at = ? WHERE id = ?",
                time.time() - begun * DAY,
                closed,
                session.id,
            )
        events = world.count("events")

        assert await world.archive.outdated(time.time() - 30 * DAY) == Removed(sessions=2)
        assert await world.archive.purge(time.time() - 30 * DAY) == Removed(sessions=2)
        assert world.count("sessions") == 2
        assert world.count("events") == events // 2
        assert world.count("events WHERE aggregate_id NOT IN (SELECT id FROM sessions)") == 0

    in_world(tmp_path, scenario)


# --- traces ---


def test_it_is_said_that_somebody_who_reads_still_has_what_was_deleted(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        conversation = await world.said("xylograph")
        with closing(sqlite3.connect(world.storage.path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM messages").fetchone()
            await world.archive.delete(conversation.id, "local")
            assert not await world.archive.wipe()
            assert b"xylograph" in world.bytes_on_disk()
        assert await world.archive.wipe()
        assert b"xylograph" not in world.bytes_on_disk()

    in_world(tmp_path, scenario)


def test_the_file_becomes_smaller_where_that_is_wanted(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        conversation = await world.said(*("some words " * 5_000 for _ in range(20)))
        kept = await world.said("kept")
        await world.archive.wipe()
        large = world.storage.path.stat().st_size
        await world.archive.delete(conversation.id, "local")
        assert await world.archive.wipe()
        assert world.storage.path.stat().st_size >= large
        assert await world.archive.wipe(vacuum=True)
        assert world.storage.path.stat().st_size < large / 4
        assert await world.found("kept") == [kept.id]
        await world.said("and it takes more")

    in_world(tmp_path, scenario)

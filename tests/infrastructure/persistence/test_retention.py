"""What a running server removes by itself."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from support.talk import conversation_of
from tfo_mcp.domain.conversation import Conversation
from tfo_mcp.infrastructure.persistence.archive import Archive
from tfo_mcp.infrastructure.persistence.conversations import SqlConversationRepository
from tfo_mcp.infrastructure.persistence.locks import FileLocks
from tfo_mcp.infrastructure.persistence.retention import DAY, Retention
from tfo_mcp.infrastructure.persistence.storage import Storage

if TYPE_CHECKING:
    import pytest

DEADLINE = 20.0


async def said(storage: Storage, text: str, days_ago: float) -> Conversation:
    conversation = conversation_of(text)
    await SqlConversationRepository(storage).save(conversation)
    await grow_older(storage.path, conversation, days_ago)
    return conversation


async def grow_older(path: Path, conversation: Conversation, days_ago: float) -> None:
    def write() -> None:
        with closing(sqlite3.connect(path)) as database, database:
            at = time.time() - days_ago * DAY
            database.execute("UPDATE conversations SET updated_at = ? WHERE id = ?", (at, conversation.id))

    await asyncio.to_thread(write)  # who writes meanwhile needs the loop to come to an end


async def until_there_are(path: Path, conversations: int) -> None:
    deadline = time.monotonic() + DEADLINE
    with closing(sqlite3.connect(path)) as database:
        while database.execute("SELECT count(*) FROM conversations").fetchone()[0] != conversations:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)


async def stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def test_what_becomes_too_old_goes_again_and_again_and_each_time_a_line_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tfo_mcp")

    async def run() -> None:
        storage = Storage(tmp_path / "tfo-mcp.db")
        await said(storage, "old", 31)
        younger = await said(storage, "younger", 29)
        await said(storage, "young", 1)
        retention = asyncio.create_task(Retention(Archive(storage, FileLocks(tmp_path)), 30, every=0.01).run())
        await until_there_are(storage.path, 2)
        await grow_older(storage.path, younger, 30.1)
        await until_there_are(storage.path, 1)
        await stop(retention)
        await storage.close()

    asyncio.run(run())

    sentence = "removed what is older than storage.retention_days: 1 conversations with 1 messages, 0 sessions"
    assert caplog.messages[:2] == [sentence] * len(caplog.messages)


def test_a_database_that_cannot_be_used_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        storage = Storage(tmp_path / "tfo-mcp.db")
        await said(storage, "old", 31)
        database = storage.path.rename(tmp_path / "away")
        retention = asyncio.create_task(Retention(Archive(storage, FileLocks(tmp_path)), 30, every=0.01).run())
        deadline = time.monotonic() + DEADLINE
        while not caplog.messages:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        database.rename(storage.path)
        await until_there_are(storage.path, 0)
        await stop(retention)
        await storage.close()

    asyncio.run(run())

    assert caplog.messages[0].startswith("conversations older than storage.retention_days could not be removed: the ")


def test_without_a_setting_nothing_is_even_looked_at(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "tfo-mcp.db")
    asyncio.run(Retention(Archive(storage, FileLocks(tmp_path)), None).run())
    assert list(tmp_path.iterdir()) == []

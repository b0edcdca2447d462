"""The line before a conversation, on the real database and with real locks; two desks are two processes."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from support.sends import a_send
from tfo_mcp.application.conversation_desk import ConversationDesk, SendTaken
from tfo_mcp.application.ports import RecordedTurn
from tfo_mcp.domain.conversation import Conversation
from tfo_mcp.domain.errors import ConversationNotFound
from tfo_mcp.domain.identifiers import ConversationId
from tfo_mcp.domain.turn import PendingSend, Send
from tfo_mcp.infrastructure.events import InProcessPublisher
from tfo_mcp.infrastructure.persistence.conversations import SqlConversationRepository
from tfo_mcp.infrastructure.persistence.locks import FileLocks
from tfo_mcp.infrastructure.persistence.storage import Storage
from tfo_mcp.infrastructure.subscriptions import FollowedResources


class World:
    """One storage folder. Each desk is a process's."""

    def __init__(self, folder: Path) -> None:
        self.storage = Storage(folder / "tfo-mcp.db")
        self.locks = folder / "locks"
        self.conversations = SqlConversationRepository(self.storage)
        self.begun: list[str] = []

    def desk(self) -> ConversationDesk:
        return ConversationDesk(
            self.conversations,
            FileLocks(self.locks),
            InProcessPublisher({}),
            changes=FollowedResources(most=1),
            cache_bytes=1_000_000,
        )

    def waiting(self) -> list[int]:
        with closing(sqlite3.connect(self.storage.path)) as database:
            return [row[0] for row in database.execute("SELECT id FROM pending_sends ORDER BY id")]

    def is_there(self, conversation: Conversation) -> bool:
        with closing(sqlite3.connect(self.storage.path)) as database:
            query = "SELECT count(*) FROM conversations WHERE id = ?"
            return database.execute(query, (conversation.id,)).fetchone() == (1,)

    async def conversation(self, desk: ConversationDesk) -> ConversationId:
        """One that begins with a turn."""
        created = Conversation.create(principal="local", model="m")
        pending = await desk.accept(created.id, "local", a_send("hello"), created)
        assert isinstance(pending, PendingSend)
        await self.take_turn(desk, pending)
        return created.id

    async def take_turn(self, desk: ConversationDesk, pending: PendingSend) -> None:
        with desk.waiting(pending):
            await self._take_turn(desk, pending)

    async def _take_turn(self, desk: ConversationDesk, pending: PendingSend) -> None:
        async with desk.turn_of(pending) as (conversation, ahead):
            for begun in (*ahead, pending):
                conversation.begin_turn(begun.send, begun)
                conversation.cancel_turn()
                await desk.commit(conversation)
                self.begun.append(begun.send.fingerprint)


async def accepted(desk: ConversationDesk, conversation_id: ConversationId, sent: Send) -> PendingSend:
    pending = await desk.accept(conversation_id, "local", sent, None)
    assert isinstance(pending, PendingSend)
    return pending


def run(folder: Path, scenario: Callable[[World], Awaitable[None]]) -> None:
    async def bounded() -> None:
        here = World(folder)
        await here.storage.open()
        try:
            async with asyncio.timeout(20):
                await scenario(here)
        finally:
            await here.storage.close()

    asyncio.run(bounded())


def test_all_who_want_a_conversation_when_it_is_free_get_it_one_after_the_other(tmp_path: Path) -> None:
    async def scenario(here: World) -> None:
        desk = here.desk()
        conversation_id = await here.conversation(desk)
        having = 0

        async def have() -> None:
            nonlocal having
            async with desk.when_free(conversation_id, "local"):
                having += 1
                assert having == 1
                await asyncio.sleep(0)
                having -= 1

        pending = await accepted(desk, conversation_id, a_send("x"))
        await asyncio.gather(*(have() for _ in range(5)), here.take_turn(desk, pending), *(have() for _ in range(5)))

    run(tmp_path, scenario)


@pytest.mark.parametrize("at", ["the same process", "another process"])
def test_who_waits_lets_one_before_it_go_first_that_is_adopted_meanwhile(tmp_path: Path, at: str) -> None:
    async def scenario(here: World) -> None:
        dead, desk = here.desk(), here.desk()
        elsewhere = desk if at == "the same process" else here.desk()
        conversation_id = await here.conversation(desk)
        locks = FileLocks(here.locks)
        assert await locks.try_acquire(conversation_id)
        lost = await here.conversations.accept(conversation_id, "local", "dead", a_send("lost", key="key"), None)
        assert isinstance(lost, PendingSend)
        pending = await accepted(desk, conversation_id, a_send("later"))
        waiting = asyncio.create_task(here.take_turn(desk, pending))
        known = await elsewhere.accept(conversation_id, "local", a_send("lost", key="key"), None)
        assert known == lost
        assert await elsewhere.adopt(lost)
        assert not await dead.adopt(lost)
        await locks.release(conversation_id)
        await asyncio.gather(here.take_turn(elsewhere, lost), waiting)
        assert here.begun == ["hello", "lost", "later"]

    run(tmp_path, scenario)


def test_a_send_is_adopted_once(tmp_path: Path) -> None:
    async def scenario(here: World) -> None:
        desk, other = here.desk(), here.desk()
        conversation_id = await here.conversation(desk)
        await here.conversation(other)
        lost = await here.conversations.accept(conversation_id, "local", "dead", a_send("lost", key="key"), None)
        assert isinstance(lost, PendingSend)
        adopted = await asyncio.gather(*(each.adopt(lost) for each in (desk, other, desk, other)))
        assert sorted(adopted) == [False, False, False, True]
        adopter = desk if adopted[0] or adopted[2] else other
        mine = await adopter.accept(conversation_id, "local", a_send("lost", key="key"), None)
        assert isinstance(mine, PendingSend)
        assert not await adopter.adopt(mine)
        await here.take_turn(adopter, lost)
        assert here.waiting() == []

    run(tmp_path, scenario)


def test_who_adopts_what_is_begun_just_then_is_told_that_it_is_taken(tmp_path: Path) -> None:
    async def scenario(here: World) -> None:
        desk, other = here.desk(), here.desk()
        conversation_id = await here.conversation(desk)
        lost = await here.conversations.accept(conversation_id, "local", "dead", a_send("lost", key="key"), None)
        assert isinstance(lost, PendingSend)
        pending = await accepted(desk, conversation_id, a_send("later"))
        async with desk.turn_of(pending) as (conversation, ahead):
            assert ahead == [lost]
            assert await other.accept(conversation_id, "local", a_send("lost", key="key"), None) == lost
            assert await other.adopt(lost)
            taking = asyncio.create_task(here.take_turn(other, lost))
            for begun in (*ahead, pending):
                conversation.begin_turn(begun.send, begun)
                conversation.cancel_turn()
                await desk.commit(conversation)
        with pytest.raises(SendTaken):
            await taking
        again = await other.accept(conversation_id, "local", a_send("lost", key="key"), None)
        assert again == RecordedTurn(conversation_id, 2, "lost")
        found = await here.conversations.get(conversation_id, "local")
        assert found is not None
        assert [message.text for message in found.messages] == ["hello", "lost", "later"]

    run(tmp_path, scenario)


def test_a_send_whose_acceptance_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    async def scenario(here: World) -> None:
        desk = here.desk()
        conversation_id = await here.conversation(desk)
        cut = 0
        for turns in range(60):
            created = Conversation.create(principal="local", model="m") if turns % 2 else None
            addressed = conversation_id if created is None else created.id
            accepting = asyncio.create_task(desk.accept(addressed, "local", a_send("x"), created))
            for _ in range(turns):  # of the loop: it is cancelled before, in and after the transaction
                await asyncio.sleep(0)
            accepting.cancel()
            try:
                pending = await accepting
            except asyncio.CancelledError:
                cut += 1
                assert created is None or not here.is_there(created)
            else:
                assert isinstance(pending, PendingSend)
                await here.conversations.withdraw(pending)
            assert here.waiting() == []
        assert cut

    run(tmp_path, scenario)


def test_a_conversation_that_another_process_deleted_is_said_not_to_be_there(tmp_path: Path) -> None:
    async def scenario(here: World) -> None:
        desk = here.desk()
        conversation_id = await here.conversation(desk)
        with closing(sqlite3.connect(here.storage.path)) as database, database:
            for table in ("message_texts", "messages", "turns", "claude_requests", "tool_starts", "pending_sends"):
                database.execute(f"DELETE FROM {table} WHERE conversation_id = ?", (conversation_id,))  # noqa: S608
            database.execute("DELETE FROM conversations WHERE id = ?", (conversation_id,))
        with pytest.raises(ConversationNotFound):
            await desk.accept(conversation_id, "local", a_send("x"), None)

    run(tmp_path, scenario)

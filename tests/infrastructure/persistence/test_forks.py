"""What a fork takes over, and what it does not."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from support.talk import a_send, conversation_of
from tfo_mcp.domain.conversation import Conversation
from tfo_mcp.domain.conversation_record import ConversationState
from tfo_mcp.domain.errors import ConversationNotFound, MessageNotFound
from tfo_mcp.domain.events import DomainEvent
from tfo_mcp.domain.identifiers import ConversationId, new_conversation_id
from tfo_mcp.domain.message import Message, OpaqueBlock, Text, ToolAnswer, ToolUse, Usage
from tfo_mcp.infrastructure.persistence.catalog import SqlConversationCatalog
from tfo_mcp.infrastructure.persistence.conversations import SqlConversationRepository
from tfo_mcp.infrastructure.persistence.forks import SqlConversationForks
from tfo_mcp.infrastructure.persistence.storage import Storage

NOT_RUN = "This tool call was not run in this fork of the conversation."


@dataclass
class World:
    """An open database and what was published."""

    storage: Storage
    published: list[DomainEvent] = field(default_factory=list[DomainEvent])

    def __post_init__(self) -> None:
        self.repository = SqlConversationRepository(self.storage)
        self.catalog = SqlConversationCatalog(self.storage)

    async def fork(self, conversation_id: ConversationId, last: int | None, principal: str = "alice") -> Conversation:
        """The new conversation as a turn would load it."""
        forks = SqlConversationForks(self.storage)
        fork = await forks.fork(conversation_id, principal, last, self.published.extend)
        found = await self.repository.get(fork.id, principal)
        assert found is not None
        assert (fork.messages, fork.forked_from) == (len(found.messages), conversation_id)
        return found

    def rows(self, statement: str, *values: str) -> Sequence[tuple[object, ...]]:
        with closing(sqlite3.connect(self.storage.path)) as database:
            return database.execute(statement, values).fetchall()

    def everything(self) -> Sequence[object]:
        tables = ("conversations", "messages", "message_texts", "events")
        return [self.rows(f"SELECT * FROM {table}") for table in tables]  # noqa: S608  # names from above


@asynccontextmanager
async def opened(folder: Path) -> AsyncGenerator[World]:
    storage = Storage(folder / "tfo-mcp.db")
    await storage.open()
    try:
        yield World(storage)
    finally:
        await storage.close()


def a_conversation() -> Conversation:
    """Question, two calls with an answer each, the last word."""
    calls = (Text("calls"), ToolUse("toolu_1", "echo", {"a": "ä"}), ToolUse("toolu_2", "echo", {}))
    thinking = OpaqueBlock({"type": "thinking", "thinking": "…", "signature": "EqQB"})
    return conversation_of(
        "question",
        Message("assistant", (thinking, *calls), usage=Usage(1, 2, 3, 4), model="m", stop_reason="tool_use"),
        ToolAnswer("toolu_2", "two"),
        ToolAnswer("toolu_1", "one", is_error=True),
        Message("assistant", (Text("last word"),), usage=Usage(5, 6), model="m", stop_reason="end_turn"),
        principal="alice",
        system_prompt="Be brief.",
    )


def free(messages: Sequence[Message]) -> list[Message]:
    """As a fork has them: what they cost is not its own."""
    return [replace(message, usage=None) for message in messages]


@pytest.mark.behaviour("records.fork")
def test_a_fork_has_the_messages_up_to_one_and_has_cost_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as world:
            origin = a_conversation()
            await world.repository.save(origin)
            for last in (4, None):
                fork = await world.fork(origin.id, last)
                assert list(fork.messages) == free(origin.messages)
            fork = await world.fork(origin.id, 0)
            assert list(fork.messages) == list(origin.messages[:1])
            assert (fork.model, fork.system_prompt, fork.state) == (
                "claude-test-1",
                "Be brief.",
                ConversationState.ACTIVE,
            )
            assert (fork.failures, fork.fence) == (0, 1)
            page = await world.catalog.page(fork.id, "alice", start=0, limit=9)
            assert page is not None
            told = page.summary
            assert (told.usage, told.turns, told.requests, told.unknown_requests) == (Usage(), 0, 0, 0)
            assert (told.forked_from, told.forked_at, told.title) == (origin.id, 0, "question")

    asyncio.run(scenario())


@pytest.mark.behaviour("records.fork.answered")
@pytest.mark.parametrize(
    ("last", "unanswered"), [(1, ["toolu_1", "toolu_2"]), (2, ["toolu_1"]), (3, []), (4, []), (0, [])]
)
def test_tool_calls_that_the_cut_leaves_open_are_answered(tmp_path: Path, last: int, unanswered: list[str]) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as world:
            origin = a_conversation()
            await world.repository.save(origin)
            fork = await world.fork(origin.id, last)
            answers = [ToolAnswer(call, NOT_RUN, is_error=True) for call in unanswered]
            assert [list(message.content) for message in fork.messages[last + 1 :]] == ([answers] if answers else [])
            names = ["ConversationCreated", *["MessageAdded"] * bool(answers)]
            assert [(event.name, event.aggregate_id) for event in world.published] == [(n, fork.id) for n in names]
            stored = world.rows("SELECT name, occurred_at FROM events WHERE aggregate_id = ? ORDER BY id", fork.id)
            assert stored == [(event.name, event.occurred_at) for event in world.published]

    asyncio.run(scenario())


@pytest.mark.behaviour("records.fork.apart")
def test_a_fork_and_its_origin_go_on_apart(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as world:
            origin = a_conversation()
            await world.repository.save(origin)
            fork = await world.fork(origin.id, None)
            fork.begin_turn(a_send("only here"))
            await world.repository.save(fork)
            origin.begin_turn(a_send("only there"))
            await world.repository.save(origin)
            for said, where in {"only here": [fork.id], "only there": [origin.id]}.items():
                assert [found.id for found in await world.catalog.find("alice", text=said, limit=9)] == where
            both = await world.catalog.find("alice", text="last word", limit=9)
            assert {found.id for found in both} == {origin.id, fork.id}
            again = await world.fork(fork.id, 5)
            assert [message.text for message in again.messages[4:]] == ["last word", "only here"]

    asyncio.run(scenario())


@pytest.mark.behaviour("records.fork.apart")
def test_a_closed_conversation_and_one_that_waits_can_be_forked(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as world:
            closed, waiting = a_conversation(), a_conversation()
            closed.close()
            waiting.begin_turn(a_send("and?"))
            waiting.request_sent()
            for origin in (closed, waiting):
                await world.repository.save(origin)
                fork = await world.fork(origin.id, None)
                assert fork.state is ConversationState.ACTIVE
                assert list(fork.messages) == free(origin.messages)

    asyncio.run(scenario())


@pytest.mark.behaviour("records.refused")
def test_what_cannot_be_forked_changes_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as world:
            origin = a_conversation()
            empty = Conversation.create(principal="alice", model="m")
            for conversation in (origin, empty):
                await world.repository.save(conversation)
            before = world.everything()
            with pytest.raises(ConversationNotFound):
                await world.fork(origin.id, 0, "bob")
            with pytest.raises(ConversationNotFound):
                await world.fork(new_conversation_id(), 0)
            for last in (5, -1, 10**9):
                with pytest.raises(MessageNotFound, match=f"no message {last}: its messages are 0 to 4"):
                    await world.fork(origin.id, last)
            for last in (None, 0):
                with pytest.raises(MessageNotFound, match="it has none yet"):
                    await world.fork(empty.id, last)
            assert (world.everything(), world.published) == (before, [])

    asyncio.run(scenario())

"""What both ports of storage promise, of the SQL repositories and of the fakes that stand in for them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.fakes import InMemoryConversations, InMemorySessions
from tfo_mcp.application.ports import ConversationRepository, SessionRepository
from tfo_mcp.domain.conversation import Conversation
from tfo_mcp.domain.conversation_record import ConversationState
from tfo_mcp.domain.errors import ClaudeFailure, ConversationBusy
from tfo_mcp.domain.identifiers import new_conversation_id
from tfo_mcp.domain.message import Message, OpaqueBlock, Text, ToolAnswer, ToolUse, Usage
from tfo_mcp.domain.session import Session
from tfo_mcp.infrastructure.persistence.conversations import SqlConversationRepository
from tfo_mcp.infrastructure.persistence.sessions import SqlSessionRepository
from tfo_mcp.infrastructure.persistence.storage import Storage


@dataclass
class World:
    """Both repositories and a look at what they keep: event names, and each session's state."""

    conversations: ConversationRepository
    sessions: SessionRepository
    events: Callable[[str], Awaitable[Sequence[str]]]
    session_states: Callable[[], Awaitable[dict[str, str]]]


@asynccontextmanager
async def in_memory(_folder: Path) -> AsyncGenerator[World]:
    conversations, sessions = InMemoryConversations(), InMemorySessions()

    async def events(aggregate_id: str) -> Sequence[str]:
        happened = [*conversations.events, *sessions.events]
        return [event.name for event in happened if event.aggregate_id == aggregate_id]

    async def session_states() -> dict[str, str]:
        return {key: state.value for key, state in sessions.states.items()}

    yield World(conversations, sessions, events, session_states)


@asynccontextmanager
async def sql(folder: Path) -> AsyncGenerator[World]:
    storage = Storage(folder / "state" / "tfo-mcp.db")
    sessions = SqlSessionRepository(storage)

    async def select(statement: str, *values: str) -> Sequence[tuple[str, str]]:
        await sessions.flush(10)
        with closing(sqlite3.connect(storage.path)) as database:
            return database.execute(statement, values).fetchall()

    async def events(aggregate_id: str) -> Sequence[str]:
        rows = await select("SELECT name, id FROM events WHERE aggregate_id = ? ORDER BY id", aggregate_id)
        return [name for name, _ in rows]

    async def session_states() -> dict[str, str]:
        return dict(await select("SELECT id, state FROM sessions"))

    await storage.open()
    try:
        yield World(SqlConversationRepository(storage), sessions, events, session_states)
    finally:
        await storage.close()


either = pytest.mark.parametrize("open_world", [in_memory, sql])
OpenWorld = Callable[[Path], AbstractAsyncContextManager[World]]


def started(principal: str = "local") -> Conversation:
    conversation = Conversation.create(principal=principal, model="claude-opus-5-5", system_prompt="Be brief.")
    conversation.add_user_message("hello")
    return conversation


async def reloaded(world: World, conversation: Conversation) -> Conversation:
    found = await world.conversations.get(conversation.id, conversation.principal)
    assert found is not None
    return found


@either
def test_a_saved_conversation_is_read_back_whole(tmp_path: Path, open_world: OpenWorld) -> None:
    call = ToolUse("toolu_1", "read_file", {"path": "ä😀\x00", "deep": [{"n": 1.5, "none": None}]})
    thinking = OpaqueBlock({"type": "thinking", "thinking": "…", "signature": "EqQB"})
    cited = OpaqueBlock({"type": "text", "text": "so", "citations": [{"cited_text": "x"}]})
    answer = Message(
        "assistant",
        (thinking, Text("I'll look.\n\u2028"), cited, call),
        usage=Usage(10, 20, 30, 40),
        model="claude-opus-5-5-20261001",
        stop_reason="tool_use",
    )

    async def scenario() -> None:
        async with open_world(tmp_path) as world:
            conversation = started()
            conversation.request_sent()
            await world.conversations.save(conversation)
            conversation.response_received(answer)
            conversation.add_tool_answer(ToolAnswer("toolu_1", "no such file", is_error=True))
            conversation.request_sent()
            conversation.request_failed(ClaudeFailure("overloaded", status=529, counts=True), max_failures=5)
            await world.conversations.save(conversation)

            found = await reloaded(world, conversation)
            assert found.messages == conversation.messages
            assert found.state is ConversationState.ERROR
            written, read = conversation.record(), found.record()
            assert (read.model, read.system_prompt) == ("claude-opus-5-5", "Be brief.")
            assert (read.failures, read.fence, read.created_at) == (1, written.fence, written.created_at)
            assert found.uncommitted == ()
            assert found.uncommitted_events == ()

    asyncio.run(scenario())


@either
def test_a_conversation_is_found_by_its_principal_only(tmp_path: Path, open_world: OpenWorld) -> None:
    async def scenario() -> None:
        async with open_world(tmp_path) as world:
            conversation = started("alice")
            await world.conversations.save(conversation)
            assert await world.conversations.get(conversation.id, "bob") is None
            assert await world.conversations.get(new_conversation_id(), "alice") is None
            assert (await reloaded(world, conversation)).principal == "alice"

    asyncio.run(scenario())


@pytest.mark.behaviour("conversation.stored")
@either
def test_each_save_stores_and_returns_what_is_new(tmp_path: Path, open_world: OpenWorld) -> None:
    async def scenario() -> None:
        async with open_world(tmp_path) as world:
            conversation = started()
            first = await world.conversations.save(conversation)
            assert [event.name for event in first] == ["ConversationCreated", "MessageAdded"]
            conversation.add_user_message("are you there?")
            second = await world.conversations.save(conversation)
            assert [event.name for event in second] == ["MessageAdded"]
            assert await world.conversations.save(conversation) == ()

            names = ["ConversationCreated", "MessageAdded", "MessageAdded"]
            assert await world.events(conversation.id) == names
            texts = [message.text for message in (await reloaded(world, conversation)).messages]
            assert texts == ["hello", "are you there?"]

    asyncio.run(scenario())


@pytest.mark.behaviour("conversation.fenced")
@either
def test_whoever_appends_to_an_older_state_is_refused_and_changes_nothing(
    tmp_path: Path, open_world: OpenWorld
) -> None:
    async def scenario() -> None:
        async with open_world(tmp_path) as world:
            conversation = started()
            await world.conversations.save(conversation)
            stale = await reloaded(world, conversation)
            conversation.add_user_message("I was first")
            await world.conversations.save(conversation)

            stale.add_user_message("I was late")
            with pytest.raises(ConversationBusy):
                await world.conversations.save(stale)
            assert [message.text for _, message in stale.uncommitted] == ["I was late"]
            texts = [message.text for message in (await reloaded(world, conversation)).messages]
            assert texts == ["hello", "I was first"]
            assert len(await world.events(conversation.id)) == 3

    asyncio.run(scenario())


@either
def test_whoever_changes_an_older_state_is_refused_even_if_he_appends_nothing(
    tmp_path: Path, open_world: OpenWorld
) -> None:
    async def scenario() -> None:
        async with open_world(tmp_path) as world:
            conversation = started()
            await world.conversations.save(conversation)
            stale = await reloaded(world, conversation)
            conversation.add_user_message("still here")
            await world.conversations.save(conversation)

            stale.close()
            with pytest.raises(ConversationBusy):
                await world.conversations.save(stale)
            assert (await reloaded(world, conversation)).state is ConversationState.ACTIVE

    asyncio.run(scenario())


@either
def test_of_many_who_append_to_one_state_at_once_one_wins(tmp_path: Path, open_world: OpenWorld) -> None:
    async def scenario() -> None:
        async with open_world(tmp_path) as world:
            conversation = started()
            await world.conversations.save(conversation)
            rivals = [await reloaded(world, conversation) for _ in range(10)]
            for number, rival in enumerate(rivals):
                rival.add_user_message(str(number))
            saves = [world.conversations.save(rival) for rival in rivals]
            outcomes = await asyncio.gather(*saves, return_exceptions=True)
            refused = [outcome for outcome in outcomes if isinstance(outcome, ConversationBusy)]
            assert len(refused) == len(rivals) - 1
            assert len((await reloaded(world, conversation)).messages) == 2

    asyncio.run(scenario())


@either
def test_an_identifier_is_taken_once(tmp_path: Path, open_world: OpenWorld) -> None:
    async def scenario() -> None:
        async with open_world(tmp_path) as world:
            conversation = started("alice")
            impostor = started("bob")
            impostor.id = conversation.id
            await world.conversations.save(conversation)
            with pytest.raises(ConversationBusy):
                await world.conversations.save(impostor)
            assert len((await reloaded(world, conversation)).messages) == 1

    asyncio.run(scenario())


@either
def test_two_hundred_appends_at_once_all_succeed(tmp_path: Path, open_world: OpenWorld) -> None:
    async def scenario() -> None:
        async with open_world(tmp_path) as world:

            async def append() -> None:
                conversation = started()
                await world.conversations.save(conversation)
                found = await reloaded(world, conversation)
                found.add_user_message("again")
                await world.conversations.save(found)
                assert len((await reloaded(world, conversation)).messages) == 2

            await asyncio.gather(*(append() for _ in range(200)))

    asyncio.run(scenario())


@pytest.mark.behaviour("session.stored")
@either
def test_a_session_is_kept_in_its_newest_state_with_all_its_events(tmp_path: Path, open_world: OpenWorld) -> None:
    async def scenario() -> None:
        async with open_world(tmp_path) as world:
            gone, here = Session(), Session(principal="alice")
            for session in (gone, here):
                session.initialize(protocol_version="2025-11-25", client_name="test", client_version="1")
                world.sessions.save(session, session.collect_events())
            assert await world.session_states() == {gone.id: "initializing", here.id: "initializing"}

            for session in (gone, here):
                session.become_ready()
                world.sessions.save(session, session.collect_events())
            gone.begin_closing()
            world.sessions.save(gone, gone.collect_events())
            gone.close()
            world.sessions.save(gone, gone.collect_events())
            assert await world.session_states() == {gone.id: "closed", here.id: "ready"}
            assert await world.events(gone.id) == ["SessionCreated", "SessionInitialized", "SessionClosed"]
            assert await world.events(here.id) == ["SessionCreated", "SessionInitialized"]

    asyncio.run(scenario())

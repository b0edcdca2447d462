"""What the repositories promise; of sessions, also the fake that stands in for storage."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.fakes import InMemorySessions
from support.sends import a_send
from support.talk import conversation_of
from tfo_mcp.application.ports import SessionRepository
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
class Sessions:
    """A repository of sessions and a look at what it keeps: event names, and each session's state."""

    repository: SessionRepository
    events: Callable[[str], Awaitable[Sequence[str]]]
    states: Callable[[], Awaitable[dict[str, str]]]


@asynccontextmanager
async def in_memory(_folder: Path) -> AsyncGenerator[Sessions]:
    sessions = InMemorySessions()

    async def events(aggregate_id: str) -> Sequence[str]:
        return [event.name for event in sessions.events if event.aggregate_id == aggregate_id]

    async def states() -> dict[str, str]:
        return {key: state.value for key, state in sessions.states.items()}

    yield Sessions(sessions, events, states)


@asynccontextmanager
async def sql(folder: Path) -> AsyncGenerator[Sessions]:
    async with opened(folder) as storage:
        sessions = SqlSessionRepository(storage)

        async def events(aggregate_id: str) -> Sequence[str]:
            await sessions.flush(10)
            return events_of(storage, aggregate_id)

        async def states() -> dict[str, str]:
            await sessions.flush(10)
            return dict(select(storage, "SELECT id, state FROM sessions"))

        yield Sessions(sessions, events, states)


either = pytest.mark.parametrize("open_sessions", [in_memory, sql])
OpenSessions = Callable[[Path], AbstractAsyncContextManager[Sessions]]


@asynccontextmanager
async def opened(folder: Path) -> AsyncGenerator[Storage]:
    storage = Storage(folder / "state" / "tfo-mcp.db")
    await storage.open()
    try:
        yield storage
    finally:
        await storage.close()


@asynccontextmanager
async def conversations_in(folder: Path) -> AsyncGenerator[SqlConversationRepository]:
    async with opened(folder) as storage:
        yield SqlConversationRepository(storage)


def select(storage: Storage, statement: str, *values: str) -> Sequence[tuple[str, str]]:
    with closing(sqlite3.connect(storage.path)) as database:
        return database.execute(statement, values).fetchall()


def events_of(storage: Storage, aggregate_id: str) -> Sequence[str]:
    rows = select(storage, "SELECT name, id FROM events WHERE aggregate_id = ? ORDER BY id", aggregate_id)
    return [name for name, _ in rows]


def started(principal: str = "local") -> Conversation:
    return conversation_of("hello", principal=principal, model="claude-opus-5-5", system_prompt="Be brief.")


async def reloaded(conversations: SqlConversationRepository, conversation: Conversation) -> Conversation:
    found = await conversations.get(conversation.id, conversation.principal)
    assert found is not None
    return found


def test_a_saved_conversation_is_read_back_whole(tmp_path: Path) -> None:
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
        async with conversations_in(tmp_path) as conversations:
            conversation = started()
            conversation.request_sent()
            await conversations.save(conversation)
            conversation.response_received(answer)
            conversation.add_tool_answer(ToolAnswer("toolu_1", "no such file", is_error=True))
            conversation.request_sent()
            conversation.request_failed(ClaudeFailure("overloaded", status=529, counts=True), max_failures=5)
            await conversations.save(conversation)

            found = await reloaded(conversations, conversation)
            assert found.messages == conversation.messages
            assert found.state is ConversationState.ERROR
            written, read = conversation.record(), found.record()
            assert (read.model, read.system_prompt) == ("claude-opus-5-5", "Be brief.")
            assert (read.failures, read.fence, read.created_at) == (1, written.fence, written.created_at)
            assert (read.turns, read.requests, read.open_request) == (1, 2, None)
            assert (read.usage, read.unknown_requests, found.turn) == (answer.usage, 0, conversation.turn)
            assert found.uncommitted == ()
            assert found.uncommitted_events == ()

    asyncio.run(scenario())


def test_a_conversation_is_found_by_its_principal_only(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with conversations_in(tmp_path) as conversations:
            conversation = started("alice")
            await conversations.save(conversation)
            assert await conversations.get(conversation.id, "bob") is None
            assert await conversations.get(new_conversation_id(), "alice") is None
            assert (await reloaded(conversations, conversation)).principal == "alice"

    asyncio.run(scenario())


@pytest.mark.behaviour("conversation.stored")
def test_each_save_stores_what_is_new(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as storage:
            conversations = SqlConversationRepository(storage)
            conversation = started()
            await conversations.save(conversation)
            assert events_of(storage, conversation.id) == ["ConversationCreated", "MessageAdded"]
            conversation.begin_turn(a_send("are you there?"))
            await conversations.save(conversation)
            await conversations.save(conversation)

            names = ["ConversationCreated", "MessageAdded", "MessageAdded"]
            assert events_of(storage, conversation.id) == names
            texts = [message.text for message in (await reloaded(conversations, conversation)).messages]
            assert texts == ["hello", "are you there?"]

    asyncio.run(scenario())


@pytest.mark.behaviour("conversation.fenced")
def test_whoever_appends_to_an_older_state_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as storage:
            conversations = SqlConversationRepository(storage)
            conversation = started()
            await conversations.save(conversation)
            stale = await reloaded(conversations, conversation)
            conversation.begin_turn(a_send("I was first"))
            await conversations.save(conversation)

            stale.begin_turn(a_send("I was late"))
            with pytest.raises(ConversationBusy):
                await conversations.save(stale)
            assert [message.text for _, message in stale.uncommitted] == ["I was late"]
            texts = [message.text for message in (await reloaded(conversations, conversation)).messages]
            assert texts == ["hello", "I was first"]
            assert len(events_of(storage, conversation.id)) == 3

    asyncio.run(scenario())


def test_whoever_changes_an_older_state_is_refused_even_if_he_appends_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with conversations_in(tmp_path) as conversations:
            conversation = started()
            await conversations.save(conversation)
            stale = await reloaded(conversations, conversation)
            conversation.begin_turn(a_send("still here"))
            await conversations.save(conversation)

            stale.close()
            with pytest.raises(ConversationBusy):
                await conversations.save(stale)
            assert (await reloaded(conversations, conversation)).state is ConversationState.ACTIVE

    asyncio.run(scenario())


def test_of_many_who_append_to_one_state_at_once_one_wins(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with conversations_in(tmp_path) as conversations:
            conversation = started()
            await conversations.save(conversation)
            rivals = [await reloaded(conversations, conversation) for _ in range(10)]
            for number, rival in enumerate(rivals):
                rival.begin_turn(a_send(str(number)))
            saves = [conversations.save(rival) for rival in rivals]
            outcomes = await asyncio.gather(*saves, return_exceptions=True)
            refused = [outcome for outcome in outcomes if isinstance(outcome, ConversationBusy)]
            assert len(refused) == len(rivals) - 1
            assert len((await reloaded(conversations, conversation)).messages) == 2

    asyncio.run(scenario())


def test_an_identifier_is_taken_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with conversations_in(tmp_path) as conversations:
            conversation = started("alice")
            impostor = started("bob")
            impostor.id = conversation.id
            await conversations.save(conversation)
            with pytest.raises(ConversationBusy):
                await conversations.save(impostor)
            assert len((await reloaded(conversations, conversation)).messages) == 1

    asyncio.run(scenario())


def test_two_hundred_appends_at_once_all_succeed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with conversations_in(tmp_path) as conversations:

            async def append() -> None:
                conversation = started()
                await conversations.save(conversation)
                found = await reloaded(conversations, conversation)
                found.begin_turn(a_send("again"))
                await conversations.save(found)
                assert len((await reloaded(conversations, conversation)).messages) == 2

            await asyncio.gather(*(append() for _ in range(200)))

    asyncio.run(scenario())


@pytest.mark.behaviour("session.stored")
@either
def test_a_session_is_kept_in_its_newest_state_with_all_its_events(tmp_path: Path, open_sessions: OpenSessions) -> None:
    async def scenario() -> None:
        async with open_sessions(tmp_path) as sessions:
            gone, here = Session(), Session(principal="alice")
            for session in (gone, here):
                session.initialize(protocol_version="2025-11-25", client_name="test", client_version="1")
                sessions.repository.save(session, session.collect_events())
            assert await sessions.states() == {gone.id: "initializing", here.id: "initializing"}

            for session in (gone, here):
                session.become_ready()
                sessions.repository.save(session, session.collect_events())
            gone.begin_closing()
            sessions.repository.save(gone, gone.collect_events())
            gone.close()
            sessions.repository.save(gone, gone.collect_events())
            assert await sessions.states() == {gone.id: "closed", here.id: "ready"}
            assert await sessions.events(gone.id) == ["SessionCreated", "SessionInitialized", "SessionClosed"]
            assert await sessions.events(here.id) == ["SessionCreated", "SessionInitialized"]

    asyncio.run(scenario())

"""What is found among conversations, and read of one."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.talk import a_send, conversation_of
from tfo_mcp.domain.catalog import CatalogPlace, ConversationSummary, title_of, words_of
from tfo_mcp.domain.conversation import Conversation
from tfo_mcp.domain.conversation_record import ConversationState
from tfo_mcp.domain.identifiers import ConversationId, new_conversation_id
from tfo_mcp.domain.message import Message, OpaqueBlock, Text, ToolAnswer, ToolUse
from tfo_mcp.infrastructure.persistence.catalog import SqlConversationCatalog
from tfo_mcp.infrastructure.persistence.conversations import SqlConversationRepository
from tfo_mcp.infrastructure.persistence.storage import Storage

Saying = str | ToolUse | ToolAnswer | OpaqueBlock


@dataclass
class World:
    """An open database, written by the repository and read by the catalog."""

    storage: Storage

    def __post_init__(self) -> None:
        self.repository = SqlConversationRepository(self.storage)
        self.catalog = SqlConversationCatalog(self.storage)

    async def said(self, opening: str, *answers: Saying, principal: str = "alice") -> Conversation:
        """A stored conversation of a user's message and one answer by Claude for each of `answers`."""
        following = [said if isinstance(said, ToolAnswer) else by_claude(said) for said in answers]
        conversation = conversation_of(opening, *following, principal=principal, system_prompt="Be brief.")
        await self.repository.save(conversation)
        return conversation

    async def found(self, text: str, principal: str = "alice") -> Sequence[str]:
        """Titles of what a search finds."""
        return [summary.title for summary in await self.catalog.find(principal, text=text, limit=100)]


def by_claude(said: str | ToolUse | OpaqueBlock) -> Message:
    block = Text(said) if isinstance(said, str) else said
    return Message("assistant", (block,), stop_reason="tool_use" if isinstance(block, ToolUse) else "end_turn")


@asynccontextmanager
async def opened(folder: Path) -> AsyncGenerator[World]:
    storage = Storage(folder / "tfo-mcp.db")
    await storage.open()
    try:
        yield World(storage)
    finally:
        await storage.close()


def in_world(folder: Path, scenario: Callable[[World], Coroutine[object, object, None]]) -> None:
    async def run() -> None:
        async with opened(folder) as world:
            await scenario(world)

    asyncio.run(run())


def touch(world: World, conversation: Conversation, at: float) -> None:
    """Make its last change one at this time."""
    with closing(sqlite3.connect(world.storage.path)) as database, database:
        database.execute("UPDATE conversations SET updated_at = ? WHERE id = ?", (at, conversation.id))


# --- lists ---


@pytest.mark.behaviour("records.list")
def test_those_changed_last_come_first_and_are_described(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        old, new = await world.said("the  old\none", "yes"), await world.said("the new one")
        await world.said("not yours", principal="bob")
        assert [s.id for s in await world.catalog.find("alice", limit=9)] == [new.id, old.id]
        old.close()
        await world.repository.save(old)
        first, second = await world.catalog.find("alice", limit=9)
        assert (first.id, first.title, first.messages, first.state) == (
            old.id,
            "the old one",
            2,
            ConversationState.CLOSED,
        )
        assert (first.model, first.created_at, first.forked_from) == ("claude-test-1", old.created_at, None)
        assert first.updated_at > second.updated_at
        assert (second.title, second.messages) == ("the new one", 1)
        active = await world.catalog.find("alice", state=ConversationState.ACTIVE, limit=9)
        assert [summary.id for summary in active] == [new.id]
        assert list(await world.catalog.find("nobody", limit=9)) == []

    in_world(tmp_path, scenario)


@pytest.mark.behaviour("records.list.pages")
def test_a_pass_over_the_pages_gives_each_once_though_others_come_and_change(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        there = [await world.said(f"{number}") for number in range(7)]
        for number, conversation in enumerate(there):
            touch(world, conversation, 1000.0 + number // 3)  # some at the same moment
        seen: list[ConversationId] = []
        after: CatalogPlace | None = None
        while page := await world.catalog.find("alice", limit=2, after=after):
            seen += [summary.id for summary in page]
            after = page[-1].place
            await world.said("meanwhile")
            given_last = next(known for known in there if known.id == seen[-1])
            given_last.begin_turn(a_send("and again"))  # its place stays, though it moves to the front
            await world.repository.save(given_last)
        ordered = sorted(enumerate(there), key=lambda known: (1000.0 + known[0] // 3, known[1].id), reverse=True)
        assert seen == [conversation.id for _, conversation in ordered]

    in_world(tmp_path, scenario)


def test_the_newest_are_listed_in_the_order_of_their_creation(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        mine = [await world.said(f"{number}") for number in range(5)]
        with closing(sqlite3.connect(world.storage.path)) as database, database:
            for number, conversation in enumerate(mine):
                row = (1000.0 + number // 2, conversation.id)  # some at the same moment
                database.execute("UPDATE conversations SET created_at = ? WHERE id = ?", row)
        other = await world.said("x", principal="bob")
        changed = await world.repository.get(mine[0].id, "alice")
        assert changed is not None
        changed.close()
        await world.repository.save(changed)  # which moves nothing

        async def newest(limit: int, after: ConversationId | None = None) -> list[str]:
            return [summary.id for summary in await world.catalog.newest("alice", limit, after=after)]

        places = [(1000.0 + number // 2, conversation.id) for number, conversation in enumerate(mine)]
        ordered = [conversation_id for _, conversation_id in sorted(places, reverse=True)]
        assert await newest(10) == ordered
        assert await newest(2) == ordered[:2]
        for place, last in enumerate(ordered):
            assert await newest(2, last) == ordered[place + 1 : place + 3]
        assert await newest(10, other.id) == []

    in_world(tmp_path, scenario)


def test_conversations_are_found_by_how_their_id_begins(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        conversation = await world.said("hello")
        for prefix in ("", "conv_", conversation.id[:10], conversation.id):
            found = await world.catalog.newest("alice", 10, prefix=prefix)
            assert [summary.id for summary in found] == [conversation.id]
        for prefix in ("CONV_", "conv%", "conv_x", "_", "%", f"{conversation.id}0", "'", "\\"):
            assert list(await world.catalog.newest("alice", 10, prefix=prefix)) == []

    in_world(tmp_path, scenario)


@pytest.mark.parametrize(
    ("said", "title"),
    [
        ("Hello", "Hello"),
        (" \n two\t\nlines  ", "two lines"),
        ("x" * 80, "x" * 80),
        ("x" * 81, "x" * 79 + "…"),
        ("word " * 100, ("word " * 16).strip() + "…"),
        ("", ""),
    ],
)
def test_a_title_is_the_beginning_of_the_first_message_on_one_line(said: str, title: str) -> None:
    assert title_of(Message("user", (Text(said),))) == title
    assert len(title) <= 80


# --- search ---


@pytest.mark.behaviour("records.search")
def test_a_search_finds_what_was_said_by_either_side_and_not_what_tools_did(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        cited = OpaqueBlock({"type": "text", "text": "with a footnote", "citations": [{"cited_text": "x"}]})
        thought = OpaqueBlock({"type": "thinking", "thinking": "secretly", "signature": "x"})
        call = ToolUse("toolu_1", "read_file", {"path": "pathname"})
        await world.said("Where is the Café?", "In Straße 12.", thought, call, ToolAnswer("toolu_1", "toolsaid"))
        await world.said("Version v1.2.3 of snake_case?", cited)
        await world.said("東京の天気予報は", "晴れです。")
        await world.said("café theirs", principal="bob")

        finds = {
            "cafe": 0, "CAFÉ": 0, "straße": 0, "12 café": 0, "where caf": 0, "  where\nis\tthe ": 0,
            "v1.2.3": 1, "v1.2": 1, "2.3": 1, "snake_case": 1, "case": 1, "footnote": 1,
            "天気": 2, "予報": 2, "東京 晴れ": 2,
        }  # fmt: skip
        titles = ["Where is the Café?", "Version v1.2.3 of snake_case?", "東京の天気予報は"]
        for query, number in finds.items():
            assert await world.found(query) == [titles[number]], query
        for query in ("caf where", "toolsaid", "secretly", "pathname", "theirs", "1.3", "気天", "cafe v1"):
            assert await world.found(query) == [], query

    in_world(tmp_path, scenario)


@pytest.mark.behaviour("records.search")
def test_what_is_found_comes_in_the_order_of_its_last_change(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        once = await world.said("needle", "hay")
        often = await world.said("needle needle needle", "needle")
        assert await world.found("needle") == ["needle needle needle", "needle"]
        once.begin_turn(a_send("and thread"))
        await world.repository.save(once)
        assert await world.found("needle") == ["needle", "needle needle needle"]
        (found,) = await world.catalog.find("alice", text="needle thread", limit=9)
        assert found.id == once.id
        after = await world.catalog.find("alice", text="needle", limit=1, after=found.place)
        assert [summary.id for summary in after] == [often.id]

    in_world(tmp_path, scenario)


@pytest.mark.behaviour("records.search.odd")
def test_no_query_is_in_the_language_of_the_index(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.said('He said "and then" NEAR the end* of col:umn (or not) ^caret', "a AND b")
        title = 'He said "and then" NEAR the end* of col:umn (or not) ^caret'
        for query in ('"and', '"and then"', "NEAR", "end*", "col:umn", "(or", "^caret", "a AND b", "said OR", "NOT"):
            assert await world.found(query) == [title], query
        for query in ("-", '"', '""', "*", "()", "''", "😀", "\0", "\ud800", " ", "said XOR", "nor:umn", "(nand"):
            assert await world.found(query) == [], query
        assert words_of('"" - \0 \ud800 😀 " said said') == ["said"]

    in_world(tmp_path, scenario)


@pytest.mark.behaviour("records.search.odd")
def test_any_text_can_be_searched_for(tmp_path: Path) -> None:
    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.text(st.characters(codec=None, exclude_categories=()), max_size=40))
    def searched(text: str) -> None:
        found: Sequence[ConversationSummary] = asyncio.run_coroutine_threadsafe(
            world.catalog.find("alice", text=text, limit=9), loop
        ).result(20)
        assert len(found) <= 1

    async def scenario(opened_world: World) -> None:
        nonlocal world, loop
        world, loop = opened_world, asyncio.get_running_loop()
        await world.said("a b c 1 2 3")
        await asyncio.to_thread(searched)

    world: World
    loop: asyncio.AbstractEventLoop
    in_world(tmp_path, scenario)


# --- one of them ---


def test_a_range_of_messages_is_read_without_the_others(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        conversation = await world.said("0", "1", "2", "3", "4")
        ranges = {
            (0, 2): (0, "01"), (3, 9): (3, "34"), (4, 1): (4, "4"), (5, 5): (5, ""),
            (99, 5): (5, ""), (10**30, 5): (5, ""), (-(10**30), 1): (0, "0"),
            (-2, 9): (3, "34"), (-9, 2): (0, "01"), (-1, 0): (4, ""), (0, 0): (0, ""),
        }  # fmt: skip
        for (start, limit), (first, texts) in ranges.items():
            page = await world.catalog.page(conversation.id, "alice", start=start, limit=limit)
            assert page is not None
            assert (page.start, "".join(message.text for message in page.messages)) == (first, texts)
            assert (page.summary.messages, page.system_prompt, page.end) == (5, "Be brief.", first + len(texts))
        assert await world.catalog.page(conversation.id, "bob", start=0, limit=9) is None
        assert await world.catalog.page(new_conversation_id(), "alice", start=0, limit=9) is None

    in_world(tmp_path, scenario)


def test_the_index_forgets_what_is_deleted(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        conversation = await world.said("needle", "hay")
        with closing(sqlite3.connect(world.storage.path)) as database, database:
            database.execute("DELETE FROM message_texts WHERE conversation_id = ?", (conversation.id,))
            database.execute("INSERT INTO messages_fts (messages_fts, rank) VALUES ('integrity-check', 1)")
        again = await world.said("hay")  # its text gets the row id of one that is gone
        assert await world.found("needle") == []
        assert [s.id for s in await world.catalog.find("alice", text="hay", limit=9)] == [again.id]

    in_world(tmp_path, scenario)

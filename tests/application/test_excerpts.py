"""As many messages as there is room for, and hardly more of them loaded."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TypeVar

from hypothesis import given
from hypothesis import strategies as st

from support.fakes import EmptyCatalog
from tfo_mcp.application.conversation_views import message_view, size_of
from tfo_mcp.application.excerpts import Excerpt, excerpt_from, excerpt_of_end
from tfo_mcp.domain.catalog import ConversationPage, ConversationSummary
from tfo_mcp.domain.conversation_record import ConversationState
from tfo_mcp.domain.identifiers import ConversationId
from tfo_mcp.domain.message import Message, Text, Usage

ID = ConversationId("conv_0123456789abcdef0123456789abcdef")

T = TypeVar("T")


class OneConversation(EmptyCatalog):
    """A `ConversationCatalog` of one, which keeps what was loaded of it."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.messages = [Message("user", (Text("x" * size),), created_at=0.0) for size in sizes]
        self.loaded: list[int] = []

    async def page(
        self, conversation_id: ConversationId, principal: str, *, start: int, limit: int
    ) -> ConversationPage | None:
        if (conversation_id, principal) != (ID, "alice"):
            return None
        count = len(self.messages)
        first = min(start, count) if start >= 0 else max(0, count + start)
        page = ConversationPage(
            summary=ConversationSummary(
                id=ID,
                model="m",
                state=ConversationState.ACTIVE,
                created_at=0.0,
                updated_at=0.0,
                title="",
                messages=count,
                turns=0,
                requests=0,
                unknown_requests=0,
                usage=Usage(),
                forked_from=None,
                forked_at=None,
            ),
            system_prompt=None,
            start=first,
            messages=self.messages[first : first + limit],
        )
        self.loaded += range(page.start, page.end)
        return page

    def fitting(self, positions: Sequence[int], room: int) -> list[int]:
        """Those of `positions` that fit one after the other; the first one always does, cut."""
        shown: list[int] = []
        for position in positions:
            room -= size_of(message_view(position, self.messages[position]))
            if room < 0 and shown:
                break
            shown.append(position)
            if room < 0:
                break
        return shown


def had(excerpt: Coroutine[object, object, T | None]) -> T:
    found = asyncio.run(excerpt)
    assert found is not None
    return found


def positions_of(excerpt: Excerpt) -> list[int]:
    positions = [message["position"] for message in excerpt.messages]
    assert positions == list(range(excerpt.start, excerpt.start + len(positions)))
    return positions


SIZES = st.lists(st.sampled_from([0, 1, 100, 5000]), max_size=200)


@given(SIZES, st.integers(0, 30_000))
def test_the_end_has_as_many_messages_as_fit(sizes: list[int], room: int) -> None:
    catalog = OneConversation(sizes)
    excerpt = had(excerpt_of_end(catalog, ID, "alice", room=room))
    assert positions_of(excerpt) == catalog.fitting(range(len(sizes))[::-1], room)[::-1]
    assert sorted(catalog.loaded) == sorted(set(catalog.loaded))


@given(SIZES, st.integers(0, 30_000), st.integers(-210, 210), st.integers(1, 250))
def test_from_a_position_on_there_are_as_many_as_fit(sizes: list[int], room: int, start: int, limit: int) -> None:
    catalog = OneConversation(sizes)
    excerpt = had(excerpt_from(catalog, ID, "alice", start=start, limit=limit, room=room, most=10_000))
    wanted = list(range(len(sizes)))[start:][:limit]
    assert positions_of(excerpt) == catalog.fitting(wanted, room)
    assert len(catalog.loaded) == len(set(catalog.loaded))
    assert set(catalog.loaded) <= set(wanted)


def test_of_a_long_conversation_hardly_more_is_loaded_than_is_shown() -> None:
    catalog = OneConversation([100] * 100_000)
    end = had(excerpt_of_end(catalog, ID, "alice", room=4000))
    part = had(excerpt_from(catalog, ID, "alice", start=50_000, limit=200, room=4000, most=10_000))
    assert len(end.messages) == len(part.messages) > 10
    assert len(catalog.loaded) <= 6 * len(end.messages)


def test_nobody_elses_conversation_is_shown() -> None:
    catalog = OneConversation([1])
    assert asyncio.run(excerpt_of_end(catalog, ID, "bob", room=99)) is None
    assert asyncio.run(excerpt_from(catalog, ID, "bob", start=0, limit=9, room=99, most=9)) is None

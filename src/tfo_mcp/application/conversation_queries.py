"""Reads over the caller's conversations: those that fit a search, and one in parts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from tfo_mcp.application.bus import RequestInfo
from tfo_mcp.application.excerpts import Excerpt, excerpt_from
from tfo_mcp.application.pages import Page, Place
from tfo_mcp.application.ports import ConversationCatalog
from tfo_mcp.domain.catalog import MOST_WORDS, CatalogPlace, ConversationSummary, words_of
from tfo_mcp.domain.conversation_record import ConversationState
from tfo_mcp.domain.errors import ConversationNotFound, InvalidSearch, MessageNotFound, UnknownCursor
from tfo_mcp.domain.identifiers import parse_conversation_id

_MOST_OF_A_CALL: Final = 2000
"""Bytes of a tool call's input, and of a tool's result, that are shown of each."""


@dataclass(frozen=True, slots=True)
class ListConversations:
    """The caller's conversations, those changed last first. Gives a page of `ConversationSummary`.

    Attributes:
        query: words that were said in them; blank: all.
        state: all, where it is None.
        cursor: of an earlier page of the same search.
        limit: how many of them, at most.
    """

    query: str
    state: ConversationState | None
    cursor: str | None
    limit: int


@dataclass(frozen=True, slots=True)
class GetConversation:
    """Some messages of a conversation, oldest first. Gives an `Excerpt`.

    Attributes:
        start: the position of the first message; a negative one is counted from the end.
        limit: how many of them, at most.
        room: bytes of JSON that they may have.
    """

    conversation_id: str
    start: int
    limit: int
    room: int


class ConversationQueries:
    """Reads over the catalog."""

    def __init__(self, catalog: ConversationCatalog) -> None:
        self._catalog = catalog

    async def find(self, query: ListConversations, info: RequestInfo) -> Page[ConversationSummary]:
        """Those that fit the search.

        Raises:
            InvalidSearch: there is no word in the query, or too many are; or the cursor is of no such search.
            StorageUnavailable: the database cannot be opened or read.
        """
        text = query.query.strip()
        check_words(text)
        place = _place(query)
        found = await self._catalog.find(
            info.principal,
            text=text,
            state=query.state,
            limit=query.limit + 1,
            after=None if place.count == 0 else _catalog_place(place),
        )
        return place.page(found, query.limit, _name)

    async def get(self, query: GetConversation, info: RequestInfo) -> Excerpt:
        """Part of one.

        Raises:
            ConversationNotFound: the caller has no such conversation.
            MessageNotFound: it has no message at `start`.
            StorageUnavailable: the database cannot be opened or read.
        """
        parsed = parse_conversation_id(query.conversation_id)
        excerpt = None
        if parsed is not None:
            excerpt = await excerpt_from(
                self._catalog,
                parsed,
                info.principal,
                start=query.start,
                limit=query.limit,
                room=query.room,
                most=_MOST_OF_A_CALL,
            )
        if excerpt is None:
            raise ConversationNotFound(query.conversation_id)
        if not excerpt.messages and query.start != 0:
            raise MessageNotFound(query.conversation_id, query.start, excerpt.summary.messages)
        return excerpt


def check_words(text: str) -> None:
    """Whether a search can be meant so; the empty text is none.

    Raises:
        InvalidSearch: there is no word in `text`, or too many are.
    """
    count = len(words_of(text))
    if text and not count:
        raise InvalidSearch("there is no word to search for in the query: a word has a letter or a digit")
    if count > MOST_WORDS:
        raise InvalidSearch(f"the query has {count} words, and {MOST_WORDS} are the most that one search may have")


def _place(query: ListConversations) -> Place:
    """Where the page begins; a cursor is good for the search that gave it out."""
    search = "\n".join((query.query.strip(), "" if query.state is None else query.state.value))
    digest = hashlib.sha256(search.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    try:
        place = Place.of(f"conversations {digest}", query.cursor)
        if place.count:
            _catalog_place(place)
    except (UnknownCursor, ValueError):
        raise InvalidSearch("the cursor is of no page of this search: leave it out to begin at the front") from None
    return place


def _catalog_place(place: Place) -> CatalogPlace:
    updated_at, _, conversation_id = place.last.partition(" ")
    parsed = parse_conversation_id(conversation_id)
    if parsed is None:
        raise ValueError(conversation_id)
    return CatalogPlace(float(updated_at), parsed)


def _name(summary: ConversationSummary) -> str:
    return f"{summary.updated_at!r} {summary.id}"

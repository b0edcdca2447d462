"""Parts of conversations as they are shown: as many messages as there is room for, and no more are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tfo_mcp.application.conversation_views import View, message_view, size_of
from tfo_mcp.application.ports import ConversationCatalog
from tfo_mcp.domain.catalog import ConversationPage, ConversationSummary
from tfo_mcp.domain.identifiers import ConversationId
from tfo_mcp.domain.message import Message

_FIRST_BATCH: Final = 4
_LARGEST_BATCH: Final = 64
"""Messages that are loaded at a time: few at first, since each may be large, then twice as many as before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """Messages that follow each other, from position `start` on; `messages` are their views."""

    summary: ConversationSummary
    system_prompt: str | None
    start: int
    messages: Sequence[View]


async def excerpt_from(
    catalog: ConversationCatalog,
    conversation_id: ConversationId,
    principal: str,
    *,
    start: int,
    limit: int,
    room: int,
    most: int,
) -> Excerpt | None:
    """The messages from `start` on, a negative one counted from the end; None where there is no such conversation.

    They are at most `limit` messages and `room` bytes of JSON; of a first one that has more, there is as much as fits.
    `most` is how many a tool call's input, and a tool's result, may have each.
    """
    fitting = _Fitting(room, most)
    batch = min(limit, _FIRST_BATCH)
    first = page = await catalog.page(conversation_id, principal, start=start, limit=batch)
    if first is None:
        return None
    while page is not None and page.messages:
        if not all(fitting.takes(position, message) for position, message in _numbered(page)):
            break
        batch = min(2 * batch, _LARGEST_BATCH, limit - len(fitting.views))
        page = await catalog.page(conversation_id, principal, start=page.end, limit=batch)
    return Excerpt(summary=first.summary, system_prompt=first.system_prompt, start=first.start, messages=fitting.views)


async def excerpt_of_end(
    catalog: ConversationCatalog, conversation_id: ConversationId, principal: str, *, room: int
) -> Excerpt | None:
    """The last messages, in `room` bytes of JSON; of a very last one that has more, as much as fits."""
    fitting = _Fitting(room)
    batch = _FIRST_BATCH
    last = page = await catalog.page(conversation_id, principal, start=-batch, limit=batch)
    if last is None:
        return None
    while page is not None and page.messages:
        if not all(fitting.takes(position, message) for position, message in reversed(_numbered(page))):
            break
        batch = min(2 * batch, _LARGEST_BATCH, page.start)
        page = await catalog.page(conversation_id, principal, start=page.start - batch, limit=batch)
    return Excerpt(
        summary=last.summary,
        system_prompt=last.system_prompt,
        start=last.end - len(fitting.views),
        messages=fitting.views[::-1],
    )


class _Fitting:
    """Views as long as there is room for them."""

    def __init__(self, room: int, most: int | None = None) -> None:
        self._room = room
        self._most = most
        self.views: list[View] = []

    def takes(self, position: int, message: Message) -> bool:
        """Add the message if it fits, or cut it where it is the first; whether it was added whole."""
        view = message_view(position, message, most=self._most)
        size = size_of(view)
        if size <= self._room:
            self._room -= size
            self.views.append(view)
            return True
        if not self.views:
            self.views.append(message_view(position, message, room=self._room, most=self._most))
        return False


def _numbered(page: ConversationPage) -> Sequence[tuple[int, Message]]:
    return list(enumerate(page.messages, start=page.start))

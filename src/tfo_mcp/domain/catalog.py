"""Conversations as a list of them and a page of one show them: to be read, never changed."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tfo_mcp.domain.conversation_record import ConversationState
from tfo_mcp.domain.identifiers import ConversationId
from tfo_mcp.domain.message import Block, Message, OpaqueBlock, Text, Usage

MOST_WORDS: Final = 16
"""Words of one search, at most."""

_TITLE: Final = 80
"""Characters of a title, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationSummary:
    """What is said of a conversation without its messages. Times in seconds since the epoch.

    Attributes:
        title: the beginning of the first message, on one line; empty where that has no text.
        messages: how many there are; their positions are counted from 0.
        turns: how many were sent here; those that a fork took over were sent elsewhere.
        requests: to Claude, of these turns.
        unknown_requests: those of which nobody knows what they took.
        usage: tokens of the others.
        forked_from: the conversation whose messages it began with.
        forked_at: the position of the last one of them.
    """

    id: ConversationId
    model: str
    state: ConversationState
    created_at: float
    updated_at: float
    title: str
    messages: int
    turns: int
    requests: int
    unknown_requests: int
    usage: Usage
    forked_from: ConversationId | None
    forked_at: int | None

    @property
    def place(self) -> CatalogPlace:
        """Where it stands among those changed last."""
        return CatalogPlace(self.updated_at, self.id)


@dataclass(frozen=True, slots=True)
class CatalogPlace:
    """A place among conversations in the order of their last change; it stays though that conversation moves."""

    updated_at: float
    id: ConversationId


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationPage:
    """Some messages of a conversation, one after the other; `start` is the first one's position."""

    summary: ConversationSummary
    system_prompt: str | None
    start: int
    messages: Sequence[Message]

    @property
    def end(self) -> int:
        """The position behind the last one."""
        return self.start + len(self.messages)


def title_of(message: Message) -> str:
    """What to call a conversation that begins with `message`."""
    text = " ".join(spoken(message.content)[: 4 * _TITLE].split())
    return text if len(text) <= _TITLE else f"{text[: _TITLE - 1].rstrip()}…"


def spoken(content: Iterable[Block]) -> str:
    """What its side said: the texts, without tool calls, their results and thoughts."""
    said: list[str] = []
    for block in content:
        match block:
            case Text(text):
                said.append(text)
            case OpaqueBlock({"type": "text", "text": str(text)}):  # with citations
                said.append(text)
            case _:
                pass
    return "\n".join(said)


def words_of(text: str) -> Sequence[str]:
    """The words of a search, each once; what stands between blanks and has a letter or digit is one."""
    plain = "".join(" " if unicodedata.category(char) in _NO_TEXT else char for char in text)
    return list(dict.fromkeys(word for word in plain.split() if any(map(_is_of_words, word))))


_NO_TEXT: Final = frozenset({"Cc", "Cs"})
"""Categories of characters that nobody can search for: controls, and halves of surrogate pairs."""


def _is_of_words(char: str) -> bool:
    category = unicodedata.category(char)
    return category[0] in "LN" or category == "Co"

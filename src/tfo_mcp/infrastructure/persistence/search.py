"""Full-text search in what the user and Claude said; what tools gave is not searched, nor what Claude thought.

The texts stand in `message_texts`, once more than in the messages, because a message's JSON is not what people
search in. `messages_fts` is SQLite's index over them (FTS5, without a copy of its own), kept up by triggers that
migration 0003 made: whoever adds or deletes texts need not know of it. Only `_said` asks it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from tfo_mcp.domain.catalog import spoken, title_of, words_of
from tfo_mcp.domain.message import Message

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Table

FTS_TABLE: Final = "messages_fts"

_MERGED_PAGES: Final = 200

_UNSPACED: Final = re.compile(
    r"([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])"
)
"""Characters of scripts that put no blanks between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese."""


def searchable(message: Message) -> str:
    """The text of `message` as it is indexed; empty where there is none."""
    return _spaced(spoken(message.content)).strip()


def index_messages(
    connection: Connection, conversation_id: str, principal: str, added: Sequence[tuple[int, Message]]
) -> None:
    """Make messages found, (position, message) each, and the first one the title; in the append's transaction."""
    from sqlalchemy import insert, update

    from tfo_mcp.infrastructure.persistence.schema import conversations, message_texts

    common = {"conversation_id": conversation_id, "principal": principal}
    texts = [{**common, "position": position, "text": searchable(message)} for position, message in added]
    if found := [row for row in texts if row["text"]]:
        connection.execute(insert(message_texts), found)
    for position, message in added:
        if position == 0:
            mine = conversations.c.id == conversation_id
            connection.execute(update(conversations).where(mine).values(title=title_of(message)))


def merge_index(connection: Connection, *, first: bool) -> bool:
    """One step of writing the index anew without the words of deleted texts, which it only notes; whether one follows.

    The index is made of parts, and a deleted text's words stay in theirs until that is merged with the others. A step
    writes about `_MERGED_PAGES` pages; `first` begins with all parts that there are.
    """
    if connection.dialect.name != "sqlite":
        return False
    sqlite = connection.connection.driver_connection
    assert sqlite is not None  # noqa: S101  # it was just asked for
    before = sqlite.total_changes
    pages = -_MERGED_PAGES if first else _MERGED_PAGES
    connection.exec_driver_sql(f"INSERT INTO {FTS_TABLE} ({FTS_TABLE}, rank) VALUES ('merge', {pages})")  # noqa: S608  # names from above
    return sqlite.total_changes - before >= 2  # noqa: PLR2004  # SQLite's documented sign that it did something


def said_in(conversations: Table, text: str) -> Sequence[ColumnElement[bool]]:
    """Conditions on `conversations`, one a word of `text`: that the word was said there.

    The words reach SQLite as quoted strings only, so that none is taken for its query language. Of the last one
    the beginning is enough: it may be typed still.
    """
    quoted = ['"{}"'.format(_spaced(word).replace('"', '""')) for word in words_of(text)]
    return [_said(conversations, word) for word in (*quoted[:-1], *(f"{word} *" for word in quoted[-1:]))]


def _said(conversations: Table, query: str) -> ColumnElement[bool]:
    """That `query`, in the language of SQLite's FTS5, matches something that was said there."""
    from sqlalchemy import column, select, table

    from tfo_mcp.infrastructure.persistence.schema import message_texts

    index = table(FTS_TABLE, column("rowid"), column(FTS_TABLE))
    hits = select(index.c.rowid).where(index.c[FTS_TABLE].match(query))
    texts = message_texts.c
    return conversations.c.id.in_(select(texts.conversation_id).where(texts.id.in_(hits)))


def _spaced(text: str) -> str:
    """`text` with each character of an unspaced script a word of its own, so that any part of it is found."""
    return _UNSPACED.sub(r" \1 ", text)

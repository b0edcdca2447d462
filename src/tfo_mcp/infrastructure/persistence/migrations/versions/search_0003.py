"""Titles of conversations, and full-text search in what was said."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tfo_mcp.domain.catalog import title_of
from tfo_mcp.domain.message import Message, block_from_json
from tfo_mcp.infrastructure.persistence.search import searchable

revision = "0003"
down_revision = "0002"

_BATCH = 200
"""Messages at a time."""


def upgrade() -> None:
    op.add_column("conversations", sa.Column("title", sa.Text(), nullable=False, server_default=""))
    op.create_index("ix_conversations_created_at", "conversations", ["principal", "created_at", "id"])
    op.create_index("ix_conversations_updated_at", "conversations", ["principal", "updated_at", "id"])
    op.create_table(
        "message_texts",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("conversation_id", sa.Text(), sa.ForeignKey("conversations.id"), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.UniqueConstraint("conversation_id", "position", name="uq_message_texts_position"),
    )
    if op.get_bind().dialect.name == "sqlite":
        _make_sqlite_index()
    _index_what_is_there()


def _make_sqlite_index() -> None:
    """An index without a copy of the texts must be told what a deleted one was: the triggers do."""
    op.execute(
        "CREATE VIRTUAL TABLE messages_fts USING fts5"
        "(text, content='message_texts', content_rowid='id', tokenize='unicode61 remove_diacritics 2')"
    )
    op.execute(
        "CREATE TRIGGER message_texts_added AFTER INSERT ON message_texts BEGIN"
        " INSERT INTO messages_fts (rowid, text) VALUES (new.id, new.text); END"
    )
    op.execute(
        "CREATE TRIGGER message_texts_deleted AFTER DELETE ON message_texts BEGIN"
        " INSERT INTO messages_fts (messages_fts, rowid, text) VALUES ('delete', old.id, old.text); END"
    )


def _index_what_is_there() -> None:
    connection = op.get_bind()
    messages = sa.table(
        "messages",
        *map(sa.column, ("conversation_id", "position", "principal", "role")),
        sa.column("content", sa.JSON()),
    )
    conversations = sa.table("conversations", sa.column("id"), sa.column("title"))
    texts = sa.table("message_texts", *map(sa.column, ("conversation_id", "position", "principal", "text")))
    by_place = sa.select(messages).order_by(messages.c.conversation_id, messages.c.position).limit(_BATCH)
    last = ("", -1)
    while True:
        place = sa.tuple_(messages.c.conversation_id, messages.c.position)
        rows = connection.execute(by_place.where(place > sa.tuple_(*last))).mappings().all()
        if not rows:
            return
        last = (rows[-1]["conversation_id"], rows[-1]["position"])
        for row in rows:
            message = Message(row["role"], tuple(block_from_json(block) for block in row["content"]))
            if text := searchable(message):
                where = {name: row[name] for name in ("conversation_id", "position", "principal")}
                connection.execute(sa.insert(texts).values(**where, text=text))
            if row["position"] == 0:
                first = conversations.c.id == row["conversation_id"]
                connection.execute(sa.update(conversations).where(first).values(title=title_of(message)))

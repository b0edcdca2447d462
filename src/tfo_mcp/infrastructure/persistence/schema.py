"""The tables as the newest migration leaves them. Only dialect-neutral types stand here.

Times are seconds since the epoch. Every table has `principal` (DESIGN decision 8b).
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()


def _tokens(*, always: bool) -> list[Column[int]]:
    """What the API counts apart; None where it is not known."""
    names = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
    return [Column(name, BigInteger, nullable=not always, server_default="0" if always else None) for name in names]


sessions = Table(
    "sessions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("principal", Text, nullable=False),
    Column("protocol_version", Text),
    Column("client_name", Text, nullable=False),
    Column("client_version", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("closed_at", Double),
)

conversations = Table(
    "conversations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("principal", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("system_prompt", Text),
    Column("state", Text, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("fence", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("turns", Integer, nullable=False, server_default="0"),
    Column("requests", Integer, nullable=False, server_default="0"),
    Column("unknown_requests", Integer, nullable=False, server_default="0"),
    *_tokens(always=True),
    Column("open_request", Integer),
    Column("forked_from", Text),
    Column("forked_at", Integer),
    Column("title", Text, nullable=False, server_default=""),
    Index("ix_conversations_created_at", "principal", "created_at", "id"),
    Index("ix_conversations_updated_at", "principal", "updated_at", "id"),
)
"""`turns` and `requests` are how many there are; the tokens are the sums of the ledger's. `open_request` is the one
that has no outcome yet, `forked_at` the position of the last message that was taken over. `title` is written with
the first message."""

messages = Table(
    "messages",
    metadata,
    Column("conversation_id", Text, ForeignKey("conversations.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("principal", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("content", JSON, nullable=False),
    Column("model", Text),
    Column("stop_reason", Text),
    Column("input_tokens", Integer),
    Column("output_tokens", Integer),
    Column("cache_read_tokens", Integer),
    Column("cache_write_tokens", Integer),
    Column("created_at", Double, nullable=False),
    PrimaryKeyConstraint("conversation_id", "position"),
)

message_texts = Table(
    "message_texts",
    metadata,
    Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
    Column("conversation_id", Text, ForeignKey("conversations.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("principal", Text, nullable=False),
    Column("text", Text, nullable=False),
    UniqueConstraint("conversation_id", "position", name="uq_message_texts_position"),
)
"""What was said in the messages, for search; `search.py` knows how they are found. A message without text has none."""

turns = Table(
    "turns",
    metadata,
    Column("conversation_id", Text, ForeignKey("conversations.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("principal", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("fingerprint", Text, nullable=False),
    Column("options", JSON, nullable=False),
    Column("state", Text, nullable=False),
    Column("stop_reason", Text),
    Column("first_position", Integer, nullable=False),
    Column("steps", Integer, nullable=False),
    *_tokens(always=True),
    Column("unknown_requests", Integer, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double),
    PrimaryKeyConstraint("conversation_id", "number"),
    UniqueConstraint("principal", "idempotency_key", name="uq_turns_idempotency_key"),
)

pending_sends = Table(
    "pending_sends",
    metadata,
    Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
    Column("conversation_id", Text, ForeignKey("conversations.id"), nullable=False),
    Column("principal", Text, nullable=False),
    Column("holder", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("fingerprint", Text, nullable=False),
    Column("content", JSON, nullable=False),
    Column("options", JSON, nullable=False),
    Column("accepted_at", Double, nullable=False),
    Index("ix_pending_sends_conversation_id", "conversation_id", "id"),
    UniqueConstraint("principal", "idempotency_key", name="uq_pending_sends_idempotency_key"),
    sqlite_autoincrement=True,
)
"""What was accepted and is no turn yet; `id` is the order, `holder` the process that a client waits at."""

claude_requests = Table(
    "claude_requests",
    metadata,
    Column("conversation_id", Text, ForeignKey("conversations.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("principal", Text, nullable=False),
    Column("turn", Integer, nullable=False),
    Column("model", Text, nullable=False),
    Column("outcome", Text),
    Column("request_id", Text),
    Column("status", Integer),
    Column("position", Integer),
    *_tokens(always=False),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double),
    PrimaryKeyConstraint("conversation_id", "number"),
    Index("ix_claude_requests_started_at", "principal", "started_at"),
)
"""The ledger: each request to Claude, and what the API said that it took. `position` is its message's."""

tool_starts = Table(
    "tool_starts",
    metadata,
    Column("conversation_id", Text, ForeignKey("conversations.id"), nullable=False),
    Column("tool_use_id", Text, nullable=False),
    Column("principal", Text, nullable=False),
    Column("started_at", Double, nullable=False),
    PrimaryKeyConstraint("conversation_id", "tool_use_id"),
)
"""Calls by Claude of tools that must not run twice, committed before they run."""

events = Table(
    "events",
    metadata,
    # SQLite counts only an INTEGER up by itself.
    Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
    Column("principal", Text, nullable=False),
    Column("aggregate_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("payload", JSON, nullable=False),
    Column("occurred_at", Double, nullable=False),
    Index("ix_events_aggregate_id", "aggregate_id"),
    sqlite_autoincrement=True,
)

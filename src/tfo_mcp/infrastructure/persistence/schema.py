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
)

metadata = MetaData()

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
)

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

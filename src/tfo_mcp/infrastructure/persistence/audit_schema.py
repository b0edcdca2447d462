"""The table of `audit.db` as the newest migration leaves it; a database, and so a metadata, of its own.

Times are seconds since the epoch, durations seconds.
"""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Double, Integer, MetaData, Table, Text

metadata = MetaData()

intents = Table(
    "intents",
    metadata,
    # SQLite counts only an INTEGER up by itself.
    Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
    Column("principal", Text, nullable=False),
    Column("session_id", Text, nullable=False),
    Column("request_id", Text),
    Column("trace_id", Text, nullable=False),
    Column("span_id", Text, nullable=False),
    Column("tool", Text, nullable=False),
    Column("argument_names", JSON, nullable=False),
    Column("arguments", JSON, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("duration", Double),
    Column("outcome", Text),
    Column("error_type", Text),
    sqlite_autoincrement=True,
)

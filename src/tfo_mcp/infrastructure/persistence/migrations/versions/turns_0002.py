"""Turns, sends that wait for theirs, the ledger of requests to Claude, begun tool calls; totals and origins."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")


def upgrade() -> None:
    _extend_conversations()
    op.create_table(
        "turns",
        sa.Column("conversation_id", sa.Text(), sa.ForeignKey("conversations.id"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text()),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("stop_reason", sa.Text()),
        sa.Column("first_position", sa.Integer(), nullable=False),
        sa.Column("steps", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in _TOKENS),
        sa.Column("unknown_requests", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("ended_at", sa.Double),
        sa.PrimaryKeyConstraint("conversation_id", "number"),
        sa.UniqueConstraint("principal", "idempotency_key", name="uq_turns_idempotency_key"),
    )
    op.create_table(
        "pending_sends",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("conversation_id", sa.Text(), sa.ForeignKey("conversations.id"), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text()),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("accepted_at", sa.Double, nullable=False),
        sa.UniqueConstraint("principal", "idempotency_key", name="uq_pending_sends_idempotency_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_pending_sends_conversation_id", "pending_sends", ["conversation_id", "id"])
    op.create_table(
        "claude_requests",
        sa.Column("conversation_id", sa.Text(), sa.ForeignKey("conversations.id"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text()),
        sa.Column("request_id", sa.Text()),
        sa.Column("status", sa.Integer()),
        sa.Column("position", sa.Integer()),
        *(sa.Column(name, sa.BigInteger()) for name in _TOKENS),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("ended_at", sa.Double),
        sa.PrimaryKeyConstraint("conversation_id", "number"),
    )
    op.create_index("ix_claude_requests_started_at", "claude_requests", ["principal", "started_at"])
    op.create_table(
        "tool_starts",
        sa.Column("conversation_id", sa.Text(), sa.ForeignKey("conversations.id"), nullable=False),
        sa.Column("tool_use_id", sa.Text(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("conversation_id", "tool_use_id"),
    )


def _extend_conversations() -> None:
    # One column at a time: SQLite adds them in place, and would otherwise make the table anew.
    for name in ("turns", "requests", "unknown_requests"):
        op.add_column("conversations", sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
    for name in _TOKENS:
        op.add_column("conversations", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("conversations", sa.Column("open_request", sa.Integer()))
    op.add_column("conversations", sa.Column("forked_from", sa.Text()))
    op.add_column("conversations", sa.Column("forked_at", sa.Integer()))
    for name in _TOKENS:
        op.execute(
            f"UPDATE conversations SET {name} = "  # noqa: S608  # a column's name from above
            f"(SELECT coalesce(sum({name}), 0) FROM messages WHERE conversation_id = conversations.id)"
        )

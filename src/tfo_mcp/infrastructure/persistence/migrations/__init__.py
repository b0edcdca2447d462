"""The schema's history, oldest first. Alembic is imported only to apply it.

A new migration is a file in `versions/` and its revision at the end of `REVISIONS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection

REVISIONS = ("0001",)
"""Every revision that this program knows; the last is the one that it works with."""

HEAD = REVISIONS[-1]


def upgrade(connection: Connection) -> None:
    """Bring the schema to `HEAD`, inside the transaction that `connection` has begun."""
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", "tfo_mcp.infrastructure.persistence:migrations")
    command.upgrade(config, HEAD)

"""The schemas' histories, oldest first. Alembic is imported only to apply one.

Each database has a folder here. A new migration is a file in it and its revision at the end of the history.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection

_alembic = threading.Lock()
"""Alembic keeps the migration under way in globals, and two databases may be opened at once."""


@dataclass(frozen=True, slots=True)
class History:
    """How one database's schema came to be.

    Attributes:
        folder: where its migrations are, beside this module.
        revisions: every one that this program knows; the last is the one that it works with.
    """

    folder: str
    revisions: tuple[str, ...]

    @property
    def head(self) -> str:
        return self.revisions[-1]

    def upgrade(self, connection: Connection) -> None:
        """Bring the schema to `head`, inside the transaction that `connection` has begun."""
        from alembic import command
        from alembic.config import Config

        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", "tfo_mcp.infrastructure.persistence:migrations")
        config.set_main_option("path_separator", "newline")
        config.set_main_option("version_locations", f"tfo_mcp.infrastructure.persistence.migrations:{self.folder}")
        with _alembic:
            command.upgrade(config, self.head)


STATE = History("versions", ("0001", "0002", "0003"))
"""`tfo-mcp.db`: sessions, conversations, their turns and events."""

AUDIT = History("audit", ("0001",))
"""`audit.db`: what tools that act were about to do, and how it ended."""

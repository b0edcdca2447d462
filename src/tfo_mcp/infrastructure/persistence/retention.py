"""What has become too old is removed in the background, as `tfo-mcp purge` would."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from tfo_mcp.domain.errors import StorageUnavailable
from tfo_mcp.infrastructure.persistence.archive import Archive

_logger = logging.getLogger(__name__)

DAY: Final = 86_400.0
"""Seconds."""


class Retention:
    """Keeps conversations and sessions for `days` days after their last change, None: for ever.

    Args:
        every: seconds from one look to the next.
    """

    def __init__(self, archive: Archive, days: int | None, *, every: float = DAY) -> None:
        self._archive = archive
        self._days = days
        self._every = every

    async def run(self) -> None:
        """Look now and then, until it is cancelled; returns at once where everything is kept."""
        while self._days is not None:
            try:
                await self._apply(self._days)
            except StorageUnavailable as error:
                _logger.warning("conversations older than storage.retention_days could not be removed: %s", error)
            except Exception:  # nothing that waits for it could be told
                _logger.exception("conversations older than storage.retention_days could not be removed")
            await asyncio.sleep(self._every)

    async def _apply(self, days: int) -> None:
        removed = await self._archive.purge(time.time() - days * DAY)
        if removed.conversations or removed.sessions:
            await self._archive.wipe()
            _logger.info(
                "removed what is older than storage.retention_days: %d conversations with %d messages, %d sessions",
                removed.conversations,
                removed.messages,
                removed.sessions,
            )

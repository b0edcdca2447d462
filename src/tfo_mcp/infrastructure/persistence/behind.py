"""Writing behind: one task writes what waits, again and again until storage takes it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context

from tfo_mcp.domain.errors import StorageUnavailable
from tfo_mcp.infrastructure.persistence.storage import Storage

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
"""Seconds between two attempts while storage is unavailable; each pause is twice the one before."""


class WriteBehind:
    """The writer of one repository.

    Args:
        storage: nothing is written before somebody has asked for it to be open.
        write_all: writes what waits; raises `StorageUnavailable` where that cannot be.
        waiting: how much there is.
    """

    def __init__(self, storage: Storage, write_all: Callable[[], Awaitable[None]], waiting: Callable[[], int]) -> None:
        self._storage = storage
        self._write_all = write_all
        self._waiting = waiting
        self._writer: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    def wake(self) -> None:
        """There is something to write."""
        if self._writer is None or self._writer.done():
            # In a context of its own: it outlives the request that it begins in.
            self._writer = asyncio.create_task(self._write_behind(), context=Context())

    async def flush(self, timeout: float) -> int:  # noqa: ASYNC109  # a budget, not a deadline: it never raises
        """Write what waits, opening storage for it, for at most `timeout` seconds; returns how much is left."""
        if self._writer is not None:
            self._writer.cancel()
        if self._waiting():
            self._writer = asyncio.create_task(self._write_now())
            await asyncio.wait([self._writer], timeout=timeout)
            self._writer.cancel()
        return self._waiting()

    async def _write_behind(self) -> None:
        await self._storage.wanted.wait()
        pause = _FIRST_PAUSE
        while self._waiting():
            try:
                await self._write_in_turn()
            except StorageUnavailable:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _write_now(self) -> None:
        with suppress(StorageUnavailable):
            await self._write_in_turn()

    async def _write_in_turn(self) -> None:
        # A writer that is cancelled still ends the transaction that it is in.
        async with self._turn:
            await self._write_all()

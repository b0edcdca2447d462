"""Processes that share one database and its locks, and can die between any two of their steps.

A process is a `World` with a connection and locks of its own. At each of its `moments`, which are before and after
every read and write of storage, every request to Claude and every tool, anything can be made to happen.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from support.world import Storage as Repository
from support.world import World
from tfo_mcp.domain.errors import StorageUnavailable
from tfo_mcp.infrastructure.persistence.forks import SqlConversationForks
from tfo_mcp.infrastructure.persistence.locks import FileLocks
from tfo_mcp.infrastructure.persistence.storage import Storage

if TYPE_CHECKING:
    from sqlalchemy import Connection

_T = TypeVar("_T")

Place = Literal["anywhere", "storage", "Claude", "tool"]
"""Where a moment is."""


class Killed(Exception):
    """Raised into whatever a process did when it was killed, at each step that it still wants to take."""


class Moments:
    """Counts the moments of all processes, and lets happen what is due at each."""

    def __init__(self) -> None:
        self.due: list[tuple[Place, int, Callable[[Process], None]]] = []

    def at(self, place: Place, number: int, happens: Callable[[Process], None]) -> None:
        """At the moment at the place that is `number` of such moments ahead, to the process whose moment it is."""
        self.due.append((place, number, happens))

    def next(self, place: Place, process: Process) -> None:
        """One of the process is there."""
        due, self.due = self.due, []
        for where, number, happens in due:
            left = number - (where in {"anywhere", place})
            if left:
                self.due.append((where, left, happens))
            else:
                happens(process)


class _Locks(FileLocks):
    """Locks of which the system takes back what is left when the process has died."""

    async def died(self) -> None:
        await asyncio.gather(*self._unwatched, return_exceptions=True)
        left = [self._own, *self._held.values()]
        self._own = None
        self._held.clear()
        for descriptor in left:
            if descriptor is not None:
                os.close(descriptor)


class _Disk(Storage):
    """A process's own way to the database."""

    def __init__(self, path: Path, moment: Callable[[], Awaitable[None]]) -> None:
        super().__init__(path)
        self._moment = moment
        self.failing = 0
        """So many more accesses fail."""

    async def read(self, work: Callable[[Connection], _T]) -> _T:
        await self._moment()
        self._access()
        return await super().read(work)

    async def write(self, work: Callable[[Connection], _T], committed: Callable[[_T], object] | None = None) -> _T:
        await self._moment()
        self._access()
        written = await super().write(work, committed)
        await self._moment()
        return written

    def _access(self) -> None:
        if self.failing:
            self.failing -= 1
            raise StorageUnavailable("the disk is full")


class Process:
    """One of those that share `folder`.

    Attributes:
        is_dead: it does nothing any more, and its locks are free as soon as `bury` returns.
    """

    def __init__(self, folder: Path, moments: Moments, make: Callable[[Process], World]) -> None:
        self.is_dead = False
        self.disk = _Disk(folder / "tfo-mcp.db", self.moment)
        self.repository = Repository(self.disk)
        self.forks = SqlConversationForks(self.disk)
        self.locks = _Locks(folder / "locks")
        self._moments = moments
        self._tasks: set[asyncio.Task[Any]] = set()
        self.world = make(self)

    @property
    def holder(self) -> str:
        return self.locks.holder

    def start(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """A request of one of its clients."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def moment(self, place: Place = "storage") -> None:
        """Between two of its steps."""
        if not self.is_dead:
            self._moments.next(place, self)
            await asyncio.sleep(0)
        if self.is_dead:
            raise Killed

    def kill(self) -> None:
        """What is being committed is committed still; nothing else happens."""
        self.is_dead = True
        for task in self._tasks:
            task.cancel()

    async def bury(self) -> None:
        """When all that it had begun has come to its end."""
        self.is_dead = True
        await self.locks.died()
        await self.disk.close()
        self.world.executor.shutdown()

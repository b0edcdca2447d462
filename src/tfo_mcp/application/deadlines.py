"""Deadlines of running tools: one sweeper for all of them, no timer each (DESIGN decision 1b)."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

_RESOLUTION = 0.02
"""Seconds between two sweeps at least, so that a thousand deadlines are a few sweeps."""


class DeadlinePassed(Exception):
    """The body of a deadline was cancelled because its time was over; a signal, not an error for a client."""


class Deadlines:
    """All deadlines of one event loop."""

    def __init__(self) -> None:
        self._running: set[Deadline] = set()
        self._timer: asyncio.TimerHandle | None = None

    def within(self, seconds: float) -> Deadline:
        """A context manager whose body is cancelled after `seconds`.

        Raises:
            DeadlinePassed: from the `with` statement, in place of the cancellation.
        """
        return Deadline(self, seconds)

    def add(self, deadline: Deadline) -> None:
        """Watch `deadline` (called by it)."""
        self._running.add(deadline)
        if self._timer is None or deadline.when < self._timer.when():
            self._schedule(deadline.when)

    def remove(self, deadline: Deadline) -> None:
        """Watch it no more (called by it). The timer stays: to cancel it would cost more than a vain sweep."""
        self._running.discard(deadline)

    def _schedule(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for deadline in [d for d in self._running if d.when <= now]:
            self._running.discard(deadline)
            deadline.expire()
        if self._running:
            self._schedule(max(min(d.when for d in self._running), now + _RESOLUTION))


class Deadline:
    """The deadline of one body."""

    __slots__ = ("_cancelling", "_expired", "_owner", "_seconds", "_task", "when")

    def __init__(self, owner: Deadlines, seconds: float) -> None:
        self._owner = owner
        self._seconds = seconds
        self._expired = False
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self.when = 0.0

    def expire(self) -> None:
        self._expired = True
        if self._task is not None:
            self._task.cancel()

    def lift(self) -> None:
        """The body may take as long as it likes from now on, unless the time was over already."""
        self._owner.remove(self)

    @contextmanager
    def suspended(self) -> Generator[None]:
        """A part of the body that may take as long as it likes.

        Raises:
            DeadlinePassed: at its end, where the time is over by then.
        """
        self._owner.remove(self)
        yield
        if self.when <= asyncio.get_running_loop().time():
            raise DeadlinePassed
        self._owner.add(self)

    def __enter__(self) -> Self:
        self.when = asyncio.get_running_loop().time() + self._seconds
        self._task = asyncio.current_task()
        self._cancelling = self._task.cancelling() if self._task is not None else 0
        self._owner.add(self)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._owner.remove(self)
        task, self._task = self._task, None
        # A cancellation by the client that came at the same time wins: then `cancelling()` is still higher.
        if (
            self._expired
            and task is not None
            and task.uncancel() <= self._cancelling
            and exc_type is not None
            and issubclass(exc_type, asyncio.CancelledError)
        ):
            raise DeadlinePassed from exc

"""Threads for what blocks on the disk. No exit waits for them, however long they wait for a lock."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeVar

_T = TypeVar("_T")


class Threads:
    """Runs functions in at most `most` threads, which start when they are wanted; the rest queues in order.

    To be used from one event loop. The standard library's pool has threads that every exit waits for.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._started = 0
        self._unfinished = 0

    async def run(self, function: Callable[[], _T]) -> _T:
        """What `function` returns or raises. To be cancelled here stops the wait; the function goes on.

        Raises:
            RuntimeError: there is no thread, and the system starts none; the function is not run.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_T] = loop.create_future()

        def job() -> None:
            try:
                settle = answer.set_result, function()
            except StopIteration as error:  # no future takes that
                settle = answer.set_exception, RuntimeError(f"a function raised {error!r}")
            except BaseException as error:  # noqa: BLE001  # whoever waits gets it
                settle = answer.set_exception, error
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._finished, answer, *settle)

        if self._started < min(self._unfinished + 1, self._most):
            self._start()
        self._unfinished += 1
        self._jobs.put(job)
        return await answer

    def close(self) -> None:
        """Let the threads end when they have done what was asked until now."""
        for _ in range(self._started):
            self._jobs.put(None)
        self._started = 0

    def _start(self) -> None:
        try:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        except RuntimeError:  # the system allows no more threads
            if not self._started:
                raise
        else:
            self._started += 1

    def _finished(self, answer: asyncio.Future[_T], settle: Callable[..., None], outcome: object) -> None:
        self._unfinished -= 1
        if not answer.done():
            settle(outcome)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # or what it refers to would live until the next one

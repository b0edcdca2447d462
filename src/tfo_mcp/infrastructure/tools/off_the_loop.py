"""Blocking work for a coroutine: in a thread, which can ask whether anybody still waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from tfo_mcp.application.tool_handler import CallAbandoned
from tfo_mcp.domain.tool import Abandonable

_T = TypeVar("_T")


class _Work:
    def __init__(self) -> None:
        self._abandoned = threading.Event()

    def abandon(self) -> None:
        self._abandoned.set()

    def check(self) -> None:
        if self._abandoned.is_set():
            raise CallAbandoned


async def off_the_loop(executor: Executor, function: Callable[[Abandonable], _T]) -> _T:
    """What `function` returns, called in `executor`; once this is cancelled, its `check()` raises there."""
    work = _Work()
    try:
        return await asyncio.get_running_loop().run_in_executor(executor, function, work)
    finally:
        work.abandon()

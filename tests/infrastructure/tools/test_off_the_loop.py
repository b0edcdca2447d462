from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tfo_mcp.application.tool_handler import CallAbandoned
from tfo_mcp.domain.errors import ToolFailure
from tfo_mcp.domain.tool import Abandonable
from tfo_mcp.infrastructure.tools.off_the_loop import off_the_loop

PATIENCE = 10.0


def test_work_runs_in_a_thread_and_gives_its_result_or_its_failure() -> None:
    def fail(_work: Abandonable) -> int:
        raise ToolFailure("no")

    async def run() -> None:
        with ThreadPoolExecutor(1, thread_name_prefix="worker") as executor:
            assert (await off_the_loop(executor, lambda _: threading.current_thread().name)).startswith("worker")
            with pytest.raises(ToolFailure, match="no"):
                await off_the_loop(executor, fail)

    asyncio.run(run())


def test_work_is_told_that_nobody_waits_any_more() -> None:
    begun, ended, never = threading.Event(), threading.Event(), threading.Event()

    def work(asked: Abandonable) -> None:
        asked.check()
        begun.set()
        try:
            while not never.wait(0.001):
                asked.check()
        except CallAbandoned:
            ended.set()
            raise

    async def run() -> None:
        with ThreadPoolExecutor(1) as executor:
            working = asyncio.create_task(off_the_loop(executor, work))
            assert await asyncio.to_thread(begun.wait, PATIENCE)
            working.cancel()
            with pytest.raises(asyncio.CancelledError):
                await working
            try:
                assert await asyncio.to_thread(ended.wait, PATIENCE)
            finally:
                never.set()

    asyncio.run(run())

from __future__ import annotations

import asyncio
import threading

import pytest

from tfo_mcp.infrastructure.persistence.threads import Threads

DEADLINE = 20.0


def refuses(_thread: threading.Thread) -> None:
    """What the system does that allows no more threads."""
    raise RuntimeError("can't start new thread")


def test_what_no_future_takes_is_raised_all_the_same() -> None:
    def ends() -> None:
        raise StopIteration("the end")

    async def scenario() -> int:
        threads = Threads("test", 1)
        with pytest.raises(RuntimeError, match="the end"):
            await asyncio.wait_for(threads.run(ends), DEADLINE)
        return await asyncio.wait_for(threads.run(lambda: 7), DEADLINE)

    assert asyncio.run(scenario()) == 7


def test_what_is_refused_for_want_of_a_thread_is_never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> list[str]:
        ran: list[str] = []
        threads = Threads("test", 2)
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuses)
            with pytest.raises(RuntimeError, match="can't start"):
                await threads.run(lambda: ran.append("refused"))
        await asyncio.wait_for(threads.run(lambda: ran.append("taken")), DEADLINE)
        return ran

    assert asyncio.run(scenario()) == ["taken"]


def test_the_threads_that_are_there_do_what_others_would(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> list[int]:
        threads = Threads("test", 4)
        await threads.run(lambda: None)
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuses)
            return await asyncio.wait_for(asyncio.gather(*(threads.run(lambda: 7) for _ in range(9))), DEADLINE)

    assert asyncio.run(scenario()) == [7] * 9

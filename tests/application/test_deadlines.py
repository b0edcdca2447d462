from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress

import pytest

from tfo_mcp.application.deadlines import DeadlinePassed, Deadlines

SOON, LATER = 0.03, 30.0


async def forever() -> None:
    await asyncio.Event().wait()


def in_time(work: Awaitable[None]) -> None:
    async def run() -> None:
        async with asyncio.timeout(10):
            await work

    asyncio.run(run())


def test_a_body_that_takes_too_long_is_cancelled_and_named_so() -> None:
    async def main() -> None:
        deadlines = Deadlines()
        with pytest.raises(DeadlinePassed), deadlines.within(SOON):
            await forever()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    in_time(main())


def test_a_body_that_ends_in_time_is_left_alone_when_its_time_comes() -> None:
    async def main() -> None:
        deadlines = Deadlines()
        with deadlines.within(SOON):
            pass
        with pytest.raises(DeadlinePassed), deadlines.within(2 * SOON):
            await forever()  # by its end the first one's time has come too

    in_time(main())


def test_a_shorter_deadline_is_not_held_up_by_a_longer_one_before_it() -> None:
    async def main() -> None:
        deadlines = Deadlines()

        async def long() -> None:
            with deadlines.within(LATER):
                await forever()

        other = asyncio.create_task(long())
        await asyncio.sleep(0)
        with pytest.raises(DeadlinePassed), deadlines.within(SOON):
            await forever()
        assert not other.done()
        other.cancel()

    in_time(main())


def test_a_thousand_deadlines_pass_each_in_its_own_task() -> None:
    async def main() -> None:
        deadlines = Deadlines()

        async def one() -> bool:
            try:
                with deadlines.within(SOON):
                    await forever()
            except DeadlinePassed:
                return True
            return False

        assert all(await asyncio.gather(*(one() for _ in range(1000))))

    in_time(main())


def test_no_time_at_all_passes_at_the_first_wait() -> None:
    async def main() -> None:
        with pytest.raises(DeadlinePassed), Deadlines().within(0):
            await forever()

    in_time(main())


def test_a_cancellation_from_outside_stays_one() -> None:
    async def main() -> None:
        deadlines = Deadlines()

        async def work() -> None:
            with deadlines.within(LATER):
                await forever()

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel("by the client")
        with pytest.raises(asyncio.CancelledError, match="by the client"):
            await task

    in_time(main())


async def until_cancelled_twice(once: asyncio.Event) -> None:
    try:
        await forever()
    except asyncio.CancelledError:
        once.set()
        with suppress(asyncio.CancelledError):
            await forever()
        raise


@pytest.mark.parametrize("client_first", [True, False])
def test_a_cancellation_from_outside_wins_over_a_deadline_that_passes_beside_it(*, client_first: bool) -> None:
    async def main() -> None:
        once = asyncio.Event()

        async def work() -> None:
            with Deadlines().within(SOON):
                await until_cancelled_twice(once)

        task = asyncio.create_task(work())
        await (asyncio.sleep(0) if client_first else once.wait())
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    in_time(main())


def test_a_body_that_ends_in_spite_of_its_deadline_has_ended() -> None:
    async def main() -> None:
        with Deadlines().within(SOON), suppress(asyncio.CancelledError):
            await forever()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    in_time(main())


def test_an_error_of_the_body_passes_unchanged() -> None:
    async def main() -> None:
        with pytest.raises(KeyError), Deadlines().within(LATER):
            raise KeyError

    in_time(main())


@pytest.mark.parametrize(("outer", "inner", "passed"), [(SOON, LATER, "outer"), (LATER, SOON, "inner")])
def test_of_two_nested_deadlines_the_one_that_passes_is_reported(outer: float, inner: float, passed: str) -> None:
    async def main() -> None:
        deadlines = Deadlines()
        seen: list[str] = []
        try:
            with deadlines.within(outer):
                try:
                    with deadlines.within(inner):
                        await forever()
                except DeadlinePassed:
                    seen.append("inner")
        except DeadlinePassed:
            seen.append("outer")
        assert seen == [passed]

    in_time(main())


def test_of_two_nested_deadlines_that_both_pass_the_outer_one_is_reported() -> None:
    async def main() -> None:
        deadlines = Deadlines()
        with pytest.raises(DeadlinePassed) as passed, deadlines.within(SOON), deadlines.within(0):
            await until_cancelled_twice(asyncio.Event())
        assert isinstance(passed.value.__cause__, asyncio.CancelledError)

    in_time(main())

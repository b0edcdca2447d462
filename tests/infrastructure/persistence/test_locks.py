from __future__ import annotations

import asyncio
import os
import shutil
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tfo_mcp.domain.errors import StorageUnavailable
from tfo_mcp.domain.identifiers import ConversationId, new_conversation_id
from tfo_mcp.infrastructure.persistence.locks import FileLocks

ONE, OTHER = ConversationId("conv_1"), ConversationId("conv_2")


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scenario()

    asyncio.run(bounded())


async def take(locks: FileLocks) -> None:
    """As soon as it can be had."""
    while not await locks.try_acquire(ONE):  # noqa: ASYNC110  # nobody tells that it is free
        await asyncio.sleep(0)


def test_a_lock_is_had_by_one_process_at_a_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        mine, theirs = FileLocks(tmp_path), FileLocks(tmp_path)
        assert await mine.try_acquire(ONE)
        assert not await theirs.try_acquire(ONE)
        assert await theirs.try_acquire(OTHER)
        await mine.release(ONE)
        assert await theirs.try_acquire(ONE)
        assert not await mine.try_acquire(ONE)

    run(scenario)


def test_a_lock_is_had_once_within_its_process_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        locks = FileLocks(tmp_path)
        assert sorted(await asyncio.gather(*(locks.try_acquire(ONE) for _ in range(20)))) == [False] * 19 + [True]
        assert not await locks.try_acquire(ONE)
        await locks.release(ONE)
        assert await locks.try_acquire(ONE)

    run(scenario)


def test_what_is_not_held_is_given_back_without_harm(tmp_path: Path) -> None:
    async def scenario() -> None:
        locks, others = FileLocks(tmp_path), FileLocks(tmp_path)
        await locks.release(ONE)
        assert await others.try_acquire(ONE)
        await locks.release(ONE)
        assert not await locks.try_acquire(ONE)

    run(scenario)


def test_a_lock_that_is_given_back_twice_at_once_is_given_back_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        locks = FileLocks(tmp_path)
        for _ in range(50):
            assert await locks.try_acquire(ONE)
            await asyncio.gather(locks.release(ONE), locks.release(ONE))
        assert await locks.try_acquire(ONE)

    run(scenario)


def test_a_process_counts_as_alive_as_soon_as_it_is_registered(tmp_path: Path) -> None:
    async def scenario() -> None:
        mine, theirs = FileLocks(tmp_path), FileLocks(tmp_path)
        assert mine.holder != theirs.holder
        assert not await theirs.lives(mine.holder)
        assert await mine.register() == mine.holder
        assert await theirs.lives(mine.holder)
        assert await mine.lives(mine.holder)
        assert not await mine.lives("0" * 32)

    run(scenario)


def test_to_ask_who_lives_leaves_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        assert not await FileLocks(tmp_path).lives("0" * 32)
        assert not await FileLocks(tmp_path / "locks").lives("0" * 32)

    run(scenario)
    assert files(tmp_path) == set()


def test_a_process_that_registers_many_times_at_once_is_one_holder(tmp_path: Path) -> None:
    async def scenario() -> None:
        locks = FileLocks(tmp_path)
        assert set(await asyncio.gather(*(locks.register() for _ in range(20)))) == {locks.holder}
        assert files(tmp_path) == {f"process-{locks.holder}.lock"}

    run(scenario)


def test_a_start_that_is_looked_at_by_another_takes_another_name(tmp_path: Path) -> None:
    async def scenario() -> None:
        locks, others = FileLocks(tmp_path), FileLocks(tmp_path)
        looked_at = locks.holder
        assert await others.try_acquire(ConversationId(f"process-{looked_at}"))
        assert await locks.register() != looked_at
        assert await others.lives(locks.holder)

    run(scenario)


def test_a_folder_of_locks_does_not_grow(tmp_path: Path) -> None:
    async def scenario() -> None:
        locks = FileLocks(tmp_path)
        for _ in range(50):
            conversation_id = new_conversation_id()
            assert await locks.try_acquire(conversation_id)
            assert f"{conversation_id}.lock" in files(tmp_path)
            await locks.release(conversation_id)
        assert files(tmp_path) == {f"process-{locks.holder}.lock"}

    run(scenario)


def test_a_lock_is_not_kept_by_who_is_cancelled_while_it_is_taken(tmp_path: Path) -> None:
    async def scenario() -> None:
        locks, others = FileLocks(tmp_path), FileLocks(tmp_path)
        own = {f"process-{await locks.register()}.lock", f"process-{await others.register()}.lock"}
        for turns in range(30):
            taking = asyncio.create_task(locks.try_acquire(ONE))
            for _ in range(turns):  # of the loop: it is cancelled before, in and after the thread's work
                await asyncio.sleep(0)
            if taking.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await taking
            else:
                await locks.release(ONE)
            for anybody in (others, locks):
                await take(anybody)
                await anybody.release(ONE)
            assert files(tmp_path) == own

    run(scenario)


def test_a_lock_is_given_back_whole_also_by_who_is_cancelled_meanwhile(tmp_path: Path) -> None:
    async def scenario() -> None:
        locks = FileLocks(tmp_path)
        for _ in range(30):
            await take(locks)
            giving = asyncio.create_task(locks.release(ONE))
            await asyncio.sleep(0)
            giving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await giving
        await take(locks)
        await locks.release(ONE)
        assert files(tmp_path) == {f"process-{locks.holder}.lock"}

    run(scenario)


def test_a_lock_whose_file_was_removed_and_made_anew_is_left_to_whoever_has_it_now(tmp_path: Path) -> None:
    async def scenario() -> None:
        mine, theirs, third = FileLocks(tmp_path), FileLocks(tmp_path), FileLocks(tmp_path)
        assert await mine.try_acquire(ONE)
        (tmp_path / f"{ONE}.lock").unlink()  # somebody cleans up
        assert await theirs.try_acquire(ONE)  # the fence is what now keeps the conversation whole
        await mine.release(ONE)
        assert not await third.try_acquire(ONE)

    run(scenario)


def test_locks_are_for_their_owner_only(tmp_path: Path) -> None:
    async def scenario() -> None:
        folder = tmp_path / "state" / "locks"
        locks = FileLocks(folder)
        assert await locks.try_acquire(ONE)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, folder, *folder.iterdir())}
        own = f"process-{locks.holder}.lock"
        assert modes == {"state": 0o700, "locks": 0o700, own: 0o600, f"{ONE}.lock": 0o600}

    before = os.umask(0)
    try:
        run(scenario)
    finally:
        os.umask(before)


# --- what goes wrong ---


def test_links_are_not_followed(tmp_path: Path) -> None:
    async def scenario() -> None:
        locks = FileLocks(tmp_path / "locks")
        await locks.register()
        lock, elsewhere = tmp_path / "locks" / f"{ONE}.lock", tmp_path / "elsewhere"
        lock.symlink_to(elsewhere)
        with pytest.raises(StorageUnavailable) as refused:
            await locks.try_acquire(ONE)
        assert str(refused.value) == (
            f"'{lock}', which locks conversations, cannot be used: it is a symbolic link, which is not followed"
        )
        assert not elsewhere.exists()
        assert await locks.try_acquire(OTHER)
        lock.unlink()
        assert await locks.try_acquire(ONE)

    run(scenario)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_folder_of_locks_that_is_none_is_refused(tmp_path: Path, kind: str) -> None:
    async def scenario() -> None:
        folder, elsewhere = tmp_path / "locks", tmp_path / "elsewhere"
        elsewhere.mkdir()
        if kind == "file":
            folder.touch()
        else:
            folder.symlink_to(elsewhere)
        locks = FileLocks(folder)
        with pytest.raises(StorageUnavailable) as refused:
            await locks.register()
        assert str(refused.value) == (
            f"the folder of locks '{folder}' cannot be used: it is no folder, or a link to one"
        )
        assert files(elsewhere) == set()
        folder.unlink()
        assert await locks.try_acquire(ONE)

    run(scenario)


@pytest.mark.parametrize("gone", ["folder", "moved", "own lock"])
def test_nothing_is_locked_in_a_folder_that_was_taken_away(tmp_path: Path, gone: str) -> None:
    async def scenario() -> None:
        folder = tmp_path / "locks"
        locks = FileLocks(folder)
        assert await locks.try_acquire(ONE)
        if gone == "folder":
            shutil.rmtree(folder)
        elif gone == "moved":
            folder.rename(tmp_path / "moved")
            assert await FileLocks(folder).try_acquire(ONE)
        else:
            (folder / f"process-{locks.holder}.lock").unlink()
        for attempt in (locks.try_acquire(OTHER), locks.register()):
            with pytest.raises(StorageUnavailable) as refused:
                await attempt
            assert str(refused.value) == (
                f"the folder of locks '{folder}' cannot be used: it, or this process's lock in it, was moved or "
                "deleted while it was in use; put it back, or start tfo-mcp again"
            )
        await locks.release(ONE)

    run(scenario)


def test_a_folder_of_locks_that_is_put_back_is_used_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        folder = tmp_path / "locks"
        locks, others = FileLocks(folder), FileLocks(folder)
        assert await locks.try_acquire(ONE)
        await others.register()
        folder.rename(tmp_path / "moved")
        with pytest.raises(StorageUnavailable):
            await locks.register()
        (tmp_path / "moved").rename(folder)
        assert not await others.try_acquire(ONE)
        await locks.release(ONE)
        assert await others.try_acquire(ONE)

    run(scenario)

"""Locks among real processes: raced for, stopped, killed."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support import locker
from tfo_mcp.domain.errors import StorageUnavailable
from tfo_mcp.domain.identifiers import ConversationId
from tfo_mcp.infrastructure.persistence.locks import FileLocks

DEADLINE = 60.0
ONE = ConversationId("conv_1")


class Locker:
    """One process of `tests/support/locker.py`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._stdin, self._stdout = process.stdin, process.stdout
        said, _, self.holder = self.line().partition(" ")
        assert said == "ready", self.holder

    def tell(self, line: str = "") -> None:
        self._stdin.write(f"{line}\n")
        self._stdin.flush()

    def line(self) -> str:
        return self._stdout.readline().rstrip("\n")

    def ask(self, line: str = "") -> str:
        self.tell(line)
        return self.line()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)


@contextmanager
def started(folder: Path, task: str, *options: str) -> Generator[subprocess.Popen[str]]:
    command = [sys.executable, str(locker.__file__), str(folder), task, *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def locking(folder: Path, task: str, *options: str) -> Generator[Locker]:
    with started(folder, task, *options) as process:
        yield Locker(process)


def taken_now(locks: FileLocks) -> bool:
    """Whether the lock can be had; then it is given back."""

    async def scenario() -> bool:
        if not await locks.try_acquire(ONE):
            return False
        await locks.release(ONE)
        return True

    return asyncio.run(scenario())


def lives(locks: FileLocks, holder: str) -> bool:
    return asyncio.run(locks.lives(holder))


def highest_descriptor() -> int:
    return max(int(path.name) for path in Path("/dev/fd").iterdir())


def race(folder: Path, rounds: Sequence[int]) -> None:
    count = folder / "count"
    count.write_text("0")
    with ExitStack() as stack:
        options = [("--count", str(count), "--rounds", str(number)) for number in rounds]
        processes = [stack.enter_context(locking(folder / "locks", "race", *option)) for option in options]
        for process in processes:
            process.tell()
        assert [process.line() for process in processes] == ["done 0"] * len(rounds)
    assert count.read_text() == str(sum(rounds))


def test_two_processes_that_race_for_one_lock_never_have_it_both(tmp_path: Path) -> None:
    race(tmp_path, [500, 500])


@pytest.mark.ci
def test_four_processes_that_race_for_one_lock_never_have_it_two_at_once(tmp_path: Path) -> None:
    race(tmp_path, [1000] * 4)


def test_processes_that_start_at_once_on_an_empty_folder_are_all_alive(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "locks"
    with ExitStack() as stack:
        processes = [stack.enter_context(started(folder, "lives")) for _ in range(4)]
        lockers = [Locker(process) for process in processes]
        assert len({one.holder for one in lockers}) == 4
        for one in lockers:
            one.tell()
            assert [one.ask(other.holder) for other in lockers] == ["True"] * 4


def test_a_lock_dies_with_its_holder(tmp_path: Path) -> None:
    locks = FileLocks(tmp_path)
    with locking(tmp_path, "hold") as holder:
        assert holder.ask() == "held"
        assert not taken_now(locks)
        assert lives(locks, holder.holder)
        holder.kill()
        assert taken_now(locks)
        assert not lives(locks, holder.holder)
    assert {path.name for path in tmp_path.iterdir()} == {f"process-{locks.holder}.lock"}


def test_a_holder_that_is_stopped_is_alive(tmp_path: Path) -> None:
    locks = FileLocks(tmp_path)
    with locking(tmp_path, "hold") as holder:
        assert holder.ask() == "held"
        holder.process.send_signal(signal.SIGSTOP)
        assert not taken_now(locks)
        assert lives(locks, holder.holder)
        holder.process.send_signal(signal.SIGCONT)
        assert holder.ask() == "released"
        assert taken_now(locks)


def test_a_program_that_a_holder_started_keeps_no_lock(tmp_path: Path) -> None:
    locks = FileLocks(tmp_path)
    with locking(tmp_path, "hold", "--child") as holder:
        child = int(holder.ask())
        try:
            assert holder.line() == "held"
            holder.kill()
            os.kill(child, 0)
            assert taken_now(locks)
            assert not lives(locks, holder.holder)
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_process_that_starts_clears_away_the_locks_of_dead_ones(tmp_path: Path) -> None:
    with locking(tmp_path, "hold") as alive, locking(tmp_path, "hold") as dead:
        dead.kill()
        for number in range(20):
            (tmp_path / f"process-{number}.lock").touch()
        with locking(tmp_path, "hold") as starting:
            left = {path.name for path in tmp_path.iterdir()}
            assert left == {f"process-{one.holder}.lock" for one in (alive, starting)}


def test_of_many_dead_ones_a_start_clears_away_a_bounded_number(tmp_path: Path) -> None:
    for number in range(1100):
        (tmp_path / f"process-{number}.lock").touch()
    asyncio.run(FileLocks(tmp_path).register())
    assert len(list(tmp_path.iterdir())) in {101, 102}  # its own may have been one of those that it came by
    asyncio.run(FileLocks(tmp_path).register())
    assert len(list(tmp_path.iterdir())) == 2


def test_locks_in_a_folder_that_may_not_be_written_are_refused_with_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "locks"
    folder.mkdir(mode=0o500)
    with started(folder, "hold", "--as-nobody") as process:
        assert process.stdout is not None
        said = process.stdout.readline().rstrip("\n")
    assert said == f"unavailable '{folder}', which locks conversations, cannot be used: Permission denied"


def test_where_descriptors_run_out_no_lock_is_lost(tmp_path: Path) -> None:
    async def scenario() -> None:
        locks = FileLocks(tmp_path)
        held: list[ConversationId] = []

        async def take(number: int) -> None:
            for _ in range(number):
                key = ConversationId(f"conv_{len(held)}")
                assert await locks.try_acquire(key)
                held.append(key)

        await take(1)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest_descriptor() + 30, hard))
        try:
            with pytest.raises(StorageUnavailable, match="Too many open files"):
                await take(1000)
            for key in held:
                await locks.release(key)
            held.clear()
            await take(20)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    asyncio.run(scenario())

"""A process that takes locks of conversations, for tests to race, to stop and to kill.

It says `ready {holder}` once it is registered and waits for a line. With `hold` it then says `held` or `taken`, waits
for another line, gives the lock back and says `released`; with `race` it says `done {overlaps}` when it has had the
lock so many times; with `lives` it says which of the holders that it is given, one a line, are alive.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import subprocess
import sys
from pathlib import Path

from tfo_mcp.domain.errors import StorageUnavailable
from tfo_mcp.domain.identifiers import ConversationId
from tfo_mcp.infrastructure.persistence.locks import FileLocks

_PAUSE = 0.0005
"""Seconds between two attempts: who races without one keeps the processor from whoever has the lock."""


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("task", choices=["hold", "race", "lives"])
    parser.add_argument("--conversation", type=ConversationId, default=ConversationId("conv_1"))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--count", type=Path, help="a file with a number, to be counted up in each round")
    parser.add_argument("--child", action="store_true", help="start a program that lives on, and say its number")
    parser.add_argument("--as-nobody", action="store_true", help="give up root's right to write anywhere")
    return parser.parse_args()


async def _hold(locks: FileLocks, arguments: argparse.Namespace) -> None:
    if not await locks.try_acquire(arguments.conversation):
        say("taken")
        return
    if arguments.child:
        say(str(_start_program()))
    say("held")
    await asyncio.to_thread(sys.stdin.readline)
    await locks.release(arguments.conversation)
    say("released")


def _start_program() -> int:
    """It inherits all descriptors that can be, and lives until it is killed."""
    program = [sys.executable, "-c", "import signal; print('up', flush=True); signal.pause()"]
    process = subprocess.Popen(program, close_fds=False, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()  # before, the system may not have closed yet what no program inherits
    return process.pid


async def _race(locks: FileLocks, arguments: argparse.Namespace) -> None:
    count, inside = arguments.count, arguments.count.with_suffix(".inside")
    overlaps = 0
    for _ in range(arguments.rounds):
        while not await locks.try_acquire(arguments.conversation):  # noqa: ASYNC110  # nobody tells that it is free
            await asyncio.sleep(_PAUSE)
        try:
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            overlaps += 1
        count.write_text(str(int(count.read_text()) + 1))
        inside.unlink(missing_ok=True)
        await locks.release(arguments.conversation)
    say(f"done {overlaps}")


async def _lives(locks: FileLocks) -> None:
    while holder := sys.stdin.readline().strip():
        say(str(await locks.lives(holder)))


async def _run(arguments: argparse.Namespace) -> None:
    locks = FileLocks(arguments.folder)
    try:
        say(f"ready {await locks.register()}")
        sys.stdin.readline()
        if arguments.task == "hold":
            await _hold(locks, arguments)
        elif arguments.task == "race":
            await _race(locks, arguments)
        else:
            await _lives(locks)
    except StorageUnavailable as error:
        say(f"unavailable {error}")


def main() -> None:
    """Register, wait for the word, do it."""
    arguments = _arguments()
    importlib.import_module("concurrent.futures.thread")  # nobody may not read Python's own modules everywhere
    if arguments.as_nobody and os.getuid() == 0:
        os.setuid(65534)
    asyncio.run(_run(arguments))


if __name__ == "__main__":
    main()

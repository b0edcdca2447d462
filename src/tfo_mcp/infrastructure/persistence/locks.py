"""Who may work on a conversation, on one machine: file locks, which the system takes back from whoever dies.

DESIGN decision 5. The locks lie beside the database, in a folder of their own, and are `flock`s: they belong to an
open file and not to a process, so two descriptors of one process exclude each other too, and no program that the
server starts inherits one. On a network file system they hold as far as its own `flock` does: Linux asks an NFS
server for them, unless it is mounted with `nolock`, and a server that restarts can lose them. Several machines
cannot share the folder anyway, because of the database; and behind every lock stands the fence.
"""

from __future__ import annotations

import asyncio
import errno
import stat
import threading
from collections.abc import Coroutine, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from tfo_mcp.domain.errors import StorageUnavailable
from tfo_mcp.domain.identifiers import ConversationId
from tfo_mcp.infrastructure.persistence.file_lock import is_at, lock_file, unlock_and_remove

_MOST_CLEARED = 1000
"""Locks of other processes that one start looks at, to clear away those of the dead."""

_WHY = {
    errno.ELOOP: "it is a symbolic link, which is not followed",
    errno.ENOLCK: "its file system gives no locks",
    errno.ENOTSUP: "its file system gives no locks",
}


class FileLocks:
    """`ConversationLocks` in `folder`, which is made when the first one is wanted.

    Every process that has registered keeps `process-<holder>.lock` there locked for as long as it lives.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._held: dict[ConversationId, int | None] = {}  # None: it is just being taken or given back
        self._own: int | None = None
        self._registering = threading.Lock()
        self._unwatched: set[asyncio.Task[None]] = set()
        self.holder = uuid4().hex

    async def register(self) -> str:
        """`holder`, which counts as alive for every process from now on.

        Raises:
            StorageUnavailable: the folder cannot be used.
        """
        await asyncio.to_thread(self._register)
        return self.holder

    async def try_acquire(self, conversation_id: ConversationId) -> bool:
        """Take the conversation's lock, unless anybody has it, this process included; whether it was taken.

        Raises:
            StorageUnavailable: the folder cannot be used.
        """
        if conversation_id in self._held:
            return False
        self._held[conversation_id] = None
        taking = asyncio.create_task(self._acquire(conversation_id))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            self._go_on(self._give_back(conversation_id, taking))
            raise

    async def release(self, conversation_id: ConversationId) -> None:
        """Give it back; to be cancelled here stops the wait, not that. Never raises anything else."""
        descriptor = self._held.get(conversation_id)
        if descriptor is not None:
            self._held[conversation_id] = None
            await asyncio.shield(self._go_on(self._release(conversation_id, descriptor)))

    async def lives(self, holder: str) -> bool:
        """Whether the process that `holder` names is still there.

        Raises:
            StorageUnavailable: its lock cannot be looked at.
        """
        return holder == self.holder or await asyncio.to_thread(self._lives, self._process(holder))

    async def _acquire(self, conversation_id: ConversationId) -> bool:
        descriptor = None
        try:
            descriptor = await asyncio.to_thread(self._take, self._path(conversation_id))
        finally:
            if descriptor is None:
                del self._held[conversation_id]
            else:
                self._held[conversation_id] = descriptor
        return descriptor is not None

    async def _release(self, conversation_id: ConversationId, descriptor: int) -> None:
        try:
            await asyncio.to_thread(unlock_and_remove, self._path(conversation_id), descriptor)
        finally:
            del self._held[conversation_id]

    async def _give_back(self, conversation_id: ConversationId, taking: asyncio.Task[bool]) -> None:
        """What nobody waits for any more."""
        with suppress(StorageUnavailable):
            if await taking:
                await self.release(conversation_id)

    def _go_on(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do it whoever waits for it; the loop itself keeps no task alive."""
        task = asyncio.create_task(work)
        self._unwatched.add(task)
        task.add_done_callback(self._unwatched.discard)
        return task

    def _path(self, conversation_id: ConversationId) -> Path:
        return self._folder / f"{conversation_id}.lock"

    def _process(self, holder: str) -> Path:
        return self._folder / f"process-{holder}.lock"

    # --- in threads ----------------------------------------------------------------------------------

    def _take(self, path: Path) -> int | None:
        self._register()
        with _translated(path):
            return lock_file(path)

    def _register(self) -> None:
        with self._registering, _translated(self._folder):
            if self._own is None:
                self._make_folder()
                while (own := lock_file(self._process(self.holder))) is None:
                    self.holder = uuid4().hex  # another start has it in hand, to see whether it is dead
                self._own = own
                self._clear_away()
            elif not is_at(self._process(self.holder), self._own):
                # To others this process is dead, and they hold other files than the ones that it holds.
                raise StorageUnavailable(
                    f"the folder of locks {str(self._folder)!r} cannot be used: it, or this process's lock in it, was "
                    "moved or deleted while it was in use; put it back, or start tfo-mcp again"
                )

    def _make_folder(self) -> None:
        for folder in (self._folder.parent, self._folder):
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700, parents=True)
        if not stat.S_ISDIR(self._folder.lstat().st_mode):
            raise StorageUnavailable(
                f"the folder of locks {str(self._folder)!r} cannot be used: it is no folder, or a link to one"
            )

    def _clear_away(self) -> None:
        """Remove the locks of processes that are not there any more; those of conversations go with their next use."""
        others = (path for path in self._folder.glob("process-*.lock") if path != self._process(self.holder))
        for path, _ in zip(others, range(_MOST_CLEARED), strict=False):
            with suppress(StorageUnavailable):
                self._lives(path)

    def _lives(self, path: Path) -> bool:
        with _translated(path):
            try:
                descriptor = lock_file(path, create=False)
            except FileNotFoundError:
                return False
            if descriptor is None:
                return True
            unlock_and_remove(path, descriptor)
            return False


@contextmanager
def _translated(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        why = _WHY.get(error.errno or 0) or error.strerror
        raise StorageUnavailable(f"{str(path)!r}, which locks conversations, cannot be used: {why}") from error

"""Who may work on a conversation, on one machine: file locks, which the system takes back from whoever dies.

DESIGN decision 5. The locks lie beside the database, in a folder of their own, and are `flock`s: they belong to an
open file and not to a process, so two descriptors of one process exclude each other too, and no program that the
server starts inherits one. On a network file system they hold as far as that file system's `flock` does.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from tfo_mcp.domain.errors import StorageUnavailable
from tfo_mcp.domain.identifiers import ConversationId
from tfo_mcp.infrastructure.persistence.file_lock import try_lock

_MOST_STALE = 1000
"""Locks of dead processes that one start clears away at most."""


class FileLocks:
    """`ConversationLocks` in `folder`, which is made when the first one is wanted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[ConversationId, int] = {}
        self._own: int | None = None
        self.holder = uuid4().hex

    async def try_acquire(self, conversation_id: ConversationId) -> bool:
        """Take the conversation's lock, unless anybody has it, this process included; whether it was taken.

        Raises:
            StorageUnavailable: the folder cannot be used.
        """
        if conversation_id in self._held:
            return False
        taking = asyncio.ensure_future(asyncio.to_thread(self._take, self._path(conversation_id)))
        try:
            descriptor = await asyncio.shield(taking)
        except asyncio.CancelledError:
            taking.add_done_callback(_give_back)
            raise
        if descriptor is None:
            return False
        self._held[conversation_id] = descriptor
        return True

    async def release(self, conversation_id: ConversationId) -> None:
        """Give it back; never raises."""
        descriptor = self._held.pop(conversation_id)
        await asyncio.shield(asyncio.to_thread(_let_go, self._path(conversation_id), descriptor))

    async def lives(self, holder: str) -> bool:
        """Whether the process that `holder` names is still there."""
        return holder == self.holder or await asyncio.to_thread(self._lives, self._process(holder))

    def _path(self, conversation_id: ConversationId) -> Path:
        return self._folder / f"{conversation_id}.lock"

    def _process(self, holder: str) -> Path:
        return self._folder / f"process-{holder}.lock"

    def _take(self, path: Path) -> int | None:
        try:
            if self._own is None:
                self._begin()
            return _lock(path)
        except OSError as error:
            raise StorageUnavailable(f"the lock {str(path)!r} cannot be taken: {error.strerror}") from error

    def _begin(self) -> None:
        """Be there for other processes, and clear away those that are not any more."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._own = _lock(self._process(self.holder))
        for path in sorted(self._folder.glob("process-*.lock"))[:_MOST_STALE]:
            if path != self._process(self.holder):
                with suppress(OSError):
                    self._lives(path)

    def _lives(self, path: Path) -> bool:
        if not path.exists():
            return False
        descriptor = _lock(path)
        if descriptor is None:
            return True
        _let_go(path, descriptor)
        return False


def _lock(path: Path) -> int | None:
    """The descriptor of the locked file, or None where somebody else has it."""
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0), 0o600)
        try:
            try_lock(descriptor)
        except (BlockingIOError, PermissionError):
            os.close(descriptor)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.lstat()):
                return descriptor
        os.close(descriptor)  # its last holder removed it in between


def _let_go(path: Path, descriptor: int) -> None:
    """Remove the file while it is locked, so that whoever opened it meanwhile sees that it is another's."""
    with suppress(OSError):
        path.unlink()
    os.close(descriptor)


def _give_back(taking: asyncio.Future[int | None]) -> None:
    if not taking.cancelled() and taking.exception() is None and (descriptor := taking.result()) is not None:
        os.close(descriptor)

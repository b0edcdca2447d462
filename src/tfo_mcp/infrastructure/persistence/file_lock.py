"""A lock on a file that dies with its holder and is never waited for; the one place that knows the platforms."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)

_ATTEMPTS = 100
"""How often a file may be removed by others between its opening and its locking; then somebody else has the lock."""

if sys.platform == "win32":
    import msvcrt

    def try_lock(descriptor: int) -> None:
        """Lock the file, or raise `BlockingIOError` or `PermissionError` where somebody else has it."""
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def unlock_and_remove(path: Path, descriptor: int) -> None:
        """Give back what `lock_file` gave, and remove the file; where that cannot be, it stays."""
        os.close(descriptor)
        with suppress(OSError):  # whoever has opened it meanwhile keeps it: no file is removed that is open
            path.unlink()

else:
    import fcntl

    def try_lock(descriptor: int) -> None:
        """Lock the file, or raise `BlockingIOError` or `PermissionError` where somebody else has it."""
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def unlock_and_remove(path: Path, descriptor: int) -> None:
        """Give back what `lock_file` gave, and remove the file; where that cannot be, it stays.

        It is removed while it is locked: whoever has opened it meanwhile sees that it is not there any more.
        """
        with suppress(OSError):
            if is_at(path, descriptor):
                path.unlink()
        os.close(descriptor)


def lock_file(path: Path, *, create: bool = True) -> int | None:
    """The descriptor of the file at `path`, locked; None where somebody else has it. Blocks on the disk only.

    The file is made where it is missing, for its owner only. No link is followed, and no program that is
    started inherits the descriptor.

    Raises:
        OSError: it cannot be opened or locked; FileNotFoundError without `create` where there is none.
    """
    flags = os.O_RDWR | _NO_FOLLOW | (os.O_CREAT if create else 0)
    for _ in range(_ATTEMPTS):
        descriptor = os.open(path, flags, 0o600)
        with ExitStack() as unless_kept:
            unless_kept.callback(os.close, descriptor)
            try:
                try_lock(descriptor)
            except (BlockingIOError, PermissionError):
                return None
            if is_at(path, descriptor):
                unless_kept.pop_all()
                return descriptor
    return None


def is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except (FileNotFoundError, NotADirectoryError):
        return False

"""The file of a database, whoever opens it: how it is made, whether it is still the same one, and what ails it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def create(path: Path) -> None:
    """Create an empty file that only its owner may read; SQLite gives the files beside it the same mode.

    A file that exists is not even opened: closing it would drop every lock that this process has on it.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def identity(path: Path) -> tuple[int, int] | None:
    """Which file has this name, None where none has."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def kind_of(error: BaseException) -> int:
    """SQLite's primary result code, 0 where it is none of its errors: the rest of its code says more than is needed."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF

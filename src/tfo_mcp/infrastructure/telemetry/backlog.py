"""What waits for the collector, without a server: to be looked at, to be sent, and what was refused to be repeated."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from tfo_mcp.domain.errors import StorageUnavailable
from tfo_mcp.infrastructure.telemetry.aggregate import Aggregate
from tfo_mcp.infrastructure.telemetry.options import TelemetryOptions
from tfo_mcp.infrastructure.telemetry.spool import Spool, limits_of
from tfo_mcp.infrastructure.telemetry.spool_file import Contents, SpoolFile

_LOOK_AGAIN = 0.05
"""Seconds between two looks at what is left."""


class Backlog:
    """What waits for the collector at `options.spool`, whoever recorded it.

    Every method raises `StorageUnavailable` where the file cannot be used. None makes one.
    """

    def __init__(self, path: Path, options: TelemetryOptions) -> None:
        self._path = path
        self._options = options

    def contents(self) -> Contents | None:
        """What is there; None where there is no spool."""
        if not self._path.exists():
            return None
        with self._opened() as file:
            return file.contents()

    def replay(self) -> int:
        """Let what the collector refused wait for it once more; how many parcels that are."""
        if not self._path.exists():
            return 0
        with self._opened() as file:
            return file.replay()

    def send(self, timeout: float) -> tuple[Contents | None, list[str]]:
        """Send what waits, within `timeout` seconds; what is left, and what the collector did not take and why.

        Where a server is there that sends, it is that which sends, and this waits.
        """
        from tfo_mcp.infrastructure.telemetry.sender import Sender
        from tfo_mcp.infrastructure.telemetry.transport import connect

        target = self._options.target()
        if target is None or not self._path.exists():
            return self.contents(), []
        deadline = time.monotonic() + timeout
        with self._opened() as file:
            spool = Spool(file, limits_of(self._options))
            options = replace(self._options, retry_max=min(self._options.retry_max, timeout))
            sender = Sender(spool, connect(options, target), options, Aggregate())
            sender.start()
            sender.hurry(deadline)
            while (left := spool.contents()) is not None and left.items and time.monotonic() < deadline:
                time.sleep(_LOOK_AGAIN)
            spool.close()
            sender.join()
            return left, sender.complaints

    @contextmanager
    def _opened(self) -> Generator[SpoolFile]:
        try:
            file = SpoolFile(self._path, f"backlog-{uuid4()}", self._options.durability)
        except (OSError, sqlite3.Error) as error:
            raise StorageUnavailable(f"the spool {str(self._path)!r} cannot be used: {error}") from error
        try:
            yield file
        except sqlite3.Error as error:
            raise StorageUnavailable(f"the spool {str(self._path)!r} cannot be used: {error}") from error
        finally:
            file.close()

"""Where records wait for the pipeline: a ring with a cap that nobody ever blocks on."""

from __future__ import annotations

import threading
from collections import deque

from tfo_mcp.infrastructure.telemetry import conventions as names
from tfo_mcp.infrastructure.telemetry.aggregate import Aggregate
from tfo_mcp.infrastructure.telemetry.minutes import Minutes
from tfo_mcp.infrastructure.telemetry.records import Item, Record
from tfo_mcp.infrastructure.telemetry.table import signal_of


class Ring:
    """Takes what has ended, from any thread.

    Args:
        aggregate, minutes: count what the ring cannot take.
        capacity: items that may wait.
        exports_logs: whether log records go out at all, so that one which is lost is counted.

    Attributes:
        work: set whenever something waits.
    """

    def __init__(
        self, aggregate: Aggregate, minutes: Minutes | None, capacity: int, *, exports_logs: bool = True
    ) -> None:
        self._aggregate = aggregate
        self._minutes = minutes
        self._capacity = capacity
        self._exports_logs = exports_logs
        self._ring: deque[Item] = deque()
        self._open = True
        self.work = threading.Event()

    def __len__(self) -> int:
        return len(self._ring)

    def record(self, item: Item) -> None:
        """Keep `item` for the pipeline; where the ring is full, count it and drop the rest of it. Never blocks."""
        if len(self._ring) >= self._capacity:
            self._count_at_once(item)
        elif self._open:
            self._ring.append(item)
            if not self.work.is_set():
                self.work.set()

    def take(self, most: int) -> list[Item]:
        """What waits now, the oldest first, so many at most. Only one thread may take."""
        ring = self._ring
        return [ring.popleft() for _ in range(min(len(ring), most))]

    def close(self) -> None:
        """Keep nothing any more."""
        self._open = False
        self._ring.clear()

    def _count_at_once(self, item: Item) -> None:
        if isinstance(item, Record):
            self._aggregate.fold(item)
            if self._minutes is not None:
                self._minutes.fold(item)
        signal = signal_of(item)
        if signal == "traces" or (signal == "logs" and self._exports_logs):
            self._aggregate.count(names.DROPPED[signal], 1, {names.REASON: names.DROPPED_SATURATED})

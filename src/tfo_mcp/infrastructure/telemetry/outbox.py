"""What is ready for the collector, between the thread that encodes and the thread that sends.

This is the seam where a spool on disk can stand: whoever implements these methods may keep parcels elsewhere.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Signal = Literal["traces", "metrics", "logs"]


@dataclass(frozen=True, slots=True)
class Parcel:
    """One export, ready to be sent: an OTLP request as protobuf, and how many spans or log records it holds."""

    signal: Signal
    body: bytes
    items: int = 0


class Outbox:
    """Parcels in memory, bounded; one thread takes.

    Of metrics only the newest parcel is kept: being cumulative, it says all that the older ones did. Spans
    are taken together, up to a batch, and so are log records: OTLP requests that stand one behind the other are
    one request.

    Args:
        max_bytes: of all waiting spans and log records; the oldest of the signal that has more make room.
        max_items: of one parcel taken.
        linger: seconds that the first span or log record waits for others before it is taken.
    """

    def __init__(self, *, max_bytes: int, max_items: int, linger: float) -> None:
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        self._queues: Mapping[Signal, _Queue] = {each: _Queue(each, max_items, linger) for each in _QUEUED}
        self._metrics: Parcel | None = None
        self._in_flight: Parcel | None = None
        self._last: Signal = "logs"
        self._hurried = False
        self._closed = False

    def put(self, parcel: Parcel) -> Sequence[Parcel]:
        """Add a parcel; returns those that were dropped to make room."""
        with self._changed:
            dropped = self._add(parcel)
            self._changed.notify_all()
        return dropped

    def take(self) -> Parcel | None:
        """Wait for the next parcel; None when the outbox is closed and empty. Give it back, or call `done`."""
        with self._changed:
            while not (ready := self._ready()):
                queues = [queue for queue in self._queues.values() if queue]
                if self._closed and not queues:
                    return None
                left = min(queue.due for queue in queues) - time.monotonic() if queues else None
                self._changed.wait(left)
            # In turns, or a signal that a collector will not have would hold up the others.
            signal: Signal = next(each for each in _AFTER[self._last] if each in ready)
            if signal == "metrics":
                parcel, self._metrics = self._metrics, None
            else:
                parcel = self._queues[signal].merged()
            self._in_flight, self._last = parcel, signal
            return parcel

    def done(self) -> None:
        """What was taken needs no further attempt."""
        with self._changed:
            self._in_flight = None
            self._hurried = self._hurried and self._waiting()
            self._changed.notify_all()

    def give_back(self, parcel: Parcel) -> Sequence[Parcel]:
        """Keep what was taken for another attempt, behind the others so that one bad parcel holds up none.

        Returns:
            What was dropped to make room.
        """
        with self._changed:
            self._in_flight = None
            dropped: Sequence[Parcel] = ()
            if parcel.signal == "metrics":
                self._metrics = self._metrics or parcel
            else:
                queue = self._queues[parcel.signal]
                queue.add_oldest(parcel)
                dropped = self._make_room()
                if not any(each is parcel for each in dropped):
                    queue.put_oldest_behind()
                queue.due = -math.inf  # it has lingered once
            self._changed.notify_all()
        return dropped

    def hurry(self) -> None:
        """Let nothing linger until all that waits now has been taken."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing more will be put; what waits may still be taken."""
        with self._changed:
            self._closed = self._hurried = True
            self._last = "logs"  # metrics are next: should time run out, the counts of all there was are told
            self._changed.notify_all()

    def wait_empty(self, deadline: float) -> bool:
        """Wait, until `deadline` by the monotonic clock, for everything to be sent; returns whether it was."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting(), max(0.0, deadline - time.monotonic()))

    def undelivered(self, signal: Signal) -> int:
        """Spans, or log records, that have not been delivered."""
        with self._changed:
            in_flight = self._in_flight
            taken = in_flight.items if in_flight is not None and in_flight.signal == signal else 0
            return self._queues[signal].items + taken

    def _waiting(self) -> bool:
        return any(self._queues.values()) or self._metrics is not None or self._in_flight is not None

    def _ready(self) -> list[Signal]:
        at_once = self._hurried or self._closed
        ready: list[Signal] = [signal for signal, queue in self._queues.items() if queue.is_ready(at_once=at_once)]
        if self._metrics is not None:
            ready.append("metrics")
        return ready

    def _add(self, parcel: Parcel) -> Sequence[Parcel]:
        if parcel.signal == "metrics":
            self._metrics = parcel
            return ()
        self._queues[parcel.signal].append(parcel)
        return self._make_room()

    def _make_room(self) -> Sequence[Parcel]:
        dropped: list[Parcel] = []
        while sum(queue.bytes for queue in self._queues.values()) > self._max_bytes:
            dropped.append(max(self._queues.values(), key=lambda queue: queue.bytes).pop())
        return dropped


class _Queue:
    """The parcels of one signal, oldest first; false while there is none. Its owner has the lock.

    Attributes:
        items, bytes: of all that waits.
        due: by the monotonic clock, when the first has lingered long enough.
    """

    def __init__(self, signal: Signal, max_items: int, linger: float) -> None:
        self.items = 0
        self.bytes = 0
        self.due = 0.0
        self._signal: Signal = signal
        self._max_items = max_items
        self._linger = linger
        self._parcels: deque[Parcel] = deque()

    def __len__(self) -> int:
        return len(self._parcels)

    def is_ready(self, *, at_once: bool) -> bool:
        if not self._parcels:
            return False
        return at_once or self.items >= self._max_items or time.monotonic() >= self.due

    def append(self, parcel: Parcel) -> None:
        if not self._parcels:
            self.due = time.monotonic() + self._linger
        self._parcels.append(parcel)
        self._count(parcel)

    def add_oldest(self, parcel: Parcel) -> None:
        self._parcels.appendleft(parcel)
        self._count(parcel)

    def put_oldest_behind(self) -> None:
        self._parcels.rotate(-1)

    def _count(self, parcel: Parcel) -> None:
        self.items += parcel.items
        self.bytes += len(parcel.body)

    def pop(self) -> Parcel:
        parcel = self._parcels.popleft()
        self.items -= parcel.items
        self.bytes -= len(parcel.body)
        return parcel

    def merged(self) -> Parcel:
        first = self.pop()
        bodies, items, size = [first.body], first.items, len(first.body)
        while (
            self._parcels
            and items + self._parcels[0].items <= self._max_items
            and size + len(self._parcels[0].body) <= MAX_MESSAGE
        ):
            following = self.pop()
            bodies.append(following.body)
            items += following.items
            size += len(following.body)
        return Parcel(self._signal, b"".join(bodies), items)


_QUEUED: Final[tuple[Signal, ...]] = ("traces", "logs")

_AFTER: Mapping[Signal, Sequence[Signal]] = {
    "logs": ("metrics", "traces", "logs"),
    "metrics": ("traces", "logs", "metrics"),
    "traces": ("logs", "metrics", "traces"),
}
"""Whose turn it is after a signal's."""

MAX_MESSAGE = 3 * 1024 * 1024
"""Bytes of one request; collectors take 4 MiB unless told otherwise."""

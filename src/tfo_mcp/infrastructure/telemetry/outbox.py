"""What is ready for the collector, between the thread that encodes and the thread that sends.

This is the seam where a spool on disk can stand: whoever implements these methods may keep parcels elsewhere.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Literal

Signal = Literal["traces", "metrics"]


@dataclass(frozen=True, slots=True)
class Parcel:
    """One export, ready to be sent: an OTLP request as protobuf, and how many spans it holds."""

    signal: Signal
    body: bytes
    spans: int = 0


class Outbox:
    """Parcels in memory, bounded; one thread takes.

    Of metrics only the newest parcel is kept: being cumulative, it says all that the older ones did. Spans
    are taken together, up to a batch: OTLP requests that stand one behind the other are one request.

    Args:
        max_bytes: of all waiting spans; the oldest make room.
        max_spans: of one parcel taken.
        linger: seconds that the first span waits for others before it is taken.
    """

    def __init__(self, *, max_bytes: int, max_spans: int, linger: float) -> None:
        self._max_bytes = max_bytes
        self._max_spans = max_spans
        self._linger = linger
        self._changed = threading.Condition()
        self._spans: deque[Parcel] = deque()
        self._metrics: Parcel | None = None
        self._bytes = 0
        self._count = 0
        self._since = 0.0
        self._in_flight: Parcel | None = None
        self._last: Signal = "traces"
        self._hurried = False
        self._closed = False

    def put(self, parcel: Parcel) -> int:
        """Add a parcel; returns how many spans were dropped to make room."""
        with self._changed:
            dropped = self._add(parcel)
            self._changed.notify_all()
        return dropped

    def take(self) -> Parcel | None:
        """Wait for the next parcel; None when the outbox is closed and empty. Give it back, or call `done`."""
        with self._changed:
            while not self._ready():
                if self._closed and not self._spans:
                    return None
                left = self._since + self._linger - time.monotonic() if self._spans else None
                self._changed.wait(left)
            # In turns, or metrics that a collector will not have would hold up the spans.
            if self._metrics is not None and not (self._spans and self._last == "metrics"):
                parcel, self._metrics = self._metrics, None
            else:
                parcel = self._merged()
            self._in_flight, self._last = parcel, parcel.signal
            return parcel

    def done(self) -> None:
        """What was taken needs no further attempt."""
        with self._changed:
            self._in_flight = None
            self._hurried = self._hurried and bool(self._spans or self._metrics)
            self._changed.notify_all()

    def give_back(self, parcel: Parcel) -> int:
        """Keep what was taken for another attempt, behind the others so that one bad parcel holds up none."""
        with self._changed:
            self._in_flight = None
            dropped = 0 if parcel.signal == "metrics" and self._metrics is not None else self._add(parcel)
            self._since = -math.inf  # it has lingered once
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
            self._changed.notify_all()

    def wait_empty(self, deadline: float) -> bool:
        """Wait, until `deadline` by the monotonic clock, for everything to be sent; returns whether it was."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting(), max(0.0, deadline - time.monotonic()))

    @property
    def spans(self) -> int:
        """Spans that have not been delivered."""
        with self._changed:
            return self._count + (self._in_flight.spans if self._in_flight else 0)

    def _waiting(self) -> bool:
        return bool(self._spans) or self._metrics is not None or self._in_flight is not None

    def _ready(self) -> bool:
        if self._metrics is not None:
            return True
        if not self._spans:
            return False
        lingered = time.monotonic() >= self._since + self._linger
        return lingered or self._hurried or self._closed or self._count >= self._max_spans

    def _add(self, parcel: Parcel) -> int:
        if parcel.signal == "metrics":
            self._metrics = parcel
            return 0
        if not self._spans:
            self._since = time.monotonic()
        self._spans.append(parcel)
        self._bytes += len(parcel.body)
        self._count += parcel.spans
        dropped = 0
        while self._bytes > self._max_bytes:
            dropped += self._pop().spans
        return dropped

    def _pop(self) -> Parcel:
        parcel = self._spans.popleft()
        self._bytes -= len(parcel.body)
        self._count -= parcel.spans
        return parcel

    def _merged(self) -> Parcel:
        first = self._pop()
        bodies, spans, size = [first.body], first.spans, len(first.body)
        while (
            self._spans
            and spans + self._spans[0].spans <= self._max_spans
            and size + len(self._spans[0].body) <= MAX_MESSAGE
        ):
            following = self._pop()
            bodies.append(following.body)
            spans += following.spans
            size += len(following.body)
        return Parcel("traces", b"".join(bodies), spans)


MAX_MESSAGE = 3 * 1024 * 1024
"""Bytes of one request; collectors take 4 MiB unless told otherwise."""

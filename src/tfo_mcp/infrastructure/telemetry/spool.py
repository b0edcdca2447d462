"""What is ready for the collector, between the thread that encodes and the thread that sends; on disk.

A parcel is committed before anything of it is sent, and deleted when the collector has accepted it: whatever ends
the process, what was committed arrives, some of it twice. All processes that share the file commit to it; the one
that has its lock sends for all, and the system passes the lock on when that process ends.
"""

from __future__ import annotations

import math
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from tfo_mcp.infrastructure.telemetry import conventions as names
from tfo_mcp.infrastructure.telemetry.disposable import is_damaged
from tfo_mcp.infrastructure.telemetry.options import TelemetryOptions
from tfo_mcp.infrastructure.telemetry.spool_file import Contents, Parcel, Row, Signal, SpoolFile

MAX_MESSAGE: Final = 3 * 1024 * 1024
"""Bytes of one request; collectors take 4 MiB unless told otherwise."""

_LOOK_AGAIN: Final = 1.0
"""Seconds from one look to the next at what other processes do: whether the sending one is gone, what they put."""

_LOOK_FOR_ROOM: Final = 60.0
"""Seconds, or a part of the spool's size that was written: after that it is looked whether all is within limits."""
_PARTS: Final = 16

_MOST_UNWRITTEN: Final = 4 * MAX_MESSAGE
"""Bytes that are kept in memory while the disk does not take them."""

_AFTER: Final[Mapping[Signal, Sequence[Signal]]] = {
    "logs": ("metrics", "traces", "logs"),
    "metrics": ("traces", "logs", "metrics"),
    "traces": ("logs", "metrics", "traces"),
}
"""Whose turn it is after a signal's."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Spans or log records that no collector will get from here, and why."""

    signal: Signal
    items: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolLimits:
    """What may wait, and how.

    Attributes:
        max_bytes: of all bodies that wait, other processes' among them; the oldest make room.
        max_age: seconds after which what waits is given up.
        max_dead_bytes: of all bodies that the collector refused; the oldest make room.
        max_items: spans or log records of one parcel taken.
        linger: seconds that the first span or log record waits for others before it is taken.
    """

    max_bytes: int
    max_age: float
    max_dead_bytes: int
    max_items: int
    linger: float


def limits_of(options: TelemetryOptions) -> SpoolLimits:
    """Those that the settings ask for."""
    return SpoolLimits(
        max_bytes=options.spool_bytes,
        max_age=options.spool_age,
        max_dead_bytes=options.dead_bytes,
        max_items=options.batch_size,
        linger=options.export_delay,
    )


class Spool:
    """Parcels that wait. Any thread may use it; one of them takes.

    Of a process's metrics only the newest parcel is kept: being cumulative, it says all that the older ones did.
    Spans are taken together, up to a batch, and so are log records: OTLP requests that stand one behind the other
    are one request.

    Attributes:
        problem: why what was put last is in memory only, None where it is not.
    """

    def __init__(self, file: SpoolFile, limits: SpoolLimits) -> None:
        self._file = file
        self._limits = limits
        self._changed = threading.Condition()
        self._unwritten: list[Parcel] = []
        self._in_hand: Parcel | None = None
        self._accepted: set[int] = set()
        self._alone: set[int] = set()
        self._behind: dict[Signal, int] = dict.fromkeys(_AFTER, 0)
        self._due: dict[Signal, float] = dict.fromkeys(_AFTER, -math.inf)  # what an earlier process left has lingered
        self._fresh: Counter[Signal] = Counter()
        self._room, self._room_until = 0, -math.inf
        self._last: Signal = "logs"
        self._hurried = False
        self._closed = False
        self.problem: str | None = None

    @property
    def is_durable(self) -> bool:
        """Whether what waits outlives the process."""
        return self._file.path is not None and self.problem is None

    # --- the thread that encodes ---------------------------------------------------------------------

    def put(self, parcels: Sequence[Parcel]) -> Sequence[Lost]:
        """Commit parcels; returns what was lost to make room. What cannot be committed is, with the next ones."""
        if not parcels and not self._unwritten:
            return ()
        with self._changed:
            self._unwritten = _without_old_metrics([*self._unwritten, *parcels])
            sooner = False  # whether the sender should sleep less long than it means to
            for parcel in parcels:
                if not self._fresh[parcel.signal]:
                    self._due[parcel.signal] = time.monotonic() + self._limits.linger
                    sooner = True
                self._fresh[parcel.signal] += max(parcel.items, 1)
                sooner = sooner or self._fresh[parcel.signal] >= self._limits.max_items
            lost = self._write()
            if sooner or self.problem is not None:
                self._changed.notify_all()
        return lost

    def close(self) -> None:
        """Nothing more will be put; of what waits, what this process has put may still be taken."""
        with self._changed:
            self._closed = self._hurried = True
            self._last = "logs"  # metrics are next: should time run out, the counts of all there was are told
            self._changed.notify_all()

    # --- the thread that sends -----------------------------------------------------------------------

    def take(self) -> Parcel | None:
        """Wait for the next parcel; None when it is closed and empty, or another process sends what is left.

        Call `accepted`, `failed` or `refused` with it before the next one.
        """
        with self._changed:
            while True:
                sends = self._may_send()
                self._in_hand = self._next() if sends else None
                if self._in_hand is not None:
                    self._last = self._in_hand.signal
                    return self._in_hand
                if self._closed:
                    return None
                self._hurried = False
                self._changed.wait(self._until_due() if sends else _LOOK_AGAIN)

    def accepted(self, parcel: Parcel) -> None:
        """The collector has it."""
        with self._changed:
            if self._takes_back(parcel):
                self._accepted.update(parcel.rows)
                self._alone.difference_update(parcel.rows)
                self._forget_accepted()
            self._changed.notify_all()

    def failed(self, parcel: Parcel) -> None:
        """It is to be tried again, behind the others so that one bad parcel holds up none."""
        with self._changed:
            if self._takes_back(parcel) and parcel.rows:
                self._behind[parcel.signal] = parcel.rows[-1]
            else:
                self._unwritten = _without_old_metrics([replace(parcel, rows=()), *self._unwritten])
            self._changed.notify_all()

    def refused(self, parcel: Parcel, code: str, detail: str) -> Lost | None:
        """The collector will never take it; what is lost by that, None where its parts are to be tried one by one."""
        with self._changed:
            rows = parcel.rows if self._takes_back(parcel) else ()
            if len(rows) > 1:
                self._alone.update(rows)
                return None
            self._alone.difference_update(rows)
            for row in rows:
                try:
                    self._file.bury(row, code, detail, self._limits.max_dead_bytes)
                except sqlite3.Error:  # it does not come back all the same
                    self._accepted.add(row)
            self._changed.notify_all()
            return Lost(parcel.signal, parcel.items, names.DROPPED_REFUSED)

    # --- any thread ----------------------------------------------------------------------------------

    def hurry(self) -> None:
        """Let nothing linger until all that waits now has been taken."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def wait_empty(self, deadline: float) -> bool:
        """Wait, until `deadline` by the monotonic clock, for all that was put here to be sent; whether it was."""
        with self._changed:
            while self._own_waits():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, 0.05))  # another process may be the one that sends
        return True

    def contents(self) -> Contents | None:
        """What waits, of all processes, and here in memory; None where it cannot be read."""
        with self._changed:
            try:
                found = self._file.contents()
            except sqlite3.Error:
                return None
            items = Counter(found.items)
            for parcel in self._unwritten:
                items[parcel.signal] += max(parcel.items, 1)
            return replace(found, items=dict(items), bytes=found.bytes + _size(self._unwritten))

    def release(self) -> None:
        """Close the file, and let another process send. Nothing may be called after it."""
        with self._changed:
            self._file.close()

    # --- with the lock -------------------------------------------------------------------------------

    def _write(self) -> Sequence[Lost]:
        try:
            if self._file.is_gone:
                self._forget_file()
                self._file.begin_anew()
            self._forget_accepted()
            lost = self._make_room()
            self._file.append(self._unwritten)
        except (sqlite3.Error, OSError) as error:
            self._troubled(error)
            return self._keep_newest()
        self.problem = None
        self._room -= _size(self._unwritten)
        self._unwritten = []
        return lost

    def _make_room(self) -> Sequence[Lost]:
        """Now and then, for all processes write and none knows of the others."""
        size = _size(self._unwritten)
        if size <= self._room and time.monotonic() < self._room_until:
            return ()
        room = self._limits.max_bytes // _PARTS
        # What is being sent stays, and takes no room from what is newer.
        kept, its_size = ((), 0) if self._in_hand is None else (self._in_hand.rows, len(self._in_hand.body))
        gone = self._file.evict(self._limits.max_bytes - room + its_size, self._limits.max_age, kept)
        self._room, self._room_until = room, time.monotonic() + _LOOK_FOR_ROOM
        return [Lost(signal, items, names.DROPPED_EVICTED) for signal, items in gone if signal != "metrics"]

    def _keep_newest(self) -> Sequence[Lost]:
        lost: list[Lost] = []
        size = _size(self._unwritten)
        while size > _MOST_UNWRITTEN:
            oldest = self._unwritten.pop(0)
            size -= len(oldest.body)
            lost.append(Lost(oldest.signal, oldest.items, names.DROPPED_UNWRITTEN))
        return lost

    def _forget_accepted(self) -> None:
        """Where the disk does not take it now, it is remembered, so that nothing is sent again and again."""
        try:
            if self._accepted:
                self._file.delete(self._accepted)
                self._accepted.clear()
        except sqlite3.Error as error:
            self._troubled(error)

    def _takes_back(self, parcel: Parcel) -> bool:
        """Whether its rows are those of the file that is in use now."""
        is_known, self._in_hand = parcel is self._in_hand, None
        return is_known

    def _troubled(self, error: Exception) -> None:
        self.problem = f"the spool {self._file} cannot be used: {error}"
        if isinstance(error, sqlite3.Error) and is_damaged(error):
            self._forget_file()
            with suppress(sqlite3.Error, OSError):
                self._file.begin_anew(damaged=True)

    def _forget_file(self) -> None:
        """Another one begins, with the same numbers for other rows."""
        self._in_hand = None
        self._accepted.clear()
        self._alone.clear()
        self._behind = dict.fromkeys(_AFTER, 0)
        self._room_until = -math.inf

    def _may_send(self) -> bool:
        try:
            return self._file.may_send()
        except OSError as error:
            self.problem = f"the spool {self._file} cannot be locked: {error.strerror}"
            return False

    def _next(self) -> Parcel | None:
        try:
            if (parcel := self._next_of_file()) is not None:
                return parcel
        except sqlite3.Error as error:
            self._troubled(error)
        # What the disk does not take goes out all the same.
        return self._unwritten.pop(0) if self.problem is not None and self._unwritten else None

    def _next_of_file(self) -> Parcel | None:
        now = time.monotonic()
        for signal in _AFTER[self._last]:
            full = self._fresh[signal] >= self._limits.max_items
            if not (self._hurried or full or now >= self._due[signal]):
                continue
            self._fresh[signal] = 0
            self._due[signal] = -math.inf  # what waits behind it has lingered as long
            if batch := self._batch(signal):
                ids = tuple(row.id for row in batch)
                return Parcel(signal, b"".join(self._file.bodies(ids)), sum(row.items for row in batch), ids)
        return None

    def _batch(self, signal: Signal) -> Sequence[Row]:
        """What goes out together; from the oldest on again when the last one was tried."""
        for after in dict.fromkeys((self._behind[signal], 0)):
            self._behind[signal] = after
            limit = 1 if signal == "metrics" else self._limits.max_items + len(self._accepted)
            rows = [
                row for row in self._file.rows(signal, after, limit, own=self._closed) if row.id not in self._accepted
            ]
            if batch := self._fitting(rows):
                return batch
        return ()

    def _fitting(self, rows: Sequence[Row]) -> Sequence[Row]:
        batch: list[Row] = []
        items = size = 0
        for row in rows:
            items, size = items + row.items, size + row.size
            too_much = items > self._limits.max_items or size > MAX_MESSAGE
            if batch and (too_much or row.id in self._alone or batch[-1].id in self._alone):
                break
            batch.append(row)
        return batch

    def _own_waits(self) -> bool:
        try:
            return bool(self._unwritten) or self._in_hand is not None or self._file.own_waits()
        except sqlite3.Error:
            return True

    def _until_due(self) -> float:
        """Seconds to sleep: others may put something, or leave the sending to this process."""
        due = min((self._due[signal] for signal, fresh in self._fresh.items() if fresh), default=math.inf)
        return max(0.0, min(_LOOK_AGAIN, due - time.monotonic()))


def _size(parcels: Sequence[Parcel]) -> int:
    return sum(len(parcel.body) for parcel in parcels)


def _without_old_metrics(parcels: Sequence[Parcel]) -> list[Parcel]:
    newest = next((parcel for parcel in reversed(parcels) if parcel.signal == "metrics"), None)
    return [parcel for parcel in parcels if parcel.signal != "metrics" or parcel is newest]

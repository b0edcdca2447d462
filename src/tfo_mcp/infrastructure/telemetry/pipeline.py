"""The thread between ring and spool: folds records into metrics, and encodes what is to be exported."""

from __future__ import annotations

import logging
import math
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from tfo_mcp.infrastructure.telemetry import conventions as names
from tfo_mcp.infrastructure.telemetry.aggregate import Aggregate
from tfo_mcp.infrastructure.telemetry.log_handler import THREADS
from tfo_mcp.infrastructure.telemetry.options import TelemetryOptions
from tfo_mcp.infrastructure.telemetry.records import Item, Record, signal_of
from tfo_mcp.infrastructure.telemetry.resource import resource_of
from tfo_mcp.infrastructure.telemetry.ring import Ring
from tfo_mcp.infrastructure.telemetry.spool import Spool, limits_of
from tfo_mcp.infrastructure.telemetry.spool_file import Contents, Parcel, SpoolFile

if TYPE_CHECKING:
    from tfo_mcp.infrastructure.telemetry.encode import Encoder
    from tfo_mcp.infrastructure.telemetry.sender import Sender

_log = logging.getLogger("tfo_mcp.telemetry")

_MOST_IN_MEMORY = 64 * 1024 * 1024
"""Bytes that wait where there is no spool on disk."""

TICK = 0.08
"""Seconds from the first record that waits until the ring is emptied. A kill may cost what was recorded in the last
0.1 s, and the rest of those are for the work; the longer this is, the fewer commits there are."""


class _Export:
    """Encoder, spool and sender: there only where there is an endpoint. Made on the pipeline's thread."""

    def __init__(self, options: TelemetryOptions, aggregate: Aggregate) -> None:
        from tfo_mcp.infrastructure.telemetry.encode import Encoder
        from tfo_mcp.infrastructure.telemetry.sender import Sender
        from tfo_mcp.infrastructure.telemetry.transport import connect

        target = options.target()
        if target is None:
            raise ValueError("there is no endpoint to export to")
        resource = resource_of(options)
        self.encoder: Encoder = Encoder(resource, options.service_version, options.redact)
        self.spool = _spool(options, str(resource[names.SERVICE_INSTANCE]))
        self.sender: Sender = Sender(self.spool, connect(options, target), options, aggregate)
        self._parcels: list[Parcel] = []
        self._aggregate = aggregate
        self._exports_logs = options.logs
        self._exported = 0
        self._told: str | None = None
        self.sender.start()

    def items(self, items: Sequence[Item]) -> None:
        """Encode the spans and log records among `items`."""
        signals: dict[Literal["traces", "logs"] | None, list[Item]] = {"traces": [], "logs": [], None: []}
        for item in items:
            signals[signal_of(item)].append(item)
        self._encode("traces", self.encoder.spans, signals["traces"])
        if self._exports_logs:
            self._encode("logs", self.encoder.logs, signals["logs"])

    def _encode(
        self,
        signal: Literal["traces", "logs"],
        encode: Callable[[Sequence[Item]], Iterator[Parcel]],
        items: Sequence[Item],
    ) -> None:
        """What cannot be encoded costs no other its export."""
        try:
            parcels = list(encode(items))
        except Exception as error:  # noqa: BLE001  # a library's span may hold anything
            if len(items) > 1:
                for item in items:
                    self._encode(signal, encode, (item,))
                return
            _log.warning("an item of %s cannot be encoded (%s)", signal, type(error).__name__)
            self._aggregate.count(names.DROPPED[signal], 1, {names.REASON: names.DROPPED_UNENCODABLE})
            return
        self._parcels += parcels

    def metrics(self) -> None:
        """Encode all metrics, if there is anything new."""
        if self.metrics_pending:
            self._exported = self._aggregate.changes
            self._parcels.append(self.encoder.metrics(self._aggregate.snapshot(), self._aggregate.started_ns))

    @property
    def metrics_pending(self) -> bool:
        """Whether anything was counted since the last export."""
        return self._aggregate.changes != self._exported

    def commit(self) -> None:
        """Put what was encoded where it outlives the process."""
        parcels, self._parcels = self._parcels, []
        for lost in self.spool.put(parcels):
            self._aggregate.count(names.DROPPED[lost.signal], lost.items, {names.REASON: lost.reason})
        if self.spool.problem not in {None, self._told}:
            _log.warning("%s; what is recorded waits in memory", self.spool.problem)
        self._told = self.spool.problem


def _spool(options: TelemetryOptions, source: str) -> Spool:
    limits = limits_of(options)
    try:
        return Spool(SpoolFile(options.spool, source, options.durability), limits)
    except (OSError, sqlite3.Error) as error:
        _log.warning("the spool %r cannot be used (%s); what is recorded waits in memory", str(options.spool), error)
        in_memory = replace(limits, max_bytes=min(limits.max_bytes, _MOST_IN_MEMORY))
        return Spool(SpoolFile(None, source, options.durability), in_memory)


class Pipeline:
    """Sleeps while nothing is recorded.

    Args:
        ring: what waits to be worked on.
        aggregate: the metrics.
        options: where to export to, and how often.
        on_start: told once whether everything needed could be imported; called on the pipeline's thread.
    """

    def __init__(
        self,
        ring: Ring,
        aggregate: Aggregate,
        options: TelemetryOptions,
        on_start: Callable[[Exception | None], None],
    ) -> None:
        self._ring = ring
        self._aggregate = aggregate
        self._options = options
        self._on_start = on_start
        self._export: _Export | None = None
        self._metrics_due = 0.0
        self._deadline = math.inf
        self._hurried = threading.Event()
        self._flushes: deque[threading.Event] = deque()
        self._thread = threading.Thread(target=self._run, name=THREADS, daemon=True)

    def start(self) -> None:
        """Start the thread; it imports what it needs."""
        self._thread.start()

    def flush(self, deadline: float) -> bool:
        """Export everything recorded so far; returns whether it was delivered before `deadline` (monotonic)."""
        done = threading.Event()
        self._flushes.append(done)
        self._hurry()
        if not done.wait(max(0.0, deadline - time.monotonic())):
            return False
        return self._export is None or self._export.spool.wait_empty(deadline)

    def stop(self, deadline: float) -> bool:
        """Export everything and end both threads, by `deadline` (monotonic) in any case.

        Returns:
            Whether everything was delivered.
        """
        if self._export is not None:
            self._export.sender.hurry(deadline)
        self._deadline = deadline
        self._hurry()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        export = self._export
        if export is None:
            return not self._options.endpoint
        export.spool.close()
        export.sender.hurry(deadline)
        delivered = export.sender.join() and not self._thread.is_alive()
        if not delivered:
            self._tell_what_is_left(export.spool)
        if export.sender.has_ended:  # or it would find the file closed; the end of the process closes it too
            export.spool.release()
        return delivered

    @property
    def complaints(self) -> list[str]:
        """What neither the collector nor the disk takes at present, and why."""
        if self._export is None:
            return []
        problem = self._export.spool.problem
        return [*self._export.sender.complaints, *([] if problem is None else [problem])]

    def contents(self) -> Contents | None:
        """What waits for the collector, of all processes that share the spool; blocks on the disk."""
        return None if self._export is None else self._export.spool.contents()

    def _tell_what_is_left(self, spool: Spool) -> None:
        left = spool.contents()
        spans, logs = (0, 0) if left is None else (left.items.get("traces", 0), left.items.get("logs", 0))
        if spool.is_durable:
            _log.info("%d spans and %d log records wait for the collector, and for the next start", spans, logs)
        elif spans or logs:
            _log.warning("shut down before the collector took %d spans and %d log records", spans, logs)

    @property
    def _stopping(self) -> bool:
        return self._deadline < math.inf

    def _hurry(self) -> None:
        self._hurried.set()
        self._ring.work.set()

    def _run(self) -> None:
        try:
            if self._options.endpoint:
                self._export = _Export(self._options, self._aggregate)
        except Exception as error:  # noqa: BLE001  # whatever is missing or broken, the server lives on without
            self._on_start(error)
            return
        self._on_start(None)
        self._metrics_due = time.monotonic() + self._options.metric_interval
        while not self._stopping:
            self._ring.work.wait(self._idle_for())
            self._hurried.wait(TICK)
            self._ring.work.clear()  # before the ring is read, so that what comes meanwhile sets it again
            self._hurried.clear()
            self._cycle()
        self._cycle()  # what came between the last cycle's reading and the stop

    def _cycle(self) -> None:
        flushes = [self._flushes.popleft() for _ in range(len(self._flushes))]
        try:
            items = self._ring.take()
            for item in items:
                if isinstance(item, Record):
                    self._aggregate.fold(item)
            if self._export is not None:
                # Metrics first: should time run out at a shutdown, it is spans and logs that are lost and not counts.
                if flushes or self._stopping or time.monotonic() >= self._metrics_due:
                    self._export.metrics()
                    self._metrics_due = time.monotonic() + self._options.metric_interval
                self._export_items(self._export, items)
                self._export.commit()
                if self._stopping:
                    self._export.metrics()  # the last word, on what was dropped just now
                    self._export.commit()
        except Exception:  # noqa: BLE001  # the thread must live on, or nothing would be recorded any more
            _log.exception("some records could not be worked on")
        if flushes and self._export is not None:
            self._export.sender.hurry()
        for flushed in flushes:
            flushed.set()

    def _export_items(self, export: _Export, items: Sequence[Item]) -> None:
        size = self._options.batch_size
        for start in range(0, len(items), size):
            if time.monotonic() >= self._deadline:
                _log.warning("shut down before %d records could be exported", len(items) - start)
                return
            export.items(items[start : start + size])

    def _idle_for(self) -> float | None:
        """Seconds to sleep at most: until metrics are due, if there are any new."""
        if self._export is None or not self._export.metrics_pending:
            return None
        return max(0.0, self._metrics_due - time.monotonic())

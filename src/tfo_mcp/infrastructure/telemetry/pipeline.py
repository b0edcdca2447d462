"""The thread behind the ring: folds records into metrics, lets the recorder keep them, and encodes them for export."""

from __future__ import annotations

import logging
import math
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from tfo_mcp.infrastructure.telemetry import conventions as names
from tfo_mcp.infrastructure.telemetry.aggregate import Aggregate
from tfo_mcp.infrastructure.telemetry.log_handler import THREADS
from tfo_mcp.infrastructure.telemetry.minutes import Minutes
from tfo_mcp.infrastructure.telemetry.options import TelemetryOptions
from tfo_mcp.infrastructure.telemetry.recorder import Recorder
from tfo_mcp.infrastructure.telemetry.records import Item, Record, RecordingListener
from tfo_mcp.infrastructure.telemetry.resource import resource_of
from tfo_mcp.infrastructure.telemetry.ring import Ring
from tfo_mcp.infrastructure.telemetry.sampling import Sampled, Sampler
from tfo_mcp.infrastructure.telemetry.spool import Spool, limits_of
from tfo_mcp.infrastructure.telemetry.spool_file import Contents, Parcel, SpoolFile
from tfo_mcp.infrastructure.telemetry.table import signal_of

if TYPE_CHECKING:
    from tfo_mcp.infrastructure.telemetry.encode import Encoder
    from tfo_mcp.infrastructure.telemetry.sender import Sender

_log = logging.getLogger("tfo_mcp.telemetry")

_MOST_IN_MEMORY = 64 * 1024 * 1024
"""Bytes that wait where there is no spool on disk."""

TICK = 0.08
"""Seconds from the first record that waits until the ring is emptied. A kill may cost what was recorded in the last
0.1 s, and the rest of those are for the work; the longer this is, the fewer commits there are."""

_RETRY = 1.0
"""Seconds from one try to write what the recorder's disk does not take to the next, while nothing else is recorded."""


_MOST_AT_ONCE = 4096
"""Items: while they are worked on, as many again as the ring holds may come."""


class _Export:
    """Encoder, spool and sender: there only where there is an endpoint. Made on the pipeline's thread."""

    def __init__(
        self,
        options: TelemetryOptions,
        aggregate: Aggregate,
        resource: Mapping[str, object],
        on_health: Callable[[], None],
    ) -> None:
        from tfo_mcp.infrastructure.telemetry.encode import Encoder
        from tfo_mcp.infrastructure.telemetry.sender import Sender
        from tfo_mcp.infrastructure.telemetry.transport import connect

        target = options.target()
        if target is None:
            raise ValueError("there is no endpoint to export to")
        self.encoder: Encoder = Encoder(resource, options.service_version, options.redact)
        self.spool, self.unusable = _spool(options, str(resource[names.SERVICE_INSTANCE]))
        self.sender: Sender = Sender(self.spool, connect(options, target), options, aggregate, on_health)
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


def _recorder(
    options: TelemetryOptions, minutes: Minutes, aggregate: Aggregate, resource: Mapping[str, object]
) -> Recorder | None:
    if options.recorder is None:
        return None
    instance = str(resource[names.SERVICE_INSTANCE])
    return Recorder(options.recorder, minutes, aggregate, instance=instance, version=options.service_version)


def _spool(options: TelemetryOptions, source: str) -> tuple[Spool, str | None]:
    """The spool on disk; where it cannot be used, one in memory until the next start, and why."""
    limits = limits_of(options)
    try:
        return Spool(SpoolFile(options.spool, source, options.durability), limits), None
    except (OSError, sqlite3.Error) as error:
        unusable = f"the spool {str(options.spool)!r} cannot be used: {error}"
        _log.warning("%s; what is recorded waits in memory", unusable)
        in_memory = replace(limits, max_bytes=min(limits.max_bytes, _MOST_IN_MEMORY))
        return Spool(SpoolFile(None, source, options.durability), in_memory), unusable


class Pipeline:
    """Sleeps while nothing is recorded.

    Args:
        ring: what waits to be worked on.
        aggregate: the metrics.
        minutes: what the recorder counts; None: there is no recorder.
        options: where to export to, and how often.
        listener: told of what was written, and of what is wrong; None: nobody.
        on_start: told once whether everything needed could be imported; called on the pipeline's thread.
    """

    def __init__(
        self,
        ring: Ring,
        aggregate: Aggregate,
        minutes: Minutes | None,
        options: TelemetryOptions,
        listener: RecordingListener | None,
        on_start: Callable[[Exception | None], None],
    ) -> None:
        self._ring = ring
        self._aggregate = aggregate
        self._minutes = minutes
        self._options = options
        self._listener = listener
        self._complained: list[str] = []
        self._on_start = on_start
        self._export: _Export | None = None
        self._recorder: Recorder | None = None
        self._sampler: Sampler | None = None
        self._metrics_due = 0.0
        self._deadline = math.inf
        self._hurried = threading.Event()
        self._flushes: deque[threading.Event] = deque()
        self._settlers: deque[threading.Event] = deque()
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

    def settle(self, deadline: float) -> bool:
        """Write everything recorded so far; returns whether that was done before `deadline` (monotonic)."""
        done = threading.Event()
        self._settlers.append(done)
        self._hurry()
        return done.wait(max(0.0, deadline - time.monotonic()))

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
        export = self._export
        complaints = [] if export is None else [*export.sender.complaints, export.unusable, export.spool.problem]
        complaints += [] if self._recorder is None else [self._recorder.problem]
        return [complaint for complaint in complaints if complaint is not None]

    @property
    def last_failure(self) -> tuple[float, str] | None:
        """When an attempt to export failed last, in seconds since the epoch, and how."""
        return None if self._export is None else self._export.sender.last_failure

    def contents(self) -> Contents | None:
        """What waits for the collector, of all processes that share the spool; blocks on the disk."""
        return None if self._export is None else self._export.spool.contents()

    @property
    def sampled(self) -> Sampled | None:
        """What became of the spans, where `max_traces_per_second` limits them."""
        return None if self._sampler is None else self._sampler.sampled

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
            resource = resource_of(self._options)
            if self._minutes is not None:
                self._recorder = _recorder(self._options, self._minutes, self._aggregate, resource)
            if self._options.endpoint:
                self._export = _Export(self._options, self._aggregate, resource, self._look_at_health)
                if self._options.max_traces_per_second:
                    self._sampler = Sampler(self._options.max_traces_per_second, time.monotonic())
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
        if self._recorder is not None:
            self._recorder.close(self._deadline)

    def _cycle(self) -> None:
        flushes = [self._flushes.popleft() for _ in range(len(self._flushes))]
        settlers = [self._settlers.popleft() for _ in range(len(self._settlers))]
        waiting = max(1, len(self._ring))
        while waiting > 0:
            items = self._ring.take(_MOST_AT_ONCE)
            waiting -= len(items) or 1
            items = self._redacted(items)
            # One part's failure is no other's: the thread must live on, or nothing would be recorded any more.
            for work in (self._fold, self._keep):
                self._try(work, items)
            if waiting <= 0:
                for settled in settlers:
                    settled.set()
            if self._export is not None:
                self._try(partial(self._send, self._export, flushing=bool(flushes)), items)
        if flushes and self._export is not None:
            self._export.sender.hurry()
        self._look_at_health()
        for flushed in flushes:
            flushed.set()

    def _look_at_health(self) -> None:
        complaints = self.complaints
        if complaints != self._complained:
            self._complained = complaints
            if self._listener is not None:
                self._listener.health_changed()

    def _try(self, work: Callable[[Sequence[Item]], None], items: Sequence[Item]) -> None:
        try:
            work(items)
        except Exception:  # noqa: BLE001  # see above
            _log.exception("some records could not be worked on")

    def _fold(self, items: Sequence[Item]) -> None:
        for item in items:
            if isinstance(item, Record):
                self._aggregate.fold(item)
                if self._minutes is not None:
                    self._minutes.fold(item)

    def _keep(self, items: Sequence[Item]) -> None:
        if self._recorder is not None:
            self._recorder.add(items)
            self._recorder.commit()
            if self._listener is not None and items:
                self._listener.recorded(items)

    def _send(self, export: _Export, items: Sequence[Item], *, flushing: bool) -> None:
        if self._sampler is not None:
            items = self._sift(self._sampler, items, waits=not (flushing or self._stopping))
        # Metrics first: should time run out at a shutdown, it is spans and logs that are lost and not counts.
        if flushing or self._stopping or time.monotonic() >= self._metrics_due:
            export.metrics()
            self._metrics_due = time.monotonic() + self._options.metric_interval
        self._export_items(export, items)
        export.commit()
        if self._stopping:
            export.metrics()  # the last word, on what was dropped just now
            export.commit()

    def _redacted(self, items: list[Item]) -> list[Item]:
        """The items without secrets in what they say; what comes after the time is over goes without contents."""
        contents = self._options.contents
        if contents is None:
            return items
        return [
            contents.of(item, keep=time.monotonic() < self._deadline) if isinstance(item, Record) else item
            for item in items
        ]

    def _sift(self, sampler: Sampler, items: Sequence[Item], *, waits: bool) -> list[Item]:
        """What is to go out now; what never will is counted before the metrics go."""
        before = sampler.sampled.dropped_spans
        kept = sampler.sift(items, time.monotonic(), waits=waits)
        dropped = sampler.sampled.dropped_spans - before
        self._aggregate.count(names.SPANS_DROPPED, dropped, {names.REASON: names.DROPPED_SAMPLED})
        return kept

    def _export_items(self, export: _Export, items: Sequence[Item]) -> None:
        size = self._options.batch_size
        for start in range(0, len(items), size):
            if time.monotonic() >= self._deadline:
                _log.warning("shut down before %d records could be exported", len(items) - start)
                return
            export.items(items[start : start + size])

    def _idle_for(self) -> float | None:
        """Seconds to sleep at most: until new metrics or a span are due, or the recorder's disk is tried again."""
        due = math.inf if self._sampler is None else self._sampler.due
        if self._export is not None and self._export.metrics_pending:
            due = min(due, self._metrics_due)
        if self._recorder is not None and self._recorder.problem is not None:
            due = min(due, time.monotonic() + _RETRY)
        return None if due == math.inf else max(0.0, due - time.monotonic())

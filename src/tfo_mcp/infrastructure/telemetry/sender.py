"""The thread that sends, and the one retry loop that is ours."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tfo_mcp.application.attributes import ERROR_TYPE
from tfo_mcp.infrastructure.telemetry import conventions as names
from tfo_mcp.infrastructure.telemetry.aggregate import Aggregate
from tfo_mcp.infrastructure.telemetry.log_handler import THREADS
from tfo_mcp.infrastructure.telemetry.options import TelemetryOptions
from tfo_mcp.infrastructure.telemetry.spool import Spool
from tfo_mcp.infrastructure.telemetry.spool_file import Parcel

if TYPE_CHECKING:
    from tfo_mcp.infrastructure.telemetry.transport import Answer, Transport

_log = logging.getLogger("tfo_mcp.telemetry")

_LAST_RETRY = 0.05
"""Seconds of the first backoff once the client shuts down: there is little time left to be polite in."""

_MAX_DETAIL = 200
"""Characters of a collector's own words in the log, after our secrets have been masked in them."""


class Sender:
    """Takes parcels and tries until each is delivered or refused.

    Args:
        spool: where parcels wait until the collector has them.
        transport: makes one attempt; used by this thread.
        options: timeout and backoff.
        aggregate: counts what became of spans and log records.
        on_health: called when something is wrong that was not, or the other way round.

    Attributes:
        last_failure: when an attempt failed last, in seconds since the epoch, and how; None: none has.
    """

    def __init__(
        self,
        spool: Spool,
        transport: Transport,
        options: TelemetryOptions,
        aggregate: Aggregate,
        on_health: Callable[[], None] = lambda: None,
    ) -> None:
        self._spool = spool
        self._transport = transport
        self._options = options
        self._aggregate = aggregate
        self._on_health = on_health
        self.last_failure: tuple[float, str] | None = None
        self._secrets = [value for value in options.all_headers().values() if value]
        self._deadline = math.inf
        self._failures = 0
        self._hurried = threading.Event()
        self._complaints: set[tuple[str, str]] = set()
        self._thread = threading.Thread(target=self._run, name=f"{THREADS}-sender", daemon=True)

    @property
    def complaints(self) -> list[str]:
        """What the collector does not take at present, and why: `traces: UNAVAILABLE`."""
        return sorted(f"{signal}: {code}" for signal, code in tuple(self._complaints))

    @property
    def has_ended(self) -> bool:
        """Whether its thread does nothing any more."""
        return not self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def hurry(self, deadline: float = math.inf) -> None:
        """Make the next attempt at once, unless the collector asked for time; make none after `deadline`."""
        self._deadline = deadline
        self._failures = 0
        self._hurried.set()
        self._spool.hurry()

    def join(self) -> bool:
        """Wait until of the spool, which must have been closed, all that was put here is sent, or for the deadline.

        Returns:
            Whether everything was delivered or refused.
        """
        self._thread.join(max(0.0, self._deadline - time.monotonic()))
        if self._thread.is_alive():
            self._transport.abort()
        return self._spool.wait_empty(0)

    def _run(self) -> None:
        while (parcel := self._spool.take()) is not None:
            timeout = min(self._options.timeout, self._deadline - time.monotonic())
            if timeout <= 0:
                self._spool.failed(parcel)
                break
            try:
                answer = self._transport.send(parcel.signal, parcel.body, timeout)
            except Exception as error:  # noqa: BLE001  # whatever it is, the thread must live on
                pause = self._failed(parcel, type(error).__name__, str(error), None)
            else:
                pause = self._judge(parcel, answer)
            if pause is not None and not self._pause(*pause):
                break
        self._transport.close()

    def _judge(self, parcel: Parcel, answer: Answer) -> tuple[float, bool] | None:
        """Do what the answer asks for; returns the pause before the next attempt, as `_pause` takes it."""
        if answer.verdict == "retry":
            return self._failed(parcel, answer.code, answer.detail, answer.retry_after)
        if answer.verdict == "unauthorized":
            self._note_failure(parcel, answer.code, "does not let us send %s (%s %s); trying again", answer.detail)
            self._spool.failed(parcel)
            return self._options.retry_max, False
        self._failures = 0
        if answer.verdict == "refused":
            self._note_failure(parcel, answer.code, "refused %s for good (%s %s)", answer.detail)
            lost = self._spool.refused(parcel, answer.code, self._masked(answer.detail))
            self._count_lost(parcel, 0 if lost is None else lost.items)
            return None
        if parcel.signal != "metrics":
            self._aggregate.count(names.EXPORTED[parcel.signal], max(parcel.items - answer.refused_items, 0))
        self._count_lost(parcel, answer.refused_items)
        if answer.refused_items or answer.detail:
            self._complain(parcel, "partial", "took %s only in part (%s %s)", answer.detail)
        else:
            self._recovered(parcel)
        self._spool.accepted(parcel)
        return None

    def _failed(self, parcel: Parcel, code: str, detail: str, retry_after: float | None) -> tuple[float, bool]:
        self._note_failure(parcel, code, "did not take %s (%s %s); trying again", detail)
        self._spool.failed(parcel)
        if retry_after is not None:
            return retry_after, True
        initial = self._options.retry_initial if self._deadline == math.inf else _LAST_RETRY
        backoff = min(initial * 2 ** min(self._failures, 16), self._options.retry_max)
        self._failures += 1
        return backoff * random.uniform(0.5, 1.0), False  # noqa: S311  # jitter is no secret

    def _pause(self, seconds: float, told: bool) -> bool:  # noqa: FBT001  # `told`: the collector asked for it
        """Wait; returns whether there is time for another attempt after it."""
        until = time.monotonic() + seconds
        while until < self._deadline:
            left = until - time.monotonic()
            if left <= 0:
                return True
            if self._hurried.wait(left):
                self._hurried.clear()
                if not told:
                    return True
        return False

    def _note_failure(self, parcel: Parcel, code: str, what: str, detail: str) -> None:
        self.last_failure = (time.time(), f"{parcel.signal}: {code}")
        self._aggregate.count(names.EXPORT_FAILURES, 1, {names.SIGNAL: parcel.signal, ERROR_TYPE: code})
        self._complain(parcel, code, what, detail)

    def _count_lost(self, parcel: Parcel, items: int) -> None:
        if parcel.signal != "metrics":
            self._aggregate.count(names.DROPPED[parcel.signal], items, {names.REASON: names.DROPPED_REFUSED})

    def _complain(self, parcel: Parcel, code: str, what: str, detail: str) -> None:
        """Say once what is wrong, until it is well again. A collector may quote our headers: they are masked."""
        if (parcel.signal, code) not in self._complaints:
            self._complaints = self._complaints | {(parcel.signal, code)}  # another thread may be reading the old one
            self._on_health()
            _log.warning(f"the collector {what}", parcel.signal, code, self._masked(detail))

    def _masked(self, detail: str) -> str:
        for secret in self._secrets:
            detail = detail.replace(secret, "***")
        return detail[:_MAX_DETAIL]

    def _recovered(self, parcel: Parcel) -> None:
        others = {complaint for complaint in self._complaints if complaint[0] != parcel.signal}
        if others != self._complaints:
            self._complaints = others
            self._on_health()
            _log.info("the collector takes %s again", parcel.signal)

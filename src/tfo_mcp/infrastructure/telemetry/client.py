"""The diagrams' MCPTelemetryClient, over the "Telemetry Client State Machine" with the edges of DESIGN §4.

Ready never depends on the collector. The diagram's edges from Ready to itself (record metrics, create spans) are
no rows: recording changes no state, and what is recorded before Ready waits.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Literal

from tfo_mcp.application.attributes import ERROR_TYPE, PROTOCOL_VERSION, SESSION
from tfo_mcp.application.ports import AttributeValue, SpanKind, TraceContext, current_operation
from tfo_mcp.domain.health import ComponentHealth, HealthStatus, moment
from tfo_mcp.domain.session import Session
from tfo_mcp.domain.state_machine import StateMachine
from tfo_mcp.infrastructure.telemetry import conventions as names
from tfo_mcp.infrastructure.telemetry.aggregate import Aggregate
from tfo_mcp.infrastructure.telemetry.conventions import CLIENT_NAME, CLIENT_VERSION, REASON
from tfo_mcp.infrastructure.telemetry.log_handler import LogHandler
from tfo_mcp.infrastructure.telemetry.minutes import Minutes
from tfo_mcp.infrastructure.telemetry.options import TelemetryOptions
from tfo_mcp.infrastructure.telemetry.pipeline import Pipeline
from tfo_mcp.infrastructure.telemetry.records import Record, RecordingListener
from tfo_mcp.infrastructure.telemetry.ring import Ring
from tfo_mcp.infrastructure.telemetry.span import CapturingSpan, NullSpan, RecordingSpan

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

_log = logging.getLogger("tfo_mcp.telemetry")

_NO_ATTRIBUTES: Mapping[str, AttributeValue] = {}


class TelemetryState(Enum):
    """Where the client is."""

    DISABLED = "disabled"
    CREATING = "creating"
    INITIALIZING = "initializing"
    READY = "ready"
    FLUSHING = "flushing"
    SHUTTING_DOWN = "shutting down"
    CLOSED = "closed"


class TelemetryTrigger(Enum):
    """What moves the client."""

    CLIENT_CREATED = "client created"
    INITIALIZE_SUCCESS = "initialize success"
    INITIALIZE_FAILED = "initialize failed"
    FLUSH_REQUEST = "flush request"
    FLUSH_COMPLETE = "flush complete"
    SHUTDOWN = "shutdown"
    SHUTDOWN_COMPLETE = "shutdown complete"


_S, _T = TelemetryState, TelemetryTrigger

TELEMETRY_TRANSITIONS = {
    (_S.CREATING, _T.CLIENT_CREATED): _S.INITIALIZING,
    (_S.INITIALIZING, _T.INITIALIZE_SUCCESS): _S.READY,
    (_S.INITIALIZING, _T.INITIALIZE_FAILED): _S.DISABLED,
    (_S.INITIALIZING, _T.SHUTDOWN): _S.SHUTTING_DOWN,
    (_S.READY, _T.FLUSH_REQUEST): _S.FLUSHING,
    (_S.READY, _T.SHUTDOWN): _S.SHUTTING_DOWN,
    (_S.FLUSHING, _T.FLUSH_COMPLETE): _S.READY,
    (_S.FLUSHING, _T.SHUTDOWN): _S.SHUTTING_DOWN,
    (_S.SHUTTING_DOWN, _T.SHUTDOWN_COMPLETE): _S.CLOSED,
}


class MCPTelemetryClient:
    """Implements `Telemetry`.

    Making one is cheap: it imports nothing heavy and starts no thread. What is recorded before `start` waits.
    """

    def __init__(self, options: TelemetryOptions) -> None:
        self._machine = StateMachine("telemetry client", TELEMETRY_TRANSITIONS, TelemetryState.CREATING)
        self._options = options
        self._contents = options.contents
        self._aggregate = Aggregate()
        self._minutes = None if options.recorder is None else Minutes()
        self._ring = Ring(self._aggregate, self._minutes, options.ring_capacity, exports_logs=options.logs)
        self._log_handler: LogHandler | None = None
        self._pipeline: Pipeline | None = None
        self._listener: RecordingListener | None = None
        self._provider: TracerProvider | None = None
        self._lock = threading.Lock()
        self._edge = threading.Lock()
        self._flushing = threading.Lock()
        self._initialized = threading.Event()
        self._machine.fire(TelemetryTrigger.CLIENT_CREATED)

    @property
    def state(self) -> TelemetryState:
        """Where the client is."""
        return self._machine.state

    # --- recording ---

    def span(
        self,
        kind: SpanKind,
        name: str,
        *,
        parent: TraceContext | None = None,
        principal: str | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
    ) -> RecordingSpan:
        """Start to measure an operation."""
        if self._contents is not None:
            length = self._contents.length
            return CapturingSpan(self._ring, kind, name, parent, attributes or _NO_ATTRIBUTES, principal, length=length)
        return RecordingSpan(self._ring, kind, name, parent, attributes or _NO_ATTRIBUTES, principal)

    def record_session_event(self, event: Literal["initialized", "closed"], session: Session) -> None:
        """Count the session in or out, at its end with its duration; and leave a log record of it."""
        attributes: dict[str, AttributeValue] = {SESSION: session.id}
        if session.protocol_version:
            attributes[PROTOCOL_VERSION] = session.protocol_version
        if session.client_name:
            attributes |= {CLIENT_NAME: session.client_name, CLIENT_VERSION: session.client_version}
        now, duration = time.time_ns(), int(session.duration * 1e9)
        context = current_operation.get()
        self._ring.record(
            Record("session", event, context, 0, now, duration, "completed", attributes, principal=session.principal)
        )

    def record_error(self, error_type: str, attributes: Mapping[str, AttributeValue]) -> None:
        """Count an error, and leave a log record of it."""
        attributes = {ERROR_TYPE: error_type, **attributes}
        context = current_operation.get()
        self._ring.record(Record("error", "error", context, 0, time.time_ns(), 0, "failed", attributes))

    def record_rejected(self, reason: str) -> None:
        """Count a message that never became an operation."""
        self._ring.record(Record("rejected", "rejected", None, 0, time.time_ns(), 0, "invalid", {REASON: reason}))

    def tracer_provider(self) -> TracerProvider:
        """For libraries that trace themselves: an OpenTelemetry provider whose spans join ours."""
        with self._lock:
            if self._provider is None:
                from tfo_mcp.infrastructure.telemetry.otel_bridge import make_tracer_provider

                self._provider = make_tracer_provider(self._ring)
            return self._provider

    async def health(self) -> ComponentHealth:
        """Where the client is, and what became of what it recorded."""
        pipeline, count = self._pipeline, self._aggregate.total
        complaints = [] if pipeline is None else pipeline.complaints
        spool = None if pipeline is None else await asyncio.to_thread(pipeline.contents)
        waiting: Mapping[str, int] = {} if spool is None else spool.items
        sampled = None if pipeline is None else pipeline.sampled
        failure = None if pipeline is None else pipeline.last_failure
        details = {
            "state": self.state.value,
            "endpoint_set": self._options.endpoint is not None,
            "spans_exported": count(names.SPANS_EXPORTED),
            "spans_waiting": waiting.get("traces", 0),
            "spans_dropped": count(names.SPANS_DROPPED) - (0 if sampled is None else sampled.dropped_spans),
            "logs_exported": count(names.LOGS_EXPORTED),
            "logs_waiting": waiting.get("logs", 0),
            "logs_dropped": count(names.LOGS_DROPPED),
            "export_failures": count(names.EXPORT_FAILURES),
            "bytes_waiting": 0 if spool is None else spool.bytes,
            "oldest_waiting_since": moment(None if spool is None else spool.oldest),
            "refused_kept": 0 if spool is None else spool.dead,
            "rows_dropped": count(names.ROWS_DROPPED),
            "last_failure": None if failure is None else failure[1],
            "last_failure_at": None if failure is None else moment(failure[0]),
            "problems": complaints,
        }
        if sampled is not None:
            details |= {"spans_sampled_out": sampled.dropped_spans, "sampled_share": round(sampled.share, 4)}
        ill = bool(complaints) or self.state is TelemetryState.DISABLED
        return ComponentHealth(HealthStatus.DEGRADED if ill else HealthStatus.HEALTHY, details)

    # --- life ---

    def take_logs(self) -> None:
        """From now to the end, let what is logged go out too, if there is anywhere to go and `options.logs`."""
        if self._options.endpoint and self._options.logs and self._log_handler is None:
            self._log_handler = LogHandler(self._ring.record)
            logging.root.addHandler(self._log_handler)

    def tell(self, listener: RecordingListener) -> None:
        """Tell `listener` from the start on what was written, and what is wrong."""
        self._listener = listener

    def start(self) -> None:
        """Start the threads, which import what they need; returns at once. A second time does nothing."""
        with self._lock:
            if self._machine.state is TelemetryState.INITIALIZING and self._pipeline is None:
                self._launch()

    def flush(self, timeout: float) -> bool:
        """Export everything recorded so far, within `timeout` seconds. Blocks: not for an event loop's thread.

        Returns:
            Whether nothing waits any more; False also where the client is not, or no longer, ready.
        """
        deadline = time.monotonic() + timeout
        if self._pipeline is None or not self._initialized.wait(timeout):
            return False
        if not self._flushing.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return False
        try:
            if not self._fire(TelemetryTrigger.FLUSH_REQUEST):
                return False
            delivered = self._pipeline.flush(deadline)
            self._fire(TelemetryTrigger.FLUSH_COMPLETE)  # unless a shutdown overtook it
            return delivered
        finally:
            self._flushing.release()

    def settle(self, timeout: float) -> bool:
        """Let what was recorded so far reach the recorder, within `timeout` seconds; whether it has. Blocks."""
        deadline = time.monotonic() + timeout
        if self._pipeline is None or not self._initialized.wait(timeout):
            return False
        return self._pipeline.settle(deadline)

    def shutdown(self, timeout: float) -> bool:
        """Export what waits and end, within `timeout` seconds whatever the collector does. Blocks, as `flush` does.

        Returns:
            Whether everything was delivered. A second time does nothing.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            if not self._fire(TelemetryTrigger.SHUTDOWN):
                return True
            if self._pipeline is None and self._options.keeps and len(self._ring):
                self._launch()
        delivered = self._pipeline is None or self._pipeline.stop(deadline)
        self._close()
        self._fire(TelemetryTrigger.SHUTDOWN_COMPLETE)
        return delivered

    def _launch(self) -> None:
        self._pipeline = Pipeline(
            self._ring, self._aggregate, self._minutes, self._options, self._listener, self._started
        )
        self._pipeline.start()

    def _started(self, error: Exception | None) -> None:
        if error is not None:
            self._close()
            self._fire(TelemetryTrigger.INITIALIZE_FAILED)
            _log.warning("telemetry is off: %s: %s", type(error).__name__, error)
        else:
            self._fire(TelemetryTrigger.INITIALIZE_SUCCESS)
        self._initialized.set()

    def _close(self) -> None:
        self._ring.close()
        if self._log_handler is not None:
            logging.root.removeHandler(self._log_handler)

    def _fire(self, trigger: TelemetryTrigger) -> bool:
        """Take the edge if there is one from here, and say so: another thread may have been faster."""
        with self._edge:
            if not self._machine.can(trigger):
                return False
            self._machine.fire(trigger)
            return True


class NullTelemetry:
    """The client where telemetry is off: the same calls, and nothing happens."""

    state = TelemetryState.DISABLED

    def span(
        self,
        kind: SpanKind,  # noqa: ARG002  # a null object takes what the real one takes
        name: str,
        *,
        parent: TraceContext | None = None,
        principal: str | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,  # noqa: ARG002  # as above
    ) -> NullSpan:
        """A span that measures nothing."""
        return NullSpan(name, parent, principal)

    def record_session_event(self, event: Literal["initialized", "closed"], session: Session) -> None:
        """Nothing."""

    def record_error(self, error_type: str, attributes: Mapping[str, AttributeValue]) -> None:
        """Nothing."""

    def record_rejected(self, reason: str) -> None:
        """Nothing."""

    def tracer_provider(self) -> TracerProvider:
        """OpenTelemetry's own null object."""
        from opentelemetry.trace import NoOpTracerProvider

        return NoOpTracerProvider()

    async def health(self) -> ComponentHealth:
        """Switched off."""
        return ComponentHealth(HealthStatus.DISABLED, {"state": self.state.value})

    def take_logs(self) -> None:
        """Nothing."""

    def tell(self, listener: RecordingListener) -> None:
        """Nothing is."""

    def start(self) -> None:
        """Nothing."""

    def flush(self, timeout: float) -> bool:  # noqa: ARG002  # as above
        """Nothing waits."""
        return True

    def settle(self, timeout: float) -> bool:  # noqa: ARG002  # as above
        """Nothing is recorded."""
        return True

    def shutdown(self, timeout: float) -> bool:  # noqa: ARG002  # as above
        """Nothing waits."""
        return True


def make_telemetry(options: TelemetryOptions) -> MCPTelemetryClient | NullTelemetry:
    """The client that `options` asks for: the machine's first edge, to Creating or to Disabled."""
    return MCPTelemetryClient(options) if options.enabled else NullTelemetry()

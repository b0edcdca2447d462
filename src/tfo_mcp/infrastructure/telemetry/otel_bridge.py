"""Where OpenTelemetry's own context and SDK meet ours: for libraries that trace themselves inside a call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import baggage
from opentelemetry import context as otel_context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, set_span_in_context

from tfo_mcp.application.ports import TraceContext, current_operation
from tfo_mcp.domain.identifiers import LOCAL_PRINCIPAL
from tfo_mcp.infrastructure.telemetry.records import LibrarySpan
from tfo_mcp.infrastructure.telemetry.ring import Ring

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)

_MAX_VALUES = 64
"""Attributes, events and links of one library's span; what is beyond is dropped by the SDK."""


class Activation:
    """While entered, OpenTelemetry's current span is the one with these ids, and its baggage the client's."""

    __slots__ = ("_context", "_token")

    def __init__(self, context: TraceContext) -> None:
        self._context = context

    def __enter__(self) -> None:
        ids, carried = (self._context.trace_id, self._context.span_id), self._context.carried
        state = TraceState.from_header([carried.trace_state]) if carried is not None and carried.trace_state else None
        ours = SpanContext(*ids, is_remote=False, trace_flags=_SAMPLED, trace_state=state)
        context = set_span_in_context(NonRecordingSpan(ours))
        for name, value in carried.baggage.items() if carried is not None else ():
            context = baggage.set_baggage(name, value, context)
        self._token: Token[Context] = otel_context.attach(context)

    def __exit__(self, *_: object) -> None:
        otel_context.detach(self._token)


def make_tracer_provider(ring: Ring) -> TracerProvider:
    """A provider whose ended spans go where ours go. It is nobody's global one."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    class IntoRing(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            context = current_operation.get()
            ring.record(LibrarySpan(span, LOCAL_PRINCIPAL if context is None else context.principal))

    provider = TracerProvider(
        sampler=ALWAYS_ON,
        resource=Resource.get_empty(),  # ours is put beside every span when it is encoded
        shutdown_on_exit=False,
        span_limits=SpanLimits(max_span_attributes=_MAX_VALUES, max_events=_MAX_VALUES, max_links=_MAX_VALUES),
    )
    provider.add_span_processor(IntoRing())
    return provider

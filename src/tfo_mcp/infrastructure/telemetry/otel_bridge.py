"""Where OpenTelemetry's own context and SDK meet ours: for libraries that trace themselves inside a call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import context as otel_context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from tfo_mcp.application.ports import TraceContext
from tfo_mcp.infrastructure.telemetry.recorder import Recorder

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)

_MAX_VALUES = 64
"""Attributes, events and links of one library's span; what is beyond is dropped by the SDK."""


class Activation:
    """While entered, OpenTelemetry's current span is the one with these ids."""

    __slots__ = ("_context", "_token")

    def __init__(self, context: TraceContext) -> None:
        self._context = context

    def __enter__(self) -> None:
        ours = SpanContext(self._context.trace_id, self._context.span_id, is_remote=False, trace_flags=_SAMPLED)
        self._token: Token[Context] = otel_context.attach(set_span_in_context(NonRecordingSpan(ours)))

    def __exit__(self, *_: object) -> None:
        otel_context.detach(self._token)


def make_tracer_provider(recorder: Recorder) -> TracerProvider:
    """A provider whose ended spans go where ours go. It is nobody's global one."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    class IntoRecorder(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            recorder.record(span)

    provider = TracerProvider(
        sampler=ALWAYS_ON,
        resource=Resource.get_empty(),  # ours is put beside every span when it is encoded
        shutdown_on_exit=False,
        span_limits=SpanLimits(max_span_attributes=_MAX_VALUES, max_events=_MAX_VALUES, max_links=_MAX_VALUES),
    )
    provider.add_span_processor(IntoRecorder())
    return provider

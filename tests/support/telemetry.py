"""The telemetry ports, recording into lists."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from typing import Literal

from tfo_mcp.application.ports import AttributeValue, SpanKind, TraceContext, current_operation
from tfo_mcp.domain.execution import Outcome
from tfo_mcp.domain.identifiers import LOCAL_PRINCIPAL
from tfo_mcp.domain.session import Session

current_span: ContextVar[FakeSpan | None] = ContextVar("current_span", default=None)


class FakeSpan:
    """A `Span`: what was noted of one operation. `ended` is how it ended, None until then."""

    captures_content = True

    def __init__(
        self,
        kind: SpanKind,
        name: str,
        context: TraceContext,
        parent: TraceContext | None,
        attributes: Mapping[str, AttributeValue],
    ) -> None:
        self.kind: SpanKind = kind
        self.name = name
        self.context = context
        self.parent = parent
        self.attributes = dict(attributes)
        self.contents: dict[str, object] = {}
        self.events: list[str] = []
        self.ended: tuple[Outcome, str | None] | None = None

    def set(self, key: str, value: AttributeValue) -> None:
        self.attributes[key] = value

    def set_content(self, key: str, content: object) -> None:
        self.contents[key] = content

    def add_event(self, name: str, attributes: Mapping[str, AttributeValue] | None = None) -> None:
        self.events.append(name)

    @contextmanager
    def active(self) -> Generator[None]:
        token = current_span.set(self)
        try:
            yield
        finally:
            current_span.reset(token)

    def end(self, outcome: Outcome, error_type: str | None = None) -> None:
        assert self.ended is None, f"{self.name} ends twice"
        self.ended = (outcome, error_type)


class FakeTelemetry:
    """A `Telemetry`: every span in the order of their starts, every session event, error and rejection.

    Of an error: its type, its attributes, and the operation that it happened in.
    """

    def __init__(self) -> None:
        self.spans: list[FakeSpan] = []
        self.session_events: list[tuple[str, Session]] = []
        self.errors: list[tuple[str, dict[str, AttributeValue], TraceContext | None]] = []
        self.rejections: list[str] = []
        self._ids = count(1)

    def span(
        self,
        kind: SpanKind,
        name: str,
        *,
        parent: TraceContext | None = None,
        principal: str | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
    ) -> FakeSpan:
        span_id = next(self._ids)
        context = TraceContext(
            (parent.trace_id if parent else 0) or span_id,
            span_id,
            parent.carried if parent else None,
            principal or (parent.principal if parent else LOCAL_PRINCIPAL),
        )
        span = FakeSpan(kind, name, context, parent, attributes or {})
        self.spans.append(span)
        return span

    def record_session_event(self, event: Literal["initialized", "closed"], session: Session) -> None:
        self.session_events.append((event, session))

    def record_error(self, error_type: str, attributes: Mapping[str, AttributeValue]) -> None:
        self.errors.append((error_type, dict(attributes), current_operation.get()))

    def flush(self, timeout: float) -> bool:
        return True

    def record_rejected(self, reason: str) -> None:
        self.rejections.append(reason)

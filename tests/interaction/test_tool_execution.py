from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from support.telemetry import FakeSpan, FakeTelemetry
from support.tool_calls import FakeClient
from tfo_mcp.application.bus import RequestInfo
from tfo_mcp.application.commands import CallTool
from tfo_mcp.application.ports import AttributeValue, Intent, SpanKind, TraceContext
from tfo_mcp.application.tool_handler import ToolHandler, ToolLimits
from tfo_mcp.domain.errors import UnknownTool
from tfo_mcp.domain.events import DomainEvent, ToolExecuted
from tfo_mcp.domain.execution import Outcome
from tfo_mcp.domain.session import Session
from tfo_mcp.domain.tool import Tool, ToolContext, ToolMode, ToolRegistry, ToolResult
from tfo_mcp.infrastructure.schemas import JsonSchemas


class Ports(FakeTelemetry):
    """All that a tool handler stands on; `steps` has what it did with it, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[str] = []

    def span(
        self,
        kind: SpanKind,
        name: str,
        *,
        parent: TraceContext | None = None,
        principal: str | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
    ) -> FakeSpan:
        self.steps.append(f"span {name}")
        return super().span(kind, name, parent=parent, principal=principal, attributes=attributes)

    def compile(self, schema: Mapping[str, Any]) -> Callable[[object], Sequence[str]]:
        validate = JsonSchemas().compile(schema)

        def noted(arguments: object) -> Sequence[str]:
            self.steps.append("validated")
            return validate(arguments)

        return noted

    async def intend(self, intent: Intent) -> int:
        self.steps.append("intent committed")
        return 1

    def conclude(self, intent_id: int, outcome: Outcome, error_type: str | None, duration: float) -> None:
        self.steps.append(f"intent concluded: {outcome}")

    def run(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        self.steps.append(f"run, span ended: {self.spans[-1].ended}")
        return ToolResult("done")

    def publish(self, events: Iterable[DomainEvent]) -> None:
        for event in events:
            assert isinstance(event, ToolExecuted)
            self.steps.append(f"told of {event.outcome}, span ended: {self.spans[-1].ended}")


def call(ports: Ports, name: str, arguments: Mapping[str, Any]) -> ToolResult:
    tool = Tool(
        name="count",
        title="Count",
        description="Counts.",
        input_schema={"type": "object", "properties": {"number": {"type": "integer"}}},
        run=ports.run,
        mode=ToolMode.INLINE,
    )
    handler = ToolHandler(
        ToolRegistry([tool]),
        ports,
        telemetry=ports,
        publisher=ports,
        audit=ports,
        executor=ThreadPoolExecutor(1),
        limits=ToolLimits(timeout=20, max_result_size=1_000_000),
        report=lambda error_id, error: None,
    )
    info = RequestInfo(
        operation="tools/call",
        session=Session(),
        client=FakeClient(),
        protocol_version="2025-11-25",
        span=FakeTelemetry().span("request", "tools/call"),
    )
    return asyncio.run(handler.call(CallTool(name, arguments), info))


@pytest.mark.behaviour("execution.order", "tools.acting.intent")
def test_a_call_takes_every_step_in_the_order_that_is_drawn() -> None:
    ports = Ports()
    assert call(ports, "count", {"number": 1}) == ToolResult("done")
    assert ports.steps == [
        "validated",
        "span tools.execute",
        "intent committed",
        "run, span ended: None",
        "told of completed, span ended: ('completed', None)",
        "intent concluded: completed",
    ]


@pytest.mark.behaviour("execution.order", "execution.invalid")
def test_arguments_that_do_not_fit_go_from_validation_to_the_end() -> None:
    ports = Ports()
    assert call(ports, "count", {"number": "one"}).is_error
    assert ports.steps == [
        "validated",
        "span tools.execute",
        "told of invalid, span ended: ('invalid', 'invalid_arguments')",
    ]


@pytest.mark.behaviour("execution.order", "execution.unknown")
def test_a_tool_that_is_not_found_is_told_of_before_any_validation() -> None:
    ports = Ports()
    with pytest.raises(UnknownTool):
        call(ports, "no_such", {"number": "one"})
    assert ports.steps == ["span tools.execute", "told of invalid, span ended: ('invalid', 'unknown_tool')"]

"""Tools called as clients call them: through the real `ToolHandler`, with recording fakes around it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from support.fakes import InMemoryAudit
from support.telemetry import FakeTelemetry
from tfo_mcp.application.bus import RequestInfo
from tfo_mcp.application.commands import CallTool
from tfo_mcp.application.tool_handler import ToolHandler, ToolLimits
from tfo_mcp.domain.events import DomainEvent, ToolExecuted
from tfo_mcp.domain.session import Session
from tfo_mcp.domain.tool import Tool, ToolRegistry, ToolResult
from tfo_mcp.infrastructure.schemas import JsonSchemas


class FakeClient:
    """A `Client` that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str | int, float, float | None, str | None]] = []
        self.logged: list[tuple[str, str, Mapping[str, Any]]] = []
        self.updated: list[str] = []

    async def progress(
        self, token: str | int, progress: float, total: float | None = None, message: str | None = None
    ) -> None:
        self.told.append((token, progress, total, message))

    def log(self, level: str, logger: str, data: Mapping[str, Any]) -> bool:
        self.logged.append((level, logger, data))
        return True

    def changed(self, uri: str) -> bool:
        self.updated.append(uri)
        return True

    async def reads(self) -> None:
        """It always does."""

    async def drain(self) -> None:
        """Nothing else is in flight."""


class FakePublisher:
    """An `EventPublisher` that keeps what happened."""

    def __init__(self) -> None:
        self.events: list[DomainEvent] = []

    def publish(self, events: Iterable[DomainEvent]) -> None:
        self.events += events


class ToolBench:
    """Some tools behind a real handler; `reports` are the faults that were masked."""

    def __init__(self, tools: Iterable[Tool], *, timeout: float = 30, threads: int = 2) -> None:
        self.telemetry = FakeTelemetry()
        self.publisher = FakePublisher()
        self.audit = InMemoryAudit()
        self.client = FakeClient()
        self.reports: list[tuple[str, BaseException]] = []
        self.executor = ThreadPoolExecutor(threads)
        self.session = Session()
        self.tools = ToolRegistry(tools)
        self.handler = ToolHandler(
            self.tools,
            JsonSchemas(),
            telemetry=self.telemetry,
            publisher=self.publisher,
            audit=self.audit,
            executor=self.executor,
            limits=ToolLimits(timeout=timeout, max_result_size=1_000_000),
            report=lambda error_id, error: self.reports.append((error_id, error)),
        )

    def info(self, *, progress_token: str | None = None, measured: bool = True) -> RequestInfo:
        """What a request carries; `measured` is one that the bus records, as a client's is."""
        return RequestInfo(
            operation="tools/call",
            session=self.session,
            client=self.client,
            protocol_version="2025-11-25",
            progress_token=progress_token,
            span=self.telemetry.span("request", "tools/call") if measured else None,
        )

    async def call(self, name: str, info: RequestInfo | None = None, /, **arguments: object) -> ToolResult:
        """One call; what it gives must fit the tool's output schema."""
        result = await self.handler.call(CallTool(name, arguments), info or self.info())
        schema = self.tools.find(name).output_schema
        if schema is not None and not result.is_error:
            assert JsonSchemas().compile(schema)(result.structured) == ()
        return result

    def run(self, name: str, /, **arguments: object) -> ToolResult:
        """One call in an event loop of its own."""
        return asyncio.run(self.call(name, **arguments))

    @property
    def executed(self) -> list[tuple[str, str, str | None]]:
        """Tool, outcome and error type of every call that ended."""
        return [(e.tool, e.outcome, e.error_type) for e in self.publisher.events if isinstance(e, ToolExecuted)]

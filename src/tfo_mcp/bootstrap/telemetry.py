"""The recorder's reading side in the composition root: what asks it, and what shows it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any

from tfo_mcp.application.attributes import READS_TELEMETRY
from tfo_mcp.application.bus import Endpoint
from tfo_mcp.application.telemetry_queries import (
    ExplainFailure,
    FindSlowCalls,
    GetTrace,
    QueryTelemetry,
    SummarizeTelemetry,
    TelemetryQueries,
)
from tfo_mcp.domain.execution import FAILURES
from tfo_mcp.domain.health import HealthReport
from tfo_mcp.domain.prompt import Prompt
from tfo_mcp.domain.session import Session
from tfo_mcp.domain.tool import Tool
from tfo_mcp.infrastructure.config import Settings
from tfo_mcp.infrastructure.subscriptions import FollowedResources
from tfo_mcp.infrastructure.telemetry.guarded_query import QueryLimits
from tfo_mcp.infrastructure.telemetry.reader import RecorderReader
from tfo_mcp.infrastructure.telemetry.records import Item, Record
from tfo_mcp.infrastructure.tools.telemetry import telemetry_tools
from tfo_mcp.presentation.prompts import TELEMETRY_PROMPTS
from tfo_mcp.presentation.telemetry_resources import (
    HEALTH,
    RECENT_ERRORS,
    TOOLS_SUMMARY,
    TelemetryResources,
    trace_uri,
)


def records_itself(settings: Settings) -> bool:
    """Whether there is a recorder to ask."""
    return settings.telemetry.enabled and settings.telemetry.recorder


def make_reader(settings: Settings, settle: Callable[[float], object] = lambda _: None) -> RecorderReader:
    """What reads the recorder of these settings."""
    limits = QueryLimits(timeout=settings.telemetry.query_timeout, max_size=settings.tools.max_page_bytes // 2)
    return RecorderReader(settings.storage.recorder, limits, settle)


def tools_over_recordings(settings: Settings) -> Sequence[Tool]:
    """None where there is no recorder to ask."""
    return telemetry_tools(max_page_bytes=settings.tools.max_page_bytes) if records_itself(settings) else ()


class Announcer:
    """Announces to who follows them the resources that what was written changes.

    What only reads telemetry changes none: a client that reads what was announced would be told again.
    """

    def __init__(self, changes: FollowedResources) -> None:
        self._changes = changes

    def recorded(self, items: Sequence[Item]) -> None:
        """Implements `RecordingListener`."""
        if not self._changes.are_followed:
            return
        changed = {change for item in items if isinstance(item, Record) for change in _changes_of(item)}
        for uri, principal in changed:
            self._changes.announce(uri, principal)

    def health_changed(self) -> None:
        """Implements `RecordingListener`."""
        self._changes.announce(HEALTH)


def _changes_of(record: Record) -> Iterator[tuple[str, str]]:
    if record.context is None or READS_TELEMETRY in record.attributes:
        return
    yield trace_uri(record.context.trace_id), record.principal
    if record.kind == "tool":
        yield TOOLS_SUMMARY, record.principal
    if record.outcome in FAILURES:
        yield RECENT_ERRORS, record.principal


class Recorded:
    """All that shows what was recorded; nothing where there is no recorder to ask.

    Args:
        settle: lets what was recorded until now be written, within so many seconds; blocks.
        report: measures the server's health.
    """

    def __init__(
        self,
        settings: Settings,
        settle: Callable[[float], object],
        report: Callable[[Session], Coroutine[Any, Any, HealthReport]],
    ) -> None:
        self._is_there = records_itself(settings)
        reader = make_reader(settings, settle)
        self._queries = TelemetryQueries(reader)
        self._resources = TelemetryResources(reader, report, max_bytes=settings.tools.max_page_bytes)
        self.prompts: Sequence[Prompt] = TELEMETRY_PROMPTS if self._is_there else ()
        self.resources = self._resources.resources() if self._is_there else []
        self.templates = [self._resources.template()] if self._is_there else []

    def endpoints(self) -> Mapping[type, Endpoint]:
        """Its part of the bus."""
        return {
            SummarizeTelemetry: Endpoint(self._queries.summarize),
            FindSlowCalls: Endpoint(self._queries.slow_calls),
            ExplainFailure: Endpoint(self._queries.explain),
            GetTrace: Endpoint(self._queries.trace),
            QueryTelemetry: Endpoint(self._queries.query),
        }

"""What this server recorded of itself, as resources: `telemetry://…`, of the caller's own calls."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import msgspec

from tfo_mcp.application.ports import Recordings
from tfo_mcp.application.telemetry_queries import Summary
from tfo_mcp.application.telemetry_views import call_view, span_within, summary_view
from tfo_mcp.domain.completion import MOST_VALUES, Completion, first_of
from tfo_mcp.domain.errors import UnknownResource
from tfo_mcp.domain.health import HealthReport
from tfo_mcp.domain.resource import Content, Reader, Resource, ResourceTemplate
from tfo_mcp.domain.session import Session
from tfo_mcp.presentation.resources import JSON, as_json

TOOLS_SUMMARY: Final = "telemetry://tools/summary"
RECENT_ERRORS: Final = "telemetry://errors/recent"
HEALTH: Final = "telemetry://health"
_TRACES: Final = "telemetry://traces/"
_TRACE_ID: Final = re.compile("[0-9a-f]{32}")
"""In lower case only, as each is announced to who follows it under one name."""

_WINDOW: Final = 3600.0
"""Seconds that the summary looks back."""
_RECENT: Final = 20
"""Failed calls that are listed."""
_MOST_SPANS: Final = 500
"""Of one trace."""
_HEAD: Final = 300
"""Bytes of a resource beside its items."""
_INDENTED: Final = 4
"""Bytes before each line of an item."""


def trace_uri(trace_id: int) -> str:
    """Of the trace with this id."""
    return f"{_TRACES}{trace_id:032x}"


class TelemetryResources:
    """Reads the recorder anew at every call.

    Args:
        report: measures the server's health.
        max_bytes: of one resource's JSON; what is beyond is left out, and said so.
    """

    def __init__(
        self,
        recordings: Recordings,
        report: Callable[[Session], Coroutine[Any, Any, HealthReport]],
        *,
        max_bytes: int,
    ) -> None:
        self._recordings = recordings
        self._report = report
        self._max_bytes = max_bytes

    def resources(self) -> list[Resource]:
        """Those that are always there."""
        return [
            Resource(
                uri=TOOLS_SUMMARY,
                name="telemetry-tools-summary",
                title="What tools did in the last hour",
                description="Per tool: calls, errors by type, p50, p95 and p99.",
                mime_type=JSON,
                read=self._read_summary,
                reads_telemetry=True,
                subscribable=True,
            ),
            Resource(
                uri=RECENT_ERRORS,
                name="telemetry-recent-errors",
                title="Calls that failed last",
                description=f"The {_RECENT} newest calls that were invalid, failed or timed out, with their trace ids.",
                mime_type=JSON,
                read=self._read_errors,
                reads_telemetry=True,
                subscribable=True,
            ),
            Resource(
                uri=HEALTH,
                name="telemetry-health",
                title="How telemetry is",
                description="What was exported, waits, was dropped or refused, and what is wrong; measured now.",
                mime_type=JSON,
                read=self._read_health,
                reads_telemetry=True,
                subscribable=True,
            ),
        ]

    def template(self) -> ResourceTemplate:
        """Traces by their ids; completion knows those of the calls that failed last."""
        return ResourceTemplate(
            uri_template=f"{_TRACES}{{trace_id}}",
            name="telemetry-trace",
            title="Trace",
            description="All operations of a trace: when each began, how long it took, and how it ended.",
            mime_type=JSON,
            read=self._read_trace,
            complete=self._complete,
            reads_telemetry=True,
            subscribable=True,
        )

    async def _read_summary(self, uri: str, reader: Reader) -> Content:  # noqa: ARG002  # it is one
        until = time.time()
        counts = await self._recordings.counts(reader.principal, until - _WINDOW, until)
        tools = [count for count in counts if count.kind == "tool"]
        view = summary_view(Summary(until - _WINDOW, until, tools))
        return self._cut({"since": view["since"], "until": view["until"]}, "tools", view["operations"])

    async def _read_errors(self, uri: str, reader: Reader) -> Content:  # noqa: ARG002  # it is one
        found = await self._recordings.failures(reader.principal, tool=None, limit=_RECENT)
        return self._cut({}, "errors", [call_view(span) for span in found])

    async def _read_health(self, uri: str, reader: Reader) -> Content:  # noqa: ARG002  # it is one
        part = (await self._report(reader.session)).components["telemetry"]
        return as_json({"status": part.status.value, **part.details})

    async def _read_trace(self, uri: str, reader: Reader) -> Content:
        trace_id = uri.removeprefix(_TRACES)
        if not _TRACE_ID.fullmatch(trace_id):
            raise UnknownResource(uri)
        found = await self._recordings.trace(reader.principal, trace_id, start=0, limit=_MOST_SPANS)
        if not found.total:
            raise UnknownResource(uri)
        head = {"trace_id": trace_id, "total": found.total}
        return self._cut(head, "spans", [span_within(span, self._max_bytes // 2) for span in found.spans], found.total)

    async def _complete(self, written: str, reader: Reader) -> Completion:
        found = await self._recordings.failures(reader.principal, tool=None, limit=MOST_VALUES)
        ids = dict.fromkeys(span.trace_id for span in found)
        return first_of([trace_id for trace_id in ids if trace_id.startswith(written.lower())])

    def _cut(
        self, head: dict[str, Any], name: str, items: Sequence[dict[str, Any]], total: int | None = None
    ) -> Content:
        """`items` as far as there is room, and how many are left out: of `total`, where there are more than these."""
        shown: list[dict[str, Any]] = []
        room = self._max_bytes - _HEAD
        for item in items:
            lines = msgspec.json.format(msgspec.json.encode(item), indent=2)
            room -= len(lines) + (lines.count(b"\n") + 1) * _INDENTED + len(",\n")
            if room < 0:
                break
            shown.append(item)
        left_out = (len(items) if total is None else total) - len(shown)
        return as_json({**head, name: shown, **({"left_out": left_out} if left_out else {})})

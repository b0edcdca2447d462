"""Queries about what this server recorded of itself. What asks them is in no count of theirs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tfo_mcp.application.bus import RequestInfo
from tfo_mcp.application.ports import Recordings
from tfo_mcp.domain.errors import TraceNotFound, meaning_of
from tfo_mcp.domain.recorded import OperationCount, Process, QueryAnswer, RecordedEvent, RecordedSpan, TraceExcerpt

WINDOW: Final = "[1-9][0-9]{0,3}[mhd]"
"""How a window of time is written, as a regular expression: minutes, hours or days, such as `15m`."""

_UNITS: Final = {"m": 60.0, "h": 3600.0, "d": 86_400.0}


def seconds_of(window: str) -> float:
    """Of a window that is written as `WINDOW`."""
    return int(window[:-1]) * _UNITS[window[-1]]


@dataclass(frozen=True, slots=True)
class SummarizeTelemetry:
    """What ended within the last `window` seconds, counted. Gives a `Summary`."""

    window: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts by kind and name, most calls first; times in seconds since the epoch."""

    since: float
    until: float
    counts: Sequence[OperationCount]


@dataclass(frozen=True, slots=True)
class FindSlowCalls:
    """The slowest calls of the last `window` seconds, `limit` behind `start` others; of one tool, or all.

    Gives a sequence of `RecordedSpan`.
    """

    window: float
    tool: str | None
    start: int
    limit: int


@dataclass(frozen=True, slots=True)
class ExplainFailure:
    """Why a call failed: the one of this trace, or the last one, of a tool or at all. Gives a `Failure`, or None."""

    trace_id: str | None
    tool: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What is known of a call that failed.

    Attributes:
        call: the one that failed.
        cause: the innermost operation below it that did, or itself.
        stage: where that was, in words.
        meaning: of its error, in a sentence; None where nothing more is known than its type.
        attempts: HTTP requests to Claude within it, oldest first.
        worked: the last call like it that completed; None where none is kept.
        failed_since: how often calls like it have failed since then, or in all that is kept, itself included.
        changes: of the server's version and settings since it last worked: what, from, to.
        restarted: whether another process served it then.
    """

    call: RecordedSpan
    cause: RecordedSpan
    stage: str
    meaning: str | None
    attempts: Sequence[RecordedEvent]
    worked: RecordedSpan | None
    failed_since: int
    changes: Sequence[tuple[str, Any, Any]]
    restarted: bool


@dataclass(frozen=True, slots=True)
class GetTrace:
    """A trace, `limit` operations behind `start` others. Gives a `TraceExcerpt`."""

    trace_id: str
    start: int
    limit: int


@dataclass(frozen=True, slots=True)
class QueryTelemetry:
    """SQL over the documented views, `limit` rows at most. Gives a `QueryAnswer`."""

    sql: str
    limit: int


_MOST_SPANS: Final = 1000
"""Below a call, the last of them, in which the cause of its failure is looked for."""


class TelemetryQueries:
    """Reads over the recorder.

    Args:
        now: seconds since the epoch.
    """

    def __init__(self, recordings: Recordings, now: Callable[[], float] = time.time) -> None:
        self._recordings = recordings
        self._now = now

    async def summarize(self, query: SummarizeTelemetry, info: RequestInfo) -> Summary:
        """Counts, errors and percentiles.

        Raises:
            StorageUnavailable: the recorder cannot be read.
        """
        until = self._now()
        since = until - query.window
        return Summary(since, until, await self._recordings.counts(info.principal, since, until))

    async def slow_calls(self, query: FindSlowCalls, info: RequestInfo) -> Sequence[RecordedSpan]:
        """The slowest first.

        Raises:
            StorageUnavailable: the recorder cannot be read.
        """
        since = self._now() - query.window
        return await self._recordings.slowest(
            info.principal, since, tool=query.tool, start=query.start, limit=query.limit
        )

    async def trace(self, query: GetTrace, info: RequestInfo) -> TraceExcerpt:
        """Its operations in the order in which they began.

        Raises:
            TraceNotFound: none of it is kept.
            StorageUnavailable: the recorder cannot be read.
        """
        found = await self._recordings.trace(info.principal, query.trace_id, start=query.start, limit=query.limit)
        if not found.total:
            raise TraceNotFound(query.trace_id)
        return found

    async def query(self, query: QueryTelemetry, info: RequestInfo) -> QueryAnswer:
        """What the SQL gives.

        Raises:
            InvalidQuery: it asks for something else than the views, or takes too long.
            StorageUnavailable: the recorder cannot be read.
        """
        return await self._recordings.query(info.principal, query.sql, query.limit)

    async def explain(self, query: ExplainFailure, info: RequestInfo) -> Failure | None:
        """What failed, where, why, and what has changed since it last worked; None where nothing has failed.

        Raises:
            TraceNotFound: none of it is kept.
            StorageUnavailable: the recorder cannot be read.
        """
        call = await self._failed_call(query, info.principal)
        if call is None:
            return None
        inside = await self._recordings.within(info.principal, call, _MOST_SPANS)
        cause = _cause(call, inside)
        stage = _stage(cause)
        worked = await self._recordings.last_success(info.principal, call)
        since = 0.0 if worked is None else worked.started_at + worked.duration
        return Failure(
            call=call,
            cause=cause,
            stage=stage,
            meaning=_CODES.get(cause.error_type or "") or meaning_of(cause.error_type or ""),
            attempts=[event for span in inside if span.kind == "claude" for event in span.events],
            worked=worked,
            failed_since=await self._recordings.failures_since(info.principal, call, since),
            changes=[] if worked is None else await self._changes(worked.process, call.process),
            restarted=worked is not None and worked.process != call.process,
        )

    async def _failed_call(self, query: ExplainFailure, principal: str) -> RecordedSpan | None:
        if query.trace_id is None:
            newest = await self._recordings.failures(principal, tool=query.tool, limit=1)
            return newest[0] if newest else None
        # The outermost one: what is below it is its cause.
        found = await self._recordings.failed_in(principal, query.trace_id, query.tool)
        if found is None and not (await self._recordings.trace(principal, query.trace_id, start=0, limit=0)).total:
            raise TraceNotFound(query.trace_id)
        return found

    async def _changes(self, then: int, now: int) -> Sequence[tuple[str, Any, Any]]:
        if then == now:
            return []
        before, after = await self._recordings.process(then), await self._recordings.process(now)
        return [] if before is None or after is None else _differences(before, after)


def _differences(before: Process, after: Process) -> Sequence[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = []
    if before.version != after.version:
        found.append(("version", before.version, after.version))
    for name in sorted({*before.settings, *after.settings}):
        was, has_become = before.settings.get(name), after.settings.get(name)
        if was != has_become:
            found.append((name, was, has_become))
    return found


def _cause(call: RecordedSpan, inside: Sequence[RecordedSpan]) -> RecordedSpan:
    """The innermost operation that failed, along the failures from the call on."""
    cause = call
    while True:
        failed = [span for span in inside if span.parent_id == cause.span_id and span.has_failed]
        ours = [span for span in failed if span.kind != "library"]
        if not ours:
            return cause
        cause = ours[-1]  # those before it were tried again, or went on


def _stage(cause: RecordedSpan) -> str:
    if cause.kind == "claude":
        return "the request to Claude"
    if cause.kind == "request":
        return "the request itself, before any tool ran" if cause.outcome == "invalid" else "the request's handler"
    return _STAGES.get(cause.error_type or "", "the run of the tool")


_STAGES: Final[Mapping[str, str]] = {
    "unknown_tool": "the search for the tool",
    "invalid_arguments": "the check of the arguments against the tool's schema",
    "audit_unavailable": "the record of what the tool was about to do; it did not run",
    "result_too_large": "the check of the tool's result",
    "timeout": "the run of the tool, until its time was over",
    "claude_not_configured": "the request to Claude, which was not sent",
}

_CODES: Final[Mapping[str, str]] = {
    "unknown_tool": "No tool has this name.",
    "-32602": "The request's params cannot be right: an unknown name or cursor, or an argument that may not be so.",
    "-32600": "The request was not allowed at that moment.",
    "-32000": "The server was on its way out.",
    "-32603": "Something unforeseen; the server's log says what, under the error's id.",
    "400": "The API could not make sense of the request.",
    "401": "The API key is wrong, or has expired.",
    "403": "The API key may not do this.",
    "404": "There is no such model, or this API key may not use it.",
    "413": "The request was larger than the API takes.",
    "429": "Too many requests or tokens in a short time.",
    "500": "The API failed.",
    "529": "The API was overloaded.",
}
"""What an error type means that is no class of ours: JSON-RPC's codes, and HTTP's of the Messages API."""

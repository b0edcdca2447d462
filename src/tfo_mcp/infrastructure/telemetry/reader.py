"""Implements `Recordings` over `telemetry.db`: each answer from a connection of its own that can write nothing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, TypeVar

from tfo_mcp.domain.errors import StorageUnavailable
from tfo_mcp.domain.execution import FAILURES
from tfo_mcp.domain.recorded import (
    OperationCount,
    Process,
    QueryAnswer,
    RecordedEvent,
    RecordedSpan,
    TraceExcerpt,
)
from tfo_mcp.infrastructure.persistence.threads import Threads
from tfo_mcp.infrastructure.telemetry.guarded_query import QueryLimits
from tfo_mcp.infrastructure.telemetry.minutes import BUCKETS_PER_DOUBLING
from tfo_mcp.infrastructure.telemetry.query_process import ask
from tfo_mcp.infrastructure.telemetry.recorder_file import HAS_FAILED, OPERATIONS, VERSION, open_for_reading

_T = TypeVar("_T")

_THREADS: Final = 2
_SETTLING: Final = 0.5
"""Seconds to wait for what was recorded just now to be written; then it is read without."""

_SECOND: Final = 1e9
_PERCENTILES: Final = (50, 95, 99)

_COLUMNS: Final = (
    "trace_id, span_id, parent_id, kind, name, ended_at - duration, duration, outcome, error_type, method, tool, "
    "session_id, conversation_id, coalesce(response_model, request_model), input_tokens, output_tokens, process, "
    "attributes, events"
)
_BY_ITSELF: Final = "(kind = 'request' OR kind = 'tool' AND name <> 'tools.execute')"
"""Not what the request around it says already."""
# What began at the same moment began around what is below it, which ended first.
_AS_BEGUN: Final = "ORDER BY ended_at - duration, duration DESC"
_ALIKE: Final = "kind = :kind AND method IS :method AND tool IS :tool"


class RecorderReader:
    """Reads on threads of its own.

    Args:
        path: of `telemetry.db`; where it is not there, nothing was recorded.
        settle: lets what was recorded until now be written, within so many seconds; blocks.
    """

    def __init__(self, path: Path, limits: QueryLimits, settle: Callable[[float], object] = lambda _: None) -> None:
        self._path = path
        self._limits = limits
        self._settle = settle
        self._threads = Threads("telemetry-reader", _THREADS)

    async def counts(self, principal: str, since: float, until: float) -> Sequence[OperationCount]:
        """See the port."""
        query = (
            "SELECT kind, name, outcome, error_type, bucket, sum(calls), max(longest), "
            "sum(input_tokens), sum(output_tokens), sum(cache_read_tokens), sum(cache_write_tokens) FROM minutes "
            "WHERE minute >= :since AND minute <= :until AND principal = :principal GROUP BY 1, 2, 3, 4, 5"
        )
        known = {"since": since // 60 * 60, "until": until, "principal": principal}
        return _counted(await self._rows(query, known))

    async def slowest(
        self, principal: str, since: float, *, tool: str | None, start: int, limit: int
    ) -> Sequence[RecordedSpan]:
        """See the port."""
        of_tool = "" if tool is None else " AND tool = :tool"
        return await self._spans(
            f"principal = :principal AND ended_at >= :since AND {_BY_ITSELF} AND NOT reads_telemetry{of_tool} "
            "ORDER BY duration DESC, id LIMIT :limit OFFSET :start",
            {"principal": principal, "since": since, "tool": tool, "start": start, "limit": limit},
        )

    async def failures(self, principal: str, *, tool: str | None, limit: int) -> Sequence[RecordedSpan]:
        """See the port."""
        of_tool = "" if tool is None else " AND tool = :tool"
        return await self._spans(
            f"{HAS_FAILED} AND principal = :principal AND {_BY_ITSELF} AND NOT reads_telemetry{of_tool} "
            "ORDER BY ended_at DESC, id DESC LIMIT :limit",
            {"principal": principal, "tool": tool, "limit": limit},
        )

    async def last_success(self, principal: str, like: RecordedSpan) -> RecordedSpan | None:
        """See the port."""
        found = await self._spans(
            f"principal = :principal AND outcome = 'completed' AND {_ALIKE} AND ended_at <= :began "
            "ORDER BY id DESC LIMIT 1",
            {**_like(like), "principal": principal, "began": like.started_at},
        )
        return found[0] if found else None

    async def failures_since(self, principal: str, like: RecordedSpan, since: float) -> int:
        """See the port."""
        query = (
            f"SELECT count(*) FROM spans WHERE {HAS_FAILED} AND principal = :principal AND {_ALIKE} "  # noqa: S608  # names from above
            "AND ended_at > :since AND ended_at <= :end"
        )
        end = like.started_at + like.duration + 1e-6  # what was computed may be less than what is stored
        ((count,),) = await self._rows(query, {**_like(like), "principal": principal, "since": since, "end": end}) or [
            (0,)
        ]
        return int(count)

    async def place_of_last(self, principal: str, calls: int) -> int:
        """Behind what the last so many calls stand, for `calls_after`."""
        query = (
            f"SELECT id FROM spans WHERE principal = :principal AND {_BY_ITSELF} "  # noqa: S608  # names from above
            "ORDER BY id DESC LIMIT 1 OFFSET :calls"
        )
        found = await self._rows(query, {"principal": principal, "calls": calls})
        return int(found[0][0]) if found else 0

    async def calls_after(self, principal: str, last: int, limit: int) -> tuple[int, Sequence[RecordedSpan]]:
        """Calls in the order in which they ended, those that read telemetry too; and the place of the last of them.

        They begin anew where another file has begun.
        """
        query = (
            f"SELECT id, {_COLUMNS} FROM spans WHERE id > :last AND principal = :principal AND {_BY_ITSELF} "  # noqa: S608  # as above
            "ORDER BY id LIMIT :limit"
        )
        found = await self._rows(query, {"last": last, "principal": principal, "limit": limit})
        if not found and last:
            ((newest,),) = await self._rows("SELECT coalesce(max(id), 0) FROM spans", {}) or [(0,)]
            return (0 if newest < last else last), ()
        return (found[-1][0] if found else last), [_span(row[1:]) for row in found]

    async def trace(self, principal: str, trace_id: str, *, start: int, limit: int) -> TraceExcerpt:
        """See the port."""
        known = {"trace": trace_id.lower(), "principal": principal, "start": start, "limit": limit}
        where = "trace_id = :trace AND principal = :principal"
        counted = await self._rows(f"SELECT count(*) FROM ({OPERATIONS}) WHERE {where}", known)  # noqa: S608  # from above
        order = f"{_AS_BEGUN} LIMIT :limit OFFSET :start"
        spans = await self._spans(f"{where} {order}", known, of=f"({OPERATIONS})")
        return TraceExcerpt(spans, start, int(counted[0][0]) if counted else 0)

    async def failed_in(self, principal: str, trace_id: str, tool: str | None) -> RecordedSpan | None:
        """See the port."""
        of_tool = "" if tool is None else " AND tool = :tool"
        found = await self._spans(
            f"trace_id = :trace AND principal = :principal AND {HAS_FAILED} AND kind <> 'library'{of_tool} "
            f"{_AS_BEGUN} LIMIT 1",
            {"trace": trace_id.lower(), "principal": principal, "tool": tool},
            of=f"({OPERATIONS})",
        )
        return found[0] if found else None

    async def within(self, principal: str, call: RecordedSpan, limit: int) -> Sequence[RecordedSpan]:
        """See the port."""
        query = (
            f"WITH RECURSIVE trace AS MATERIALIZED (SELECT * FROM ({OPERATIONS}) "  # noqa: S608  # names from above
            "WHERE trace_id = :trace AND principal = :principal), "
            "below(span_id) AS (SELECT :call UNION SELECT trace.span_id FROM below JOIN trace "
            "ON trace.parent_id = below.span_id) "
            f"SELECT {_COLUMNS} FROM trace WHERE span_id IN below "
            "ORDER BY ended_at - duration DESC, duration LIMIT :limit"
        )
        known = {"trace": call.trace_id, "principal": principal, "call": call.span_id, "limit": limit}
        return [_span(row) for row in reversed(await self._rows(query, known))]

    async def process(self, number: int) -> Process | None:
        """See the port."""
        query = "SELECT version, settings FROM processes WHERE id = :number"
        for version, settings in await self._rows(query, {"number": number}):
            return Process(version, json.loads(settings))
        return None

    async def query(self, principal: str, sql: str, limit: int) -> QueryAnswer:
        """See the port."""
        if await self._read(lambda _: True) is None:
            return QueryAnswer((), (), complete=True)
        try:
            return await self._threads.run(lambda: ask(self._path, principal, sql, limit, self._limits))
        except OSError as error:
            raise StorageUnavailable(f"no process can be started to query the recorder: {error}") from error

    async def _spans(self, where: str, known: Mapping[str, object], of: str = "spans") -> Sequence[RecordedSpan]:
        query = f"SELECT {_COLUMNS} FROM {of} WHERE {where}"  # noqa: S608  # written above, values apart
        return [_span(row) for row in await self._rows(query, known)]

    async def _rows(self, query: str, known: Mapping[str, object]) -> Sequence[tuple[Any, ...]]:
        return await self._read(lambda connection: connection.execute(query, known).fetchall()) or []

    async def _read(self, work: Callable[[sqlite3.Connection], _T]) -> _T | None:
        """What `work` gives, None where nothing was recorded yet."""

        def read() -> _T | None:
            self._settle(_SETTLING)
            if not self._path.exists():
                return None
            try:
                with closing(open_for_reading(self._path)) as connection:
                    return work(connection) if self._is_begun(connection) else None
            except sqlite3.Error as error:
                raise StorageUnavailable(f"the recorder {str(self._path)!r} cannot be read: {error}") from error

        return await self._threads.run(read)

    def _is_begun(self, connection: sqlite3.Connection) -> bool:
        """Whether its tables are there: who made the file may have been killed before they were."""
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version not in {0, VERSION}:
            raise StorageUnavailable(f"the recorder {str(self._path)!r} is another version's (its schema is {version})")
        return version == VERSION


def _like(span: RecordedSpan) -> dict[str, object]:
    return {"kind": span.kind, "method": span.method, "tool": span.tool}


def _span(row: tuple[Any, ...]) -> RecordedSpan:
    *plain, attributes, events = row
    names = RecordedSpan.__dataclass_fields__
    return RecordedSpan(
        **dict(zip(names, plain, strict=False)),
        attributes=json.loads(attributes) if attributes else {},
        events=[RecordedEvent(**event) for event in json.loads(events)] if events else [],
    )


def _counted(rows: Sequence[tuple[Any, ...]]) -> Sequence[OperationCount]:
    counts: dict[tuple[str, str], OperationCount] = {}
    buckets: dict[tuple[str, str], dict[int, int]] = {}
    for kind, name, outcome, error_type, bucket, calls, longest, *tokens in rows:
        count = counts.setdefault((kind, name), OperationCount(kind=kind, name=name))
        count.calls += calls
        count.longest = max(count.longest, longest)
        count.input_tokens += tokens[0]
        count.output_tokens += tokens[1]
        count.cache_read_tokens += tokens[2]
        count.cache_write_tokens += tokens[3]
        if outcome in FAILURES:
            count.errors += calls
            count.errors_by_type[error_type] = count.errors_by_type.get(error_type, 0) + calls
        elif outcome == "cancelled":
            count.cancelled += calls
        histogram = buckets.setdefault((kind, name), {})
        histogram[bucket] = histogram.get(bucket, 0) + calls
    for key, count in counts.items():
        count.percentiles = {percent: _percentile(buckets[key], percent, count.longest) for percent in _PERCENTILES}
    return sorted(counts.values(), key=lambda count: (-count.calls, count.kind, count.name))


def _percentile(buckets: Mapping[int, int], percent: int, longest: float) -> float:
    """The geometric middle of the bucket in which it lies, which is off by 9 % at most."""
    wanted, seen = sum(buckets.values()) * percent / 100, 0
    for bucket in sorted(buckets):
        seen += buckets[bucket]
        if seen >= wanted:
            return min(2 ** ((bucket + 0.5) / BUCKETS_PER_DOUBLING) / _SECOND, longest)
    return longest

"""What was recorded on this machine, as the core asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tfo_mcp.domain.recorded import OperationCount, Process, QueryAnswer, RecordedSpan, TraceExcerpt


class Recordings(Protocol):
    """Reads what the recorder has written; everything of one principal only, and all that was recorded until now.

    What only reads telemetry is in no count and no list, but in its trace. Every method raises `StorageUnavailable`.
    """

    async def counts(self, principal: str, since: float, until: float) -> Sequence[OperationCount]:
        """By kind and name, what ended from the minute of `since` to that of `until`; most calls first."""
        ...

    async def slowest(
        self, principal: str, since: float, *, tool: str | None, start: int, limit: int
    ) -> Sequence[RecordedSpan]:
        """Requests that ended since then, slowest first, `limit` behind `start` others; of one tool, or all."""
        ...

    async def failures(self, principal: str, *, tool: str | None, limit: int) -> Sequence[RecordedSpan]:
        """Requests, and tool calls by Claude, that failed, newest first; of one tool, or all."""
        ...

    async def last_success(self, principal: str, like: RecordedSpan) -> RecordedSpan | None:
        """The last operation of the same kind, method and tool that completed before this one began."""
        ...

    async def failures_since(self, principal: str, like: RecordedSpan, since: float) -> int:
        """How many operations of the same kind, method and tool failed from then to this one's end."""
        ...

    async def trace(self, principal: str, trace_id: str, *, start: int, limit: int) -> TraceExcerpt:
        """A trace's operations; none where there is none."""
        ...

    async def failed_in(self, principal: str, trace_id: str, tool: str | None) -> RecordedSpan | None:
        """The first operation of a trace to begin that failed, of a tool or at all; none that a library traced."""
        ...

    async def within(self, principal: str, call: RecordedSpan, limit: int) -> Sequence[RecordedSpan]:
        """An operation and what ran below it in its trace, in the order in which they began, the last `limit`."""
        ...

    async def process(self, number: int) -> Process | None:
        """A process as the recorder numbers them."""
        ...

    async def query(self, principal: str, sql: str, limit: int) -> QueryAnswer:
        """What a SELECT gives over the documented views, `limit` rows at most.

        Raises:
            InvalidQuery: it is none, it asks for something else, or it took too long.
        """
        ...

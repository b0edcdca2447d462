"""Which spans go out where `telemetry.max_traces_per_second` limits them.

Decided once for each local root, when it ends, for it and all that happened below it: a request of a client, or
whatever else has no parent in this process. What failed, or took longer than is usual for its name, always goes
out; of the rest as much as the limit leaves. Ids of traces decide nothing: all requests of a client may share one.

Only for the export of spans: metrics, logs and whatever is kept on this machine are told of everything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, cast

from msgspec import structs

from tfo_mcp.application.ports import TraceContext
from tfo_mcp.domain.execution import FAILURES
from tfo_mcp.infrastructure.telemetry.conventions import ADJUSTED_COUNT
from tfo_mcp.infrastructure.telemetry.records import Item, LibrarySpan, LogEntry, Record
from tfo_mcp.infrastructure.telemetry.table import signal_of

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

MAX_WAITING = 4096
"""Spans that may wait for their root; the oldest go out, and all that is theirs, when there are more."""

MAX_AGE = 60.0
"""Seconds that a span may wait; a root that runs on after that is kept, whatever becomes of it."""

MAX_FATES = 16_384
"""Spans of which is remembered what became of them, for those below them that end later."""


@dataclass(slots=True)
class Sampled:
    """What became of all so far. `roots` are those that have ended; `dropped_spans` will not be exported."""

    roots: int = 0
    kept_roots: int = 0
    dropped_spans: int = 0

    @property
    def share(self) -> float:
        """Of the roots, those that were kept; 1 before there was any."""
        return self.kept_roots / self.roots if self.roots else 1.0


class Bucket:
    """So many a second, and what was not taken up to a second's worth, but never less than one."""

    def __init__(self, per_second: float, now: float) -> None:
        self._per_second = per_second
        self._most = self._left = max(1.0, per_second)
        self._at = now

    def take(self, now: float) -> bool:
        """Take one, and say whether there was one."""
        self._left = min(self._most, self._left + max(0.0, now - self._at) * self._per_second)
        self._at = max(self._at, now)
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Durations:
    """How long it takes what has one name: a histogram whose bounds lie 9 % apart. Old times fade."""

    _STEPS = 8  # in which a duration doubles
    _LEAST = 100
    """Durations before the longest in a hundred means anything."""
    _MOST = 8192
    """Durations after which all so far count half, so that what was once usual does not stay so."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._total = 0

    def is_slow(self, nanoseconds: int) -> bool:
        """Whether it is beyond the 99th percentile of those so far; from now on it is one of them."""
        step = int(math.log2(max(1, nanoseconds)) * self._STEPS)
        is_slow = self._total >= self._LEAST and step > self._percentile()
        self._counts[step] = self._counts.get(step, 0) + 1
        self._total += 1
        if self._total >= self._MOST:
            self._counts = {each: half for each, count in self._counts.items() if (half := count // 2)}
            self._total = sum(self._counts.values())
        return is_slow

    def _percentile(self) -> int:
        above = self._total // 100
        for step in sorted(self._counts, reverse=True):
            above -= self._counts[step]
            if above < 0:
                return step
        return 0


class Slowness:
    """The durations of each name; those of names that are too many are taken together."""

    _NAMES = 500

    def __init__(self) -> None:
        self._names: dict[str, Durations] = {}

    def is_slow(self, name: str, nanoseconds: int) -> bool:
        """Whether that is longer than is usual for `name`."""
        if name not in self._names and len(self._names) >= self._NAMES:
            name = ""
        return self._names.setdefault(name, Durations()).is_slow(nanoseconds)


class _Node(NamedTuple):
    """A span that has ended; `parent` is 0 at a local root."""

    item: Record | LibrarySpan
    span_id: int
    parent: int
    failed: bool
    arrived: float


class Sampler:
    """Holds spans back until their local root has ended. For one thread.

    Args:
        per_second: local roots that go out, those that always do among them.
        now: monotonic seconds, as everywhere here.

    Attributes:
        sampled: what became of all so far.
    """

    def __init__(
        self, per_second: float, now: float, *, max_waiting: int = MAX_WAITING, max_age: float = MAX_AGE
    ) -> None:
        self.sampled = Sampled()
        self._bucket = Bucket(per_second, now)
        self._slowness = Slowness()
        self._max_waiting = max_waiting
        self._max_age = max_age
        self._waiting: dict[int, _Node] = {}  # by span id, the oldest first
        self._below: dict[int, list[int]] = {}  # the children that wait, by their parent's span id
        self._fates: dict[int, bool] = {}  # whether it is kept, by span id, the oldest first
        self._unsaid = 0  # roots that were dropped since the last that says so

    def __len__(self) -> int:
        """Spans that wait."""
        return len(self._waiting)

    @property
    def due(self) -> float:
        """When the oldest that waits has waited long enough; infinity where nothing waits."""
        oldest = next(iter(self._waiting.values()), None)
        return math.inf if oldest is None else oldest.arrived + self._max_age

    def sift(self, items: Sequence[Item], now: float, *, waits: bool = True) -> list[Item]:
        """Those of `items`, and of what has waited, that are to go out now; what is no span always is.

        Where nothing `waits` any longer, what has no root yet is kept.
        """
        out: list[Item] = []
        for item in items:
            if isinstance(item, LogEntry) or signal_of(item) != "traces":
                out.append(item)
            else:
                self._arrive(_node(item, now), now, out)
        while self._waiting and (not waits or len(self._waiting) > self._max_waiting or now >= self.due):
            self._keep_at_last(next(iter(self._waiting)), out)
        for span_id in list(islice(self._fates, max(0, len(self._fates) - MAX_FATES))):
            del self._fates[span_id]
        return out

    def _arrive(self, node: _Node, now: float, out: list[Item]) -> None:
        self._waiting[node.span_id] = node
        if not node.parent:
            self._settle(node.span_id, out, kept=self._decide(node, now))
            return
        self._below.setdefault(node.parent, []).append(node.span_id)
        if (fate := self._fates.get(node.parent)) is not None:
            self._settle(node.span_id, out, kept=fate)
        elif node.span_id in self._fates:  # what is below it was kept at last
            self._keep_at_last(node.span_id, out)

    def _decide(self, root: _Node, now: float) -> bool:
        """Whether a root that has just ended is kept."""
        name, duration = _measured(root.item)
        is_slow = self._slowness.is_slow(name, duration)
        # What is kept at last was so before its root had ended. It takes its share of the limit as all that is kept.
        always = is_slow or root.span_id in self._fates or any(node.failed for node in self._tree(root.span_id))
        kept = self._bucket.take(now) or always
        self.sampled.roots += 1
        self.sampled.kept_roots += kept
        if not kept:
            self._unsaid += 1
        elif isinstance(root.item, Record):
            unsaid, self._unsaid = (0, self._unsaid) if always else (self._unsaid, 0)
            item = structs.replace(root.item, attributes={**root.item.attributes, ADJUSTED_COUNT: 1 + unsaid})
            self._waiting[root.span_id] = root._replace(item=item)
        return kept

    def _keep_at_last(self, span_id: int, out: list[Item]) -> None:
        """This one waits no longer: it and all of whatever it is known to belong to is kept."""
        while (node := self._waiting.get(span_id)) is not None and node.parent:
            span_id = node.parent
        self._settle(span_id, out, kept=True)

    def _settle(self, top: int, out: list[Item], *, kept: bool) -> None:
        """Seal the fate of a span, which may not have ended yet, and of all that waits below it."""
        nodes = list(self._tree(top))
        for span_id in (top, *(node.span_id for node in nodes)):
            self._fates[span_id] = kept
            self._below.pop(span_id, None)
            self._waiting.pop(span_id, None)
        if kept:
            out += [node.item for node in nodes]
        else:
            self.sampled.dropped_spans += len(nodes)

    def _tree(self, top: int) -> Iterator[_Node]:
        """What has ended of a span and all below it."""
        pending = [top]
        while pending:
            span_id = pending.pop()
            if (node := self._waiting.get(span_id)) is not None:
                yield node
            pending += self._below.get(span_id, ())


def _node(item: Record | LibrarySpan, now: float) -> _Node:
    if isinstance(item, Record):
        context = cast("TraceContext", item.context)
        # The parent of a request can only be the client's span.
        parent = 0 if item.kind == "request" else item.parent_id
        return _Node(item, context.span_id, parent, item.outcome in FAILURES, now)
    span, above = item.span, item.span.parent
    parent = 0 if above is None or above.is_remote else above.span_id
    return _Node(item, cast("SpanContext", span.get_span_context()).span_id, parent, not span.status.is_ok, now)


def _measured(item: Record | LibrarySpan) -> tuple[str, int]:
    """Name and nanoseconds."""
    if isinstance(item, Record):
        return item.name, item.duration_ns
    return item.span.name, max(0, (item.span.end_time or 0) - (item.span.start_time or 0))

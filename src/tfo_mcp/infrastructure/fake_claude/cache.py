"""The prompt cache: which prefixes earlier requests wrote, and what a request reads and writes."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from tfo_mcp.infrastructure.fake_claude.clock import Clock
from tfo_mcp.infrastructure.fake_claude.prefix import Prefix, Ttl

LIFETIMES: dict[Ttl, float] = {"5m": 300.0, "1h": 3600.0}
LOOKBACK = 20
"""Positions that are checked for each breakpoint, itself included."""

RUNS = frozenset({"tool_use", "tool_result"})
"""Neighbours of one of these types count as one position."""

MAX_ENTRIES = 10_000

Key = tuple[str, bytes]


@dataclass(frozen=True, slots=True)
class CacheUse:
    """What one request does to the cache: tokens read, written by lifetime, and after the last breakpoint."""

    read: int
    written: dict[Ttl, int]
    rest: int
    begun: float
    used: tuple[tuple[Key, Ttl], ...]


@dataclass(slots=True)
class _Entry:
    ttl: Ttl
    expires: float


class PromptCache:
    """Entries by account and prefix, the least recently used one first."""

    def __init__(self, clock: Clock, max_entries: int = MAX_ENTRIES) -> None:
        """Begin empty."""
        self._clock = clock
        self._max_entries = max_entries
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()

    def look_up(self, account: str, prefix: Prefix) -> CacheUse:
        """Find the longest prefix that is cached, and price the rest. Nothing changes before `commit`."""
        hit = next(filter(lambda index: self._is_live((account, prefix.digests[index])), _candidates(prefix)), None)
        read = 0 if hit is None else prefix.lengths[hit]
        end_of_long = max((prefix.lengths[index] for index, ttl in prefix.breakpoints if ttl == "1h"), default=0)
        end = prefix.lengths[prefix.breakpoints[-1][0]] if prefix.breakpoints else 0
        long = max(0, end_of_long - read)
        marks: dict[int, Ttl] = dict(prefix.breakpoints)
        if hit is not None:
            marks.setdefault(hit, "5m")  # it exists, and keeps its own
        return CacheUse(
            read=read,
            written={"5m": end - read - long, "1h": long},
            rest=prefix.tokens - end,
            begun=self._clock.now(),
            used=tuple(((account, prefix.digests[index]), ttl) for index, ttl in sorted(marks.items())),
        )

    def commit(self, use: CacheUse) -> None:
        """The answer begins: entries that were used are refreshed, the new ones can be read from now on.

        Lifetimes run from the request's beginning.
        """
        for key, ttl in use.used:
            if not self._is_live(key):
                self._entries[key] = _Entry(ttl, 0.0)
            entry = self._entries[key]
            entry.expires = max(entry.expires, use.begun + LIFETIMES[entry.ttl])
            self._entries.move_to_end(key)
        while len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()

    def _is_live(self, key: Key) -> bool:
        entry = self._entries.get(key)
        return entry is not None and self._clock.now() < entry.expires


def _candidates(prefix: Prefix) -> Iterator[int]:
    """The blocks whose prefix is looked for, the longest first for each breakpoint."""
    for last, _ in reversed(prefix.breakpoints):
        positions, following = 0, ""
        for index in range(last, -1, -1):
            kind = prefix.kinds[index]
            positions += not (kind in RUNS and kind == following)
            if positions > LOOKBACK:
                break
            following = kind
            yield index

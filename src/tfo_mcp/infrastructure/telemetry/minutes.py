"""Operations counted by the minute, until they are written: exact whatever is dropped, and never many."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from math import log2
from typing import NamedTuple

from tfo_mcp.application import attributes as core
from tfo_mcp.application.ports import AttributeValue
from tfo_mcp.infrastructure.telemetry.records import Record
from tfo_mcp.infrastructure.telemetry.table import TABLE

_MINUTE = 60
_NANOSECONDS = 1_000_000_000
_MINUTE_NS = _MINUTE * _NANOSECONDS

BUCKETS_PER_DOUBLING = 4
"""A bucket's upper bound is 19 % above its lower one, so that a percentile read from buckets is off by 9 % at most."""


class Key(NamedTuple):
    """What is counted together.

    Attributes:
        minute: in which the operations ended, as seconds since the epoch at its beginning.
        name: the method, the tool or the model.
        error_type: empty where there was none.
        bucket: of their durations: from 2^(bucket / 4) nanoseconds to 2^((bucket + 1) / 4).
    """

    minute: int
    principal: str
    kind: str
    name: AttributeValue
    outcome: str
    error_type: AttributeValue
    bucket: int


@dataclass(slots=True)
class Count:
    """How often, and what sums up. Durations in seconds."""

    calls: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0

    @property
    def row(self) -> tuple[int, float, float, int, int, int, int]:
        """All of it, in this order."""
        return (
            self.calls,
            self.seconds,
            self.longest,
            self.input_tokens,
            self.output_tokens,
            self.cache_read_tokens,
            self.cache_write_tokens,
        )

    def add(self, other: Count) -> None:
        """Count `other` in."""
        self.calls += other.calls
        self.seconds += other.seconds
        self.longest = max(self.longest, other.longest)
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.cache_read_tokens += other.cache_read_tokens
        self.cache_write_tokens += other.cache_write_tokens


class Minutes:
    """What was counted since it was last taken. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[Key, Count] = {}

    def fold(self, record: Record) -> None:
        """Count an operation that has ended; nothing else, and not what only reads telemetry."""
        name = TABLE[record.kind].counted_by
        attributes = record.attributes
        if name is None or core.READS_TELEMETRY in attributes:
            return
        duration = record.duration_ns
        key = Key(
            (record.start_ns + duration) // _MINUTE_NS * _MINUTE,
            record.principal,
            record.kind,
            attributes.get(name, core.OTHER),
            record.outcome,
            attributes.get(core.ERROR_TYPE, ""),
            int(BUCKETS_PER_DOUBLING * log2(duration)) if duration > 0 else 0,
        )
        with self._lock:
            count = self._counts.get(key)
            if count is None:
                count = self._counts[key] = Count()
            seconds = duration / _NANOSECONDS
            count.calls += 1
            count.seconds += seconds
            count.longest = max(count.longest, seconds)
            if record.kind == "claude":
                _add_tokens(count, attributes)

    def take(self) -> dict[Key, Count]:
        """All of it."""
        with self._lock:
            counts, self._counts = self._counts, {}
        return counts

    def put_back(self, counts: Mapping[Key, Count]) -> None:
        """What could not be written."""
        with self._lock:
            for key, count in counts.items():
                if (known := self._counts.setdefault(key, count)) is not count:
                    known.add(count)


def _add_tokens(count: Count, attributes: Mapping[str, object]) -> None:
    def tokens(name: str) -> int:
        value = attributes.get(name)
        return value if isinstance(value, int) else 0

    count.input_tokens += tokens(core.INPUT_TOKENS)
    count.output_tokens += tokens(core.OUTPUT_TOKENS)
    count.cache_read_tokens += tokens(core.CACHE_READ_TOKENS)
    count.cache_write_tokens += tokens(core.CACHE_WRITE_TOKENS)

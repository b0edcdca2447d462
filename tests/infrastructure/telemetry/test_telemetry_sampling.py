from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, set_span_in_context

from tfo_mcp.application.ports import SpanKind, TraceContext
from tfo_mcp.domain.execution import Outcome
from tfo_mcp.infrastructure.telemetry.records import Item, LibrarySpan, LogEntry, Record
from tfo_mcp.infrastructure.telemetry.sampling import MAX_FATES, Sampler

TRACE = 0xA1
"""The one trace of all spans here: a client may use one for all that it asks."""

SECOND = 1_000_000_000


def a_span(
    span_id: int,
    parent: int = 0,
    *,
    kind: SpanKind = "tool",
    outcome: Outcome = "completed",
    nanoseconds: int = 1000,
    name: str = "name",
) -> Record:
    return Record(kind, name, TraceContext(TRACE, span_id), parent, 0, nanoseconds, outcome, {})


def a_request(span_id: int, **more: Any) -> Record:  # noqa: ANN401  # as `a_span` has them
    return a_span(span_id, 0xC11E27, kind="request", **more)


def a_library_span(span: object) -> LibrarySpan:
    return LibrarySpan(cast("ReadableSpan", span), "local")


def ids(items: list[Item]) -> list[int]:
    return [item.context.span_id for item in items if isinstance(item, Record) and item.context is not None]


def exhausted(per_second: float = 1, **bounds: Any) -> Sampler:  # noqa: ANN401  # as the Sampler has them
    """A sampler at whose time 0 nothing is left that may be kept."""
    sampler = Sampler(per_second, 0, **bounds)
    while a_root_is_kept(sampler):
        pass
    return sampler


def a_root_is_kept(sampler: Sampler, now: float = 0) -> bool:
    return bool(sampler.sift([a_request(random.getrandbits(64))], now))


# --- what may happen, at random ---


@dataclass
class Tree:
    """Spans of one local root in the order of their ends; with `late`, some end after the root."""

    root: int
    spans: list[Record] = field(default_factory=list[Record])

    @property
    def failed_in_time(self) -> bool:
        """Whether something failed that was known to be the root's when that ended."""
        ended: dict[int, Record] = {}
        for span in self.spans:
            ended[span.context.span_id if span.context else 0] = span
            if span.kind == "request":
                break

        def is_known(span: Record) -> bool:
            return span.kind == "request" or (span.parent_id in ended and is_known(ended[span.parent_id]))

        return any(is_known(span) and span.outcome not in {"completed", "cancelled"} for span in ended.values())


@st.composite
def trees(draw: st.DrawFn, *, number: int) -> Tree:
    root = 1000 * (number + 1)
    parents = [0, *(draw(st.integers(0, at - 1)) for at in range(1, draw(st.integers(1, 8))))]
    outcomes = st.sampled_from(cast("list[Outcome]", ["completed"] * 8 + ["cancelled", "failed", "timed_out"]))
    spans = [
        a_request(root, outcome=draw(outcomes))
        if at == 0
        else a_span(root + at, root + parents[at], outcome=draw(outcomes))
        for at in range(len(parents))
    ]
    if draw(st.booleans()):  # a library's span may end after the one around it
        return Tree(root, draw(st.permutations(spans)))
    return Tree(root, spans[::-1])


@st.composite
def forests(draw: st.DrawFn) -> tuple[list[Tree], list[list[Record]]]:
    """Trees, and all their spans mixed, in the portions in which they arrive."""
    forest = [draw(trees(number=number)) for number in range(draw(st.integers(1, 12)))]
    turns = draw(st.permutations([tree.root for tree in forest for _ in tree.spans]))
    left = {tree.root: list(tree.spans) for tree in forest}
    mixed = [left[root].pop(0) for root in turns]
    portions: list[list[Record]] = [[]]
    for span in mixed:
        portions[-1].append(span)
        if draw(st.booleans()):
            portions.append([])
    return forest, portions


@pytest.mark.behaviour("telemetry.sampled")
@given(forests(), st.sampled_from([0.5, 1, 3]))
def test_the_spans_of_a_root_share_its_fate_failures_are_kept_and_all_are_accounted_for(
    forest: tuple[list[Tree], list[list[Record]]], per_second: float
) -> None:
    trees, portions = forest
    sampler = Sampler(per_second, 0)
    out = [span for at, portion in enumerate(portions) for span in sampler.sift(portion, at / 100)]
    assert len(sampler) == 0  # every root has ended
    kept = Counter(ids(out))
    assert not kept or max(kept.values()) == 1
    for tree in trees:
        fates = {span_id in kept for span_id in ids(cast("list[Item]", tree.spans))}
        assert len(fates) == 1, tree
        assert True in fates or not tree.failed_in_time
    assert len(out) + sampler.sampled.dropped_spans == sum(len(tree.spans) for tree in trees)
    roots = [span for span in out if isinstance(span, Record) and span.kind == "request"]
    assert (sampler.sampled.roots, sampler.sampled.kept_roots) == (len(trees), len(roots))
    within = sum(not tree.failed_in_time and tree.root in kept for tree in trees)
    assert within <= max(1, per_second) + per_second * len(portions) / 100


@pytest.mark.behaviour("telemetry.sampled")
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=200), st.sampled_from([0.25, 1, 7.5]))
def test_no_more_roots_than_the_limit_are_kept_in_any_time_even_when_the_clock_goes_back(
    steps: list[float], per_second: float
) -> None:
    sampler, now, latest, kept = Sampler(per_second, 100), 100.0, 100.0, 0
    for step in steps:
        now += step
        latest = max(latest, now)
        kept += a_root_is_kept(sampler, now)
    assert kept <= max(1, per_second) + per_second * (latest - 100) + 1e-6


@pytest.mark.behaviour("telemetry.sampled")
def test_what_was_not_used_for_long_is_a_seconds_worth_at_most() -> None:
    sampler = exhausted(10)
    assert sum(a_root_is_kept(sampler, 3600) for _ in range(100)) == 10


@pytest.mark.behaviour("telemetry.sampled")
def test_a_root_that_goes_out_says_how_many_it_stands_for() -> None:
    sampler = Sampler(1, 0)
    out: list[Item] = []
    for number in range(1, 21):
        outcome: Outcome = "failed" if number == 5 else "completed"
        out += sampler.sift([a_request(number, outcome=outcome)], 0.15 * number)
    told = {
        item.context.span_id: item.attributes["tfo.sampling.adjusted_count"]
        for item in out
        if isinstance(item, Record) and item.context is not None
    }
    assert told == {1: 1, 5: 1, 8: 6, 15: 7}
    assert (sampler.sampled.roots, sampler.sampled.kept_roots, sampler.sampled.share) == (20, 4, 0.2)


# --- what is always kept ---


@pytest.mark.behaviour("telemetry.sampled.kept")
@pytest.mark.parametrize("outcome", ["failed", "timed_out", "invalid"])
@pytest.mark.parametrize("fails", [1, 2, 3])
def test_a_root_is_kept_whole_where_it_or_anything_below_it_failed(fails: int, outcome: Outcome) -> None:
    ends: dict[int, Outcome] = {1: "completed", 2: "completed", 3: "completed", fails: outcome}
    spans: list[Item] = [a_span(3, 2, outcome=ends[3]), a_span(2, 1, outcome=ends[2]), a_request(1, outcome=ends[1])]
    assert sorted(ids(exhausted().sift(spans, 0))) == [1, 2, 3]


@pytest.mark.behaviour("telemetry.sampled.kept")
@pytest.mark.parametrize("fails", [False, True])
def test_a_librarys_span_waits_for_its_root_too_and_its_error_counts(*, fails: bool) -> None:
    sampler, ended = exhausted(), list[LibrarySpan]()
    tracer = TracerProvider(ALWAYS_ON, shutdown_on_exit=False).get_tracer("library")
    around = set_span_in_context(NonRecordingSpan(SpanContext(TRACE, 1, is_remote=False)))
    with tracer.start_as_current_span("outer", around) as outer:
        inner = tracer.start_span("inner")
        if fails:
            inner.set_status(Status(StatusCode.ERROR))
        inner.end()
        ended += [a_library_span(inner), a_library_span(outer)]
    assert sampler.sift([ended[0]], 0) == []
    assert sampler.sift([ended[1]], 0) == []
    assert len(sampler.sift([a_request(1)], 0)) == (3 if fails else 0)
    assert len(sampler) == 0


@pytest.mark.behaviour("telemetry.sampled")
def test_a_librarys_span_without_a_parent_here_is_a_root() -> None:
    tracer = TracerProvider(ALWAYS_ON, shutdown_on_exit=False).get_tracer("library")
    remote = set_span_in_context(NonRecordingSpan(SpanContext(TRACE, 1, is_remote=True)))
    for context in (None, remote):
        span = tracer.start_span("alone", context)
        span.end()
        item = a_library_span(span)
        assert exhausted().sift([item], 0) == []
        assert Sampler(1, 0).sift([item], 0) == [item]


@pytest.mark.behaviour("telemetry.sampled.kept")
def test_what_is_slower_than_its_names_99th_percentile_is_kept_once_there_is_one() -> None:
    sampler, chosen = exhausted(), random.Random(1)
    slow = a_request(1, nanoseconds=40 * 1000)
    assert sampler.sift([slow], 0) == []  # of a name that is hardly known
    kept = 0
    for number in range(2, 2002):
        usual = a_request(number, nanoseconds=chosen.randrange(1000, 2000))
        kept += len(sampler.sift([usual], 0))
    assert kept <= 2000 * 0.015
    assert ids(sampler.sift([slow], 0)) == [1]
    assert sampler.sift([a_request(3000, nanoseconds=40 * 1000, name="another")], 0) == []


@pytest.mark.behaviour("telemetry.sampled.kept")
def test_what_is_usual_is_learnt_anew() -> None:
    sampler = exhausted()
    for number in range(1, 20_001):
        sampler.sift([a_request(number, nanoseconds=1000)], 0)
    kept = [bool(sampler.sift([a_request(number, nanoseconds=SECOND)], 0)) for number in range(30_000, 31_000)]
    assert kept[0]
    assert not kept[-1]


@pytest.mark.behaviour("telemetry.sampled.kept")
def test_names_beyond_the_bound_are_taken_together() -> None:
    sampler = exhausted()
    for number in range(1, 700):
        sampler.sift([a_request(number, name=f"name {number}")], 0)
    assert ids(sampler.sift([a_request(1000, name="unheard of", nanoseconds=SECOND)], 0)) == [1000]
    assert sampler.sift([a_request(1001, name="name 1", nanoseconds=SECOND)], 0) == []


# --- what waits ---


@pytest.mark.behaviour("telemetry.sampled")
def test_a_span_that_ends_after_its_root_shares_its_fate() -> None:
    for sampler, kept in ((exhausted(), []), (Sampler(1, 0), [1, 2, 3, 4])):
        out = sampler.sift([a_span(2, 1), a_request(1)], 0)
        out += sampler.sift([a_span(3, 2)], 0)
        out += sampler.sift([a_span(4, 1)], 0)
        assert sorted(ids(out)) == kept
        assert len(sampler) == 0


@pytest.mark.behaviour("telemetry.sampled.bounded")
def test_a_root_that_runs_for_long_is_kept_with_all_that_is_below_it() -> None:
    sampler = exhausted(max_age=60)
    assert sampler.sift([a_span(3, 2), a_span(5, 1)], 10) == []
    assert sampler.due == 70
    assert sampler.sift([], 69.9) == []
    assert sorted(ids(sampler.sift([], 70))) == [3, 5]
    assert sampler.due == math.inf
    assert ids(sampler.sift([a_span(2, 1)], 71)) == [2]
    assert ids(sampler.sift([a_request(1)], 72)) == [1]


@pytest.mark.behaviour("telemetry.sampled.bounded")
def test_a_span_between_ends_after_what_was_below_it_had_waited_too_long_and_the_root_is_kept_with_it() -> None:
    sampler = exhausted(max_age=60)
    assert ids(sampler.sift([a_span(3, 2)], 0) + sampler.sift([], 60)) == [3]
    assert sorted(ids(sampler.sift([a_span(4, 1), a_span(2, 1)], 60))) == [2, 4]
    while a_root_is_kept(sampler, 60):
        pass
    assert ids(sampler.sift([a_request(1)], 60)) == [1]


@pytest.mark.behaviour("telemetry.sampled.bounded")
def test_more_than_may_wait_do_not_wait_and_none_is_lost() -> None:
    sampler = exhausted(max_waiting=10)
    before = sampler.sampled.dropped_spans
    waiting: list[Item] = [a_span(100 + number, number) for number in range(1, 31)]
    assert ids(sampler.sift(waiting, 0)) == list(range(101, 121))
    assert len(sampler) == 10
    roots: list[Item] = [a_request(number) for number in range(1, 31)]
    assert sorted(ids(sampler.sift(roots, 0))) == list(range(1, 21))
    assert sampler.sampled.dropped_spans - before == 20


@pytest.mark.behaviour("telemetry.sampled.bounded")
def test_at_a_flush_what_waits_for_its_root_is_kept_and_its_root_later_too() -> None:
    sampler = exhausted()
    assert ids(sampler.sift([a_span(2, 1)], 0, waits=False)) == [2]
    assert ids(sampler.sift([a_request(1)], 0)) == [1]


@pytest.mark.behaviour("telemetry.sampled.bounded")
def test_fates_are_forgotten_in_the_end() -> None:
    sampler = exhausted()
    for number in range(1, 2 * MAX_FATES):
        sampler.sift([a_request(number)], 0)
    assert sampler.sift([a_span(-1, 2 * MAX_FATES - 1), a_span(-2, MAX_FATES)], 0) == []
    assert len(sampler) == 0
    assert sampler.sift([a_span(-3, 1)], 0) == []
    assert len(sampler) == 1  # as one whose root is still to come


@pytest.mark.behaviour("telemetry.sampled")
def test_what_is_no_span_is_never_held_back() -> None:
    log = LogEntry(0, 0, (20, "INFO"), "text", None, {})
    session = Record("session", "closed", TraceContext(TRACE, 7), 0, 0, 0, "completed", {})
    error = Record("error", "error", TraceContext(TRACE, 7), 0, 0, 0, "failed", {})
    rejected = Record("rejected", "rejected", None, 0, 0, 0, "invalid", {})
    assert exhausted().sift([log, session, error, rejected], 0) == [log, session, error, rejected]

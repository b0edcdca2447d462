from __future__ import annotations

import threading
from collections.abc import Mapping

import pytest

from tfo_mcp.application.ports import AttributeValue, SpanKind, TraceContext
from tfo_mcp.domain.execution import Outcome
from tfo_mcp.infrastructure.telemetry.aggregate import Aggregate, Histogram
from tfo_mcp.infrastructure.telemetry.records import Record
from tfo_mcp.infrastructure.telemetry.ring import Ring
from tfo_mcp.infrastructure.telemetry.span import RecordingSpan

CONTEXT = TraceContext(1, 2)


def a_record(
    kind: SpanKind,
    outcome: Outcome = "completed",
    seconds: float = 0.0,
    attributes: Mapping[str, AttributeValue] | None = None,
) -> Record:
    full = {**(attributes or {}), "outcome": outcome}
    return Record(kind, "name", CONTEXT, 0, 0, int(seconds * 1e9), outcome, full)


def sums(aggregate: Aggregate) -> dict[str, list[tuple[dict[str, AttributeValue], float]]]:
    """Metric name to its points, attributes and sum of each."""
    return {
        metric.name: [
            (dict(point.attributes), point.sum if isinstance(point, Histogram) else point.value) for point in points
        ]
        for metric, points in aggregate.snapshot()
    }


@pytest.mark.behaviour("telemetry.tool.counted")
def test_a_tool_call_counts_in_calls_and_duration_under_tool_outcome_and_error() -> None:
    aggregate = Aggregate()
    aggregate.fold(a_record("tool", "completed", 0.25, {"gen_ai.tool.name": "echo", "gen_ai.operation.name": "x"}))
    aggregate.fold(
        a_record("tool", "timed_out", 2.0, {"gen_ai.tool.name": "echo", "error.type": "timeout"}),
    )
    good = {"gen_ai.tool.name": "echo", "outcome": "completed"}
    late = {"gen_ai.tool.name": "echo", "outcome": "timed_out", "error.type": "timeout"}
    assert sums(aggregate) == {
        "mcp.tools.calls": [(good, 1), (late, 1)],
        "mcp.tools.duration": [(good, 0.25), (late, 2.0)],
        "mcp.tools.errors": [(late, 1)],
    }


@pytest.mark.behaviour("claude.attempts")
@pytest.mark.parametrize("capacity", [1, 0], ids=["kept", "saturated"])
def test_each_attempt_to_ask_claude_counts_under_its_status_and_error_and_under_nothing_else(capacity: int) -> None:
    aggregate = Aggregate()
    ring = Ring(aggregate, None, capacity)
    span = RecordingSpan(ring, "claude", "claude.request", None, {})
    busy = {"http.response.status_code": 529, "error.type": "529"}
    span.add_event("tfo.claude.attempt", {**busy, "tfo.claude.request.id": "req_1"})
    span.add_event("tfo.claude.attempt", {**busy, "tfo.claude.request.id": "req_2", "http.request.resend_count": 1})
    span.add_event("tfo.claude.attempt", {"error.type": "APIConnectionError", "http.request.resend_count": 2})
    span.add_event("something else", busy)
    assert sums(aggregate) == {}
    span.end("completed")
    for item in ring.take(10_000):
        assert isinstance(item, Record)
        aggregate.fold(item)
    assert sums(aggregate)["tfo.claude.attempts"] == [(busy, 2), ({"error.type": "APIConnectionError"}, 1)]


@pytest.mark.behaviour("telemetry.tool.counted", "execution.cancelled")
@pytest.mark.parametrize(
    ("outcome", "errors"), [("completed", 0), ("invalid", 1), ("failed", 1), ("timed_out", 1), ("cancelled", 0)]
)
def test_only_invalid_failed_and_timed_out_calls_are_errors(outcome: Outcome, errors: int) -> None:
    aggregate = Aggregate()
    aggregate.fold(a_record("tool", outcome))
    assert sum(value for _, value in sums(aggregate).get("mcp.tools.errors", [])) == errors
    assert sum(value for _, value in sums(aggregate)["mcp.tools.calls"]) == 1


@pytest.mark.behaviour("telemetry.attributes")
@pytest.mark.parametrize(
    ("method", "target"), [("tools/call", "gen_ai.tool.name"), ("prompts/get", "gen_ai.prompt.name")]
)
def test_a_request_counts_in_the_operation_duration_and_drops_its_unbounded_attributes(
    method: str, target: str
) -> None:
    aggregate = Aggregate()
    bounded = {
        "mcp.method.name": method,
        target: "echo",
        "mcp.protocol.version": "2025-11-25",
        "network.transport": "pipe",
    }
    unbounded = {"mcp.session.id": "s", "jsonrpc.request.id": "1", "mcp.resource.uri": "config://server"}
    aggregate.fold(a_record("request", seconds=0.5, attributes={**bounded, **unbounded}))
    assert sums(aggregate) == {"mcp.server.operation.duration": [({**bounded, "outcome": "completed"}, 0.5)]}


@pytest.mark.behaviour("claude.measured")
def test_a_request_to_claude_counts_duration_and_tokens_by_type() -> None:
    aggregate = Aggregate()
    chat = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "anthropic"}
    models = {"gen_ai.request.model": "claude-opus-5-5", "gen_ai.response.model": "claude-opus-5-5-1"}
    usage = {"gen_ai.usage.input_tokens": 120, "gen_ai.usage.output_tokens": 7}
    aggregate.fold(
        a_record("claude", seconds=1.5, attributes={**chat, **models, **usage, "gen_ai.conversation.id": "c"})
    )
    assert sums(aggregate) == {
        "gen_ai.client.operation.duration": [({**chat, **models, "outcome": "completed"}, 1.5)],
        "gen_ai.client.token.usage": [
            ({**chat, **models, "gen_ai.token.type": "input"}, 120),
            ({**chat, **models, "gen_ai.token.type": "output"}, 7),
        ],
    }


@pytest.mark.behaviour("claude.measured")
def test_a_model_that_never_answered_becomes_no_label() -> None:
    aggregate = Aggregate()
    aggregate.fold(
        a_record("claude", "failed", 1.0, {"gen_ai.request.model": "invented-by-a-client", "error.type": "404"}),
    )
    assert sums(aggregate) == {"gen_ai.client.operation.duration": [({"outcome": "failed", "error.type": "404"}, 1.0)]}


def test_a_value_on_a_bound_falls_into_the_bucket_below_it() -> None:
    aggregate = Aggregate()
    for seconds in (0.005, 0.01, 0.011, 300.0, 301.0):
        aggregate.fold(a_record("request", seconds=seconds))
    ((_, (point,)),) = aggregate.snapshot()
    assert isinstance(point, Histogram)
    assert point.counts == [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    assert point.sum == pytest.approx(601.026)


@pytest.mark.behaviour("telemetry.attributes")
def test_attribute_sets_beyond_the_cap_are_counted_together_as_overflow() -> None:
    aggregate = Aggregate(max_label_sets=3)
    for number in range(10):
        aggregate.fold(a_record("tool", attributes={"gen_ai.tool.name": f"tool {number}"}))
    aggregate.fold(a_record("tool", attributes={"gen_ai.tool.name": "tool 1"}))
    assert sums(aggregate)["mcp.tools.calls"] == [
        ({"gen_ai.tool.name": "tool 0", "outcome": "completed"}, 1),
        ({"gen_ai.tool.name": "tool 1", "outcome": "completed"}, 2),
        ({"gen_ai.tool.name": "tool 2", "outcome": "completed"}, 1),
        ({"otel.metric.overflow": True}, 7),
    ]


def test_a_snapshot_does_not_change_with_what_comes_after_it() -> None:
    aggregate = Aggregate()
    aggregate.fold(a_record("tool"))
    snapshot = aggregate.snapshot()
    aggregate.fold(a_record("tool"))
    assert [sum(point.counts) for _, (point,) in snapshot if isinstance(point, Histogram)] == [1]


@pytest.mark.behaviour("telemetry.bounded")
def test_a_full_ring_drops_spans_and_counts_them_while_every_call_is_counted_exactly() -> None:
    aggregate = Aggregate()
    ring = Ring(aggregate, None, 100)

    def call_many() -> None:
        for _ in range(1000):
            ring.record(a_record("tool", attributes={"gen_ai.tool.name": "echo"}))

    threads = [threading.Thread(target=call_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    waiting = ring.take(10_000)
    dropped = sums(aggregate)["tfo.telemetry.spans.dropped"]
    for item in waiting:
        assert isinstance(item, Record)
        aggregate.fold(item)

    assert 100 <= len(waiting) <= 104  # the cap is checked without a lock: each thread may pass it by one
    assert dropped == [({"reason": "saturated"}, 4000 - len(waiting))]
    assert sums(aggregate)["mcp.tools.calls"] == [({"gen_ai.tool.name": "echo", "outcome": "completed"}, 4000)]


def test_what_is_no_span_is_not_counted_as_a_dropped_one() -> None:
    aggregate = Aggregate()
    ring = Ring(aggregate, None, 0)
    ring.record(Record("rejected", "rejected", None, 0, 0, 0, "invalid", {"reason": "parse error"}))
    assert sums(aggregate) == {"tfo.mcp.requests.rejected": [({"reason": "parse error"}, 1)]}

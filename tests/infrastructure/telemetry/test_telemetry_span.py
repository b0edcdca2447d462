from __future__ import annotations

import time

import pytest

from tfo_mcp.application.ports import Carried, TraceContext
from tfo_mcp.infrastructure.telemetry.aggregate import Aggregate
from tfo_mcp.infrastructure.telemetry.client import NullTelemetry
from tfo_mcp.infrastructure.telemetry.records import Item, Record
from tfo_mcp.infrastructure.telemetry.ring import Ring
from tfo_mcp.infrastructure.telemetry.span import RecordingSpan


def new_ring() -> Ring:
    return Ring(Aggregate(), None, 100)


def only(items: list[Item]) -> Record:
    (item,) = items
    assert isinstance(item, Record)
    return item


@pytest.mark.behaviour("telemetry.attributes", "telemetry.timestamps")
def test_a_span_ends_as_one_record_with_all_that_became_known() -> None:
    ring = new_ring()
    parent = TraceContext(7, 8)
    before = time.time_ns()
    span = RecordingSpan(ring, "tool", "tools.execute", parent, {"gen_ai.tool.name": "echo"})
    span.name = "execute_tool echo"
    span.set("tfo.error.id", "e1")
    span.add_event("error", {"n": 1})
    span.end("failed", "tool_error")

    record = only(ring.take(10_000))
    assert (record.kind, record.name, record.outcome) == ("tool", "execute_tool echo", "failed")
    assert record.context is not None
    assert (record.context.trace_id, record.parent_id) == (7, 8)
    assert record.context.span_id not in {0, 8}
    assert before <= record.start_ns <= time.time_ns()
    assert record.attributes == {
        "gen_ai.tool.name": "echo",
        "tfo.error.id": "e1",
        "outcome": "failed",
        "error.type": "tool_error",
    }
    ((at, name, attributes),) = record.events
    assert (name, attributes) == ("error", {"n": 1})
    assert record.start_ns <= at <= record.start_ns + record.duration_ns


def test_a_span_without_a_parent_starts_a_trace_of_its_own() -> None:
    ring = new_ring()
    first = RecordingSpan(ring, "request", "ping", None, {})
    second = RecordingSpan(ring, "request", "ping", None, {})
    first.end("completed")
    assert first.context.trace_id != second.context.trace_id
    assert only(ring.take(10_000)).parent_id == 0


def test_ending_twice_records_once_and_nothing_is_added_after_the_end() -> None:
    ring = new_ring()
    span = RecordingSpan(ring, "request", "ping", None, {})
    span.end("completed")
    span.set("late", 1)
    span.add_event("late")
    span.end("failed", "late")
    record = only(ring.take(10_000))
    assert (record.outcome, record.attributes, record.events) == ("completed", {"outcome": "completed"}, ())


def test_the_caller_s_attributes_stay_as_they_were() -> None:
    attributes = {"gen_ai.tool.name": "echo"}
    RecordingSpan(new_ring(), "tool", "tools.execute", None, attributes).end("completed")
    assert attributes == {"gen_ai.tool.name": "echo"}


@pytest.mark.behaviour("telemetry.timestamps")
def test_a_wall_clock_that_jumps_back_gives_no_negative_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = new_ring()
    span = RecordingSpan(ring, "request", "ping", None, {})
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    span.add_event("noted")
    span.end("completed")
    record = only(ring.take(10_000))
    assert record.duration_ns >= 0
    assert record.events[0][0] >= record.start_ns


@pytest.mark.behaviour("telemetry.client.disabled")
def test_a_null_span_hands_the_trace_on_and_records_nothing() -> None:
    telemetry = NullTelemetry()
    parent = TraceContext(7, 8)
    span = telemetry.span("request", "ping", parent=parent)
    span.name = "renamed"
    span.set("key", 1)
    span.add_event("event")
    with span.active():
        span.end("completed")
    assert span.context == parent
    root = telemetry.span("request", "ping").context
    assert root.trace_id > 0
    assert root.span_id > 0


def test_a_client_that_sends_baggage_without_a_trace_starts_one() -> None:
    carried, traces = Carried("", {"a": "1"}), set[int]()
    for span in (
        NullTelemetry().span("request", "ping", parent=TraceContext(0, 0, carried)),
        RecordingSpan(new_ring(), "request", "ping", TraceContext(0, 0, carried), {}),
    ):
        assert span.context.trace_id > 0
        assert span.context.span_id > 0
        assert span.context.carried is carried
        traces.add(span.context.trace_id)
    assert len(traces) == 2


def test_null_telemetry_has_nothing_waiting() -> None:
    telemetry = NullTelemetry()
    telemetry.start()
    telemetry.record_rejected("parse error")
    with telemetry.tracer_provider().get_tracer("library").start_as_current_span("inner") as inner:
        assert not inner.is_recording()
    assert telemetry.flush(0)
    assert telemetry.shutdown(0)

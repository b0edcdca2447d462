from __future__ import annotations

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry import baggage, trace
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from support.otlp import DEADLINE, receiving
from tfo_mcp.application.ports import Carried, TraceContext
from tfo_mcp.infrastructure.telemetry.client import MCPTelemetryClient
from tfo_mcp.infrastructure.telemetry.options import TelemetryOptions


@pytest.mark.behaviour("telemetry.libraries")
def test_a_library_s_span_arrives_whole_below_the_operation_around_it() -> None:
    with receiving("http") as receiver:
        client = MCPTelemetryClient(TelemetryOptions(endpoint=receiver.endpoint, protocol="http", instance_id="i"))
        client.start()
        tracer = client.tracer_provider().get_tracer("library", "1.2")
        claude = client.span("claude", "claude.request", parent=TraceContext(1, 2, Carried("vendor=1", {})))
        with (
            claude.active(),
            tracer.start_as_current_span(
                "messages.create",
                kind=SpanKind.CLIENT,
                attributes={"flag": True, "share": 0.5, "stops": ("a", "b")},
                links=[Link(SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1)))],
            ) as span,
        ):
            span.add_event("first chunk", {"n": 1})
            span.set_status(Status(StatusCode.ERROR, "overloaded"))
        claude.end("completed")
        assert client.shutdown(DEADLINE)

        spans = {each["name"]: each for each in receiver.spans()}
        inner = dict(spans["messages.create"])
        outer = spans["claude.request"]
        for key in ("start", "duration", "span_id"):
            inner.pop(key)
        (event,) = spans["messages.create"]["events"]
        assert 0 <= event["offset"] <= spans["messages.create"]["duration"]
        assert (event["name"], event["attributes"]) == ("first chunk", {"n": 1})
        inner.pop("events")
        assert inner == {
            "name": "messages.create",
            "kind": "CLIENT",
            "trace_id": outer["trace_id"],
            "parent_id": outer["span_id"],
            "trace_state": "vendor=1",
            "attributes": {"flag": True, "share": 0.5, "stops": ("a", "b")},
            "status": "ERROR",
            "scope": "library",
            "resource": outer["resource"],
        }
        assert outer["kind"] == "INTERNAL"


def test_a_span_is_current_only_while_it_is_active_and_in_its_own_task() -> None:
    client = MCPTelemetryClient(TelemetryOptions())

    async def inside() -> tuple[int, int]:
        span = client.span("tool", "tools.execute")
        with span.active():
            await asyncio.sleep(0)
            return span.context.span_id, trace.get_current_span().get_span_context().span_id

    async def both() -> tuple[tuple[int, int], tuple[int, int]]:
        return await asyncio.gather(inside(), inside())

    for own, current in asyncio.run(both()):
        assert own == current
    assert not trace.get_current_span().get_span_context().is_valid


def test_code_inside_an_operation_sees_the_client_s_baggage_and_nothing_of_it_is_exported() -> None:
    with receiving("http") as receiver:
        client = MCPTelemetryClient(TelemetryOptions(endpoint=receiver.endpoint, protocol="http"))
        client.start()
        request = client.span("request", "tools/call", parent=TraceContext(0, 0, Carried("", {"user": "al ice"})))
        tool = client.span("tool", "tools.execute", parent=request.context)
        with ThreadPoolExecutor(1) as executor, tool.active():
            run = contextvars.copy_context().run
            assert baggage.get_all() == {"user": "al ice"}
            assert executor.submit(run, baggage.get_all).result(DEADLINE) == {"user": "al ice"}
        assert baggage.get_all() == {}
        tool.end("completed")
        request.end("completed")
        assert client.shutdown(DEADLINE)
        spans = {span["name"]: span for span in receiver.spans()}
        assert "al ice" not in repr(spans)
        assert spans["tools/call"]["parent_id"] == ""
        assert spans["tools.execute"]["trace_id"] == spans["tools/call"]["trace_id"] != f"{0:032x}"


@pytest.mark.behaviour("telemetry.libraries")
def test_a_span_is_current_in_a_thread_that_runs_in_its_context() -> None:
    client = MCPTelemetryClient(TelemetryOptions())
    span = client.span("tool", "tools.execute")
    with ThreadPoolExecutor(1) as executor, span.active():
        run = contextvars.copy_context().run
        current = executor.submit(run, trace.get_current_span).result(DEADLINE).get_span_context()
    assert (current.trace_id, current.span_id) == (span.context.trace_id, span.context.span_id)
    assert current.trace_flags.sampled


def test_the_provider_is_made_once_and_is_nobody_s_global_one() -> None:
    client = MCPTelemetryClient(TelemetryOptions())
    assert client.tracer_provider() is client.tracer_provider()
    assert trace.get_tracer_provider() is not client.tracer_provider()


@pytest.mark.behaviour("telemetry.validated")
def test_one_span_that_cannot_be_encoded_costs_no_other_its_export() -> None:
    with receiving("http") as receiver:
        client = MCPTelemetryClient(TelemetryOptions(endpoint=receiver.endpoint, protocol="http"))
        tracer = client.tracer_provider().get_tracer("library")
        client.span("request", "before").end("completed")
        tracer.start_span("bad", start_time=-1).end(end_time=-1)
        client.span("request", "after").end("completed")
        assert client.shutdown(DEADLINE)
        assert [span["name"] for span in receiver.spans()] == ["before", "after"]
        dropped = receiver.metrics()["tfo.telemetry.spans.dropped"]
        assert dropped == [{"attributes": {"reason": "unencodable"}, "value": 1}]

"""Whatever a client sends and says of itself, what is told of it is valid, small, and counted exactly."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import pytest

from support.otlp import DEADLINE, Receiver, receiving
from support.server import ENVELOPE, HANDSHAKE, STATELESS, Server, serving
from support.sizes import later
from tfo_mcp.infrastructure.telemetry.encode import MAX_BODY_LENGTH
from tfo_mcp.infrastructure.telemetry.otlp_values import MAX_VALUE_LENGTH

MEGABYTE = "x" * 1_000_000

MAX_REQUEST_ID = 128
"""Characters of `jsonrpc.request.id`."""


def exporting(receiver: Receiver, wire: Literal["grpc", "http/protobuf"] = "http/protobuf") -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": wire}


def end(server: Server, receiver: Receiver) -> None:
    """Once all that was asked has been told: on a busy machine the end of a process may leave no time for it."""
    server.call("last", "tools/list")

    def told() -> bool:
        return any(span["attributes"].get("jsonrpc.request.id") == "last" for span in receiver.spans())

    assert receiver.wait_for(told, DEADLINE)
    server.close_input()
    assert server.wait() == 0


# --- what a client says of its trace ---

TRACE, SPAN = f"{0xA1:032x}", f"{0xB2:016x}"
PARENT = f"00-{TRACE}-{SPAN}-01"

NO_PARENTS: Mapping[str, object] = {
    "nothing": "",
    "version ff": f"ff-{TRACE}-{SPAN}-01",
    "no version": f"{TRACE}-{SPAN}-01",
    "more than version 00 has": f"{PARENT}-more",
    "a trace of zeros": f"00-{0:032x}-{SPAN}-01",
    "a span of zeros": f"00-{TRACE}-{0:016x}-01",
    "upper case": f"00-{TRACE.upper()}-{SPAN}-01",
    "no hexadecimal": f"00-{'g' * 32}-{SPAN}-01",
    "digits that are not ASCII": PARENT.replace("0", "\N{ARABIC-INDIC DIGIT ZERO}"),
    "too short": f"00-{TRACE[1:]}-{SPAN}-01",
    "too long": f"00-{TRACE}0-{SPAN}-01",
    "no flags": f"00-{TRACE}-{SPAN}",
    "a space before it": f" {PARENT}",
    "a line end behind it": f"{PARENT}\n",
    "a null character": f"{PARENT[:-1]}\0",
    "a megabyte": MEGABYTE,
    "a number": 7,
    "a list": [PARENT],
    "an object": {"traceparent": PARENT},
    "null": None,
    "true": True,
}
"""Ways to say no parent."""

NO_STATES: Mapping[str, object] = {
    "10 kB": f"v={'x' * 10_000}",
    "33 vendors": ",".join(f"v{number}=x" for number in range(33)),
    "the same vendor twice": "v=1,v=2",
    "an upper-case vendor": "V=1",
    "no value": "v=",
    "a control character": "v=\x01",
    "a number": 7,
    "a list": ["v=1"],
    "null": None,
}
"""Ways to say no state, beside a good parent."""

NO_BAGGAGE: Mapping[str, object] = {
    "a megabyte": f"a={MEGABYTE}",
    "nothing": "",
    "commas": "," * 8000,
    "bad escapes": "a=%ff%zz%",
    "a number": 7,
    "an object": {"a": "1"},
    "null": None,
}


def metas() -> Iterator[tuple[str, Mapping[str, object], tuple[str, str]]]:
    """Request id, what is said, and the trace and parent below which the request belongs; empty for a new trace."""
    for what, parent in NO_PARENTS.items():
        yield f"parent: {what}", {"traceparent": parent, "tracestate": "v=1"}, ("", "")
    for what, state in NO_STATES.items():
        yield f"state: {what}", {"traceparent": PARENT, "tracestate": state}, (TRACE, SPAN)
    for what, baggage in NO_BAGGAGE.items():
        yield f"baggage: {what}", {"traceparent": PARENT, "baggage": baggage}, (TRACE, SPAN)
        yield f"baggage alone: {what}", {"baggage": baggage}, ("", "")


@pytest.mark.behaviour("telemetry.request.trace-context", "telemetry.tracestate")
@pytest.mark.parametrize("revision", ["2025-11-25", later(STATELESS)])
def test_no_malformed_trace_context_fails_its_request_or_makes_a_span_invalid(tmp_path: Path, revision: str) -> None:
    with receiving("http") as receiver:
        with serving(tmp_path, env=exporting(receiver)) as server:
            server.begin(revision)
            envelope = ENVELOPE if revision == STATELESS else {}
            for request_id, meta, _ in metas():
                arguments = {"name": "echo", "arguments": {"message": "m"}, "_meta": {**envelope, **meta}}
                assert server.call(request_id, "tools/call", arguments)["result"]["isError"] is False
            meta = {**envelope, "traceparent": PARENT, "again": 7}
            params = json.dumps({"name": "echo", "arguments": {"message": "m"}, "_meta": meta})
            twice = params.replace("again", "traceparent").encode()
            server.send_raw(b'{"jsonrpc": "2.0", "id": "twice", "method": "tools/call", "params": %s}\n' % twice)
            assert server.answer_to("twice")["result"]["isError"] is False
            end(server, receiver)
        spans = {s["attributes"]["jsonrpc.request.id"]: s for s in receiver.spans() if s["kind"] == "SERVER"}
        below = {request_id: ids for request_id, _, ids in metas()}
        for request_id, (trace, parent) in {**below, "twice": ("", "")}.items():
            span = spans[request_id]
            assert (span["parent_id"], span["trace_state"]) == (parent, ""), request_id
            assert (span["trace_id"] == TRACE) is bool(trace), request_id
            assert (int(span["trace_id"], 16) > 0, int(span["span_id"], 16) > 0) == (True, True)
        assert len({span["span_id"] for span in receiver.spans()}) == len(receiver.spans())


# --- names that nobody has ---

MANY = 10_000
BURST = 200
LONG = "n" * 10_000
MOST_GROWTH = 60 * 1024 * 1024
"""Bytes; the names alone are a hundred million."""


@pytest.mark.behaviour("telemetry.attributes", "telemetry.bounded")
@pytest.mark.ci
def test_ten_thousand_tools_that_nobody_has_are_counted_as_one_and_kept_nowhere(tmp_path: Path) -> None:
    with receiving("http") as receiver:
        with serving(tmp_path, env=exporting(receiver)) as server:
            server.begin("2025-11-25")

            def ask(start: int) -> None:
                for number in range(start, start + BURST):
                    server.request(number, "tools/call", {"name": f"{number} {LONG}", "arguments": {}})
                for number in range(start, start + BURST):
                    assert server.answer_to(number)["error"]["code"] == -32602

            ask(0)
            assert receiver.wait_for(lambda: bool(receiver.spans()), DEADLINE)  # so that all is loaded
            before = server.peak_memory()
            for start in range(BURST, MANY, BURST):
                ask(start)
            grown = server.peak_memory() - before
            end(server, receiver)
        outcome = {"outcome": "invalid", "error.type": "unknown_tool"}
        counted = {"attributes": {"gen_ai.tool.name": "_OTHER", **outcome}, "value": MANY}
        metrics = receiver.metrics()
        assert (metrics["mcp.tools.calls"], metrics["mcp.tools.errors"]) == ([counted], [counted])
        calls = [
            each for each in metrics["mcp.server.operation.duration"] if each["attributes"]["outcome"] == "invalid"
        ]
        assert [each.get("count") for each in calls] == [MANY]
        assert {span["name"] for span in receiver.spans()} == {
            "initialize",
            "tools/call",
            "tools.execute",
            "tools/list",
        }
        assert "tfo.telemetry.spans.dropped" not in metrics
        assert LONG[:100] not in repr((receiver.spans(), metrics, receiver.logs()))
        assert grown < MOST_GROWTH


# --- a megabyte in every place ---


def longest(told: Any) -> int:  # noqa: ANN401  # whatever was received
    """Characters of the longest text in it, keys among them."""
    if isinstance(told, str):
        return len(told)
    if isinstance(told, Mapping):
        pairs = cast("Mapping[str, Any]", told).items()
        return max((longest(part) for pair in pairs for part in pair), default=0)
    return max(map(longest, cast("list[Any]", told)), default=0) if isinstance(told, list) else 0


@pytest.mark.behaviour("telemetry.validated", "telemetry.attributes")
@pytest.mark.parametrize("wire", ["grpc", later("http/protobuf")])
def test_a_megabyte_in_every_place_is_cut_and_taken(tmp_path: Path, wire: Literal["grpc", "http/protobuf"]) -> None:
    client = {"name": MEGABYTE, "version": MEGABYTE, "title": MEGABYTE}
    calls: list[tuple[str, Mapping[str, Any]]] = [
        ("tools/call", {"name": MEGABYTE, "arguments": {}}),
        ("tools/call", {"name": "echo", "arguments": {"message": MEGABYTE}}),
        ("tools/call", {"name": "echo", "arguments": {MEGABYTE: 1}}),
        ("tools/call", {"name": "read_file", "arguments": {"path": MEGABYTE}}),
        ("tools/call", {"name": "echo", "arguments": {"message": "m"}, "_meta": {"progressToken": MEGABYTE}}),
        ("tools/call", {"name": "echo", "arguments": {"message": "m"}, "_meta": {"traceparent": MEGABYTE}}),
        ("resources/read", {"uri": f"file:///{MEGABYTE}"}),
        ("prompts/get", {"name": MEGABYTE}),
        ("prompts/get", {"name": "code_review", "arguments": {"code": MEGABYTE}}),
        ("tools/list", {"cursor": MEGABYTE}),
        (MEGABYTE, {}),
    ]
    with receiving("grpc" if wire == "grpc" else "http") as receiver:
        with serving(tmp_path, env=exporting(receiver, wire)) as server:
            hello = server.call("init", "initialize", {**HANDSHAKE, "clientInfo": client})
            assert "result" in hello
            server.notify("notifications/initialized")
            ids = [f"{number} {MEGABYTE}" for number in range(len(calls))]
            for request_id, (method, params) in zip(ids, calls, strict=True):
                assert server.call(request_id, method, params)["id"] == request_id
            end(server, receiver)
        requests = [span for span in receiver.spans() if span["kind"] == "SERVER"]
        told = {str(span["attributes"]["jsonrpc.request.id"]) for span in requests}
        assert told == {
            "init",
            "last",
            *(request_id[:MAX_REQUEST_ID] for request_id in ids[:-1]),
        }  # the last is no method
        assert longest(receiver.spans()) <= MAX_VALUE_LENGTH
        assert longest(receiver.metrics()) <= MAX_VALUE_LENGTH
        assert longest([record["attributes"] for record in receiver.logs()]) <= MAX_VALUE_LENGTH
        assert longest([record["body"] for record in receiver.logs()]) <= MAX_BODY_LENGTH
        assert "tfo.telemetry.export.failures" not in receiver.metrics()
        assert receiver.metrics().keys().isdisjoint({"tfo.telemetry.spans.dropped", "tfo.telemetry.logs.dropped"})

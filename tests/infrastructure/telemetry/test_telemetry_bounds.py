"""Whatever a client invents, the label sets of the metrics and the names of the spans stay few."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from differential.ours import HELLO, InProcess
from support.otlp import DEADLINE, Receiver, receiving
from support.server import ENVELOPE
from support.sizes import later
from tfo_mcp.infrastructure.telemetry.aggregate import MAX_LABEL_SETS
from tfo_mcp.infrastructure.telemetry.client import MCPTelemetryClient
from tfo_mcp.infrastructure.telemetry.options import TelemetryOptions

MANY = 10_000
BURST = 200
FEW = 10

Message = Mapping[str, Any]


def message(request_id: object, method: str, **params: object) -> Message:
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


def stateless(number: int, name: str, value: object) -> Message:
    meta = {**ENVELOPE, f"io.modelcontextprotocol/{name}": value}
    return message(number, "tools/list", _meta=meta)


HANDSHAKE_MESSAGES: Mapping[str, Callable[[int], Message]] = {
    "tool names": lambda number: message(number, "tools/call", name=f"invented-{number}", arguments={}),
    "methods": lambda number: message(number, f"invented/{number}"),
    "request ids": lambda number: message(f"invented-{number}", "ping"),
    "arguments": lambda number: message(number, "tools/call", name="echo", arguments={f"invented-{number}": number}),
    "cursors": lambda number: message(number, "tools/list", cursor=f"invented-{number}"),
    "traces": lambda number: message(
        number,
        "ping",
        _meta={
            "traceparent": f"00-{number + 1:032x}-{number + 1:016x}-01",
            "tracestate": f"v{number}=x",
            "baggage": f"invented-{number}=x",
        },
    ),
    "protocol versions of a second initialize": lambda number: message(
        number,
        "initialize",
        protocolVersion=f"invented-{number}",
        capabilities={},
        clientInfo={"name": "", "version": ""},
    ),
}

AT_ONCE = {"tool names", "methods", "traces"}
"""What would be a label, a span's name or an attribute; the rest is for CI."""

STATELESS_MESSAGES: Mapping[str, Callable[[int], Message]] = {
    "protocol versions": lambda number: stateless(number, "protocolVersion", f"invented-{number}"),
    "client names": lambda number: stateless(number, "clientInfo", {"name": f"invented-{number}", "version": "1"}),
}


def check_bounds(receiver: Receiver) -> None:
    assert len({span["name"] for span in receiver.spans()}) <= FEW
    for metric, points in receiver.metrics().items():
        assert len(points) <= FEW, metric
    told = repr(([span["name"] for span in receiver.spans()], receiver.metrics()))
    assert "invented" not in told


async def speak(telemetry: MCPTelemetryClient, invent: Callable[[int], Message], first: bytes) -> None:
    ours = InProcess(telemetry)
    await ours.exchange((first,), 1)
    for start in range(0, MANY, BURST):
        burst = [json.dumps(invent(number)).encode() for number in range(start, start + BURST)]
        answers = await ours.exchange(burst, BURST)
        assert len(answers) == BURST
    assert ours.faults == []


@pytest.mark.parametrize(
    ("invent", "first"),
    [
        *[
            pytest.param(invent, HELLO, id=name) if name in AT_ONCE else later(invent, HELLO, id=name)
            for name, invent in HANDSHAKE_MESSAGES.items()
        ],
        *[
            later(invent, json.dumps(message(0, "tools/list", _meta=ENVELOPE)).encode(), id=f"stateless {name}")
            for name, invent in STATELESS_MESSAGES.items()
        ],
    ],
)
def test_ten_thousand_invented_values_over_raw_lines_stay_out_of_labels_and_names(
    invent: Callable[[int], Message], first: bytes
) -> None:
    with receiving("http") as receiver:
        telemetry = MCPTelemetryClient(
            TelemetryOptions(endpoint=receiver.endpoint, protocol="http", ring_capacity=10 * MANY)
        )
        telemetry.start()
        asyncio.run(speak(telemetry, invent, first))
        assert telemetry.shutdown(DEADLINE)
        check_bounds(receiver)


def test_clients_with_invented_names_and_protocol_versions_stay_out_of_labels_and_names() -> None:
    def hello(number: int) -> bytes:
        client = {"name": f"invented-{number}", "version": f"invented-{number}"}
        return json.dumps(
            message(0, "initialize", protocolVersion=f"invented-{number}", capabilities={}, clientInfo=client)
        ).encode()

    async def connect(telemetry: MCPTelemetryClient) -> None:
        for number in range(MANY // 50):  # a connection each
            [answer] = await InProcess(telemetry).exchange((hello(number),), 1)
            assert "result" in answer

    with receiving("http") as receiver:
        telemetry = MCPTelemetryClient(TelemetryOptions(endpoint=receiver.endpoint, protocol="http"))
        telemetry.start()
        asyncio.run(connect(telemetry))
        assert telemetry.shutdown(DEADLINE)
        check_bounds(receiver)
        names = {record["attributes"]["tfo.client.name"] for record in receiver.logs()}
        assert len(names) == MANY // 50  # where they may be


@pytest.mark.parametrize("outcome", ["completed", "failed"])
def test_invented_models_are_labels_only_where_they_answered_and_then_up_to_the_cap(outcome: Any) -> None:  # noqa: ANN401  # an Outcome
    with receiving("http") as receiver:
        telemetry = MCPTelemetryClient(
            TelemetryOptions(endpoint=receiver.endpoint, protocol="http", ring_capacity=2 * MANY)
        )
        telemetry.start()
        for number in range(MANY):
            model = f"invented-{number}"
            span = telemetry.span("claude", "claude.request", attributes={"gen_ai.request.model": model})
            if outcome == "completed":
                span.set("gen_ai.response.model", model)
                span.set("gen_ai.usage.input_tokens", 1)
            span.end(outcome)
        assert telemetry.shutdown(DEADLINE)
        limit = MAX_LABEL_SETS + 1 if outcome == "completed" else 1
        counts = {name: len(points) for name, points in receiver.metrics().items()}
        assert counts["gen_ai.client.operation.duration"] == limit
        assert max(counts.values()) <= limit
        assert {span["name"] for span in receiver.spans()} == {"claude.request"}

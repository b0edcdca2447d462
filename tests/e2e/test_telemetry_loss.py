"""Nothing that was committed to the spool is lost, with servers that are killed and a collector that is rarely well."""

from __future__ import annotations

import random
import sqlite3
import time
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from support.measurements import keep
from support.otlp import DEADLINE, HttpReceiver, Reply, free_port, receiving
from support.server import Server, eventually, serving
from tfo_mcp.infrastructure.telemetry.client import MCPTelemetryClient
from tfo_mcp.infrastructure.telemetry.options import TelemetryOptions

ILL = (408, 429, 500, 503, 401, 403)


def waiting(path: Path) -> set[str]:
    """The ids of the spans in the spool."""
    if not path.exists():
        return set()
    with closing(sqlite3.connect(path)) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'parcels'").fetchall():
            return set()
        bodies = [body for (body,) in database.execute("SELECT body FROM parcels WHERE signal = 'traces'")]
    requests = [ExportTraceServiceRequest.FromString(body) for body in bodies]
    groups = [group for request in requests for group in request.resource_spans]
    return {span.span_id.hex() for group in groups for scope in group.scope_spans for span in scope.spans}


@dataclass
class Ledger:
    """What the clients did, what the spool had when servers died, and what arrived."""

    asked: set[str] = field(default_factory=set[str])
    durable: set[str] = field(default_factory=set[str])
    arrived: Counter[str] = field(default_factory=Counter[str])
    seen: set[str] = field(default_factory=set[str])

    def take(self, receivers: Iterable[HttpReceiver]) -> None:
        for receiver in receivers:
            for span in receiver.spans():
                self.arrived[span["span_id"]] += 1
                self.seen.add(str(span["attributes"].get("jsonrpc.request.id")))

    def figures(self) -> dict[str, int]:
        return {
            "requests": len(self.asked),
            "spans committed when a server was killed": len(self.durable),
            "of those lost": len(self.durable - self.arrived.keys()),
            "spans that arrived": len(self.arrived),
            "of those twice": sum(count - 1 for count in self.arrived.values()),
            "requests invented": len(self.seen - self.asked - {"init", "None"}),
        }


@contextmanager
def a_collector(chosen: random.Random, port: int) -> Generator[HttpReceiver | None]:
    """One that is not there, or that is and refuses some of what comes."""
    if chosen.random() < 0.4:
        yield None
        return
    receiver = HttpReceiver([Reply(chosen.choice(ILL)) for _ in range(chosen.randrange(4))])
    receiver.start(port)
    try:
        yield receiver
    finally:
        receiver.stop()


def talk(server: Server, calls: int, ledger: Ledger) -> None:
    for _ in range(calls):
        name = f"call {len(ledger.asked)}"
        ledger.asked.add(name)
        server.call_tool(name, "echo", {"message": "hello"})


def with_kills(folder: Path, times: int, seed: int) -> Ledger:
    """Kill a server so often in the middle of its work, each with a collector of its own; then let one finish."""
    chosen, ledger, spool = random.Random(seed), Ledger(), folder / "state" / "spool.db"
    for _ in range(times):
        port = free_port()
        with a_collector(chosen, port) as collector, serving(folder, env=exporting(port)) as server:

            def known(there: HttpReceiver | None = collector) -> int:
                sent = set[str]() if there is None else {span["span_id"] for span in there.spans()}
                return len(sent | waiting(spool))

            before, calls = known(), chosen.randrange(1, 100)
            server.begin("2025-11-25")
            talk(server, calls, ledger)
            enough = before + chosen.randrange(2 * calls)
            eventually(lambda enough=enough, known=known: known() >= enough)
            server.process.kill()
            server.process.wait()
            ledger.durable |= waiting(spool)
            ledger.take([] if collector is None else [collector])
    with receiving("http") as last:
        port = int(last.endpoint.rsplit(":", 1)[1])
        with serving(folder, env=exporting(port)) as server:
            server.begin("2025-11-25")
            assert last.wait_for(lambda: not waiting(spool), DEADLINE)
            server.close_input()
            assert server.wait() == 0
        assert isinstance(last, HttpReceiver)
        ledger.take([last])
    return ledger


def exporting(port: int) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }


def check(ledger: Ledger) -> None:
    figures = ledger.figures()
    assert (figures["of those lost"], figures["requests invented"]) == (0, 0), figures
    assert figures["spans committed when a server was killed"] > 0


@pytest.mark.behaviour("telemetry.spooled")
@pytest.mark.ci
def test_what_killed_servers_had_committed_arrives_and_nothing_else(tmp_path: Path) -> None:
    check(with_kills(tmp_path, 6, seed=7))


@pytest.mark.behaviour("telemetry.spooled")
@pytest.mark.soak
def test_what_fifty_killed_servers_had_committed_arrives_and_nothing_else(tmp_path: Path) -> None:
    began = time.monotonic()
    ledger = with_kills(tmp_path, 50, seed=50)
    check(ledger)
    keep("telemetry-kills", began, {"kills": 50, **ledger.figures()})


def absent(folder: Path, spans: int) -> dict[str, int]:
    """Record so many spans while there is no collector; then it comes, and is ill for a while."""
    port = free_port()
    options = TelemetryOptions(
        endpoint=f"http://127.0.0.1:{port}",
        protocol="http",
        spool=folder / "spool.db",
        ring_capacity=spans,  # what waits to be encoded is not durable yet, and is not what this is about
        spool_bytes=1 << 30,
        retry_initial=0.01,
        retry_max=0.1,
    )
    client = MCPTelemetryClient(options)
    client.start()
    recorded: set[str] = set()
    for number in range(spans):
        span = client.span("request", "ping")
        recorded.add(f"{span.context.span_id:016x}")
        span.end("completed")
        if number % 5000 == 4999:
            client.flush(0.2)  # so that nothing is too much at once
    ill = [Reply(ILL[number % len(ILL)]) for number in range(60)]
    with receiving("http", ill, port=port) as receiver:
        assert client.shutdown(10 * DEADLINE)
        arrived = [span["span_id"] for span in receiver.spans()]
    return {
        "spans": spans,
        "lost": len(recorded.difference(arrived)),
        "invented": len(set(arrived) - recorded),
        "twice": len(arrived) - len(set(arrived)),
    }


@pytest.mark.behaviour("telemetry.spooled")
@pytest.mark.ci
def test_a_collector_that_comes_late_and_ill_gets_every_span_once(tmp_path: Path) -> None:
    assert absent(tmp_path, 20_000) == {"spans": 20_000, "lost": 0, "invented": 0, "twice": 0}


@pytest.mark.behaviour("telemetry.spooled")
@pytest.mark.soak
def test_a_hundred_thousand_spans_wait_for_a_collector_that_comes_late(tmp_path: Path) -> None:
    began = time.monotonic()
    figures = absent(tmp_path, 100_000)
    assert (figures["lost"], figures["invented"]) == (0, 0)
    keep("telemetry-absent", began, figures)

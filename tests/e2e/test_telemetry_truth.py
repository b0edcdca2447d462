"""Counts and traces agree with what the client knows: every request, however it ended, once."""

from __future__ import annotations

import random
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from support.claude import fake_claude
from support.measurements import keep
from support.otlp import DEADLINE, Receiver, receiving
from support.rotel import collector_before
from support.server import Server, claude_at, serving
from tfo_mcp.infrastructure.telemetry.recorder_file import OPERATIONS

ODD = (sys.executable, str(Path(__file__).with_name("odd_server.py")), "serve")
SCRIPT = "replies: [{when: {contains: break}, status: 400}]"
BURST = 40
"""Requests in flight at a time."""

Ways = Literal["rotel over gRPC", "rotel over HTTP", "gRPC", "HTTP"]


@dataclass(frozen=True)
class Kind:
    """What is asked so often among a hundred, how the request ends, and how its tool call and its Claude call do."""

    often: int
    method: str
    params: Mapping[str, Any]
    ends: str
    tool: tuple[str, str] | None = None
    claude: str | None = None


def calling(name: str, **arguments: object) -> Mapping[str, Any]:
    return {"name": name, "arguments": arguments}


KINDS = (
    Kind(38, "tools/call", calling("echo", message="hello"), "completed", ("echo", "completed")),
    Kind(10, "tools/call", calling("echo", massage=1), "failed", ("echo", "invalid")),
    Kind(10, "tools/call", calling("fail"), "failed", ("fail", "failed")),
    Kind(5, "tools/call", calling("a name that nobody has"), "invalid", ("_OTHER", "invalid")),
    Kind(5, "tools/call", calling("wait", seconds=3600), "cancelled", ("wait", "cancelled")),
    Kind(2, "tools/call", calling("wait", seconds=3600), "failed", ("wait", "timed_out")),
    Kind(
        2,
        "tools/call",
        calling("claude_conversation", message="hello"),
        "completed",
        ("claude_conversation", "completed"),
        "completed",
    ),
    Kind(
        1,
        "tools/call",
        calling("claude_conversation", message="break"),
        "failed",
        ("claude_conversation", "failed"),
        "failed",
    ),
    Kind(10, "tools/list", {}, "completed"),
    Kind(5, "tools/list", {"cursor": "never given out"}, "invalid"),
    Kind(5, "resources/read", {"uri": "nothing://at/all"}, "invalid"),
    Kind(7, "ping", {}, "completed"),
)


@dataclass
class Ledger:
    """What the client asked, and how it was answered.

    Attributes:
        requests, tools, claude: as the collector should count them.
        ids: of the requests.
    """

    requests: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    tools: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    claude: Counter[str] = field(default_factory=Counter[str])
    ids: set[str] = field(default_factory=set[str])
    rejected: int = 0

    def note(self, request_id: str, kind: Kind) -> None:
        self.ids.add(request_id)
        self.requests[kind.method, kind.ends] += 1
        if kind.tool is not None:
            self.tools[kind.tool] += 1
        if kind.claude is not None:
            self.claude[kind.claude] += 1


def talk(server: Server, requests: int, seed: int) -> Ledger:
    """Ask so much, in bursts; each answer is checked against what was asked."""
    chosen, ledger = random.Random(seed), Ledger()
    server.begin("2025-11-25")
    ledger.note("init", Kind(0, "initialize", {}, "completed"))
    for start in range(0, requests, BURST):
        burst = {
            f"{number}": kind
            for number, kind in enumerate(
                chosen.choices(KINDS, [kind.often for kind in KINDS], k=min(BURST, requests - start)), start
            )
        }
        for request_id, kind in burst.items():
            ledger.note(request_id, kind)
            server.request(request_id, kind.method, kind.params)
            if kind.ends == "cancelled":
                server.notify("notifications/cancelled", {"requestId": request_id})
        server.send_raw(b"no message\n")
        ledger.rejected += 1
        open_ones = {request_id: kind for request_id, kind in burst.items() if kind.ends != "cancelled"}
        while open_ones:
            answer = server.receive()
            if answer["id"] is not None:  # the answer to what was no message
                check_answer(answer, open_ones.pop(answer["id"]))
    return ledger


def check_answer(answer: Mapping[str, Any], kind: Kind) -> None:
    ended = "invalid" if "error" in answer else "failed" if answer["result"].get("isError") else "completed"
    assert ended == kind.ends, (answer, kind)


def counted(receiver: Receiver, metric: str, *labels: str) -> Counter[Any]:
    """How often, by labels; a single label alone, several as a tuple."""
    found: Counter[Any] = Counter()
    for point in receiver.metrics().get(metric, []):
        key = tuple(str(point["attributes"].get(label)) for label in labels)
        found[key[0] if len(labels) == 1 else key] += int(point.get("count") or point.get("value") or 0)
    return found


def differences(ledger: Ledger, receiver: Receiver) -> list[str]:
    """Everything in which the collector is told something else than the client knows."""
    spans = receiver.spans()
    served = [span for span in spans if span["kind"] == "SERVER"]
    executed = [span for span in spans if span["name"] == "tools.execute"]
    asked = [span for span in spans if span["name"] == "claude.request"]
    told: Mapping[str, tuple[object, object]] = {
        "mcp.server.operation.duration": (
            counted(receiver, "mcp.server.operation.duration", "mcp.method.name", "outcome"),
            ledger.requests,
        ),
        "mcp.tools.calls": (counted(receiver, "mcp.tools.calls", "gen_ai.tool.name", "outcome"), ledger.tools),
        "mcp.tools.duration": (counted(receiver, "mcp.tools.duration", "gen_ai.tool.name", "outcome"), ledger.tools),
        "mcp.tools.errors": (
            counted(receiver, "mcp.tools.errors", "gen_ai.tool.name", "outcome"),
            Counter({key: many for key, many in ledger.tools.items() if key[1] not in {"completed", "cancelled"}}),
        ),
        "gen_ai.client.operation.duration": (
            counted(receiver, "gen_ai.client.operation.duration", "outcome"),
            ledger.claude,
        ),
        "tfo.mcp.requests.rejected": (
            sum(counted(receiver, "tfo.mcp.requests.rejected", "reason").values()),
            ledger.rejected,
        ),
        "spans of requests": (
            Counter(str(span["attributes"]["jsonrpc.request.id"]) for span in served),
            Counter(ledger.ids),
        ),
        "how they ended": (
            Counter((span["attributes"]["mcp.method.name"], span["attributes"]["outcome"]) for span in served),
            ledger.requests,
        ),
        "spans of tool calls": (
            Counter((span["attributes"]["gen_ai.tool.name"], span["attributes"]["outcome"]) for span in executed),
            ledger.tools,
        ),
        "spans of Claude": (Counter(span["attributes"]["outcome"] for span in asked), ledger.claude),
        "traces": (len({span["trace_id"] for span in spans}), len(ledger.ids)),
        "parents": ({span["parent_id"] for span in executed} - {span["span_id"] for span in served}, set[str]()),
        "dropped": (receiver.metrics().get("tfo.telemetry.spans.dropped", []), []),
    }
    return [f"{name}: {was} is not {should}" for name, (was, should) in told.items() if was != should]


@contextmanager
def a_way(way: Ways, receiver: Receiver, log: Path) -> Generator[tuple[str, str]]:
    """Endpoint and protocol, with a real collector in between or without."""
    if way in {"gRPC", "HTTP"}:
        yield receiver.endpoint, "grpc" if way == "gRPC" else "http/protobuf"
        return
    protocol: Literal["grpc", "http"] = "grpc" if way.endswith("gRPC") else "http"
    with collector_before(receiver, protocol, log) as endpoint:
        yield endpoint, "grpc" if protocol == "grpc" else "http/protobuf"


def agree(folder: Path, way: Ways, requests: int, seed: int) -> Ledger:
    """Let so many requests be recorded, and compare."""
    folder.mkdir(exist_ok=True)
    wire: Literal["grpc", "http"] = "grpc" if way == "gRPC" else "http"
    with receiving(wire) as receiver, fake_claude(SCRIPT) as claude:
        with a_way(way, receiver, folder / "rotel.log") as (endpoint, protocol):
            env = {
                **claude_at(claude.base_url),
                "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                "TELEMETRYFLOW_MCP_MCP_TOOL_TIMEOUT": "0.5",
                "TELEMETRYFLOW_MCP_LOGGING_LEVEL": "critical",
            }
            with serving(folder, env=env, command=ODD) as server:
                ledger = talk(server, requests, seed)
                assert receiver.wait_for(lambda: len(receiver.spans()) > requests // 2, DEADLINE)
                server.close_input()
                assert server.wait() == 0
            receiver.wait_for(lambda: not differences(ledger, receiver), DEADLINE)
        assert differences(ledger, receiver) == []
    assert kept(folder) == {
        **{("request", *key): many for key, many in ledger.requests.items()},
        **{("tool", *key): many for key, many in ledger.tools.items()},
        **{("claude", "", key): many for key, many in ledger.claude.items()},
    }
    return ledger


def kept(folder: Path) -> Counter[tuple[str, str, str]]:
    """What the recorder counted, and the same of what it keeps by itself; by kind, name and outcome."""
    counted = "SELECT kind, iif(kind = 'claude', '', name), outcome, sum(calls) FROM minutes GROUP BY 1, 2, 3"
    single = (
        "SELECT kind, CASE kind WHEN 'request' THEN method WHEN 'tool' THEN tool ELSE '' END, outcome, count(*) "  # noqa: S608  # names of ours
        f"FROM ({OPERATIONS}) WHERE kind <> 'library' GROUP BY 1, 2, 3"
    )
    with closing(sqlite3.connect(folder / "state" / "telemetry.db")) as database:
        found, alone = (
            Counter({(kind, name, outcome): many for kind, name, outcome, many in database.execute(query)})
            for query in (counted, single)
        )
    assert found == alone
    return found


@pytest.mark.behaviour("telemetry.truth")
@pytest.mark.parametrize("way", ["gRPC", "HTTP"])
def test_every_count_and_every_trace_is_what_the_client_knows(tmp_path: Path, way: Ways) -> None:
    agree(tmp_path, way, 400, seed=5)


@pytest.mark.behaviour("telemetry.truth")
@pytest.mark.ci
@pytest.mark.parametrize("way", ["rotel over gRPC", "rotel over HTTP"])
def test_every_count_and_every_trace_passes_a_real_collector(tmp_path: Path, way: Ways) -> None:
    agree(tmp_path, way, 2000, seed=6)


@pytest.mark.behaviour("telemetry.truth")
@pytest.mark.soak
def test_ten_thousand_requests_each_way_differ_in_nothing(tmp_path: Path) -> None:
    began = time.monotonic()
    ways: Sequence[Ways] = ("rotel over gRPC", "rotel over HTTP", "gRPC")
    ledgers = {way: agree(tmp_path / way.replace(" ", "-"), way, 10_000, seed=7) for way in ways}
    ended = {way: {" ".join(key): many for key, many in ledger.requests.items()} for way, ledger in ledgers.items()}
    keep("telemetry-truth", began, {"differences": 0, "requests": ended})

"""Every name that is told is OpenTelemetry's, with its unit and its bounds, or one of our own."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from opentelemetry.metrics import Histogram, NoOpMeter

from support.claude import fake_claude
from support.otlp import DEADLINE, Receiver, receiving
from support.server import STATELESS, Server, claude_at, serving
from tfo_mcp.application import attributes
from tfo_mcp.infrastructure.otlp_receiver import ReceivedSpan
from tfo_mcp.infrastructure.telemetry import conventions
from tfo_mcp.infrastructure.telemetry.conventions import Metric

PACKAGE = "opentelemetry.semconv._incubating"  # without types
"""Of opentelemetry-semantic-conventions: its modules of what is not stable yet, which know what is stable too."""

OURS = ("tfo.", "mcp.tools.")
"""What begins our own names; the latter are the diagrams'."""

OURS_ALONE = frozenset({conventions.OUTCOME, conventions.REASON, conventions.SIGNAL})

ELSEWHERE = {"otel.metric.overflow": "OpenTelemetry metrics SDK specification, Cardinality limits"}
"""What is specified, but no semantic convention."""


@dataclass(frozen=True)
class Moved:
    """A name that open-telemetry/semantic-conventions-genai has changed since the package has it.

    Attributes:
        date: when it was changed there, year and month.
        was: what the package calls it.
        why: where that is said, and what we do.
    """

    date: str
    was: str
    why: str


LOOKED = "2026-11-25"
"""When the two tables below were last compared with that repository."""

FOLLOWED = {
    "gen_ai.usage.cache_write.input_tokens": Moved(
        "2026-08", "gen_ai.usage.cache_creation.input_tokens", "its change 440 renames it; a rename, so followed"
    ),
}
"""Names of ours that the package does not have yet."""

NOT_FOLLOWED = {
    "gen_ai.client.token.usage": Moved(
        "2026-07",
        "gen_ai.client.token.usage",
        "its change 374 has counters gen_ai.client.inference.usage.* in its place: dashboards and the specification "
        "that this server is built to know the histogram",
    ),
    "gen_ai.token.type": Moved("2026-07", "gen_ai.token.type", "belongs to that histogram"),
}
"""Names of ours that have been replaced there, and that the package still has."""

MCP_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
BOUNDS: Mapping[str, tuple[float, ...]] = {
    "mcp.server.operation.duration": MCP_SECONDS,
    "mcp.server.session.duration": MCP_SECONDS,
    "gen_ai.client.operation.duration": (
        *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64),
        *(1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
    ),
    "gen_ai.client.token.usage": (
        *(1, 4, 16, 64, 256, 1024, 4096, 16384, 65536),
        *(262144, 1048576, 4194304, 16777216, 67108864),
    ),
}
"""As the conventions' prose has them; no package does."""


def constants(module: ModuleType) -> Iterator[str]:
    for name, value in vars(module).items():
        if name.isupper() and isinstance(value, str):
            yield value


def names_of_attributes() -> frozenset[str]:
    """All attributes that the package knows, those that moved to a repository of their own among them."""
    package = importlib.import_module(f"{PACKAGE}.attributes")
    modules = [
        importlib.import_module(found.name) for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
    ]
    return frozenset(name for module in modules for name in constants(module))


KNOWN = names_of_attributes()


class Catalogue(NoOpMeter):
    """Notes the unit of each histogram that is created."""

    def __init__(self) -> None:
        super().__init__("catalogue")
        self.histograms: dict[str, str] = {}

    def create_histogram(self, name: str, unit: str = "", description: str = "", **others: Any) -> Histogram:  # noqa: ANN401  # as its base class
        self.histograms[name] = unit
        return super().create_histogram(name, unit, description, **others)


def known_histograms() -> Mapping[str, str]:
    """Name to unit."""
    catalogue = Catalogue()
    for group in ("mcp", "gen_ai"):
        for name, create in vars(importlib.import_module(f"{PACKAGE}.metrics.{group}_metrics")).items():
            if name.startswith("create_"):
                create(catalogue)
    return catalogue.histograms


def is_known(name: str) -> bool:
    ours = name.startswith(OURS) or name in OURS_ALONE
    return ours or name in KNOWN or name in FOLLOWED or name in ELSEWHERE


@pytest.mark.behaviour("telemetry.conventions")
def test_every_name_of_an_attribute_is_the_conventions_or_ours() -> None:
    told = {*constants(attributes), *constants(conventions)} - {attributes.OTHER, conventions.SCOPE}
    values = {value for name, value in vars(conventions).items() if name.startswith("DROPPED_")}
    assert {name for name in told - values if not is_known(name)} == set()


@pytest.mark.behaviour("telemetry.conventions")
def test_every_metric_of_the_conventions_has_their_unit_instrument_and_bounds() -> None:
    metrics = [value for value in vars(conventions).values() if isinstance(value, Metric)]
    theirs = {metric.name: metric for metric in metrics if not metric.name.startswith(OURS)}
    histograms = known_histograms()
    assert theirs.keys() == BOUNDS.keys()
    assert {name: metric.unit for name, metric in theirs.items()} == {name: histograms[name] for name in theirs}
    assert {name: metric.buckets for name, metric in theirs.items()} == BOUNDS


@pytest.mark.behaviour("telemetry.conventions")
def test_what_has_moved_since_is_what_the_tables_say() -> None:
    """Red when the package has caught up: then what is named here has no place in the tables any more."""
    package = {*KNOWN, *known_histograms()}
    assert {name for name in FOLLOWED if name in package} == set()
    assert {moved.was for moved in FOLLOWED.values()} <= package
    assert NOT_FOLLOWED.keys() <= package
    ours = {*constants(attributes), *constants(conventions), *BOUNDS}
    assert {*FOLLOWED, *NOT_FOLLOWED} <= ours
    assert {moved.was for moved in FOLLOWED.values()}.isdisjoint(ours)


# --- what is told, from outside ---

REQUIRED = {
    "mcp.method.name",
    "mcp.protocol.version",
    "mcp.session.id",
    "jsonrpc.request.id",
    "network.transport",
    "outcome",
}
"""Of every request; the last one is ours."""

FAILED = {"error.type", "rpc.response.status_code"}

REQUIRED_OF_METRICS = {
    "mcp.server.operation.duration": {"mcp.method.name"},
    "gen_ai.client.operation.duration": {"gen_ai.operation.name", "gen_ai.provider.name"},
    "gen_ai.client.token.usage": {"gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.token.type"},
}

SCRIPT = "replies: [{when: {contains: break}, status: 400}]"


def names_told(told: Mapping[str, Any]) -> set[str]:
    return {
        *told["attributes"],
        *told.get("resource", {}),
        *(n for e in told.get("events", ()) for n in e["attributes"]),
    }


LAST = "no cursor"


def talk(server: Server) -> None:
    """Requests of every kind, each named by what it is to show."""
    for message in ("hello", "break"):
        server.call_tool(message, "claude_conversation", {"message": message})
    server.call("unknown tool", "tools/call", {"name": "nobody's", "arguments": {}})
    server.call_tool("bad arguments", "echo", {})
    server.call("prompt", "prompts/get", {"name": "code_review", "arguments": {"code": "x"}})
    server.call("resource", "resources/read", {"uri": "config://server"})
    server.call("no method", "tools/nothing")
    server.call(LAST, "tools/list", {"cursor": "nobody's"})


def requests_of(receiver: Receiver) -> dict[str, ReceivedSpan]:
    """The spans of requests, by the ids of these."""
    spans = [span for span in receiver.spans() if span["kind"] == "SERVER"]
    return {str(span["attributes"]["jsonrpc.request.id"]): span for span in spans}


@pytest.mark.behaviour("telemetry.conventions", "telemetry.request.recorded")
@pytest.mark.parametrize("revision", ["2025-11-25", STATELESS])
def test_what_arrives_has_what_the_conventions_require_and_no_other_names(tmp_path: Path, revision: str) -> None:
    with receiving("http") as receiver, fake_claude(SCRIPT) as claude:
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            **claude_at(claude.base_url),
        }
        with serving(tmp_path, env=env) as server:
            server.begin(revision)
            talk(server)
            assert receiver.wait_for(lambda: LAST in requests_of(receiver), DEADLINE)
            server.close_input()
            assert server.wait() == 0
        own = [span for span in receiver.spans() if span["scope"] == conventions.SCOPE]
        points = [point for each in receiver.metrics().values() for point in each]
        events = [record for record in receiver.logs() if record["event"]]  # the others have the fields of the log
        told = {name for each in (*own, *events, *points) for name in names_told(each)}
        assert {name for name in told if not is_known(name)} == set()
        requests = requests_of(receiver)
        requests.pop("init", None)
        had = {name: (span["name"], span["attributes"].keys() - REQUIRED) for name, span in requests.items()}
        assert all(span["attributes"].keys() >= REQUIRED for span in requests.values())
        assert {span["attributes"]["network.transport"] for span in requests.values()} == {"pipe"}
        assert had == {
            "hello": ("tools/call claude_conversation", {"gen_ai.tool.name"}),
            "break": ("tools/call claude_conversation", {"gen_ai.tool.name", "error.type"}),
            "unknown tool": ("tools/call", FAILED),
            "bad arguments": ("tools/call echo", {"gen_ai.tool.name", "error.type"}),
            "prompt": ("prompts/get code_review", {"gen_ai.prompt.name"}),
            "resource": ("resources/read", {"mcp.resource.uri"}),
            "no cursor": ("tools/list", FAILED),
        }
        assert requests["bad arguments"]["attributes"]["error.type"] == "tool_error"
        for metric, required in REQUIRED_OF_METRICS.items():
            assert all(point["attributes"].keys() >= required for point in receiver.metrics()[metric]), metric
        operations = receiver.metrics()["mcp.server.operation.duration"]
        refused = [each for each in operations if each["attributes"].keys() >= FAILED]
        assert {each["attributes"]["mcp.method.name"] for each in refused} == {"tools/call", "tools/list"}
        codes = requests["unknown tool"]["attributes"]
        assert codes["error.type"] == codes["rpc.response.status_code"] == "-32602"

"""What is recorded reaches a TelemetryFlow collector, with nothing set but where it is and the key."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from support.collector import Key, a_collector
from support.otlp import DEADLINE, Receiver, receiving
from support.server import Server, eventually, serving
from support.sizes import later

KEY, OLD_KEY, NO_KEY = Key(), Key(id="tfk_0815"), Key(id="4711")
ODD = (sys.executable, str(Path(__file__).with_name("odd_server.py")), "serve")


def at(endpoint: str, key: Key | None = None) -> dict[str, str]:
    """The variables that TelemetryFlow documents, and no others."""
    opening = {} if key is None else {"TELEMETRYFLOW_API_KEY_ID": key.id, "TELEMETRYFLOW_API_KEY_SECRET": key.secret}
    return {"TELEMETRYFLOW_ENDPOINT": endpoint, **opening}


def call(server: Server, names: list[str]) -> None:
    for name in names:
        assert not server.call_tool(name, "echo", {"message": name})["isError"]


def arrived(receiver: Receiver) -> Counter[str]:
    """How often the span of each tool call has."""
    calls = [span for span in receiver.spans() if span["name"] == "tools/call echo"]
    return Counter(str(span["attributes"]["jsonrpc.request.id"]) for span in calls)


def counted(receiver: Receiver) -> list[float]:
    return [point["value"] for point in receiver.metrics().get("mcp.tools.calls", []) if "value" in point]


def telemetry(server: Server) -> Mapping[str, Any]:
    content = server.call("health", "resources/read", {"uri": "status://health"})["result"]["contents"][0]
    return json.loads(content["text"])["components"]["telemetry"]


def end(server: Server) -> None:
    server.close_input()
    assert server.wait() == 0


@pytest.mark.behaviour("telemetry.telemetryflow", "telemetry.compressed", "telemetry.retried")
@pytest.mark.parametrize(
    ("key", "version", "fails"), [(KEY, "v2", 3), later(KEY, "v2", 0), later(None, "v1", 3), later(None, "v1", 0)]
)
def test_its_http_receiver_gets_everything_once(tmp_path: Path, key: Key | None, version: str, fails: int) -> None:
    names = [f"a{number}" for number in range(20)]
    with a_collector(KEY, fails=fails) as collector:
        # A path, as behind a proxy: like port 4318 it says that this is HTTP.
        with serving(tmp_path, env=at(f"{collector.endpoint}/otlp", key)) as server:
            server.begin("2025-11-25")
            for name in names[:3]:
                call(server, [name])
                assert collector.wait_for(lambda name=name: name in arrived(collector), DEADLINE)
            call(server, names[3:])
            end(server)
        assert arrived(collector) == Counter(names)
        assert len({span["span_id"] for span in collector.spans()}) == len(collector.spans())
        assert counted(collector) == [len(names)]
        assert collector.logs()
        assert {exchange.path.split("/")[2] for exchange in collector.exchanges} == {version}
        encodings = [exchange.encoding for exchange in collector.exchanges]
        assert encodings == ["gzip", *[""] * (len(encodings) - 1)]  # resent at once, and remembered
        statuses = collector.statuses()
        assert (statuses.pop(200) > 0, statuses.pop(400)) == (True, 1)
        assert statuses.keys() == ({500} if fails else set())


@pytest.mark.behaviour("telemetry.telemetryflow")
def test_it_is_told_which_collector_is_meant(tmp_path: Path) -> None:
    with a_collector(KEY) as collector:
        env = {**at(f"{collector.endpoint}/otlp", KEY), "TELEMETRYFLOW_COLLECTOR_ID": "c-7"}
        with serving(tmp_path, env=env) as server:
            server.begin("2025-11-25")
            call(server, ["a"])
            assert collector.wait_for(lambda: "a" in arrived(collector), DEADLINE)
        assert {exchange.collector_id for exchange in collector.exchanges} == {"c-7"}


@pytest.mark.behaviour("telemetry.telemetryflow")
@pytest.mark.parametrize("key", [KEY, later(None)])
def test_its_grpc_receiver_gets_everything_however_much_there_is_at_once(tmp_path: Path, key: Key | None) -> None:
    records = 5000
    with receiving("grpc") as receiver:
        env = {**at(receiver.endpoint, key), "TELEMETRYFLOW_MCP_TELEMETRY_BATCH_SIZE": "10000"}
        with serving(tmp_path, env=env, command=ODD) as server:
            server.begin("2025-11-25")
            call(server, ["a"])
            server.call_tool(1, "log", {"count": records, "said": "x" * 1000})  # more than the 4 MiB that it takes

            def logged() -> int:
                return sum(record["body"].startswith("record ") for record in receiver.logs())

            assert receiver.wait_for(lambda: logged() >= records, DEADLINE)
            assert telemetry(server)["problems"] == []
            end(server)
        assert (arrived(receiver), logged()) == (Counter(["a"]), records)
        sizes = [seen.size for seen in receiver.seen]
        assert sum(sizes) > 4 * 1024 * 1024 > max(sizes) > 1024 * 1024


@pytest.mark.behaviour("telemetry.telemetryflow", "telemetry.retried")
@pytest.mark.parametrize("wrong", [OLD_KEY, later(NO_KEY)])
def test_a_wrong_key_pauses_and_is_said_and_everything_arrives_with_the_right_one(tmp_path: Path, wrong: Key) -> None:
    first, second = [f"a{number}" for number in range(10)], ["b"]
    with a_collector(KEY) as collector:
        endpoint = f"{collector.endpoint}/otlp"
        with serving(tmp_path, env=at(endpoint, wrong), command=ODD) as server:
            server.begin("2025-11-25")
            call(server, first)
            eventually(lambda: bool(telemetry(server)["problems"]))
            told = telemetry(server)
            assert told["status"] == "degraded"
            assert [problem.split(": ")[1] for problem in told["problems"]] == ["401"]
            assert "does not let us send" in server.log()
            # A call that takes as long as some retries of what may pass would: of this there is one attempt.
            server.call_tool("long", "wait", {"seconds": 1.5})
            assert collector.statuses() == {401: 1}
            end(server)
            assert wrong.secret not in server.log()
        assert (arrived(collector), collector.statuses().keys()) == (Counter(), {401})
        with serving(tmp_path, env=at(endpoint, KEY)) as server:
            server.begin("2025-11-25")
            call(server, second)
            assert collector.wait_for(lambda: {*first, *second} == arrived(collector).keys(), DEADLINE)
            eventually(lambda: telemetry(server)["spans_waiting"] == 0)
            assert telemetry(server)["problems"] == []
            end(server)
        assert arrived(collector) == Counter([*first, *second])
        assert sum(counted(collector)) == len([*first, "long", *second])

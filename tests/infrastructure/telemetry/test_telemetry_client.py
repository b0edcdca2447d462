from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from support.otlp import DEADLINE, receiving
from tfo_mcp.domain.session import Session
from tfo_mcp.infrastructure.telemetry.client import (
    TELEMETRY_TRANSITIONS,
    MCPTelemetryClient,
    NullTelemetry,
    TelemetryState,
    make_telemetry,
)
from tfo_mcp.infrastructure.telemetry.options import TelemetryOptions


def telemetry_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("tfo-telemetry")]


@pytest.mark.behaviour("telemetry.client.states")
def test_the_machine_has_the_diagram_s_edges_and_those_of_the_design() -> None:
    edges = {(state.name, following.name) for (state, _), following in TELEMETRY_TRANSITIONS.items()}
    assert edges == {
        ("CREATING", "INITIALIZING"),
        ("INITIALIZING", "READY"),
        ("INITIALIZING", "DISABLED"),
        ("READY", "FLUSHING"),
        ("FLUSHING", "READY"),
        ("READY", "SHUTTING_DOWN"),
        ("SHUTTING_DOWN", "CLOSED"),
        ("INITIALIZING", "SHUTTING_DOWN"),
        ("FLUSHING", "SHUTTING_DOWN"),
    }


@pytest.mark.behaviour("telemetry.client.disabled")
def test_telemetry_that_is_off_is_a_null_object() -> None:
    assert isinstance(make_telemetry(TelemetryOptions(enabled=False)), NullTelemetry)
    assert isinstance(make_telemetry(TelemetryOptions()), MCPTelemetryClient)


@pytest.mark.behaviour("telemetry.client.ready", "telemetry.client.flush", "telemetry.client.shutdown")
def test_a_client_goes_from_initializing_over_ready_to_closed() -> None:
    with receiving("grpc") as receiver:
        client = MCPTelemetryClient(TelemetryOptions(endpoint=receiver.endpoint))
        assert client.state is TelemetryState.INITIALIZING
        client.start()
        client.start()
        assert client.flush(DEADLINE)
        assert client.state is TelemetryState.READY
        assert sorted(telemetry_threads()) == ["tfo-telemetry", "tfo-telemetry-sender"]
        assert client.shutdown(DEADLINE)
        assert client.state is TelemetryState.CLOSED
        assert telemetry_threads() == []
        assert client.shutdown(DEADLINE)
        assert not client.flush(DEADLINE)


@pytest.mark.behaviour("telemetry.client.ready")
def test_a_client_becomes_ready_with_no_collector_in_sight() -> None:
    client = MCPTelemetryClient(TelemetryOptions(endpoint="http://127.0.0.1:1"))
    client.start()
    deadline = time.monotonic() + DEADLINE
    while client.state is TelemetryState.INITIALIZING and time.monotonic() < deadline:
        time.sleep(0.01)
    assert client.state is TelemetryState.READY
    client.shutdown(0.1)


@pytest.mark.behaviour("telemetry.client.failed")
def test_a_client_that_cannot_initialize_is_disabled_and_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)  # as if it were not installed
    client = MCPTelemetryClient(TelemetryOptions(endpoint="http://127.0.0.1:1"))
    client.span("request", "ping").end("completed")
    client.start()
    assert not client.flush(DEADLINE)
    assert client.state is TelemetryState.DISABLED
    assert "telemetry is off: ModuleNotFoundError" in caplog.text
    client.span("request", "ping").end("completed")
    assert client.shutdown(DEADLINE)
    assert client.state is TelemetryState.DISABLED


@pytest.mark.behaviour("telemetry.client.created")
def test_making_a_client_and_recording_imports_nothing_heavy_and_starts_no_thread() -> None:
    program = """
import json, sys, threading
from tfo_mcp.infrastructure.telemetry.client import make_telemetry
from tfo_mcp.infrastructure.telemetry.options import TelemetryOptions
client = make_telemetry(TelemetryOptions(endpoint="http://127.0.0.1:1"))
client.span("request", "ping").end("completed")
client.record_rejected("parse error")
print(json.dumps([sorted({name.partition(".")[0] for name in sys.modules}), threading.active_count()]))
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=60)
    modules, threads = json.loads(done.stdout)
    assert {"opentelemetry", "grpc", "google", "httpx2", "pydantic", "sqlalchemy"}.isdisjoint(modules)
    assert threads == 1


@pytest.mark.behaviour("telemetry.client.created")
def test_what_was_recorded_before_the_start_is_exported_after_it() -> None:
    with receiving("http") as receiver:
        client = MCPTelemetryClient(TelemetryOptions(endpoint=receiver.endpoint, protocol="http"))
        client.span("request", "initialize").end("completed")
        client.start()
        assert client.flush(DEADLINE)
        assert [span["name"] for span in receiver.spans()] == ["initialize"]
        client.shutdown(DEADLINE)


def test_a_shutdown_without_a_start_still_exports_what_waits() -> None:
    with receiving("http") as receiver:
        client = MCPTelemetryClient(TelemetryOptions(endpoint=receiver.endpoint, protocol="http"))
        client.span("request", "initialize").end("completed")
        assert client.shutdown(DEADLINE)
        assert [span["name"] for span in receiver.spans()] == ["initialize"]
        assert client.state is TelemetryState.CLOSED


def test_a_shutdown_with_nothing_to_export_starts_nothing() -> None:
    with receiving("http") as receiver:
        assert MCPTelemetryClient(TelemetryOptions(endpoint=receiver.endpoint, protocol="http")).shutdown(DEADLINE)
        assert receiver.seen == []


@pytest.mark.behaviour("telemetry.unasked")
def test_without_an_endpoint_everything_works_and_nothing_is_encoded() -> None:
    client = MCPTelemetryClient(TelemetryOptions())
    client.start()
    client.span("request", "ping").end("completed")
    assert client.flush(DEADLINE)
    assert telemetry_threads() == ["tfo-telemetry"]
    assert client.shutdown(DEADLINE)
    client.span("request", "late").end("completed")


@pytest.mark.behaviour("telemetry.client.flush", "telemetry.client.shutdown")
def test_a_shutdown_overtakes_a_flush() -> None:
    with receiving("grpc") as receiver:
        endpoint = receiver.endpoint
    client = MCPTelemetryClient(TelemetryOptions(endpoint=endpoint))
    client.start()
    client.span("request", "ping").end("completed")
    flushed: list[bool] = []
    flush = threading.Thread(target=lambda: flushed.append(client.flush(2.0)))
    flush.start()
    deadline = time.monotonic() + DEADLINE
    while client.state is not TelemetryState.FLUSHING and time.monotonic() < deadline:
        time.sleep(0.001)
    assert not client.shutdown(0.2)
    flush.join(DEADLINE)
    assert flushed == [False]
    assert client.state is TelemetryState.CLOSED


@pytest.mark.behaviour("session.measured")
def test_sessions_count_in_and_out_and_leave_their_duration() -> None:
    session = Session()
    session.initialize(protocol_version="2025-11-25", client_name="test", client_version="1")
    with receiving("http") as receiver:
        client = MCPTelemetryClient(TelemetryOptions(endpoint=receiver.endpoint, protocol="http"))
        client.start()
        client.record_session_event("initialized", session)
        assert client.flush(DEADLINE)
        assert receiver.metrics() == {"tfo.mcp.sessions.active": [{"attributes": {}, "value": 1}]}
        client.record_session_event("closed", session)
        assert client.shutdown(DEADLINE)
        metrics = receiver.metrics()
        assert metrics["tfo.mcp.sessions.active"] == [{"attributes": {}, "value": 0}]
        (duration,) = metrics["mcp.server.session.duration"]
        assert (duration["attributes"], duration.get("count")) == ({"mcp.protocol.version": "2025-11-25"}, 1)
        assert receiver.spans() == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_idle_client_does_not_wake_up() -> None:
    with receiving("http") as receiver:
        client = MCPTelemetryClient(
            TelemetryOptions(endpoint=receiver.endpoint, protocol="http", metric_interval=0.01, export_delay=0.01)
        )
        client.start()
        client.span("request", "ping").end("completed")
        assert client.flush(DEADLINE)
        before = wake_ups_once_quiet()
        threading.Event().wait(0.5)  # what is under test is that nothing happens meanwhile
        assert wake_ups() == before
        client.shutdown(DEADLINE)


def wake_ups() -> dict[str, str]:
    """Thread name to how often the thread gave up the processor of its own accord, and so woke up again."""
    counts: dict[str, str] = {}
    for thread in threading.enumerate():
        if thread.name.startswith("tfo-telemetry"):
            status = Path(f"/proc/self/task/{thread.native_id}/status").read_text("ascii")
            counts[thread.name] = status.split("voluntary_ctxt_switches:")[1].split()[0]
    return counts


def wake_ups_once_quiet() -> dict[str, str]:
    deadline = time.monotonic() + DEADLINE
    last = wake_ups()
    while time.monotonic() < deadline:
        time.sleep(0.2)
        if (now := wake_ups()) == last:
            return now
        last = now
    pytest.fail("the client never came to rest")

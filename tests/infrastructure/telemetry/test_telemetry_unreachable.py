from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Literal

import pytest

from support.otlp import black_hole, free_port
from support.sizes import later
from tfo_mcp.infrastructure.telemetry.client import MCPTelemetryClient, TelemetryState
from tfo_mcp.infrastructure.telemetry.options import TelemetryOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

Wire = Literal["grpc", "http"]


@contextmanager
def refusing() -> Generator[str]:
    """An endpoint where nobody listens."""
    yield f"http://127.0.0.1:{free_port()}"


@contextmanager
def full_backlog() -> Generator[str]:
    """An endpoint whose connections are never completed: its backlog is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for client in waiting:
            client.setblocking(False)  # noqa: FBT003  # its signature
            client.connect_ex(listener.getsockname())
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for client in waiting:
                client.close()


UNREACHABLE = pytest.mark.parametrize(
    ("wire", "collector"),
    [
        ("grpc", black_hole),
        ("grpc", full_backlog),
        ("http", black_hole),
        ("http", refusing),
        later("grpc", refusing),
        later("http", full_backlog),
    ],
)
BOTH = pytest.mark.parametrize("wire", ["grpc", "http"])


@pytest.mark.behaviour("telemetry.never-waits", "telemetry.client.shutdown")
@UNREACHABLE
def test_a_shutdown_ends_within_its_budget_whatever_the_collector_does(
    wire: Wire, collector: Callable[[], AbstractContextManager[str]], caplog: pytest.LogCaptureFixture
) -> None:
    with collector() as endpoint:
        client = MCPTelemetryClient(TelemetryOptions(endpoint=endpoint, protocol=wire, timeout=2, export_delay=0.0))
        client.start()
        client.span("request", "ping").end("completed")
        assert not client.flush(0.3)  # by now an attempt is under way
        started = time.monotonic()
        assert not client.shutdown(0.8)
        assert time.monotonic() - started < 1.2
        assert client.state is TelemetryState.CLOSED
        assert "shut down before the collector took 1 spans" in caplog.text


@UNREACHABLE
def test_the_process_exits_at_once_after_a_shutdown(
    wire: Wire, collector: Callable[[], AbstractContextManager[str]]
) -> None:
    program = """
import sys, time
from tfo_mcp.infrastructure.telemetry.client import MCPTelemetryClient
from tfo_mcp.infrastructure.telemetry.options import TelemetryOptions
client = MCPTelemetryClient(TelemetryOptions(endpoint=sys.argv[1], protocol=sys.argv[2], timeout=30, export_delay=0.0))
client.start()
client.span("request", "ping").end("completed")
client.flush(0.5)
started = time.monotonic()
client.shutdown(0.5)
print(time.monotonic() - started, flush=True)
"""
    with collector() as endpoint:
        arguments = [sys.executable, "-c", program, endpoint, wire]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            shutdown_took = float(process.stdout.readline())
            printed = time.monotonic()
            assert process.wait(20) == 0
            assert time.monotonic() - printed < 1.0
            assert shutdown_took < 0.9


@pytest.mark.behaviour("telemetry.never-waits")
@BOTH
def test_recording_never_waits_for_a_collector_that_hangs(wire: Wire) -> None:
    with black_hole() as endpoint:
        client = MCPTelemetryClient(TelemetryOptions(endpoint=endpoint, protocol=wire, timeout=1, ring_capacity=1000))
        client.start()
        longest = 0.0
        for _ in range(5000):
            started = time.perf_counter()
            client.span("request", "ping").end("completed")
            longest = max(longest, time.perf_counter() - started)
        client.shutdown(0.2)
        assert longest < 0.5

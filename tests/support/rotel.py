"""A real collector: rotel, which passes everything on over HTTP."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import pytest

from support.otlp import DEADLINE, Receiver, free_port


def rotel_agent() -> str:
    spec = find_spec("rotel")
    if spec is None or spec.origin is None:
        pytest.skip("rotel has no wheel for this platform")
    return shutil.which("rotel-agent", path=Path(spec.origin).parent) or "rotel-agent"


def wait_until_listening(port: int) -> None:
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    pytest.fail("rotel does not listen")


@contextmanager
def collector_before(receiver: Receiver, protocol: Literal["grpc", "http"], log: Path) -> Generator[str]:
    """The endpoint of a rotel that passes everything on to `receiver`."""
    grpc_port, http_port = free_port(), free_port()
    arguments = [
        *(rotel_agent(), "start"),
        *("--otlp-grpc-endpoint", f"127.0.0.1:{grpc_port}"),
        *("--otlp-http-endpoint", f"127.0.0.1:{http_port}"),
        *("--exporter", "otlp", "--otlp-exporter-protocol", "http"),
        *("--otlp-exporter-endpoint", receiver.endpoint),
        *("--batch-timeout", "200ms"),
    ]
    with log.open("wb") as output, subprocess.Popen(arguments, stdout=output, stderr=output) as process:
        try:
            port = grpc_port if protocol == "grpc" else http_port
            wait_until_listening(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()

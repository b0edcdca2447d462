"""OTLP receivers for tests: gRPC and HTTP, both able to misbehave, and sockets that never answer."""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from typing import Any, Literal

from tfo_mcp.infrastructure.otlp_receiver import OtlpReceiver, OtlpStore

DEADLINE = 20.0
"""Seconds that anything may take which should happen at once."""


@dataclass(frozen=True)
class Seen:
    """One request as it arrived, before it was answered. Header names in lower case."""

    path: str
    headers: dict[str, str]
    size: int


@dataclass(frozen=True)
class Reply:
    """An answer other than 200 or OK: an HTTP status as a number, a gRPC status by its name."""

    status: int | str
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""


class GrpcReceiver(OtlpReceiver):
    """Answers with `replies` first, one each, then takes what comes."""

    def __init__(self, replies: Sequence[Reply] = ()) -> None:
        super().__init__()
        self.replies = list(replies)
        self.seen: list[Seen] = []

    def _take_traces(self, body: bytes, context: Any) -> bytes:  # noqa: ANN401  # grpc's, without a type
        return self._reply("/v1/traces", body, context) or super()._take_traces(body, context)

    def _take_metrics(self, body: bytes, context: Any) -> bytes:  # noqa: ANN401  # grpc's, without a type
        return self._reply("/v1/metrics", body, context) or super()._take_metrics(body, context)

    def _take_logs(self, body: bytes, context: Any) -> bytes:  # noqa: ANN401  # grpc's, without a type
        return self._reply("/v1/logs", body, context) or super()._take_logs(body, context)

    def _reply(self, path: str, body: bytes, context: Any) -> bytes:  # noqa: ANN401  # as above
        with self._changed:
            self.seen.append(Seen(path, dict(context.invocation_metadata()), len(body)))
            self._changed.notify_all()
        if not self.replies:
            return b""
        reply = self.replies.pop(0)
        if reply.status != "OK":
            context.abort(getattr(import_module("grpc").StatusCode, str(reply.status)), "as the test said")
        return reply.body


class HttpReceiver(OtlpStore):
    """Answers with `replies` first, one each, then takes what comes.

    Args:
        reads_gzip: without it, it does what TelemetryFlow's collector does: 400 to a compressed body.
    """

    def __init__(self, replies: Sequence[Reply] = (), *, reads_gzip: bool = True) -> None:
        super().__init__()
        self.replies = list(replies)
        self.reads_gzip = reads_gzip
        self.seen: list[Seen] = []
        self.endpoint = ""
        self._stopped = False

    def start(self, port: int = 0) -> str:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if receiver._stopped:  # connections that were kept alive end as if it had been killed
                    self.close_connection = True
                    return
                headers = {name.lower(): value for name, value in self.headers.items()}
                reply = receiver.answer(self.path, headers, body)
                self.send_response(int(reply.status))
                for name, value in {**reply.headers, "content-length": str(len(reply.body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name upstream
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        return self.endpoint

    def stop(self) -> None:
        self._stopped = True
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> Reply:
        with self._changed:
            self.seen.append(Seen(path, headers, len(body)))
            self._changed.notify_all()
        if self.replies:
            return self.replies.pop(0)
        if headers.get("content-encoding") == "gzip":
            if not self.reads_gzip:
                return Reply(400)
            body = gzip.decompress(body)
        take = {"traces": self.add_traces, "metrics": self.add_metrics, "logs": self.add_logs}.get(
            path.rsplit("/", 1)[-1]
        )
        if take is None:
            return Reply(404)
        return Reply(200, {"content-type": "application/x-protobuf"}, take(body))


Receiver = GrpcReceiver | HttpReceiver


@contextmanager
def receiving(
    protocol: Literal["grpc", "http"], replies: Sequence[Reply] = (), *, port: int = 0, reads_gzip: bool = True
) -> Generator[Receiver]:
    """A receiver that has been started, for as long as the block runs."""
    receiver = GrpcReceiver(replies) if protocol == "grpc" else HttpReceiver(replies, reads_gzip=reads_gzip)
    receiver.start(port)
    try:
        yield receiver
    finally:
        receiver.stop()


def free_port() -> int:
    """A port on the loopback that nobody listens on, most likely still so when it is used."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def black_hole() -> Generator[str]:
    """An endpoint that takes connections, by the kernel's hand, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"

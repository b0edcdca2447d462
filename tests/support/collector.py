"""A model of the TelemetryFlow collector, as its version 1.2.2 treats what it is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from support.otlp import HttpReceiver, Reply


@dataclass(frozen=True)
class Key:
    """What opens `/v2/`: header names and what their values begin with are the collector's own."""

    id: str = "tfk_4711"
    secret: str = "tfs_4712"  # noqa: S105  # nobody's

    def opens(self, headers: dict[str, str]) -> bool:
        sent = (headers.get("x-telemetryflow-key-id", ""), headers.get("x-telemetryflow-key-secret", ""))
        return sent == (self.id, self.secret) and self.id.startswith("tfk_") and self.secret.startswith("tfs_")


@dataclass(frozen=True)
class Exchange:
    """One request as it was answered. `encoding` is empty where it had none."""

    path: str
    encoding: str
    collector_id: str
    status: int


class TelemetryFlowCollector(HttpReceiver):
    """Its HTTP receiver: `/v1/{signal}` is open, `/v2/{signal}` wants the key.

    It ignores Content-Encoding: a compressed body is a malformed one, 400, and is not kept. Its gRPC receiver knows
    neither keys nor a way to fail that gRPC itself has not; `GrpcReceiver` is like it, 4 MiB included.

    Args:
        fails: after so many requests that it could have taken, the next one is answered with 500 because what stands
            behind it is down; 0: never.
    """

    def __init__(self, key: Key, *, fails: int = 0) -> None:
        super().__init__()
        self._key = key
        self._fails = fails
        self._read = 0
        self.exchanges: list[Exchange] = []

    def statuses(self) -> Counter[int]:
        """How often it answered how."""
        return Counter(exchange.status for exchange in self.exchanges)

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> Reply:
        reply = self._reply(path, headers, body)
        encoding = headers.get("content-encoding", "")
        collector_id = headers.get("x-telemetryflow-collector-id", "")
        with self._changed:
            self.exchanges.append(Exchange(path, encoding, collector_id, int(reply.status)))
            self._changed.notify_all()
        return reply

    def _reply(self, path: str, headers: dict[str, str], body: bytes) -> Reply:
        if "/v2/" in path and not self._key.opens(headers):
            return Reply(401)
        if self._fails and self._read and self._read % self._fails == 0:
            self._read += 1
            return Reply(500)
        plain = {name: value for name, value in headers.items() if name != "content-encoding"}
        try:
            reply = super().answer(path, plain, body)
        except DecodeError:
            return Reply(400)
        self._read += 1
        return reply


@contextmanager
def a_collector(key: Key | None = None, *, fails: int = 0) -> Generator[TelemetryFlowCollector]:
    """One that has been started, for as long as the block runs."""
    collector = TelemetryFlowCollector(key or Key(), fails=fails)
    collector.start()
    try:
        yield collector
    finally:
        collector.stop()

"""One attempt to hand a request to the collector, over gRPC or HTTP, and what its answer means.

Imported on the pipeline's thread only. Which answers deserve another attempt: the OTLP specification, "Failures",
and beyond it any 5xx and UNKNOWN, because TelemetryFlow's collector answers so while what stands behind it is down.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib import import_module
from typing import Any, Literal, Protocol

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from tfo_mcp.infrastructure.telemetry.options import Target, TelemetryOptions
from tfo_mcp.infrastructure.telemetry.spool_file import Signal

MAX_RETRY_AFTER = 60.0
"""Seconds that a collector may make us wait; what it asks beyond is not honoured."""

_MAX_ANSWER = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an attempt.

    Attributes:
        verdict: `refused` is for good; `unauthorized` until somebody sets another key, here or there.
        code: the HTTP status, gRPC status or error that says why, from a bounded set; empty where delivered.
        detail: the collector's own words, for the log.
        refused_items: spans or log records of a delivered request that the collector did not take.
        retry_after: seconds it asked for.
    """

    verdict: Literal["delivered", "retry", "unauthorized", "refused"]
    code: str = ""
    detail: str = ""
    refused_items: int = 0
    retry_after: float | None = None


class Transport(Protocol):
    """Used by one thread, except for `abort`."""

    def send(self, signal: Signal, body: bytes, timeout: float) -> Answer:
        """Make one attempt within about `timeout` seconds. Never raises for what the network does."""
        ...

    def abort(self) -> None:
        """End an attempt under way, from another thread, as far as that can be done."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


def connect(options: TelemetryOptions, target: Target) -> Transport:
    """The transport that `options` asks for. Imports its library; opens no connection yet."""
    return (GrpcTransport if options.protocol == "grpc" else HttpTransport)(options, target)


def _delivered(signal: Signal, body: bytes) -> Answer:
    """A success may be a partial one."""
    try:
        if signal == "metrics":
            said = ExportMetricsServiceResponse.FromString(body).partial_success.error_message
            return Answer("delivered", detail=said)
        if signal == "logs":
            logs = ExportLogsServiceResponse.FromString(body).partial_success
            return Answer("delivered", detail=logs.error_message, refused_items=logs.rejected_log_records)
        spans = ExportTraceServiceResponse.FromString(body).partial_success
        return Answer("delivered", detail=spans.error_message, refused_items=spans.rejected_spans)
    except DecodeError:  # what it said beside its success is not worth a failure
        return Answer("delivered")


# --- gRPC --------------------------------------------------------------------------------------------

_GRPC_METHODS: Mapping[Signal, str] = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
_GRPC_RETRY = frozenset(
    {"UNAVAILABLE", "UNKNOWN", "CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "DATA_LOSS"}
)
_GRPC_UNAUTHORIZED = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})


class GrpcTransport:
    """OTLP over gRPC, with ready bytes."""

    def __init__(self, options: TelemetryOptions, target: Target) -> None:
        self._grpc: Any = import_module("grpc")  # it ships no types
        channel_options = [
            ("grpc.enable_retries", 0),  # the sender's loop is the only one
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 1000),
            ("grpc.max_reconnect_backoff_ms", 1000),  # or it would fail fast long after the collector is back
        ]
        compression = self._grpc.Compression.Gzip if options.compression else self._grpc.Compression.NoCompression
        if target.tls:
            credentials = self._grpc.ssl_channel_credentials()
            self._channel: Any = self._grpc.secure_channel(target.authority, credentials, channel_options, compression)
        else:
            self._channel = self._grpc.insecure_channel(target.authority, channel_options, compression)
        self._metadata = tuple(options.all_headers().items())
        self._calls = {signal: self._channel.unary_unary(method) for signal, method in _GRPC_METHODS.items()}

    def send(self, signal: Signal, body: bytes, timeout: float) -> Answer:
        """One call."""
        try:
            return _delivered(signal, self._calls[signal](body, timeout=timeout, metadata=self._metadata))
        except self._grpc.RpcError as error:
            code = str(error.code().name)
            # RESOURCE_EXHAUSTED is worth a retry only if the collector says when; otherwise the request is too large.
            trailers: dict[str, Any] = dict(error.trailing_metadata() or ())
            told = b"google.rpc.RetryInfo" in trailers.get("grpc-status-details-bin", b"")
            if code in _GRPC_UNAUTHORIZED:
                return Answer("unauthorized", code, (error.details() or ""))
            again = code in _GRPC_RETRY or (code == "RESOURCE_EXHAUSTED" and told)
            return Answer("retry" if again else "refused", code, (error.details() or ""))

    def abort(self) -> None:
        """Cancels the call under way."""
        self._channel.close()

    def close(self) -> None:
        """Closes the channel; a second time does nothing."""
        self._channel.close()


# --- HTTP --------------------------------------------------------------------------------------------


_GZIP_LEVEL = 1
"""A third of what the usual 6 costs, and telemetry, which repeats itself, is but a fifteenth larger by it."""

_HTTP_RETRY = frozenset({408, 429})
"""Besides every 5xx."""
_HTTP_UNAUTHORIZED = frozenset({401, 403})


class HttpTransport:
    """OTLP as protobuf over HTTP: `/v1/{signal}`, or TelemetryFlow's `/v2/{signal}` with a key."""

    def __init__(self, options: TelemetryOptions, target: Target) -> None:
        import httpx2

        self._httpx = httpx2
        self._client = httpx2.Client(headers={**options.all_headers(), "content-type": "application/x-protobuf"})
        self._base = f"{target.url}/{'v2' if options.authenticated else 'v1'}"
        self._compress = options.compression

    def send(self, signal: Signal, body: bytes, timeout: float) -> Answer:
        """One request; a second, uncompressed, where the collector cannot read the first.

        TelemetryFlow's HTTP receiver ignores Content-Encoding and finds such a body malformed.
        """
        compressed = self._compress
        answer = self._post(signal, body, timeout, compress=compressed)
        if compressed and answer.code in {"400", "415"}:
            answer = self._post(signal, body, timeout, compress=False)
            self._compress = answer.verdict != "delivered"
        return answer

    def abort(self) -> None:
        """Nothing: a socket cannot be taken from the thread that reads it. The attempt ends at its timeout."""

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def _post(self, signal: Signal, body: bytes, timeout: float, *, compress: bool) -> Answer:
        headers = {"content-encoding": "gzip"} if compress else {}
        content = gzip.compress(body, _GZIP_LEVEL) if compress else body
        try:
            with self._client.stream(
                "POST", f"{self._base}/{signal}", content=content, headers=headers, timeout=timeout
            ) as response:
                small = response.headers.get("content-length", "").isdecimal() and (
                    int(response.headers["content-length"]) <= _MAX_ANSWER
                )
                text = response.read() if small else b""
                retry_after = response.headers.get("retry-after")
        except self._httpx.TransportError as error:
            return Answer("retry", type(error).__name__, str(error))
        if response.is_success:
            return _delivered(signal, text)
        if response.status_code in _HTTP_UNAUTHORIZED:
            return Answer("unauthorized", str(response.status_code))
        again = response.is_server_error or response.status_code in _HTTP_RETRY
        return Answer("retry" if again else "refused", str(response.status_code), retry_after=_seconds(retry_after))


def _seconds(retry_after: str | None) -> float | None:
    """RFC 9110, 10.2.3: a number of seconds or a date."""
    if retry_after is None:
        return None
    if retry_after.isdecimal():
        seconds = float(retry_after)
    else:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)

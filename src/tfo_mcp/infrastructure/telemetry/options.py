"""What the telemetry client is told, and how the `telemetry` settings become that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from tfo_mcp import __version__
from tfo_mcp.infrastructure.config import ConfigurationError, Settings, changed_settings
from tfo_mcp.infrastructure.config.environment import RESOURCE_SETTINGS
from tfo_mcp.infrastructure.redaction import Redaction
from tfo_mcp.infrastructure.telemetry.contents import ContentRedaction

Protocol = Literal["grpc", "http/protobuf", "http"]
Durability = Literal["process", "power"]


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send: `host:port`, and for HTTP the path before `/v1/…`."""

    authority: str
    path: str
    tls: bool

    @property
    def url(self) -> str:
        """The base URL over HTTP."""
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecorderOptions:
    """What is kept, and for how long.

    Attributes:
        path: of `telemetry.db`.
        days: that single operations are kept.
        summary_days: that their counts by the minute are.
        max_bytes: of all of it; the oldest make room.
        settings: those in force that are not at their defaults, fit to be shown: name to value.
    """

    path: Path
    days: float
    summary_days: float
    max_bytes: int
    settings: Mapping[str, object]


_SETTINGS_OF_HEADERS = {
    "x-telemetryflow-key-id": "telemetry.api_key_id",
    "x-telemetryflow-key-secret": "telemetry.api_key_secret",
    "x-telemetryflow-collector-id": "telemetry.collector_id",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryOptions:
    """Everything that the telemetry client reads. Its repr shows no header and no key.

    Attributes:
        enabled: whether anything is recorded at all.
        endpoint: the collector, `http(s)://host:port` or `host:port`; without it nothing is ever sent.
        protocol: "http" is short for "http/protobuf".
        insecure: whether to send without TLS; None for what the endpoint's scheme says, and TLS without one.
        headers: sent with every export.
        key_id, key_secret, collector_id: TelemetryFlow's; with id and secret, HTTP goes to `/v2/…`.
        compression: gzip or nothing.
        timeout: seconds for one attempt to export.
        instance_id: None for a random one per process.
        resource_attributes: beside those that have an option of their own, which are stronger.
        logs: whether what is logged goes out too.
        redact: what a logged text becomes before it goes out.
        recorder: what this machine keeps by itself; None: nothing.
        contents: what becomes of arguments, results and messages; None: they are not even looked at.
        max_traces_per_second: local roots whose spans go out; 0: all.
        ring_capacity: records that may wait for the pipeline.
        batch_size: spans or log records in one export at most.
        spool: the file in which what is encoded waits for the collector; None: in memory.
        spool_bytes, spool_age: bytes and seconds of what may wait.
        dead_bytes: of what the collector refused for good, which is kept.
        durability: what a commit to the spool survives: the end of the process, or that of the power too.
        export_delay: seconds that those wait for others, to share an export.
        metric_interval: seconds between two exports of metrics; nothing new, no export.
        retry_initial, retry_max: seconds of the backoff between attempts.

    Raises:
        ValueError: an endpoint, header or key that can never work; its text holds no secret.
    """

    enabled: bool = True
    endpoint: str | None = None
    protocol: Protocol = "grpc"
    insecure: bool | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    key_id: str | None = field(default=None, repr=False)
    key_secret: str | None = field(default=None, repr=False)
    collector_id: str | None = field(default=None, repr=False)
    compression: bool = True
    timeout: float = 10.0
    service_name: str = "tfo-mcp"
    service_version: str = ""
    namespace: str | None = None
    environment: str | None = None
    instance_id: str | None = None
    resource_attributes: Mapping[str, str] = field(default_factory=dict[str, str])
    logs: bool = True
    redact: Callable[[str], str] = field(default=str, repr=False)
    recorder: RecorderOptions | None = None
    contents: ContentRedaction | None = None
    max_traces_per_second: float = 0.0
    ring_capacity: int = 8192
    batch_size: int = 2048
    spool: Path | None = None
    spool_bytes: int = 16 * 1024 * 1024
    spool_age: float = 7 * 86_400.0
    dead_bytes: int = 16 * 1024 * 1024
    durability: Durability = "process"
    export_delay: float = 1.0
    metric_interval: float = 10.0
    retry_initial: float = 0.5
    retry_max: float = 30.0

    def __post_init__(self) -> None:
        """Refuse early what the sender could only fail with later."""
        self.target()
        for name, value in self.all_headers().items():
            if not (name.isascii() and name.replace("-", "").replace("_", "").replace(".", "").isalnum()):
                raise ValueError("telemetry.headers: a header's name has letters, digits, '-', '_' and '.' only")
            if not (value.isascii() and value.isprintable()):
                setting = _SETTINGS_OF_HEADERS.get(name, "telemetry.headers")
                raise ValueError(f"{setting}: the value for header {name!r} may hold printable ASCII only")

    def target(self) -> Target | None:
        """The endpoint, taken apart; None where there is none."""
        if not self.endpoint:
            return None
        given = self.endpoint if "://" in self.endpoint else f"//{self.endpoint}"
        try:
            parts = urlsplit(given)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError(f"telemetry.endpoint is not an address: {error}") from error
        if port == 0:
            raise ValueError("telemetry.endpoint is not an address: nothing listens on port 0")
        if parts.username is not None or parts.password is not None:
            raise ValueError("telemetry.endpoint may hold no user name or password; use telemetry.headers")
        if parts.scheme not in {"", "http", "https"} or not host or parts.query or parts.fragment:
            raise ValueError(f"telemetry.endpoint must look like http://host:port, not {self.endpoint!r}")
        if self.protocol == "grpc" and parts.path.strip("/"):
            raise ValueError(f"telemetry.endpoint may have no path with gRPC, but is {self.endpoint!r}")
        tls = parts.scheme != "http" if self.insecure is None else not self.insecure
        if parts.scheme and tls != (parts.scheme == "https"):
            raise ValueError(f"telemetry.endpoint says {parts.scheme}:// but telemetry.insecure says otherwise")
        default = 4317 if self.protocol == "grpc" else 4318
        host = f"[{host}]" if ":" in host else host
        return Target(f"{host}:{port or default}", parts.path.rstrip("/"), tls)

    @property
    def keeps(self) -> bool:
        """Whether anything that is recorded goes anywhere but into counts."""
        return bool(self.endpoint) or self.recorder is not None

    @property
    def authenticated(self) -> bool:
        """Whether TelemetryFlow's key is complete."""
        return bool(self.key_id and self.key_secret)

    def all_headers(self) -> dict[str, str]:
        """The headers of every export, TelemetryFlow's among them; names in lower case, as gRPC wants them."""
        ours = {
            "x-telemetryflow-key-id": self.key_id,
            "x-telemetryflow-key-secret": self.key_secret,
            "x-telemetryflow-collector-id": self.collector_id,
        }
        extra = {name.strip().lower(): value.strip() for name, value in self.headers.items()}
        return extra | {name: value for name, value in ours.items() if value}


def telemetry_options(settings: Settings) -> TelemetryOptions:
    """What `settings.telemetry` asks for.

    Raises:
        ConfigurationError: settings that are right each, but can never work together; one sentence.
    """
    told = settings.telemetry
    redact = Redaction(settings)
    for name, setting in RESOURCE_SETTINGS.items():
        if name in told.resource_attributes:
            raise ConfigurationError(f"telemetry.resource_attributes: {name} is set with {setting}")
    try:
        contents = ContentRedaction(redact, told.redact_patterns, told.content_length)  # wrong ones are told of early
        return TelemetryOptions(
            enabled=told.enabled,
            endpoint=told.endpoint,
            protocol=told.export_protocol,
            insecure=told.export_insecure,
            headers={name: value.reveal() for name, value in told.headers.items()},
            key_id=told.api_key_id.reveal() or None,
            key_secret=told.api_key_secret.reveal() or None,
            collector_id=told.collector_id,
            compression=told.compression,
            timeout=told.timeout,
            service_name=told.service_name,
            service_version=__version__,
            namespace=told.service_namespace,
            environment=told.environment,
            resource_attributes=told.resource_attributes,
            logs=told.logs,
            recorder=_recorder(settings),
            redact=redact,
            contents=contents if told.capture_content else None,
            max_traces_per_second=told.max_traces_per_second,
            ring_capacity=told.ring_capacity,
            batch_size=told.batch_size,
            spool=settings.storage.spool,
            spool_bytes=told.spool_bytes,
            spool_age=told.spool_days * 86_400,
            dead_bytes=told.dead_bytes,
            durability=told.durability,
            metric_interval=told.metric_interval,
        )
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def _recorder(settings: Settings) -> RecorderOptions | None:
    told = settings.telemetry
    if not told.recorder:
        return None
    return RecorderOptions(
        path=settings.storage.recorder,
        days=told.recorder_days,
        summary_days=told.summary_days,
        max_bytes=told.recorder_bytes,
        settings=changed_settings(settings),
    )

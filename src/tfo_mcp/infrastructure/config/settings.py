"""Every setting: its type, range, default and meaning, in one place.

`docs/reference/settings.md` is this file as a table, and the sentence of an error says the range that stands
here. A setting stands here only when code reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_type_hints

import msgspec
from msgspec import Meta

from tfo_mcp.infrastructure.config.prices import ModelPrices, PriceSettings

_KIB = 1024
_MIB = 1024 * _KIB
_GIB = 1024 * _MIB

_URL = r"\A(?i:https?)://[^\s/?#@]+(?:/[^\s?#@]*)?\Z"
_ENDPOINT = r"\A(?:(?i:https?)://)?(?:\[[0-9A-Fa-f:.]+\]|[^\s/?#@:\[\]]+)(?::[0-9]{1,5})?(?:/[^\s?#@]*)?\Z"
_ENDPOINT_PARTS = re.compile(r"(?:(?P<scheme>\w+)://)?(?P<host>\[.+\]|[^:/]+)(?::(?P<port>\d+))?(?P<path>/.*)?")

_Url = Annotated[str, Meta(pattern=_URL, title="a URL such as https://host/path, without a user or password")]
_Endpoint = Annotated[
    str,
    Meta(pattern=_ENDPOINT, title="host:port or a URL such as https://host:4318, without a user or password"),
]
_Days = Annotated[int, Meta(ge=1, le=36_500)]
_Program = Annotated[str, Meta(pattern=r"\A(?:/[^\x00]*)?[^/\x00]+\Z")]
_Region = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9-]+\Z", title="a name of letters, digits and `-`")]
Protocol = Literal["grpc", "http/protobuf"]


class ConfigurationError(Exception):
    """The server cannot be run as it was told to; `str(error)` is one sentence, free of secrets."""


class Secret:
    """A text that shows itself to nobody but the caller of `reveal()`; false when it is empty."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "***" if self._text else ""

    def __bool__(self) -> bool:
        return bool(self._text)


def user_state_folder() -> Path:
    """The platform's folder for a user's data.

    Raises:
        RuntimeError: the user has no home folder.
    """
    import platformdirs

    return platformdirs.user_data_path("tfo-mcp", appauthor=False)


class ServerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: Annotated[str, Meta(min_length=1, max_length=200, description="What the server calls itself.")] = (
        "TelemetryFlow-MCP"
    )
    shutdown_timeout: Annotated[
        float,
        Meta(gt=0, le=30, description="Seconds from the end of input or a signal to the exit, at most."),
    ] = 1.8


_Budget = Annotated[int, Meta(ge=1, le=1_000_000_000_000)]


class BudgetSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    turn: Annotated[
        _Budget | None,
        Meta(
            description="Tokens, from the cache or not, that one turn may take; what would take more is not sent. "
            "Not set: no limit."
        ),
    ] = None
    conversation: Annotated[_Budget | None, Meta(description="The same of one conversation. Not set: no limit.")] = None
    day: Annotated[
        _Budget | None, Meta(description="The same of all conversations within a day in UTC. Not set: no limit.")
    ] = None


class ClaudeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    provider: Annotated[
        Literal["anthropic", "bedrock", "vertex"],
        Meta(
            description="Who is asked. `bedrock` and `vertex` need the extra of that name, have credentials by the "
            "means of their cloud, and know models by names of their own."
        ),
    ] = "anthropic"
    api_key: Annotated[
        Secret,
        Meta(title="text", description="Anthropic API key. Without one the server runs, and Claude tools say so."),
    ] = Secret("")
    default_model: Annotated[
        str, Meta(min_length=1, description="Model of a conversation whose caller names none.")
    ] = "claude-sonnet-5-5"
    max_tokens: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Tokens that one answer may have where its caller says nothing.")
    ] = 4096
    timeout: Annotated[float, Meta(gt=0, le=3600, description="Seconds that the API may be silent.")] = 120.0
    turn_timeout: Annotated[
        float, Meta(gt=0, le=86_400, description="Seconds that one turn may take, its tool calls included.")
    ] = 600.0
    max_retries: Annotated[
        int, Meta(ge=0, le=10, description="Attempts after the first when the API is busy or cannot be reached.")
    ] = 2
    base_url: Annotated[
        _Url | None, Meta(description="Where the API is; the key is sent there. Not set: Anthropic's own.")
    ] = None
    aws_region: Annotated[
        _Region | None, Meta(description="Bedrock's region. Not set: as the AWS configuration says.")
    ] = None
    vertex_project: Annotated[
        Annotated[str, Meta(min_length=1, max_length=200)] | None,
        Meta(description="Vertex AI's project. Not set: that of the credentials."),
    ] = None
    vertex_region: Annotated[_Region | None, Meta(description="Vertex AI's region, such as `global`.")] = None
    max_failures: Annotated[
        int, Meta(ge=1, le=100, description="Failed requests in a row that close a conversation.")
    ] = 5
    max_steps: Annotated[int, Meta(ge=1, le=1000, description="Requests to Claude within one turn, at most.")] = 20
    max_turn_tokens: Annotated[
        int, Meta(ge=1, le=100_000_000, description="Tokens that Claude may write within one turn.")
    ] = 100_000
    allow_tools: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=200)], ...] | None,
        Meta(
            title="a list of names of tools",
            description="Tools of this server that Claude may use in a turn, at most; a send may ask for fewer. Not "
            "set: those that only read. `[]`: none.",
        ),
    ] = None
    history_cache_bytes: Annotated[
        int,
        Meta(ge=0, le=64 * _GIB, description="Bytes of conversations that are kept in memory between their turns."),
    ] = 64 * _MIB
    effort: Annotated[
        Literal["low", "medium", "high", "xhigh", "max"] | None,
        Meta(description="Effort of a turn whose caller names none. Not set: the model's own."),
    ] = None
    thinking: Annotated[
        bool, Meta(description="Let Claude think before an answer, as far as he sees fit, unless the caller says.")
    ] = False
    compact_at: Annotated[
        float,
        Meta(
            gt=0,
            le=1,
            description="Share of a model's longest prompt from which on the API sums up what is oldest; the stored "
            "conversation stays whole.",
        ),
    ] = 0.8
    model_refresh: Annotated[
        float,
        Meta(ge=60, le=86_400, description="Seconds after which the API is asked anew what a model is and can."),
    ] = 3600.0
    max_attachments: Annotated[int, Meta(ge=0, le=100, description="Files that one message may have.")] = 10
    max_attachment_bytes: Annotated[
        int,
        Meta(
            ge=1,
            le=20 * _MIB,
            description="Bytes of a file that goes with a message. Of a picture the API takes 3932160, however many "
            "are allowed here.",
        ),
    ] = 4 * _MIB
    max_output_schema_bytes: Annotated[
        int, Meta(ge=2, le=_MIB, description="Bytes of the JSON Schema that a caller wants an answer to fit.")
    ] = 64 * _KIB
    prices: ModelPrices = msgspec.field(default_factory=dict[str, PriceSettings])
    currency: Annotated[
        str, Meta(min_length=1, max_length=20, description="What the amounts of `claude.prices` are.")
    ] = "USD"
    budget: BudgetSettings = BudgetSettings()

    @property
    def is_configured(self) -> bool:
        """Whether Claude can be asked, as far as the settings say: a cloud has credentials of its own."""
        return self.provider != "anthropic" or bool(self.api_key)


class McpSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    enable_tools: Annotated[bool, Meta(description="Offer tools. Off: their methods are unknown.")] = True
    enable_resources: Annotated[bool, Meta(description="Offer resources. Off: their methods are unknown.")] = True
    enable_prompts: Annotated[bool, Meta(description="Offer prompts. Off: their methods are unknown.")] = True
    page_size: Annotated[int, Meta(ge=1, le=1000, description="Items on one page of a list.")] = 100
    tool_timeout: Annotated[
        float, Meta(gt=0, le=86_400, description="Seconds that a tool may take which has no limit of its own.")
    ] = 30.0
    max_message_size: Annotated[
        int, Meta(ge=_KIB, le=_GIB, description="Bytes of one message from a client; a longer one is refused.")
    ] = 4 * _MIB
    max_result_size: Annotated[
        int, Meta(ge=_KIB, le=_GIB, description="Characters of one tool's result; a larger one is a failure.")
    ] = 16 * _MIB
    max_depth: Annotated[
        int, Meta(ge=10, le=500, description="Levels that a message may be nested; a deeper one is refused.")
    ] = 200
    max_requests_in_flight: Annotated[
        int, Meta(ge=1, le=100_000, description="Requests of one client at work at once; the next is not read.")
    ] = 256
    max_subscriptions: Annotated[
        int,
        Meta(ge=0, le=100_000, description="Resources that one client follows at once, at most; 0: none can be."),
    ] = 256
    write_buffer: Annotated[
        int,
        Meta(ge=_KIB, le=_GIB, description="Bytes a client may leave unread before the server stops reading."),
    ] = _MIB
    enable_logging: Annotated[
        bool, Meta(description="Let a client follow the server's own log; it gets nothing before it asks.")
    ] = True


class ExecuteCommandSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    allow: Annotated[
        tuple[_Program, ...],
        Meta(
            title="a list of programs, each a name or an absolute path",
            description="Programs that `execute_command` may run. None: the tool is off.",
        ),
    ] = ()
    sandbox: Annotated[
        Literal["bubblewrap", "none"],
        Meta(description="What holds a program back. Without `bubblewrap` installed, the tool is off."),
    ] = "bubblewrap"
    timeout: Annotated[
        float, Meta(gt=0, le=86_400, description="Seconds that a program may run; a call may ask for less.")
    ] = 60.0
    max_output_bytes: Annotated[
        int, Meta(ge=_KIB, le=64 * _MIB, description="Bytes of stdout, and of stderr, that one call gives at most.")
    ] = 256 * _KIB


class ToolSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    roots: Annotated[
        tuple[Path, ...] | None,
        Meta(
            title="a list of paths",
            description="Folders that file tools may enter. Not set: the working directory, unless that is `/`, "
            "the home folder or one above it; then none.",
        ),
    ] = None
    max_read_bytes: Annotated[
        int, Meta(ge=1, le=64 * _MIB, description="Bytes of a file that one call gives at most.")
    ] = 256 * _KIB
    max_entries: Annotated[
        int, Meta(ge=1, le=100_000, description="Entries or matches that one call gives at most.")
    ] = 1000
    max_write_bytes: Annotated[
        int, Meta(ge=1, le=64 * _MIB, description="Bytes of a file that one call writes at most.")
    ] = _MIB
    max_page_bytes: Annotated[
        int,
        Meta(
            ge=16 * _KIB,
            le=64 * _MIB,
            description="Bytes of one page of a conversation; many clients take no more than 25,000 tokens at once.",
        ),
    ] = 72 * _KIB
    threads: Annotated[int, Meta(ge=1, le=256, description="Tools at work at once that may block.")] = 8
    execute_command: ExecuteCommandSettings = ExecuteCommandSettings()


class StorageSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    folder: Annotated[
        Path,
        Meta(title="a path", description="Folder of the databases. Not set: the platform's folder for user data."),
    ] = msgspec.field(default_factory=user_state_folder)
    max_audit_rows: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000_000,
            description="Calls of tools that act which `audit.db` keeps; with each new one the oldest beyond it go.",
        ),
    ] = 100_000
    retention_days: Annotated[
        _Days | None,
        Meta(
            description="Days without a change after which a conversation is deleted, and a session after its end. Not "
            "set: none is.",
        ),
    ] = None

    @property
    def database(self) -> Path:
        """The file of sessions, conversations and events."""
        return self.folder / "tfo-mcp.db"

    @property
    def locks(self) -> Path:
        """The folder of the locks of conversations that are worked on."""
        return self.folder / "locks"

    @property
    def spool(self) -> Path:
        """The file of what waits for the collector."""
        return self.folder / "spool.db"

    @property
    def recorder(self) -> Path:
        """The file of what was recorded, to be asked about."""
        return self.folder / "telemetry.db"

    @property
    def audit(self) -> Path:
        """The file of the audit."""
        return self.folder / "audit.db"


class LoggingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"],
        Meta(description="The least level that is logged. Libraries never log anything below a warning."),
    ] = "info"
    format: Annotated[Literal["json", "text"], Meta(description="One JSON object a line, or text for people.")] = "json"
    output: Annotated[
        str,
        Meta(
            min_length=1,
            title="stderr or a path",
            description="`stderr` or the file to append to. Never `stdout`, which is the protocol's.",
        ),
    ] = "stderr"

    @property
    def file(self) -> Path | None:
        """The log file, where there is one."""
        return None if self.output == "stderr" else Path(self.output)


class TelemetrySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    enabled: Annotated[bool, Meta(description="Record operations. Nothing is sent without an endpoint.")] = True
    endpoint: Annotated[_Endpoint | None, Meta(description="OTLP collector. Not set: nothing is sent.")] = None
    protocol: Annotated[
        Protocol | None,
        Meta(
            description="How to send; `http` is short for `http/protobuf`. Not set: `http/protobuf` where the "
            "endpoint has port 4318 or a path, `grpc` elsewhere."
        ),
    ] = None
    insecure: Annotated[
        bool | None,
        Meta(
            description="Send without TLS. Not set: as the endpoint's `http://` or `https://` says; without "
            "either, only to this machine."
        ),
    ] = None
    headers: Annotated[
        dict[str, Secret],
        Meta(title="a mapping of names to text", description="Headers of every export; shown to nobody."),
    ] = msgspec.field(default_factory=dict[str, Secret])
    api_key_id: Annotated[
        Secret, Meta(title="text", description="TelemetryFlow key id (`tfk_…`), sent with every export.")
    ] = Secret("")
    api_key_secret: Annotated[
        Secret, Meta(title="text", description="TelemetryFlow key secret (`tfs_…`), sent with every export.")
    ] = Secret("")
    collector_id: Annotated[str | None, Meta(description="TelemetryFlow collector id, sent with every export.")] = None
    compression: Annotated[bool, Meta(description="Compress what is sent (gzip).")] = True
    timeout: Annotated[float, Meta(gt=0, le=300, description="Seconds that one export may take.")] = 10.0
    service_name: Annotated[str, Meta(min_length=1, description="`service.name` of all telemetry.")] = (
        "telemetryflow-python-mcp"
    )
    service_namespace: Annotated[str, Meta(description="`service.namespace` of all telemetry.")] = "telemetryflow"
    environment: Annotated[str, Meta(description="`deployment.environment.name` of all telemetry.")] = "production"
    resource_attributes: Annotated[
        dict[Annotated[str, Meta(min_length=1, max_length=200)], Annotated[str, Meta(max_length=1000)]],
        Meta(
            max_length=64,
            title="a mapping of at most 64 names to text of at most 1000 characters",
            description="What all telemetry says of this process besides. What has a setting of its own is set there.",
        ),
    ] = msgspec.field(default_factory=dict[str, str])
    logs: Annotated[
        bool, Meta(description="Send the log too, from `logging.level` up; of errors their type, not their text.")
    ] = True
    capture_content: Annotated[
        bool,
        Meta(
            description="Record arguments and results of tools and the messages of conversations too, without "
            "the secrets that are known or look like one, and cut to length."
        ),
    ] = False
    content_length: Annotated[
        int, Meta(ge=64, le=32_768, description="Characters of one such content that are kept, as JSON.")
    ] = 4096
    redact_patterns: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=1000)], ...],
        Meta(
            max_length=100,
            title="a list of at most 100 patterns of at most 1000 characters, as RE2 knows them",
            description="What is taken out of contents besides, from each text and from the JSON as a whole.",
        ),
    ] = ()
    max_traces_per_second: Annotated[
        float,
        Meta(
            ge=0,
            le=100_000,
            description="Requests whose spans are sent, in a second; 0: all. What failed or was unusually slow always "
            "is, and counts as one of them. What is left out counts in `tfo.telemetry.spans.dropped` as `sampled`.",
        ),
    ] = 0.0
    ring_capacity: Annotated[
        int,
        Meta(
            ge=1024,
            le=4_194_304,
            description="Records that may wait to be worked up; what comes on top is dropped and counted.",
        ),
    ] = 65_536
    batch_size: Annotated[int, Meta(ge=1, le=10_000, description="Spans or log records in one export, at most.")] = 2048
    spool_bytes: Annotated[
        int,
        Meta(
            ge=_MIB,
            le=64 * _GIB,
            description="Bytes that may wait for the collector in `spool.db`; the oldest make room, and are counted.",
        ),
    ] = 256 * _MIB
    spool_days: Annotated[
        float, Meta(gt=0, le=3650, description="Days after which what waits for the collector is given up and counted.")
    ] = 7.0
    dead_bytes: Annotated[
        int,
        Meta(
            ge=0,
            le=64 * _GIB,
            description="Bytes that are kept of what the collector refused for good; the oldest make room.",
        ),
    ] = 16 * _MIB
    durability: Annotated[
        Literal["process", "power"],
        Meta(description="What the telemetry that waits survives: the end of the process, or of the power too."),
    ] = "process"
    recorder: Annotated[
        bool,
        Meta(description="Keep what is recorded in `telemetry.db`, to be asked about."),
    ] = True
    recorder_days: Annotated[
        float, Meta(gt=0, le=3650, description="Days that each operation is kept by itself in `telemetry.db`.")
    ] = 7.0
    summary_days: Annotated[
        float,
        Meta(gt=0, le=36500, description="Days that their counts by the minute are kept in `telemetry.db`."),
    ] = 90.0
    recorder_bytes: Annotated[
        int,
        Meta(
            ge=_MIB,
            le=64 * _GIB,
            description="Bytes of `telemetry.db` that may hold something; the oldest operations make room first.",
        ),
    ] = 256 * _MIB
    query_timeout: Annotated[
        float, Meta(gt=0, le=60, description="Seconds that a query of `query_telemetry` may take.")
    ] = 2.0
    metric_interval: Annotated[
        float, Meta(ge=0.1, le=3600, description="Seconds between two exports of the metrics.")
    ] = 10.0

    @property
    def export_protocol(self) -> Protocol:
        """`protocol`, or what follows from the endpoint."""
        if self.protocol is not None:
            return self.protocol
        parts = _parts(self.endpoint)
        with_path = parts.get("path") not in (None, "/")
        return "http/protobuf" if with_path or parts.get("port") == "4318" else "grpc"

    @property
    def export_insecure(self) -> bool:
        """`insecure`, or what follows from the endpoint."""
        if self.insecure is not None:
            return self.insecure
        parts = _parts(self.endpoint)
        scheme, host = parts.get("scheme"), parts.get("host") or ""
        if scheme is not None:
            return scheme.lower() == "http"
        return host in {"localhost", "[::1]"} or host.startswith("127.")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All sections. `Settings()` is what an untouched installation runs with."""

    server: ServerSettings = ServerSettings()
    claude: ClaudeSettings = ClaudeSettings()
    mcp: McpSettings = McpSettings()
    tools: ToolSettings = ToolSettings()
    storage: StorageSettings = msgspec.field(default_factory=StorageSettings)
    logging: LoggingSettings = LoggingSettings()
    telemetry: TelemetrySettings = msgspec.field(default_factory=TelemetrySettings)


def _sections(struct: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, type[msgspec.Struct]]]:
    for key, kind in get_type_hints(struct).items():
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            yield f"{prefix}{key}", kind
            yield from _sections(kind, f"{prefix}{key}.")


SECTIONS: dict[str, type[msgspec.Struct]] = dict(_sections(Settings))
"""Section to Struct; a section inside another has both names: `tools.execute_command`."""


def settings_of(section: str) -> tuple[str, ...]:
    """The keys of a section's own settings, without the sections inside it."""
    return tuple(key for key in SECTIONS[section].__struct_fields__ if f"{section}.{key}" not in SECTIONS)


def all_names() -> Iterator[str]:
    """Every setting, as `section.key`."""
    return (f"{section}.{key}" for section in SECTIONS for key in settings_of(section))


def is_setting(name: str) -> bool:
    section, _, key = name.rpartition(".")
    return section in SECTIONS and key in settings_of(section)


def masked(settings: Settings) -> dict[str, dict[str, Any]]:
    """Section to setting to value, fit to be shown: secrets are `***`, and empty where they are not set."""
    return msgspec.to_builtins(settings, enc_hook=str)


def secrets_of(settings: Settings) -> Iterator[Secret]:
    """Every secret that is set."""
    return _secrets_in(settings)


def _secrets_in(value: object) -> Iterator[Secret]:
    match value:
        case Secret():
            if value:
                yield value
        case msgspec.Struct():
            for inner in msgspec.structs.astuple(value):
                yield from _secrets_in(inner)
        case dict():
            for inner in cast("dict[object, object]", value).values():
                yield from _secrets_in(inner)
        case _:
            pass


def _parts(endpoint: str | None) -> dict[str, str | None]:
    match = _ENDPOINT_PARTS.match(endpoint or "")
    return match.groupdict() if match else {}

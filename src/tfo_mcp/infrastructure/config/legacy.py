"""What version 1.2 knew and this one does not: it is named in one warning, and the rest of the file stands."""

from __future__ import annotations

from tfo_mcp.infrastructure.config.given import Given, Sayings
from tfo_mcp.infrastructure.config.settings import ClaudeSettings, ConfigurationError

RETIRED: dict[str, tuple[str, ...]] = {
    "server": ("version", "host", "port", "transport", "debug", "read_timeout", "write_timeout"),
    "claude": ("temperature",),
    "mcp": ("protocol_version", "enable_sampling"),
    "telemetry": (
        "service_version",
        "api_key",
        "enable_traces",
        "enable_metrics",
        "enable_logs",
        "enable_exemplars",
        "batch_timeout_ms",
        "batch_max_size",
        "retry_enabled",
        "max_retries",
        "retry_backoff_ms",
        "rate_limit",
    ),
}
"""Section to its settings that have gone."""

_RENAMED = {"telemetry.enable_logs": "telemetry.logs"}
"""What was switched off stays off."""

_RETIRED_SECTIONS = frozenset({"cache", "queue", "database", "analytics", "telemetry_mcp"})

RETIRED_VARIABLES = {
    f"TELEMETRYFLOW_MCP_{key}": f"{section}.{key.lower()}"
    for section, keys in {
        "cache": ("REDIS_URL", "CACHE_ENABLED", "CACHE_TTL"),
        "queue": ("QUEUE_ENABLED", "QUEUE_CONCURRENCY", "NATS_URL"),
        "database": ("POSTGRES_URL", "POSTGRES_MAX_CONNS", "POSTGRES_MIN_CONNS"),
        "analytics": ("CLICKHOUSE_URL",),
        "telemetry_mcp": ("TELEMETRY_BACKEND", "TELEMETRY_OTLP_ENDPOINT"),
    }.items()
    for key in keys
}
"""Variables that were not named after their section, to the setting they were."""

_RETIRED_MODEL_FAMILIES = ("claude-1", "claude-2", "claude-3", "claude-instant")
_RETIRED_MODELS = frozenset(
    {
        "claude-mythos-preview",
        "claude-opus-4-0",
        "claude-opus-4-20250514",
        "claude-sonnet-4-0",
        "claude-sonnet-4-20250514",
    }
)


def without_retired(given: Sayings) -> tuple[Sayings, str | None]:
    """`given` without what has gone, and the one warning about it.

    Raises:
        ConfigurationError: version 1.2 would have listened on the network, and this one does not.
    """
    _check_transport(given.get("server.transport"))
    given = {name: saying for name, saying in given.items() if name != "server.transport"}
    kept = {name: saying for name, saying in given.items() if not has_gone(name)}
    for old, new in _RENAMED.items():
        if old in given:
            kept.setdefault(new, given[old])
    ignored = sorted({_called(name, given[name]) for name in given if has_gone(name) and name not in _RENAMED})
    remarks: list[str] = []
    if ignored:
        remarks.append(f"settings of version 1.2 that have no effect any more: {', '.join(ignored)}")
    remarks += [f"{_called(old, given[old])} is {new} now" for old, new in _RENAMED.items() if old in given]
    model = kept.get("claude.default_model")
    if model and _is_retired(model.value):
        del kept["claude.default_model"]
        default = ClaudeSettings().default_model
        remarks.append(f"claude.default_model {model.value!r} is retired, {default!r} takes its place")
    output = kept.get("logging.output")
    if output and output.value == "stdout":
        kept["logging.output"] = Given("stderr", output.origin, output.base)
        remarks.append("logging.output 'stdout' belongs to the protocol, 'stderr' takes its place")
    return kept, "; ".join(remarks) or None


def _check_transport(saying: Given | None) -> None:
    if saying and str(saying.value).lower() != "stdio":
        raise ConfigurationError(f"{saying.origin}: server.transport must be 'stdio', the only one of this version")


def has_gone(name: str) -> bool:
    """Whether version 1.2 knew this setting or section, and this version does not."""
    section, _, key = name.partition(".")
    return section in _RETIRED_SECTIONS or key in RETIRED.get(section, ())


def _called(name: str, saying: Given) -> str:
    if saying.origin.startswith("TELEMETRYFLOW_"):
        return saying.origin
    section = name.partition(".")[0]
    return section if section in _RETIRED_SECTIONS else name


def _is_retired(model: object) -> bool:
    return isinstance(model, str) and (model in _RETIRED_MODELS or model.startswith(_RETIRED_MODEL_FAMILIES))

"""Every telemetry name but the core's own attributes, with where it comes from.

- `mcp.tools.*`: the diagrams ("Telemetry Recording Flow").
- `mcp.server.*`, `gen_ai.*`, `error.type`, `network.transport`: OpenTelemetry's semantic conventions for MCP
  and GenAI (open-telemetry/semantic-conventions-genai, status Development), units and buckets included.
- `tfo.*`: our own.
"""

from __future__ import annotations

from dataclasses import dataclass

SCOPE = "tfo_mcp"
"""The instrumentation scope of everything that this package records itself."""

# --- attributes --------------------------------------------------------------------------------------

# Those that the core sets stand in `application/attributes.py`.
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105  # no secret: "input" or "output"
OUTCOME = "outcome"  # ours: completed, failed, timed_out, cancelled, invalid
REASON = "reason"
SIGNAL = "signal"  # ours: "traces", "metrics" or "logs", the last part of OTLP's paths
OVERFLOW = "otel.metric.overflow"  # OpenTelemetry metrics SDK specification, "Cardinality limits"
CLIENT_NAME = "tfo.client.name"  # what a client calls itself: of log records only, never a label
CLIENT_VERSION = "tfo.client.version"
LOGGER = "tfo.logger.name"
ADJUSTED_COUNT = "tfo.sampling.adjusted_count"  # of a root that is exported: how many roots it stands for

# --- resource ----------------------------------------------------------------------------------------

SERVICE_NAME = "service.name"
SERVICE_VERSION = "service.version"
SERVICE_NAMESPACE = "service.namespace"
SERVICE_INSTANCE = "service.instance.id"
ENVIRONMENT = "deployment.environment.name"
SDK_LANGUAGE = "telemetry.sdk.language"
SDK_NAME = "telemetry.sdk.name"
SDK_VERSION = "telemetry.sdk.version"
PROCESS_ID = "process.pid"
RUNTIME_NAME = "process.runtime.name"
RUNTIME_VERSION = "process.runtime.version"
OS_TYPE = "os.type"

# --- events: log records that have a name ------------------------------------------------------------

SESSION_EVENT = "tfo.session."  # and "initialized" or "closed"
ERROR_EVENT = "tfo.error"

# --- metrics -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One instrument.

    Attributes:
        unit: UCUM, as OTLP wants it.
        buckets: upper bounds, inclusive; with them it is a histogram, without a sum.
        monotonic: whether a sum only rises.
    """

    name: str
    unit: str
    description: str
    buckets: tuple[float, ...] | None = None
    monotonic: bool = True


_MCP_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_GEN_AI_SECONDS = tuple(0.01 * 2**power for power in range(14))
_GEN_AI_TOKENS = tuple(float(4**power) for power in range(14))
# Ours reach further down than the conventions': most tools end within a millisecond.
_TOOL_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, *_MCP_SECONDS)

TOOL_CALLS = Metric("mcp.tools.calls", "{call}", "Tool calls, however they ended.")
TOOL_ERRORS = Metric("mcp.tools.errors", "{call}", "Tool calls that were invalid, failed or timed out.")
TOOL_DURATION = Metric("mcp.tools.duration", "s", "Duration of tool calls.", _TOOL_SECONDS)
OPERATION_DURATION = Metric(
    "mcp.server.operation.duration", "s", "Duration of MCP requests as the server observed it.", _MCP_SECONDS
)
SESSION_DURATION = Metric("mcp.server.session.duration", "s", "Duration of MCP sessions.", _MCP_SECONDS)
SESSIONS_ACTIVE = Metric("tfo.mcp.sessions.active", "{session}", "Sessions that are open now.", monotonic=False)
REQUESTS_REJECTED = Metric(
    "tfo.mcp.requests.rejected", "{message}", "Messages that never became an operation, by reason."
)
ERRORS = Metric("tfo.mcp.errors", "{error}", "Unforeseen errors and requests to Claude that failed, by error.")
CLAUDE_DURATION = Metric(
    "gen_ai.client.operation.duration", "s", "Duration of requests to Claude, retries included.", _GEN_AI_SECONDS
)
CLAUDE_TOKENS = Metric("gen_ai.client.token.usage", "{token}", "Tokens of requests to Claude, by type.", _GEN_AI_TOKENS)
CLAUDE_ATTEMPTS = Metric(
    "tfo.claude.attempts", "{attempt}", "HTTP requests to Claude's API, retries among them, by status and error."
)
SPANS_EXPORTED = Metric("tfo.telemetry.spans.exported", "{span}", "Spans that the collector has accepted.")
SPANS_DROPPED = Metric("tfo.telemetry.spans.dropped", "{span}", "Spans that will not be exported, by reason.")
LOGS_EXPORTED = Metric("tfo.telemetry.logs.exported", "{record}", "Log records that the collector has accepted.")
LOGS_DROPPED = Metric("tfo.telemetry.logs.dropped", "{record}", "Log records that will not be exported, by reason.")
ROWS_DROPPED = Metric(
    "tfo.telemetry.rows.dropped", "{row}", "Operations that the recorder could not keep by themselves, by reason."
)
EXPORT_FAILURES = Metric(
    "tfo.telemetry.export.failures", "{attempt}", "Attempts to export that failed, by signal and error."
)

# Signal to what counts its items; of metrics nothing is lost that the next export does not say.
EXPORTED = {"traces": SPANS_EXPORTED, "logs": LOGS_EXPORTED}
DROPPED = {"traces": SPANS_DROPPED, "logs": LOGS_DROPPED}

# Why a span or a log record was dropped.
DROPPED_SATURATED = "saturated"  # more records than the ring holds
DROPPED_EVICTED = "evicted"  # they were too old, or the spool was full and they were the oldest
DROPPED_UNWRITTEN = "unwritten"  # neither the disk nor the collector took them in time
DROPPED_REFUSED = "refused"  # the collector answered that it will never take them
DROPPED_UNENCODABLE = "unencodable"  # OTLP cannot express it
DROPPED_SAMPLED = "sampled"  # as `telemetry.max_traces_per_second` wants it

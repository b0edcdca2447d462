"""Every telemetry name, with where it comes from.

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

METHOD = "mcp.method.name"
PROTOCOL_VERSION = "mcp.protocol.version"
TRANSPORT = "network.transport"
TOOL = "gen_ai.tool.name"
PROMPT = "gen_ai.prompt.name"
GEN_AI_OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105  # no secret: "input" or "output"
ERROR_TYPE = "error.type"
OUTCOME = "outcome"  # ours: completed, failed, timed_out, cancelled, invalid
REASON = "reason"
SIGNAL = "signal"  # ours: "traces" or "metrics", the last part of OTLP's paths
OVERFLOW = "otel.metric.overflow"  # OpenTelemetry metrics SDK specification, "Cardinality limits"

# --- resource ----------------------------------------------------------------------------------------

SERVICE_NAME = "service.name"
SERVICE_VERSION = "service.version"
SERVICE_NAMESPACE = "service.namespace"
SERVICE_INSTANCE = "service.instance.id"
ENVIRONMENT = "deployment.environment.name"
SDK_LANGUAGE = "telemetry.sdk.language"
SDK_NAME = "telemetry.sdk.name"

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
CLAUDE_DURATION = Metric(
    "gen_ai.client.operation.duration", "s", "Duration of requests to Claude, retries included.", _GEN_AI_SECONDS
)
CLAUDE_TOKENS = Metric("gen_ai.client.token.usage", "{token}", "Tokens of requests to Claude, by type.", _GEN_AI_TOKENS)
SPANS_EXPORTED = Metric("tfo.telemetry.spans.exported", "{span}", "Spans that the collector has accepted.")
SPANS_DROPPED = Metric("tfo.telemetry.spans.dropped", "{span}", "Spans that will not be exported, by reason.")
EXPORT_FAILURES = Metric(
    "tfo.telemetry.export.failures", "{attempt}", "Attempts to export that failed, by signal and error."
)

# Why a span was dropped.
DROPPED_SATURATED = "saturated"  # more records than the ring holds
DROPPED_QUEUE_FULL = "queue_full"  # the collector takes them slower than they come
DROPPED_REFUSED = "refused"  # the collector answered that it will never take them
DROPPED_UNENCODABLE = "unencodable"  # a span that OTLP cannot express

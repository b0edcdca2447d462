"""Every Protocol that the core needs; the adapters stand in `infrastructure` and `presentation`."""

from tfo_mcp.application.ports.claude import (
    AnswerListener,
    Attempt,
    ClaudeRequest,
    ClaudeResponse,
    ClaudeService,
    ModelInfo,
)
from tfo_mcp.application.ports.recordings import Recordings
from tfo_mcp.application.ports.records import (
    AuditTrail,
    ConversationCatalog,
    ConversationForks,
    ConversationLocks,
    ConversationRepository,
    EventPublisher,
    Intent,
    RecordedTurn,
    SessionRepository,
)
from tfo_mcp.application.ports.server import (
    Client,
    ClientLog,
    HealthSource,
    SchemaCompiler,
)
from tfo_mcp.application.ports.telemetry import (
    AttributeValue,
    Carried,
    Span,
    SpanKind,
    Telemetry,
    TraceContext,
    current_operation,
)

__all__ = [
    "AnswerListener",
    "Attempt",
    "AttributeValue",
    "AuditTrail",
    "Carried",
    "ClaudeRequest",
    "ClaudeResponse",
    "ClaudeService",
    "Client",
    "ClientLog",
    "ConversationCatalog",
    "ConversationForks",
    "ConversationLocks",
    "ConversationRepository",
    "EventPublisher",
    "HealthSource",
    "Intent",
    "ModelInfo",
    "RecordedTurn",
    "Recordings",
    "SchemaCompiler",
    "SessionRepository",
    "Span",
    "SpanKind",
    "Telemetry",
    "TraceContext",
    "current_operation",
]

"""Every Protocol that the core needs; the adapters stand in `infrastructure` and `presentation`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tfo_mcp.domain.conversation import Conversation, ConversationSummary
from tfo_mcp.domain.events import DomainEvent
from tfo_mcp.domain.execution import Outcome
from tfo_mcp.domain.health import ComponentHealth
from tfo_mcp.domain.identifiers import ConversationId
from tfo_mcp.domain.log_level import LogLevel
from tfo_mcp.domain.message import Message, Usage
from tfo_mcp.domain.session import Session
from tfo_mcp.domain.tool import Tool

# --- telemetry ---------------------------------------------------------------------------------------

AttributeValue = str | int | float | bool
SpanKind = Literal["request", "tool", "claude"]
"""What is measured: a request of a client, one run of a tool, one request to Claude."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What travels with a trace beside its ids, from the client to all that happens below.

    Attributes:
        trace_state: W3C `tracestate`, empty where there is none.
        baggage: W3C Baggage, decoded. It is the client's: for libraries and tools to read, in no signal of ours.
    """

    trace_state: str
    baggage: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TraceContext:
    """W3C trace context: a 128-bit trace id and a 64-bit span id as integers.

    Both are 0 only in what a client sends that carries something but has no trace: it is nobody's parent.
    """

    trace_id: int
    span_id: int
    carried: Carried | None = None


current_operation: ContextVar[TraceContext | None] = ContextVar("current_operation", default=None)
"""The operation that this task or thread works for: what it logs bears its ids."""


class Span(Protocol):
    """One operation while it runs. It is timed once, classified once, and ends as exactly one record."""

    context: TraceContext
    name: str
    """May be made more precise while it runs; always from a bounded set."""

    def set(self, key: str, value: AttributeValue) -> None:
        """Add what became known meanwhile."""
        ...

    def add_event(self, name: str, attributes: Mapping[str, AttributeValue] | None = None) -> None:
        """Note a point in time within the operation."""
        ...

    def active(self) -> AbstractContextManager[None]:
        """Make this the current span for libraries that trace themselves inside it."""
        ...

    def end(self, outcome: Outcome, error_type: str | None = None) -> None:
        """Stop the clock and hand the record over. Never blocks, never raises."""
        ...


class Telemetry(Protocol):
    """The telemetry client of the diagrams, as the core sees it. No call of it raises, and none blocks but `flush`."""

    def span(
        self,
        kind: SpanKind,
        name: str,
        *,
        parent: TraceContext | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
    ) -> Span:
        """Start to measure an operation. `name` comes from a bounded set, never from a client."""
        ...

    def record_session_event(self, event: Literal["initialized", "closed"], session: Session) -> None:
        """Note that a session began or ended."""
        ...

    def record_error(self, error_type: str, attributes: Mapping[str, AttributeValue]) -> None:
        """Leave an error record, under the current operation.

        `error_type` names a class of errors, from a bounded set; the attributes hold no error's text.
        """
        ...

    def flush(self, timeout: float) -> bool:
        """Export what was recorded so far, and wait for it at most `timeout` seconds; whether nothing waits."""
        ...

    def record_rejected(self, reason: str) -> None:
        """Count a message that never became an operation. `reason` comes from a bounded set."""
        ...


# --- events ------------------------------------------------------------------------------------------


class EventPublisher(Protocol):
    """2.3 Event Publisher."""

    def publish(self, events: Iterable[DomainEvent]) -> None:
        """Hand events to their subscribers, in order; a subscriber that fails harms no other."""
        ...


# --- repositories ------------------------------------------------------------------------------------


class SessionRepository(Protocol):
    """Sessions on disk, written behind: a session never waits for storage."""

    def save(self, session: Session, events: Sequence[DomainEvent]) -> None:
        """Take the session's present state and its events, to be committed together, in order."""
        ...


class ConversationRepository(Protocol):
    """Conversations on disk."""

    async def get(self, conversation_id: ConversationId, principal: str) -> Conversation | None:
        """The principal's conversation with all its messages, or None.

        Raises:
            StorageUnavailable: the database cannot be opened or read.
        """
        ...

    async def newest(
        self, principal: str, limit: int, *, after: ConversationId | None = None, prefix: str = ""
    ) -> Sequence[ConversationSummary]:
        """At most `limit` of the principal's conversations, those created last first.

        With `after`, those behind that one; none where the principal has it not. With `prefix`, those whose id
        begins so.

        Raises:
            StorageUnavailable: the database cannot be opened or read.
        """
        ...

    async def save(self, conversation: Conversation) -> Sequence[DomainEvent]:
        """Commit row, new messages and events in one transaction; returns the events.

        Raises:
            ConversationBusy: the fence has moved: somebody else appended meanwhile.
            StorageUnavailable: the database cannot be opened or written.
        """
        ...


# --- audit -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What a tool that is not read-only is about to do.

    Attributes:
        trace: of the span that measures the call.
        argument_names: all that were given.
        arguments: those whose values say what is about to happen (`Tool.audited`); contents are not among them.
        started_at: seconds since the epoch.
    """

    principal: str
    session_id: str
    request_id: str | int | None
    trace: TraceContext
    tool: str
    argument_names: Sequence[str]
    arguments: Mapping[str, Any]
    started_at: float


class AuditTrail(Protocol):
    """What tools did that may change something (DESIGN decision 8a). A row without an outcome was under way."""

    async def intend(self, intent: Intent) -> int:
        """Commit what is about to happen; returns the id to conclude it by.

        Raises:
            StorageUnavailable: it is not committed, so it must not happen.
        """
        ...

    def conclude(self, intent_id: int, outcome: Outcome, error_type: str | None, duration: float) -> None:
        """Note how it ended, `duration` in seconds. Written behind: never raises, never waits."""
        ...


# --- Claude ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaudeRequest:
    """One request to the Messages API."""

    model: str
    max_tokens: int
    system: str | None
    messages: Sequence[Message]
    tools: Sequence[Tool]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaudeResponse:
    """Its answer. `message.stop_reason` and `message.usage` are set."""

    message: Message
    usage: Usage
    request_id: str | None


class ClaudeService(Protocol):
    """4.1 Claude Client."""

    def check_configured(self) -> None:
        """Guard of every send.

        Raises:
            ClaudeNotConfigured: there is no key.
        """
        ...

    async def create_message(self, request: ClaudeRequest) -> ClaudeResponse:
        """Send one request, streaming inside, retried by the client library alone.

        Raises:
            ClaudeNotConfigured: there is no key.
            ClaudeFailure: the API refused it, or could not be reached, after the last retry.
        """
        ...


# --- health ------------------------------------------------------------------------------------------


class HealthSource(Protocol):
    """A part of the server that knows how it is."""

    async def health(self) -> ComponentHealth:
        """As it is now, within seconds whatever is wrong; does not raise."""
        ...


# --- schemas -----------------------------------------------------------------------------------------


class SchemaCompiler(Protocol):
    """JSON Schema 2020-12. A schema is compiled once."""

    def compile(self, schema: Mapping[str, Any]) -> Callable[[object], Sequence[str]]:
        """A function from an instance to its violations, each one sentence that names the field.

        Raises:
            ValueError: `schema` is not a schema, or refers outside itself.
        """
        ...


# --- the client --------------------------------------------------------------------------------------


class Client(Protocol):
    """The client at the other end of a connection, as handlers see it."""

    async def progress(
        self, token: str | int, progress: float, total: float | None = None, message: str | None = None
    ) -> None:
        """Send `notifications/progress`; waits while the client does not read."""
        ...

    def log(self, level: str, logger: str, data: Mapping[str, Any]) -> bool:
        """Send `notifications/message`, `data` in JSON types, unless the client does not read; whether it was sent."""
        ...

    async def reads(self) -> None:
        """Wait while the client does not read."""
        ...

    async def drain(self) -> None:
        """Let the other requests in flight end, for as long as the shutdown budget has; cut the rest."""
        ...


# --- the log -----------------------------------------------------------------------------------------


class ClientLog(Protocol):
    """The server's own log, as clients follow it. None of it ever waits for a client that does not read, but an end."""

    def follow(self, client: Client, level: LogLevel) -> None:
        """Send `client` every record of `level` and above from now on, and no other."""
        ...

    def following(self, client: Client, level: LogLevel) -> AbstractAsyncContextManager[None]:
        """Send `client` the records of `level` and above that what runs inside logs; all before this ends."""
        ...

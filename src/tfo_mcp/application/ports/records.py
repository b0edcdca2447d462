"""What is kept: sessions, conversations, the audit; and who is told of events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tfo_mcp.application.ports.telemetry import TraceContext
from tfo_mcp.domain.catalog import CatalogPlace, ConversationPage, ConversationSummary
from tfo_mcp.domain.conversation import Conversation
from tfo_mcp.domain.conversation_record import ConversationState
from tfo_mcp.domain.events import DomainEvent
from tfo_mcp.domain.execution import Outcome
from tfo_mcp.domain.fork import Fork
from tfo_mcp.domain.identifiers import ConversationId
from tfo_mcp.domain.session import Session
from tfo_mcp.domain.turn import PendingSend, Send, Turn


class EventPublisher(Protocol):
    """2.3 Event Publisher."""

    def publish(self, events: Iterable[DomainEvent]) -> None:
        """Hand events to their subscribers, in order; a subscriber that fails harms no other."""
        ...


class SessionRepository(Protocol):
    """Sessions on disk, written behind: a session never waits for storage."""

    def save(self, session: Session, events: Sequence[DomainEvent]) -> None:
        """Take the session's present state and its events, to be committed together, in order."""
        ...


@dataclass(frozen=True, slots=True)
class RecordedTurn:
    """Where the turn stands that has a certain idempotency key, and what its sender had asked for."""

    conversation_id: ConversationId
    number: int
    fingerprint: str


class ConversationRepository(Protocol):
    """Conversations on disk, and the sends that wait to become turns of them.

    Every method raises `StorageUnavailable` where the database cannot be opened, read or written.
    """

    async def get(
        self, conversation_id: ConversationId, principal: str, known: Conversation | None = None
    ) -> Conversation | None:
        """The principal's conversation with all its messages, or None; `known` itself, where nothing has changed."""
        ...

    async def save(self, conversation: Conversation) -> None:
        """Commit row, new messages, turn, ledger and events in one transaction.

        Raises:
            ConversationBusy: the fence has moved: somebody else appended meanwhile.
        """
        ...

    async def accept(
        self, conversation_id: ConversationId, principal: str, holder: str, send: Send, created: Conversation | None
    ) -> PendingSend | RecordedTurn:
        """Commit `send` as the last that waits, with `created` where it begins a conversation.

        Where its idempotency key is known already, nothing is committed, and what has the key is returned: a turn,
        or a send that still waits. Where it is cancelled, it may be accepted all the same.

        Raises:
            ConversationNotFound: it was deleted meanwhile.
        """
        ...

    async def next_for(
        self, pending: PendingSend, known: Conversation | None = None
    ) -> tuple[Conversation | None, Sequence[PendingSend]]:
        """Its conversation, as `get` gives it, and what was accepted for it and is no turn yet, in order.

        The latter up to `pending` itself, which comes last, if it still is there.
        """
        ...

    async def adopt(self, pending: PendingSend, holder: str) -> bool:
        """Let another process wait with `pending`, whose holder is dead; whether it was still there to be taken."""
        ...

    async def withdraw(self, pending: PendingSend) -> None:
        """Forget a send that is no turn yet, and the conversation that it was to begin, where it is empty."""
        ...

    async def turn(self, conversation_id: ConversationId, number: int) -> tuple[Turn, int | None] | None:
        """One turn, and the position where the next one begins; None for the latter where it is the last."""
        ...

    async def begun_tools(self, conversation_id: ConversationId) -> frozenset[str]:
        """The ids of the calls by Claude of tools that must not run twice and began to run."""
        ...

    async def tokens_since(self, principal: str, since: float) -> int:
        """What the principal's requests to Claude took that were sent at `since` or later, as far as it is known."""
        ...


class ConversationCatalog(Protocol):
    """Conversations to be read; no message is loaded that is not asked for."""

    async def find(
        self,
        principal: str,
        *,
        text: str = "",
        state: ConversationState | None = None,
        limit: int,
        after: CatalogPlace | None = None,
    ) -> Sequence[ConversationSummary]:
        """At most `limit` of the principal's conversations, those changed last first; with `after`, those behind it.

        With `text`, those in which the user or Claude said each of its words (`words_of`), the last one or one that
        begins so; none where there are no words in it. A pass from one result's last place to the next result gives
        each conversation once, whatever is added meanwhile; one that changes before its turn moves to the front.

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

    async def page(
        self, conversation_id: ConversationId, principal: str, *, start: int, limit: int
    ) -> ConversationPage | None:
        """The principal's conversation with at most `limit` of its messages from position `start` on, or None.

        A negative `start` counts from the end, back to the first at most; behind the last there are none.

        Raises:
            StorageUnavailable: the database cannot be opened or read.
        """
        ...


class ConversationForks(Protocol):
    """Conversations that begin as others did."""

    async def fork(
        self,
        conversation_id: ConversationId,
        principal: str,
        last: int | None,
        committed: Callable[[Sequence[DomainEvent]], None],
    ) -> Fork:
        """Store a new conversation of the principal with the messages up to position `last`; None: with all.

        It sees what is committed and waits for nobody's turn. `committed` gets the events if and only if the new
        conversation is stored.

        Raises:
            ConversationNotFound: the principal has no such conversation; nothing is stored.
            MessageNotFound: there is no message at `last`; nothing is stored.
            StorageUnavailable: the database cannot be opened or written; nothing is stored.
        """
        ...


class ConversationLocks(Protocol):
    """Who may work on a conversation: a lock that dies with its holder, across processes (DESIGN decision 5).

    Attributes:
        holder: names this process, as no other process that shares the storage is named, now or later; settled
            once it is registered.
    """

    holder: str

    async def register(self) -> str:
        """`holder`, which counts as alive for every process from now on: to be called before anybody is told it.

        Raises:
            StorageUnavailable: locks cannot be had at all.
        """
        ...

    async def try_acquire(self, conversation_id: ConversationId) -> bool:
        """Take the conversation's lock, unless anybody has it, this process included; whether it was taken.

        Raises:
            StorageUnavailable: locks cannot be had at all.
        """
        ...

    async def release(self, conversation_id: ConversationId) -> None:
        """Give it back; to be cancelled here stops the wait, not that. Never raises anything else."""
        ...

    async def lives(self, holder: str) -> bool:
        """Whether the process that `holder` names is still there.

        Raises:
            StorageUnavailable: it cannot be told.
        """
        ...


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

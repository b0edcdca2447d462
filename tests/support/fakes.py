"""The ports of storage in memory, under the same contract suite as the real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tfo_mcp.application.ports import Intent
from tfo_mcp.domain.catalog import CatalogPlace, ConversationPage, ConversationSummary
from tfo_mcp.domain.conversation_record import ConversationState
from tfo_mcp.domain.errors import StorageUnavailable
from tfo_mcp.domain.events import DomainEvent
from tfo_mcp.domain.execution import Outcome
from tfo_mcp.domain.identifiers import ConversationId
from tfo_mcp.domain.session import Session, SessionState


class EmptyCatalog:
    """`ConversationCatalog` of whoever has no conversations."""

    async def find(
        self,
        principal: str,
        *,
        text: str = "",
        state: ConversationState | None = None,
        limit: int,
        after: CatalogPlace | None = None,
    ) -> Sequence[ConversationSummary]:
        return ()

    async def newest(
        self, principal: str, limit: int, *, after: ConversationId | None = None, prefix: str = ""
    ) -> Sequence[ConversationSummary]:
        return ()

    async def page(
        self, conversation_id: ConversationId, principal: str, *, start: int, limit: int
    ) -> ConversationPage | None:
        return None


class InMemorySessions:
    """`SessionRepository`. `states` has each session's newest state, `events` those of all, in order."""

    def __init__(self) -> None:
        self.states: dict[str, SessionState] = {}
        self.events: list[DomainEvent] = []

    def save(self, session: Session, events: Sequence[DomainEvent]) -> None:
        self.states[session.id] = session.state
        self.events.extend(events)


@dataclass
class Audited:
    """An intent as the audit has it."""

    intent: Intent
    outcome: Outcome | None = None
    error_type: str | None = None


class InMemoryAudit:
    """`AuditTrail`. `problem` is why it takes nothing at present."""

    def __init__(self) -> None:
        self.rows: list[Audited] = []
        self.problem: str | None = None

    async def intend(self, intent: Intent) -> int:
        if self.problem is not None:
            raise StorageUnavailable(self.problem)
        self.rows.append(Audited(intent))
        return len(self.rows)

    def conclude(self, intent_id: int, outcome: Outcome, error_type: str | None, duration: float) -> None:
        row = self.rows[intent_id - 1]
        row.outcome, row.error_type = outcome, error_type

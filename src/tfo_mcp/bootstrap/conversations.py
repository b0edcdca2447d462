"""The conversations' part of the composition root: their storage, their locks, their handlers."""

from __future__ import annotations

from collections.abc import Mapping

from tfo_mcp.application.budget import Budget, BudgetLimits
from tfo_mcp.application.bus import Endpoint
from tfo_mcp.application.commands import CloseConversation, ForkConversation, SendMessage
from tfo_mcp.application.context_window import ContextWindow
from tfo_mcp.application.conversation_desk import ConversationDesk
from tfo_mcp.application.conversation_handler import ConversationHandler, SendDefaults
from tfo_mcp.application.conversation_queries import ConversationQueries, GetConversation, ListConversations
from tfo_mcp.application.ports import Changes, ClaudeService, ConversationCatalog, EventPublisher, Telemetry
from tfo_mcp.application.record_handler import RecordHandler
from tfo_mcp.application.structured import OutputSchemas
from tfo_mcp.application.tool_handler import ToolHandler
from tfo_mcp.application.turn_runner import TurnLimits, TurnRunner
from tfo_mcp.application.turn_tools import TurnTools
from tfo_mcp.domain.tool import ToolRegistry
from tfo_mcp.infrastructure.config import Settings
from tfo_mcp.infrastructure.config.prices import prices_of
from tfo_mcp.infrastructure.persistence.archive import Archive
from tfo_mcp.infrastructure.persistence.conversations import SqlConversationRepository
from tfo_mcp.infrastructure.persistence.forks import SqlConversationForks
from tfo_mcp.infrastructure.persistence.locks import FileLocks
from tfo_mcp.infrastructure.persistence.retention import Retention
from tfo_mcp.infrastructure.persistence.storage import Storage
from tfo_mcp.infrastructure.schemas import JsonSchemas


class Conversations:
    """All that has to do with conversations.

    Attributes:
        retention: to be run behind the first answer.
    """

    def __init__(  # noqa: PLR0913  # what it is composed of
        self,
        settings: Settings,
        storage: Storage,
        catalog: ConversationCatalog,
        claude: ClaudeService,
        tools: ToolRegistry,
        tool_handler: ToolHandler,
        *,
        publisher: EventPublisher,
        changes: Changes,
        telemetry: Telemetry,
    ) -> None:
        claude_settings = settings.claude
        repository = SqlConversationRepository(storage)
        locks = FileLocks(settings.storage.locks)
        desk = ConversationDesk(
            repository, locks, publisher, changes=changes, cache_bytes=claude_settings.history_cache_bytes
        )
        budget = claude_settings.budget
        window = ContextWindow(claude, claude_settings.compact_at)
        turn_tools = TurnTools(tools, tool_handler, desk, window)
        runner = TurnRunner(
            desk,
            repository,
            claude,
            turn_tools,
            budget=Budget(repository, BudgetLimits(turn=budget.turn, conversation=budget.conversation, day=budget.day)),
            window=window,
            telemetry=telemetry,
            limits=TurnLimits(
                max_steps=claude_settings.max_steps,
                max_tokens=claude_settings.max_turn_tokens,
                timeout=claude_settings.turn_timeout,
                max_failures=claude_settings.max_failures,
            ),
        )
        defaults = SendDefaults(
            model=claude_settings.default_model,
            max_tokens=claude_settings.max_tokens,
            patience=claude_settings.turn_timeout,
            effort=claude_settings.effort,
            thinking=claude_settings.thinking,
        )
        self._handler = ConversationHandler(
            desk,
            repository,
            claude,
            runner,
            turn_tools,
            schemas=OutputSchemas(JsonSchemas(), max_bytes=claude_settings.max_output_schema_bytes),
            prices=prices_of(claude_settings.prices, claude_settings.currency),
            defaults=defaults,
        )
        self._records = RecordHandler(SqlConversationForks(storage), publisher)
        self._queries = ConversationQueries(catalog)
        self.retention = Retention(Archive(storage, locks), settings.storage.retention_days)

    def endpoints(self) -> Mapping[type, Endpoint]:
        """Their part of the bus."""
        return {
            SendMessage: Endpoint(self._handler.send),
            CloseConversation: Endpoint(self._handler.close),
            ForkConversation: Endpoint(self._records.fork),
            ListConversations: Endpoint(self._queries.find),
            GetConversation: Endpoint(self._queries.get),
        }

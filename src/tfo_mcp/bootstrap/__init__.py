"""The composition root, read top to bottom: settings → adapters → handlers → server."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from contextlib import suppress
from contextvars import Context
from pathlib import Path

from tfo_mcp import __version__
from tfo_mcp.application import attributes
from tfo_mcp.application.bus import Bus, Endpoint
from tfo_mcp.application.commands import (
    CallTool,
    CloseSession,
    ConfirmInitialized,
    InitializeSession,
    Listen,
    SetLogLevel,
    Subscribe,
    Unsubscribe,
)
from tfo_mcp.application.health import Health
from tfo_mcp.application.log_handler import LogHandler
from tfo_mcp.application.queries import (
    Complete,
    CompletionQueries,
    GetPrompt,
    ListPrompts,
    ListResources,
    ListResourceTemplates,
    ListTools,
    Ping,
    PromptQueries,
    ReadResource,
    ResourceQueries,
    ToolQueries,
    ping,
)
from tfo_mcp.application.session_handler import SessionHandler
from tfo_mcp.application.subscription_handler import SubscriptionHandler
from tfo_mcp.application.tool_handler import ToolHandler, ToolLimits
from tfo_mcp.bootstrap.claude import make_claude
from tfo_mcp.bootstrap.conversations import Conversations
from tfo_mcp.bootstrap.telemetry import Announcer, Recorded
from tfo_mcp.bootstrap.tools import Toolbox
from tfo_mcp.domain import events
from tfo_mcp.domain.errors import StorageUnavailable
from tfo_mcp.domain.prompt import PromptRegistry
from tfo_mcp.domain.resource import ResourceRegistry
from tfo_mcp.domain.tool import ToolRegistry
from tfo_mcp.infrastructure.client_log import FollowedLog
from tfo_mcp.infrastructure.config import Loaded, Settings, shown_settings
from tfo_mcp.infrastructure.events import InProcessPublisher, log_event
from tfo_mcp.infrastructure.logs import release_logs, report_unforeseen
from tfo_mcp.infrastructure.persistence.audit import SqlAuditTrail
from tfo_mcp.infrastructure.persistence.catalog import SqlConversationCatalog
from tfo_mcp.infrastructure.persistence.migrations import AUDIT
from tfo_mcp.infrastructure.persistence.sessions import SqlSessionRepository
from tfo_mcp.infrastructure.persistence.storage import Storage
from tfo_mcp.infrastructure.schemas import JsonSchemas
from tfo_mcp.infrastructure.subscriptions import FollowedResources
from tfo_mcp.infrastructure.telemetry.client import make_telemetry
from tfo_mcp.infrastructure.telemetry.options import telemetry_options
from tfo_mcp.infrastructure.tools.file_resources import file_template
from tfo_mcp.presentation.connection import Connection
from tfo_mcp.presentation.prompts import SERVER_PROMPTS
from tfo_mcp.presentation.resources import ConversationResources, server_resources
from tfo_mcp.presentation.routes import Feature, routes_with
from tfo_mcp.presentation.sdk_door import SdkDoor
from tfo_mcp.presentation.transport.stdio import End, serve_stdio
from tfo_mcp.presentation.transport.streams import StdioLimits
from tfo_mcp.presentation.wire import error_code

_logger = logging.getLogger(__name__)

_ANSWER_TIME = 1.0
"""Seconds that requests get to finish at the end, at most (DESIGN §5) …"""
_ANSWER_SHARE = 0.55
"""… and of a shorter `server.shutdown_timeout`, this share; the rest is for storage and telemetry."""
_CUT_SHARE = 0.5
"""Of what is left then: how long those that were cut may clean up, to be stored and recorded as cancelled."""
_EXIT_MARGIN = 0.1
"""Seconds of `server.shutdown_timeout` kept for the interpreter itself."""

_SWITCH_INTERVAL = 0.0005
"""Seconds between thread switches while the rest is imported behind the first answer (DESIGN decision 10)."""

_INSTRUCTIONS = (
    "File tools work inside the configured roots only. claude_conversation keeps its conversations: pass the "
    "conversation_id that it returns to continue one, also after a restart; list_conversations finds earlier ones."
)

_EVENTS = (
    events.SessionCreated,
    events.SessionInitialized,
    events.SessionFailed,
    events.SessionClosed,
    events.ToolExecuted,
    events.ConversationCreated,
    events.MessageAdded,
    events.ClaudeRequestFailed,
    events.ConversationClosed,
)


class Server:
    """The whole program for one client on stdio.

    Args:
        loaded: settings in force, the file that they come from, and what is to be warned of.
        cwd: the working directory, the file tools' root where none is configured.

    Raises:
        ConfigurationError: settings that are right each, but not together.
    """

    def __init__(self, loaded: Loaded, *, cwd: Path) -> None:
        settings = self._settings = loaded.settings
        self._telemetry = make_telemetry(telemetry_options(settings))
        self._telemetry.take_logs()
        for warning in loaded.warnings:
            _logger.warning("%s", warning)

        publisher = InProcessPublisher(dict.fromkeys(_EVENTS, (log_event,)))
        followed = FollowedResources(most=settings.mcp.max_subscriptions)
        self._telemetry.tell(Announcer(followed))
        self._storage = Storage(settings.storage.database)
        self._sessions = SqlSessionRepository(self._storage)
        self._audit_storage = Storage(settings.storage.audit, AUDIT)
        self._audit = SqlAuditTrail(self._audit_storage, max_rows=settings.storage.max_audit_rows)
        self._claude = make_claude(settings, self._telemetry.tracer_provider)
        self._toolbox = Toolbox(loaded, cwd=cwd)
        features = _features(settings)
        tools = ToolRegistry(self._toolbox.tools() if "tools" in features else ())
        health = Health(
            __version__,
            {
                "storage": self._storage,
                "audit": self._audit_storage,
                "telemetry": self._telemetry,
                "claude": self._claude,
            },
        )
        recorded = Recorded(settings, self._telemetry.settle, health.report)
        prompts = PromptRegistry((*SERVER_PROMPTS, *recorded.prompts) if "prompts" in features else ())
        catalog = SqlConversationCatalog(self._storage)
        conversation_resources = ConversationResources(catalog, max_bytes=settings.tools.max_read_bytes)
        resources = ResourceRegistry()
        if "resources" in features:
            resources = ResourceRegistry(
                [*server_resources(_configuration(loaded), health.report), *recorded.resources],
                [
                    file_template(self._toolbox.roots, self._toolbox.file_limits, self._toolbox.blocking),
                    conversation_resources.template(),
                    *recorded.templates,
                ],
            )

        session_handler = SessionHandler(self._sessions, publisher, self._telemetry)
        tool_handler = ToolHandler(
            tools,
            JsonSchemas(),
            telemetry=self._telemetry,
            publisher=publisher,
            audit=self._audit,
            executor=self._toolbox.blocking,
            limits=ToolLimits(timeout=settings.mcp.tool_timeout, max_result_size=settings.mcp.max_result_size),
            report=self._report,
        )
        conversations = Conversations(
            settings,
            self._storage,
            catalog,
            self._claude,
            self._toolbox.for_claude(tools),
            tool_handler,
            publisher=publisher,
            changes=followed,
            telemetry=self._telemetry,
        )
        self._retention = conversations.retention
        page_size, timeout = settings.mcp.page_size, settings.mcp.tool_timeout
        tool_queries = ToolQueries(tools, page_size=page_size)
        resource_queries = ResourceQueries(resources, page_size=page_size, timeout=timeout)
        subscriptions = SubscriptionHandler(resources, resource_queries.read, followed)
        prompt_queries = PromptQueries(prompts, page_size=page_size)
        log = FollowedLog(settings)
        bus = Bus(
            {
                InitializeSession: Endpoint(session_handler.initialize, guarded=False),
                ConfirmInitialized: Endpoint(session_handler.confirm, guarded=False),
                CloseSession: Endpoint(session_handler.close),
                Ping: Endpoint(ping, guarded=False),
                ListTools: Endpoint(tool_queries.list_tools),
                CallTool: Endpoint(tool_handler.call),
                **conversations.endpoints(),
                **recorded.endpoints(),
                ListResources: Endpoint(resource_queries.list_resources),
                ListResourceTemplates: Endpoint(resource_queries.list_templates),
                ReadResource: Endpoint(resource_queries.read),
                Subscribe: Endpoint(subscriptions.subscribe),
                Unsubscribe: Endpoint(subscriptions.unsubscribe),
                Listen: Endpoint(subscriptions.listen),
                ListPrompts: Endpoint(prompt_queries.list_prompts),
                GetPrompt: Endpoint(prompt_queries.get_prompt),
                Complete: Endpoint(CompletionQueries(prompts, resources, timeout=timeout).complete),
                SetLogLevel: Endpoint(LogHandler(log).set_level),
            },
            telemetry=self._telemetry,
            error_code=error_code,
            report=self._report,
            client_log=log if "logging" in features else None,
        )
        tool_handler.bus = bus

        door = SdkDoor(
            bus,
            self._telemetry,
            routes=routes_with(features),
            name=settings.server.name,
            version=__version__,
            instructions=_INSTRUCTIONS if "tools" in features else None,
            report=self._report,
        )
        self._connection = Connection(
            (door,),
            bus.dispatch,
            telemetry=self._telemetry,
            max_depth=settings.mcp.max_depth,
            max_in_flight=settings.mcp.max_requests_in_flight,
            answer_time=min(_ANSWER_TIME, _ANSWER_SHARE * settings.server.shutdown_timeout),
            on_first_answer=self._begin_loading,
            report=self._report,
        )
        self._loading: asyncio.Task[None] | None = None

    async def run(self) -> End:
        """Serve until the client, a signal or `shutdown` ends it; then flush, within `server.shutdown_timeout`."""
        end = await serve_stdio(
            self._connection,
            StdioLimits(
                max_message_size=self._settings.mcp.max_message_size,
                write_buffer=self._settings.mcp.write_buffer,
                shutdown_timeout=self._settings.server.shutdown_timeout,
            ),
        )
        await self._flush(end.exit_at - asyncio.get_running_loop().time())
        return end

    def _begin_loading(self) -> None:
        # In a context of its own: it is no part of the request whose answer happened to be the first.
        self._loading = asyncio.get_running_loop().create_task(self._load(), context=Context())

    async def _load(self) -> None:
        """What the first answer did not need, behind it; then, to the end, what has become too old goes."""
        await asyncio.sleep(0)  # the answer is written at the end of this turn of the loop
        release_logs()
        interval = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_INTERVAL)
        gc.disable()  # for this while only …
        try:
            await asyncio.to_thread(self._telemetry.start)
            for storage in (self._storage, self._audit_storage):
                with suppress(StorageUnavailable):  # it has logged it, and says it to whoever needs it
                    await storage.open()
            await self._toolbox.warm_up()
            if self._settings.claude.is_configured:
                await self._claude.warm_up()
        except Exception:  # loading is a convenience: whatever fails here is met again where it is needed
            _logger.exception("loading in the background failed")
        finally:
            sys.setswitchinterval(interval)
            gc.freeze()  # … and what was loaded is never looked through, which would hold up calls for 20 ms and more
            gc.enable()
        if self._settings.claude.is_configured:
            await self._claude.look_up_default_model()
        await self._retention.run()

    async def _flush(self, seconds: float) -> None:
        """No program survives; sessions to storage and records to the collector, side by side, in `seconds` at most."""
        self._toolbox.processes.kill()
        if self._loading is not None:
            self._loading.cancel()
        loop = asyncio.get_running_loop()
        until = loop.time() + max(0.0, seconds - _EXIT_MARGIN)
        await self._connection.cut_ones_end(_CUT_SHARE * (until - loop.time()))
        budget = max(0.0, until - loop.time())
        await asyncio.wait(
            [
                asyncio.ensure_future(self._store(budget)),
                asyncio.ensure_future(self._claude.close()),
                asyncio.ensure_future(asyncio.to_thread(self._telemetry.shutdown, budget)),
            ],
            timeout=budget,
        )

    def _report(self, error_id: str, error: BaseException) -> None:
        """To this machine's log all of an unforeseen error, to telemetry its id and type."""
        report_unforeseen(error_id, error)
        known = {attributes.ERROR_ID: error_id, attributes.EXCEPTION_TYPE: attributes.exception_type(error)}
        self._telemetry.record_error(type(error).__name__, known)

    async def _store(self, seconds: float) -> None:
        await asyncio.gather(self._sessions.flush(seconds), self._audit.flush(seconds))
        await asyncio.gather(self._storage.close(), self._audit_storage.close())


def _features(settings: Settings) -> set[Feature]:
    enabled: dict[Feature, bool] = {
        "tools": settings.mcp.enable_tools,
        "resources": settings.mcp.enable_resources,
        "prompts": settings.mcp.enable_prompts,
        "logging": settings.mcp.enable_logging,
        "subscriptions": settings.mcp.enable_resources and settings.mcp.max_subscriptions > 0,
    }
    return {feature for feature, is_on in enabled.items() if is_on}


def _configuration(loaded: Loaded) -> dict[str, object]:
    """What `config://server` shows."""
    file = None if loaded.source is None else str(loaded.source)
    return {"version": __version__, "file": file, "settings": shown_settings(loaded.settings)}

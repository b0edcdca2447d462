"""The composition root, read top to bottom: settings → adapters → handlers → server."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from tfo_mcp import __version__
from tfo_mcp.application.bus import Bus, Endpoint
from tfo_mcp.application.commands import CallTool, CloseSession, ConfirmInitialized, InitializeSession, SendMessage
from tfo_mcp.application.conversation_handler import ConversationHandler, TurnPolicy
from tfo_mcp.application.queries import ListTools, Ping, ToolQueries, ping
from tfo_mcp.application.session_handler import SessionHandler
from tfo_mcp.application.tool_handler import ToolHandler
from tfo_mcp.domain import events
from tfo_mcp.domain.errors import StorageUnavailable
from tfo_mcp.domain.tool import Tool, ToolRegistry
from tfo_mcp.infrastructure.claude import AnthropicClaude
from tfo_mcp.infrastructure.config import Loaded
from tfo_mcp.infrastructure.events import InProcessPublisher, log_event
from tfo_mcp.infrastructure.logs import report_unforeseen
from tfo_mcp.infrastructure.persistence.conversations import SqlConversationRepository
from tfo_mcp.infrastructure.persistence.sessions import SqlSessionRepository
from tfo_mcp.infrastructure.persistence.storage import Storage
from tfo_mcp.infrastructure.schemas import JsonSchemas
from tfo_mcp.infrastructure.telemetry.client import make_telemetry
from tfo_mcp.infrastructure.telemetry.options import telemetry_options
from tfo_mcp.infrastructure.tools.conversations import conversation_tools
from tfo_mcp.infrastructure.tools.echo import echo_tools
from tfo_mcp.infrastructure.tools.files import FileLimits, file_tools
from tfo_mcp.infrastructure.tools.roots import Roots, roots_in_force
from tfo_mcp.infrastructure.tools.system import system_tools
from tfo_mcp.presentation.connection import Connection
from tfo_mcp.presentation.sdk_door import SdkDoor
from tfo_mcp.presentation.transport.stdio import StdioLimits, serve_stdio
from tfo_mcp.presentation.wire import error_code

_logger = logging.getLogger(__name__)

_ANSWER_TIME = 1.0
"""Seconds that requests get to finish at the end, at most (DESIGN §5) …"""
_ANSWER_SHARE = 0.55
"""… and of a shorter `server.shutdown_timeout`, this share; the rest is for storage and telemetry."""
_EXIT_MARGIN = 0.1
"""Seconds of `server.shutdown_timeout` kept for the interpreter itself."""

_TURN_MARGIN = 10.0
"""Seconds that the tool gets beyond `claude.turn_timeout`, to store that the turn was stopped and to say so."""

_SWITCH_INTERVAL = 0.0005
"""Seconds between thread switches while the rest is imported behind the first answer (DESIGN decision 10)."""

_INSTRUCTIONS = (
    "File tools work inside the configured roots only. claude_conversation keeps its conversations: pass the "
    "conversation_id that it returns to continue one, also after a restart."
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
        for warning in loaded.warnings:
            _logger.warning("%s", warning)

        self._telemetry = make_telemetry(telemetry_options(settings))
        publisher = InProcessPublisher(dict.fromkeys(_EVENTS, (log_event,)))
        self._storage = Storage(settings.storage.database)
        self._sessions = SqlSessionRepository(self._storage)
        self._claude = AnthropicClaude(
            api_key=settings.claude.api_key.reveal(),
            base_url=settings.claude.base_url,
            timeout=settings.claude.timeout,
            max_retries=settings.claude.max_retries,
            tracer_provider=self._telemetry.tracer_provider,
        )
        tools = ToolRegistry(_tools(loaded, cwd=cwd))

        session_handler = SessionHandler(self._sessions, publisher, self._telemetry)
        tool_handler = ToolHandler(
            tools,
            JsonSchemas(),
            telemetry=self._telemetry,
            publisher=publisher,
            executor=ThreadPoolExecutor(settings.tools.threads, thread_name_prefix="tool"),
            timeout=settings.mcp.tool_timeout,
            report=report_unforeseen,
        )
        conversation_handler = ConversationHandler(
            SqlConversationRepository(self._storage),
            self._claude,
            tools,
            tool_handler,
            telemetry=self._telemetry,
            publisher=publisher,
            policy=TurnPolicy(
                default_model=settings.claude.default_model,
                max_tokens=settings.claude.max_tokens,
                max_failures=settings.claude.max_failures,
                max_steps=settings.claude.max_steps,
                timeout=settings.claude.turn_timeout,
            ),
        )
        bus = Bus(
            {
                InitializeSession: Endpoint(session_handler.initialize, guarded=False),
                ConfirmInitialized: Endpoint(session_handler.confirm, guarded=False),
                CloseSession: Endpoint(session_handler.close),
                Ping: Endpoint(ping, guarded=False),
                ListTools: Endpoint(ToolQueries(tools).list_tools),
                CallTool: Endpoint(tool_handler.call),
                SendMessage: Endpoint(conversation_handler.send),
            },
            telemetry=self._telemetry,
            error_code=error_code,
            report=report_unforeseen,
        )
        tool_handler.bus = bus

        door = SdkDoor(
            bus,
            self._telemetry,
            name=settings.server.name,
            version=__version__,
            instructions=_INSTRUCTIONS,
            report=report_unforeseen,
        )
        self._connection = Connection(
            (door,),
            bus.dispatch,
            telemetry=self._telemetry,
            max_depth=settings.mcp.max_depth,
            max_in_flight=settings.mcp.max_requests_in_flight,
            answer_time=min(_ANSWER_TIME, _ANSWER_SHARE * settings.server.shutdown_timeout),
            on_first_answer=self._begin_loading,
            report=report_unforeseen,
        )
        self._loading: asyncio.Task[None] | None = None

    async def run(self) -> float:
        """Serve until the client, a signal or `shutdown` ends it; then flush, within `server.shutdown_timeout`.

        Returns:
            The loop's time at which the process should be gone.

        Raises:
            UnusableStream: stdin or stdout cannot be served.
        """
        exit_at = await serve_stdio(
            self._connection,
            StdioLimits(
                max_message_size=self._settings.mcp.max_message_size,
                write_buffer=self._settings.mcp.write_buffer,
                shutdown_timeout=self._settings.server.shutdown_timeout,
            ),
        )
        await self._flush(exit_at - asyncio.get_running_loop().time())
        return exit_at

    def _begin_loading(self) -> None:
        self._loading = asyncio.get_running_loop().create_task(self._load())

    async def _load(self) -> None:
        """What the first answer did not need, behind it."""
        interval = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_INTERVAL)
        gc.disable()  # for this while only …
        try:
            await asyncio.to_thread(self._telemetry.start)
            with suppress(StorageUnavailable):  # storage has logged it, and says it to whoever needs it
                await self._storage.open()
            if self._settings.claude.api_key:
                await self._claude.warm_up()
        except Exception:  # loading is a convenience: whatever fails here is met again where it is needed
            _logger.exception("loading in the background failed")
        finally:
            sys.setswitchinterval(interval)
            gc.freeze()  # … and what was loaded is never looked through, which would hold up calls for 20 ms and more
            gc.enable()

    async def _flush(self, seconds: float) -> None:
        """Sessions to storage and records to the collector, side by side, for at most `seconds`."""
        if self._loading is not None:
            self._loading.cancel()
        budget = max(0.0, seconds - _EXIT_MARGIN)
        await asyncio.wait(
            [
                asyncio.ensure_future(self._store(budget)),
                asyncio.ensure_future(self._claude.close()),
                asyncio.ensure_future(asyncio.to_thread(self._telemetry.shutdown, budget)),
            ],
            timeout=budget,
        )

    async def _store(self, seconds: float) -> None:
        await self._sessions.flush(seconds)
        await self._storage.close()


def _tools(loaded: Loaded, *, cwd: Path) -> list[Tool]:
    settings = loaded.settings
    roots = Roots(
        roots_in_force(settings.tools.roots, cwd),
        denied=[path for path in (settings.storage.folder, loaded.source, settings.logging.file) if path is not None],
    )
    limits = FileLimits(max_read_bytes=settings.tools.max_read_bytes, max_entries=settings.tools.max_entries)
    return [
        *echo_tools(),
        *file_tools(roots, limits),
        *system_tools(roots),
        *conversation_tools(
            default_model=settings.claude.default_model,
            has_key=bool(settings.claude.api_key),
            max_message=settings.mcp.max_message_size,
            timeout=settings.claude.turn_timeout + _TURN_MARGIN,
        ),
    ]


def offered_tools(loaded: Loaded, *, cwd: Path) -> ToolRegistry:
    """The tools that a `Server` would offer."""
    return ToolRegistry(_tools(loaded, cwd=cwd))

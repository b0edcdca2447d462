"""Our server as the scripts speak to it: in this process, or as the real one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import cast

from differential.messages import MAX_LINE, Members, Script
from differential.rules import MAX_DEPTH
from support.fakes import EmptyCatalog, InMemoryAudit, InMemorySessions
from support.server import Server, serving
from tfo_mcp import __version__
from tfo_mcp.application.bus import Bus, Endpoint
from tfo_mcp.application.commands import CallTool, CloseSession, ConfirmInitialized, InitializeSession
from tfo_mcp.application.health import Health
from tfo_mcp.application.ports import Telemetry
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
from tfo_mcp.application.tool_handler import ToolHandler, ToolLimits
from tfo_mcp.domain.prompt import PromptRegistry
from tfo_mcp.domain.resource import ResourceRegistry
from tfo_mcp.domain.tool import ToolRegistry
from tfo_mcp.infrastructure.events import InProcessPublisher
from tfo_mcp.infrastructure.schemas import JsonSchemas
from tfo_mcp.infrastructure.telemetry.client import NullTelemetry
from tfo_mcp.infrastructure.tools.echo import echo_tools
from tfo_mcp.infrastructure.tools.file_resources import file_template
from tfo_mcp.infrastructure.tools.files import FileLimits, file_tools
from tfo_mcp.infrastructure.tools.roots import Roots
from tfo_mcp.presentation.connection import Connection
from tfo_mcp.presentation.prompts import SERVER_PROMPTS
from tfo_mcp.presentation.resources import ConversationResources, server_resources
from tfo_mcp.presentation.routes import routes_with
from tfo_mcp.presentation.sdk_door import SdkDoor
from tfo_mcp.presentation.transport.framing import LineFramer
from tfo_mcp.presentation.wire import error_code

_TURNS = 12
"""Turns of the event loop in which an answer comes that nobody expects."""

_PATIENCE = 2000
"""Turns of the event loop in which every answer comes that comes at all; tools here are inline."""

HELLO = (
    b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},'
    b'"clientInfo":{"name":"differential","version":"1"}}}'
)
INTRODUCTION = (
    HELLO,
    b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}',
    b'{"jsonrpc":"2.0","id":2,"method":"resources/list"}',
    b'{"jsonrpc":"2.0","id":3,"method":"resources/templates/list"}',
    b'{"jsonrpc":"2.0","id":4,"method":"prompts/list"}',
    b'{"jsonrpc":"2.0","id":5,"method":"resources/read","params":{"uri":"config://server"}}',
    b'{"jsonrpc":"2.0","id":6,"method":"prompts/get","params":{"name":"code_review","arguments":{"code":"x"}}}',
    (
        b'{"jsonrpc":"2.0","id":7,"method":"completion/complete","params":{"ref":{"type":"ref/prompt",'
        b'"name":"code_review"},"argument":{"name":"language","value":""}}}'
    ),
)
"""What tells what a server says of itself, what it has, and what the scripts ask of that."""


class InProcess:
    """One connection to bus, handlers, door and framer as `bootstrap` puts them together, without pipes and storage.

    It is the `Wire` of its connection. `faults` are what was reported as unforeseen.
    """

    def __init__(self, telemetry: Telemetry | None = None) -> None:
        self.faults: list[BaseException] = []
        self.answers: list[Members] = []
        self._framer = LineFramer(MAX_LINE)
        telemetry = telemetry or NullTelemetry()
        publisher = InProcessPublisher({})
        roots, limits, executor = Roots([]), FileLimits(max_read_bytes=1, max_entries=1), ThreadPoolExecutor(1)
        tools = ToolRegistry([*echo_tools(), *file_tools(roots, limits)])
        prompts = PromptRegistry(SERVER_PROMPTS)
        resources = ResourceRegistry(
            server_resources({"it": "is"}, Health(__version__, {}).report),
            [
                file_template(roots, limits, executor),
                ConversationResources(EmptyCatalog(), max_bytes=1).template(),
            ],
        )
        sessions = SessionHandler(InMemorySessions(), publisher, telemetry)
        tool_handler = ToolHandler(
            tools,
            JsonSchemas(),
            telemetry=telemetry,
            publisher=publisher,
            audit=InMemoryAudit(),
            executor=executor,
            limits=ToolLimits(timeout=30, max_result_size=1_000_000),
            report=self._report,
        )
        tool_queries = ToolQueries(tools, page_size=100)
        resource_queries = ResourceQueries(resources, page_size=100, timeout=30)
        prompt_queries = PromptQueries(prompts, page_size=100)
        bus = Bus(
            {
                InitializeSession: Endpoint(sessions.initialize, guarded=False),
                ConfirmInitialized: Endpoint(sessions.confirm, guarded=False),
                CloseSession: Endpoint(sessions.close),
                Ping: Endpoint(ping, guarded=False),
                ListTools: Endpoint(tool_queries.list_tools),
                CallTool: Endpoint(tool_handler.call),
                ListResources: Endpoint(resource_queries.list_resources),
                ListResourceTemplates: Endpoint(resource_queries.list_templates),
                ReadResource: Endpoint(resource_queries.read),
                ListPrompts: Endpoint(prompt_queries.list_prompts),
                GetPrompt: Endpoint(prompt_queries.get_prompt),
                Complete: Endpoint(CompletionQueries(prompts, resources, timeout=30).complete),
            },
            telemetry=telemetry,
            error_code=error_code,
            report=self._report,
        )
        door = SdkDoor(
            bus,
            telemetry,
            routes=routes_with({"tools", "resources", "prompts"}),
            name="differential",
            version=__version__,
            instructions="Be the same.",
            report=self._report,
        )
        self._connection = Connection(
            (door,),
            bus.dispatch,
            telemetry=telemetry,
            max_depth=MAX_DEPTH,
            max_in_flight=1000,
            answer_time=1.0,
            on_first_answer=lambda: None,
            report=self._report,
        )
        self._connection.attach(self)

    def _report(self, error_id: str, error: BaseException) -> None:
        self.faults.append(error)

    # --- the port `Wire` ---

    def write(self, line: bytes) -> None:
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        self.answers.append(cast("Members", json.loads(line)))

    is_read = True

    async def writable(self) -> None:
        """It always is."""

    def resume(self) -> None:
        """Nothing is ever held back."""

    # --- the client's side ---

    def send(self, burst: Sequence[bytes]) -> None:
        """Give a burst to the connection before any request of it has run."""
        data = b"".join(line + b"\n" for line in burst)
        cut = len(data) // 3  # chunks end where they like
        for chunk in (data[:cut], data[cut:]):
            for line in self._framer.feed(chunk):
                if line is None:
                    self._connection.reject_oversized(MAX_LINE)
                else:
                    self._connection.receive(line)

    async def exchange(self, burst: Sequence[bytes], expected: int) -> list[Members]:
        """Send a burst; its answers, once there are as many as expected and no more come."""
        before = len(self.answers)
        self.send(burst)
        for _ in range(_PATIENCE):
            if len(self.answers) - before >= expected:
                break
            await asyncio.sleep(0)
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        return self.answers[before:]


def speak_to_process(folder: Path, script: Script, expected: Sequence[int]) -> list[list[Members]]:
    """A fresh `tfo-mcp serve`; the answers to each burst, those that nobody expects behind the last."""
    env = {
        "TELEMETRYFLOW_MCP_MCP_MAX_MESSAGE_SIZE": str(MAX_LINE),
        "TELEMETRYFLOW_MCP_STORAGE_FOLDER": str(folder.parent / "state"),  # one for all: `config://server` shows it
        "TELEMETRYFLOW_MCP_MCP_ENABLE_LOGGING": "false",  # the bare SDK's server has no log to follow
        "TELEMETRYFLOW_MCP_MCP_MAX_SUBSCRIPTIONS": "0",  # a stream stays open: it is no answer to be compared
    }
    with serving(folder, env=env) as server:
        answers: list[list[Members]] = []
        for burst, count in zip(script, expected, strict=True):
            with suppress(BrokenPipeError):  # it is gone: then answers are missing
                server.send_raw(b"".join(line + b"\n" for line in burst))
            answers.append(list(_received(server, count)))
        server.close_input()
        answers[-1] += server.rest()
        assert server.wait() == 0, server.log()
        return answers


def _received(server: Server, count: int) -> Iterator[Members]:
    for _ in range(count):
        try:
            yield server.receive()
        except AssertionError:  # none comes any more: one that is missing is a difference
            return

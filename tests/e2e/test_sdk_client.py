"""The official SDK's client, in each of its modes, against the real process."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.subscriptions import ResourceUpdated
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CallToolResult,
    PromptReference,
    ResourceTemplateReference,
    ResourceUpdatedNotification,
    TextContent,
    TextResourceContents,
)

from support.claude import FakeClaude, fake_claude
from support.server import claude_at, environment, eventually
from support.sizes import later

if TYPE_CHECKING:
    from mcp.client.session import MessageHandlerFnT

ODD = str(Path(__file__).with_name("odd_server.py"))

MODES = {"legacy": "2025-11-25", "auto": "2026-07-28", "2026-07-28": "2026-07-28"}
"""Mode to the revision that it leads to."""


@asynccontextmanager
async def connected(
    folder: Path,
    mode: str,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    message_handler: MessageHandlerFnT | None = None,
) -> AsyncGenerator[Client]:
    """A client and its server, which leaves by itself and in time."""
    work = folder / "work"
    work.mkdir(exist_ok=True)
    parameters = StdioServerParameters(
        command=sys.executable,
        args=list(arguments or ("-m", "tfo_mcp", "serve")),
        env=environment(folder, env),
        cwd=work,
    )
    with (folder / "stderr.log").open("w") as log:
        async with Client(stdio_client(parameters, errlog=log), mode=mode, message_handler=message_handler) as client:
            yield client
            started = time.monotonic()
        assert time.monotonic() - started < 1.8 + 0.4, "the client had to kill the server"
    with sqlite3.connect(folder / "state" / "tfo-mcp.db") as database:
        assert database.execute("select state from sessions").fetchall() == [("closed",)]
    database.close()


def run(talk: Callable[[], Awaitable[None]]) -> None:
    async def within_a_minute() -> None:
        async with asyncio.timeout(60):
            await talk()

    asyncio.run(within_a_minute())


def text(result: CallToolResult) -> str:
    (block,) = result.content
    assert isinstance(block, TextContent)
    return block.text


@pytest.mark.behaviour("lifecycle.client.sdk")
@pytest.mark.parametrize("mode", ["legacy", "auto", later("2026-07-28")])
def test_tools_are_listed_and_called_and_failures_told_apart(tmp_path: Path, mode: str) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "note").write_text("hello")

    async def talk() -> None:
        async with connected(tmp_path, mode) as client:
            assert client.protocol_version == MODES[mode]
            if mode != "2026-07-28":  # there, the client has asked nothing yet
                assert client.server_info is not None
                assert client.server_info.name == "TelemetryFlow-MCP"
                assert client.instructions
            names = [tool.name for tool in (await client.list_tools()).tools]
            assert {"echo", "read_file", "list_directory", "search_files", "system_info"} <= set(names)
            echoed = await client.call_tool("echo", {"message": "é\u2028"})
            assert (text(echoed), echoed.structured_content, echoed.is_error) == (
                "é\u2028",
                {"message": "é\u2028"},
                False,
            )
            assert text(await client.call_tool("read_file", {"path": "note"})) == "hello"
            failed = await client.call_tool("read_file", {"path": "none"})
            assert (failed.is_error, text(failed)) == (True, "there is no 'none'")
            wrong = await client.call_tool("echo", {"message": 5})
            assert wrong.is_error
            with pytest.raises(MCPError) as refused:
                await client.call_tool("no_such")
            assert (refused.value.error.code, refused.value.error.message) == (-32602, "unknown tool: 'no_such'")

    run(talk)


@pytest.mark.behaviour("lifecycle.client.sdk")
@pytest.mark.parametrize("mode", ["legacy", "auto", later("2026-07-28")])
def test_resources_prompts_and_completions_are_what_the_client_takes_them_for(tmp_path: Path, mode: str) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "note.md").write_text("hello")

    async def talk() -> None:
        async with connected(tmp_path, mode) as client:
            listed = await client.list_resources()
            uris = [resource.uri for resource in listed.resources]
            assert uris[:2] == ["config://server", "status://health"]
            assert {uri.partition("://")[0] for uri in uris[2:]} == {"telemetry"}
            templates = (await client.list_resource_templates()).resource_templates
            assert [template.uri_template for template in templates] == [
                "file:///{path}",
                "conversation://{id}",
                "telemetry://traces/{trace_id}",
            ]
            (content,) = (await client.read_resource((tmp_path / "work" / "note.md").as_uri())).contents
            assert isinstance(content, TextResourceContents)
            assert (content.text, content.mime_type) == ("hello", "text/markdown")
            (health,) = (await client.read_resource("status://health")).contents
            assert isinstance(health, TextResourceContents)
            assert json.loads(health.text)["status"] == "healthy"
            with pytest.raises(MCPError) as refused:
                await client.read_resource("file:///etc/passwd")
            assert refused.value.error.code == -32602

            prompts = (await client.list_prompts()).prompts
            assert [prompt.name for prompt in prompts] == [
                "code_review",
                "explain_code",
                "debug_help",
                "diagnose_server",
            ]
            (message,) = (await client.get_prompt("explain_code", {"code": "1 + 1"})).messages
            assert isinstance(message.content, TextContent)
            assert "1 + 1" in message.content.text
            with pytest.raises(MCPError) as refused:
                await client.get_prompt("explain_code")
            assert (refused.value.error.code, refused.value.error.message) == (
                -32602,
                "prompt 'explain_code' needs the argument 'code'",
            )

            languages = PromptReference(type="ref/prompt", name="explain_code")
            completed = await client.complete(languages, {"name": "language", "value": "ru"})
            assert completed.completion.values == ["ruby", "rust"]
            paths = ResourceTemplateReference(type="ref/resource", uri="file:///{path}")
            begun = f"{tmp_path}/work/n"
            completed = await client.complete(paths, {"name": "path", "value": begun})
            assert completed.completion.values == [f"{begun}ote.md"]

    run(talk)


@pytest.mark.behaviour("lifecycle.client.sdk", "messages.answer.one")
@pytest.mark.parametrize("mode", ["auto", later("legacy"), later("2026-07-28")])
def test_many_calls_at_once_each_get_their_own_result(tmp_path: Path, mode: str) -> None:
    async def talk() -> None:
        async with connected(tmp_path, mode) as client:
            results = await asyncio.gather(*(client.call_tool("echo", {"message": f"{n}"}) for n in range(64)))
            assert [text(result) for result in results] == [f"{n}" for n in range(64)]

    run(talk)


@pytest.mark.behaviour("cancellation.upstream")
@pytest.mark.parametrize("mode", ["auto", later("legacy"), later("2026-07-28")])
def test_a_cancelled_call_ends_upstream_and_the_connection_serves_on(tmp_path: Path, mode: str) -> None:
    async def talk(claude: FakeClaude) -> None:
        async with connected(tmp_path, mode, env=claude_at(claude.base_url)) as client:
            asking = asyncio.create_task(client.call_tool("claude_conversation", {"message": "hi"}))
            await asyncio.to_thread(eventually, lambda: any(request["status"] for request in claude.requests()))
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await asyncio.to_thread(eventually, lambda: claude.requests()[0]["disconnected"])
            assert text(await client.call_tool("echo", {"message": "on"})) == "on"

    with fake_claude("replies: [{text: late, delay: 60}]") as claude:
        run(lambda: talk(claude))


@pytest.mark.behaviour("progress.token")
@pytest.mark.parametrize("mode", ["legacy", later("auto"), later("2026-07-28")])
def test_who_wants_progress_gets_what_there_is(tmp_path: Path, mode: str) -> None:
    async def talk() -> None:
        told: list[tuple[float, float | None, str | None]] = []
        heard = anyio.Event()

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            told.append((progress, total, message))
            heard.set()

        async with connected(tmp_path, mode, ODD, "serve") as client:
            result = await client.call_tool("wait", {"seconds": 0.01}, progress_callback=on_progress)
            assert text(result) == "waited 0.01 s"
            await heard.wait()
            assert told == [(0, 1, "waiting")]
            # A tool that tells none is not disturbed by the token.
            result = await client.call_tool("echo", {"message": "x"}, progress_callback=on_progress)
            assert (text(result), len(told)) == ("x", 1)

    run(talk)


async def say(client: Client, **more: str) -> str:
    """Change a conversation, or begin one; its id."""
    result = await client.call_tool("claude_conversation", {"message": "hello", **more})
    assert result.structured_content is not None
    return str(result.structured_content["conversation_id"])


@pytest.mark.behaviour("resources.subscribe")
@pytest.mark.filterwarnings("ignore:resources/(un)?subscribe is removed:mcp.MCPDeprecationWarning")
def test_who_subscribes_is_told(tmp_path: Path) -> None:
    async def talk(claude: FakeClaude) -> None:
        told: list[str] = []
        heard = anyio.Event()

        async def handle(message: object) -> None:
            if isinstance(message, ResourceUpdatedNotification):
                told.append(message.params.uri)
                heard.set()

        async with connected(tmp_path, "legacy", env=claude_at(claude.base_url), message_handler=handle) as client:
            assert client.server_capabilities.resources is not None
            assert client.server_capabilities.resources.subscribe
            conversation = await say(client)
            uri = f"conversation://{conversation}"
            await client.subscribe_resource(uri)  # pyright: ignore[reportDeprecated]
            await say(client, conversation_id=conversation)
            await heard.wait()
            await client.unsubscribe_resource(uri)  # pyright: ignore[reportDeprecated]
            assert set(told) == {uri}

    with fake_claude() as claude:
        run(lambda: talk(claude))


@pytest.mark.behaviour("resources.listen", "resources.listen.end")
@pytest.mark.parametrize("mode", ["auto", later("2026-07-28")])
def test_who_listens_is_told_and_may_leave_before_the_server(tmp_path: Path, mode: str) -> None:
    async def talk(claude: FakeClaude) -> None:
        async with connected(tmp_path, mode, env=claude_at(claude.base_url)) as client:
            conversation = await say(client)
            uri = f"conversation://{conversation}"
            async with client.listen(resource_subscriptions=[uri, "status://health"]) as stream:
                assert stream.honored.resource_subscriptions == [uri]
                await say(client, conversation_id=conversation)
                assert await anext(aiter(stream)) == ResourceUpdated(uri)
            async with client.listen(resource_subscriptions=[uri]) as stream:
                assert text(await client.call_tool("echo", {"message": "on"})) == "on"

    with fake_claude() as claude:
        run(lambda: talk(claude))

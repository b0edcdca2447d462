"""What the demonstration's client does, step by step, and what it says of each."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO, cast

import anyio
import click
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp_types import CallToolResult, TextContent

_CANCEL_AFTER = 0.5
"""Seconds into the call that is cancelled."""


async def tell(environment: Mapping[str, str], python: str, folder: Path, log: TextIO, *, simulated: bool) -> bool:
    """Use the server in `folder` as a client does; returns whether every step ended as it should.

    The server is run by the interpreter `python`, with `environment` beyond what every child gets; its stderr goes
    to `log`. A stand-in for Claude is `simulated`, which is then said.
    """
    parameters = StdioServerParameters(
        command=python, args=["-m", "tfo_mcp", "serve", "--root", str(folder)], env=dict(environment), cwd=folder
    )
    started = time.perf_counter()
    async with Client(stdio_client(parameters, log)) as client:
        info = client.server_info
        _say(
            "connect",
            f"{info.name if info else '?'} {info.version if info else ''}, MCP {client.protocol_version}",
            started,
        )
        story = _Story(client)
        await story.list_tools()
        await story.read_files()
        await story.fail()
        await story.cancel()
        await story.converse(simulated=simulated)
    click.echo()
    return story.went_well


class _Story:
    def __init__(self, client: Client) -> None:
        self._client = client
        self.went_well = True

    async def list_tools(self) -> None:
        started = time.perf_counter()
        tools = (await self._client.list_tools()).tools
        _say("tools/list", ", ".join(tool.name for tool in tools), started)

    async def read_files(self) -> None:
        found = await self._call("search_files", {"path": ".", "pattern": "*.md"})
        matches: list[str] = _structured(found).get("matches", [])
        if matches:
            await self._call("read_file", {"path": min(matches, key=lambda path: (path != "README.md", path))})

    async def fail(self) -> None:
        await self._call("read_file", {"path": "../../etc/passwd"}, should_fail=True)

    async def cancel(self) -> None:
        started = time.perf_counter()
        with anyio.move_on_after(_CANCEL_AFTER) as scope:
            await self._client.call_tool("claude_conversation", {"message": "Please take your time with this one."})
        self.went_well &= scope.cancelled_caught
        _say("claude_conversation", "cancelled by the client" if scope.cancelled_caught else "was too quick", started)

    async def converse(self, *, simulated: bool) -> None:
        who = "Claude (simulated: ANTHROPIC_API_KEY is not set)" if simulated else "Claude"
        click.echo(f"\nA conversation with {who}")
        first = await self._turn("Look at the files in this directory, and at the machine. What is this?")
        conversation = _structured(first).get("conversation_id")
        self.went_well &= conversation is not None
        await self._turn("Thank you. How did this conversation begin?", conversation)

    async def _turn(self, message: str, conversation: str | None = None) -> CallToolResult:
        click.echo(f"  you     {message}")
        arguments: dict[str, Any] = {"message": message}
        if conversation:
            arguments["conversation_id"] = conversation
        started = time.perf_counter()
        result = await self._client.call_tool("claude_conversation", arguments)
        self.went_well &= not result.is_error
        turn = _structured(result)
        for line in str(turn.get("text") or _text(result)).splitlines()[:12]:
            click.echo(f"  Claude  {line[:150]}")
        usage = turn.get("usage", {})
        tokens_in = sum(usage.get(f"{kind}_tokens", 0) for kind in ("input", "cache_read", "cache_write"))
        click.echo(
            f"          {turn.get('tool_calls', 0)} tool calls, {tokens_in} tokens in, "
            f"{usage.get('output_tokens', 0)} out, {_milliseconds(started)}"
        )
        return result

    async def _call(self, tool: str, arguments: dict[str, Any], *, should_fail: bool = False) -> CallToolResult:
        started = time.perf_counter()
        result = await self._client.call_tool(tool, arguments)
        self.went_well &= bool(result.is_error) == should_fail
        first_line = next(iter(_text(result).splitlines()), "")
        given = ", ".join(str(value) for value in arguments.values())
        _say(tool, f"({given})  {'isError: ' if result.is_error else ''}{first_line[:110]}", started)
        return result


def _structured(result: CallToolResult) -> dict[str, Any]:
    return cast("dict[str, Any]", result.structured_content or {})


def _text(result: CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))


def _say(what: str, text: str, started: float) -> None:
    click.echo(f"{what:<20} {_milliseconds(started):>8}  {text}")


def _milliseconds(started: float) -> str:
    return f"{(time.perf_counter() - started) * 1000:.0f} ms"

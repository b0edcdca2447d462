"""The official SDK by itself: its low-level server in its own loop, fed as its `stdio_server` would feed it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio
import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.runner import serve_dual_era_loop
from mcp.shared.message import SessionMessage

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from differential.messages import Members

PATIENCE = 10.0
"""Seconds in which an answer comes that comes at all."""

_TURNS = 12
"""Turns of the event loop in which the SDK has done whatever a message without an answer asks for."""

_Context = ServerRequestContext[object, Any]


_Result = TypeVar("_Result", bound=types.Result)


def _giving(kind: type[_Result], result: Members) -> Callable[[_Context, object], Awaitable[_Result]]:
    async def give(ctx: _Context, params: object) -> _Result:
        return kind.model_validate(result)

    return give


def bare_server(introduction: Sequence[Members]) -> Server[object]:
    """A server that says the same of itself as ours and offers the same; `introduction` is ours to `INTRODUCTION`.

    What a tool gives for arguments that do not fit its schema, and what is unknown, the SDK leaves to its user:
    those requests get a bare result here, and the rules say what ours must answer in its place.
    """
    identity, tools, resources, templates, prompts, read, prompt, completion = introduction

    async def call_tool(ctx: _Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        message = (params.arguments or {}).get("message")
        if not isinstance(message, str):
            return types.CallToolResult(content=[], is_error=True)
        return types.CallToolResult(
            content=[types.TextContent(type="text", text=message)], structured_content={"message": message}
        )

    async def get_prompt(ctx: _Context, params: types.GetPromptRequestParams) -> types.GetPromptResult:
        """Ours with another code in its fence."""
        text = prompt["messages"][0]["content"]["text"].replace("\nx\n", f"\n{(params.arguments or {}).get('code')}\n")
        content = {"type": "text", "text": text}
        return types.GetPromptResult.model_validate({**prompt, "messages": [{"role": "user", "content": content}]})

    async def complete(ctx: _Context, params: types.CompleteRequestParams) -> types.CompleteResult:
        """Of our languages, which are all, those that begin so."""
        known = cast("list[str]", completion["completion"]["values"] if params.argument.name == "language" else [])
        values = [value for value in known if value.startswith(params.argument.value.lower())]
        return types.CompleteResult(completion=types.Completion(values=values, total=len(values), has_more=False))

    async def shut_down(ctx: _Context, params: object) -> types.EmptyResult:
        return types.EmptyResult()

    server: Server[object] = Server(
        identity["serverInfo"]["name"],
        version=identity["serverInfo"]["version"],
        instructions=identity["instructions"],
        on_list_tools=_giving(types.ListToolsResult, tools),
        on_call_tool=call_tool,
        on_list_resources=_giving(types.ListResourcesResult, resources),
        on_list_resource_templates=_giving(types.ListResourceTemplatesResult, templates),
        on_read_resource=_giving(types.ReadResourceResult, read),
        on_list_prompts=_giving(types.ListPromptsResult, prompts),
        on_get_prompt=get_prompt,
        on_completion=complete,
    )
    server.add_request_handler("shutdown", types.RequestParams, shut_down)
    return server


class BareConnection:
    """One client's connection to it."""

    def __init__(
        self,
        send: MemoryObjectSendStream[SessionMessage | Exception],
        receive: MemoryObjectReceiveStream[SessionMessage],
    ) -> None:
        self._send = send
        self._receive = receive

    async def ask(self, line: bytes) -> Members | None:
        """The answer to one line, None where the SDK gives none; the next line is sent after it."""
        message: types.JSONRPCMessage | Exception
        try:
            message = types.jsonrpc_message_adapter.validate_json(line.decode("utf-8", "replace"), by_name=False)
        except Exception as error:  # noqa: BLE001  # as the SDK's own reader has it
            await self._send.send(error)
            return await self._silence()
        await self._send.send(SessionMessage(message))
        if not isinstance(message, types.JSONRPCRequest):
            return await self._silence()
        async with asyncio.timeout(PATIENCE):
            return _shown(await self._receive.receive())

    async def _silence(self) -> None:
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        try:
            unasked = self._receive.receive_nowait()
        except anyio.WouldBlock:
            return
        raise AssertionError(f"the SDK answers what is no request: {_shown(unasked)}")


@asynccontextmanager
async def connected(server: Server[object]) -> AsyncGenerator[BareConnection]:
    """A fresh connection. Its gate before `initialize` is opened by an early `initialized`: our gate is a rule."""
    send, read = anyio.create_memory_object_stream[SessionMessage | Exception]()
    write, receive = anyio.create_memory_object_stream[SessionMessage](1)
    async with anyio.create_task_group() as group, send, receive:

        async def serve() -> None:
            await serve_dual_era_loop(server, read, write, lifespan_state={})

        group.start_soon(serve)
        connection = BareConnection(send, receive)
        await connection.ask(b'{"jsonrpc":"2.0","method":"notifications/initialized"}')
        yield connection
        send.close()


def _shown(message: SessionMessage) -> Members:
    return cast("Members", json.loads(message.message.model_dump_json(by_alias=True, exclude_unset=True)))

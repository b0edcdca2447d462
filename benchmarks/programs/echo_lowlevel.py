"""An echo on the official SDK's low-level `Server`, over its own stdio transport."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

if TYPE_CHECKING:
    from mcp.server.context import ServerRequestContext

_SCHEMA = {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]}


async def _list_tools(
    _ctx: ServerRequestContext[Any], _params: types.PaginatedRequestParams | None
) -> types.ListToolsResult:
    tool = types.Tool(name="echo", description="Give the message back unchanged.", input_schema=_SCHEMA)
    return types.ListToolsResult(tools=[tool])


async def _call_tool(_ctx: ServerRequestContext[Any], params: types.CallToolRequestParams) -> types.CallToolResult:
    message = (params.arguments or {})["message"]
    return types.CallToolResult(content=[types.TextContent(type="text", text=message)])


async def main() -> None:
    server = Server("echo", on_list_tools=_list_tools, on_call_tool=_call_tool)
    async with stdio_server() as (reads, writes):
        await server.run(reads, writes, server.create_initialization_options())


if __name__ == "__main__":
    asyncio.run(main())

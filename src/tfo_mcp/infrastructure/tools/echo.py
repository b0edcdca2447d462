"""`echo`: gives back what it was given, to see whether a client reaches the server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfo_mcp.domain.tool import Tool, ToolAnnotations, ToolContext, ToolMode, ToolResult

_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {"message": {"type": "string"}},
    "required": ["message"],
    "additionalProperties": False,
}


def echo_tools() -> list[Tool]:
    """`echo`."""
    return [
        Tool(
            name="echo",
            title="Echo",
            description="Give the message back unchanged.",
            input_schema=_SCHEMA,
            output_schema=_SCHEMA,
            run=_echo,
            mode=ToolMode.INLINE,
            annotations=ToolAnnotations(read_only=True, destructive=False, idempotent=True, open_world=False),
        )
    ]


def _echo(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:  # noqa: ARG001  # asks nothing of the server
    return ToolResult(arguments["message"], structured={"message": arguments["message"]})

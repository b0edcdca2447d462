"""1.2 Response Builder: from the domain to the shapes of MCP, and from its errors to JSON-RPC's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tfo_mcp.domain import errors
from tfo_mcp.domain.tool import Tool, ToolResult

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
CONNECTION_CLOSED: Final = -32000

ERROR_CODES: Final[Mapping[type[errors.DomainError], int]] = {
    errors.InvalidRequest: INVALID_REQUEST,
    errors.SessionClosing: CONNECTION_CLOSED,
    errors.InvalidParams: INVALID_PARAMS,
    errors.ToolFailure: INVALID_PARAMS,  # only where no tool stands around it to make a result of it
    errors.InternalError: INTERNAL_ERROR,
    errors.InvalidTransition: INTERNAL_ERROR,
}
"""The one table from the domain's errors to JSON-RPC's codes (DESIGN §5); a subclass follows its base."""


def error_code(error: errors.DomainError) -> int:
    """The JSON-RPC code of `error`."""
    for kind in type(error).__mro__:
        if kind in ERROR_CODES:
            return ERROR_CODES[kind]
    return INTERNAL_ERROR


def error_of(error: errors.DomainError) -> tuple[int, str, object]:
    """`error` as JSON-RPC's (code, message, data); data is None where there is none."""
    code = error_code(error)
    if code == INTERNAL_ERROR:
        error_id = error.error_id if isinstance(error, errors.InternalError) else None
        return code, "Internal error", None if error_id is None else {"errorId": error_id}
    return code, str(error), None


def empty(_result: object) -> dict[str, Any]:
    """`EmptyResult`."""
    return {}


def tool_list(tools: Sequence[Tool]) -> dict[str, Any]:
    """`ListToolsResult`."""
    return {"tools": [_tool(tool) for tool in tools]}


def _tool(tool: Tool) -> dict[str, Any]:
    promises = tool.annotations
    shape: dict[str, Any] = {
        "name": tool.name,
        "title": tool.title,
        "description": tool.description,
        "inputSchema": dict(tool.input_schema),
        "annotations": {
            "readOnlyHint": promises.read_only,
            "destructiveHint": promises.destructive,
            "idempotentHint": promises.idempotent,
            "openWorldHint": promises.open_world,
        },
    }
    if tool.output_schema is not None:
        shape["outputSchema"] = dict(tool.output_schema)
    return shape


def tool_result(result: ToolResult) -> dict[str, Any]:
    """`CallToolResult`: text always, structured content where the tool gave it."""
    shape: dict[str, Any] = {"content": [{"type": "text", "text": result.text}], "isError": result.is_error}
    if result.structured is not None:
        shape["structuredContent"] = dict(result.structured)
    return shape

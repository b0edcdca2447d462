"""1.2 Response Builder: from the domain to the shapes of MCP, and from its errors to JSON-RPC's."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tfo_mcp.application.pages import Page
from tfo_mcp.application.queries import FilledPrompt, ReadContent
from tfo_mcp.domain import errors
from tfo_mcp.domain.completion import Completion
from tfo_mcp.domain.prompt import Prompt
from tfo_mcp.domain.resource import Resource, ResourceTemplate
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
    errors.ResourceUnavailable: INTERNAL_ERROR,
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
    if isinstance(error, errors.UnknownResource | errors.NotSubscribable | errors.ResourceUnavailable):
        return code, str(error), {"uri": error.uri}
    if code == INTERNAL_ERROR:
        error_id = error.error_id if isinstance(error, errors.InternalError) else None
        return code, "Internal error", None if error_id is None else {"errorId": error_id}
    return code, str(error), None


def empty(_result: object) -> dict[str, Any]:
    """`EmptyResult`."""
    return {}


def _list(name: str, items: Sequence[dict[str, Any]], next_cursor: str | None) -> dict[str, Any]:
    return {name: items} if next_cursor is None else {name: items, "nextCursor": next_cursor}


def tool_list(page: Page[Tool]) -> dict[str, Any]:
    """`ListToolsResult`."""
    return _list("tools", [_tool(tool) for tool in page.items], page.next_cursor)


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


def resource_list(page: Page[Resource]) -> dict[str, Any]:
    """`ListResourcesResult`."""
    shapes = [{"uri": item.uri, **_described(item), "mimeType": item.mime_type} for item in page.items]
    return _list("resources", shapes, page.next_cursor)


def template_list(page: Page[ResourceTemplate]) -> dict[str, Any]:
    """`ListResourceTemplatesResult`."""
    shapes = [{"uriTemplate": item.uri_template, **_described(item)} for item in page.items]
    for shape, item in zip(shapes, page.items, strict=True):
        if item.mime_type is not None:
            shape["mimeType"] = item.mime_type
    return _list("resourceTemplates", shapes, page.next_cursor)


def _described(item: Resource | ResourceTemplate | Prompt) -> dict[str, Any]:
    return {"name": item.name, "title": item.title, "description": item.description}


def resource_contents(read: ReadContent) -> dict[str, Any]:
    """`ReadResourceResult`: one text, or one blob in base64."""
    data = read.content.data
    part = {"text": data} if isinstance(data, str) else {"blob": b64encode(data).decode("ascii")}
    return {"contents": [{"uri": read.uri, "mimeType": read.content.mime_type, **part}]}


def prompt_list(page: Page[Prompt]) -> dict[str, Any]:
    """`ListPromptsResult`."""
    return _list(
        "prompts", [{**_described(item), "arguments": _arguments(item)} for item in page.items], page.next_cursor
    )


def _arguments(prompt: Prompt) -> list[dict[str, Any]]:
    return [
        {"name": argument.name, "description": argument.description, "required": argument.required}
        for argument in prompt.arguments
    ]


def prompt_result(filled: FilledPrompt) -> dict[str, Any]:
    """`GetPromptResult`: one message by the user."""
    content = {"type": "text", "text": filled.text}
    return {"description": filled.prompt.description, "messages": [{"role": "user", "content": content}]}


def completion_result(completion: Completion) -> dict[str, Any]:
    """`CompleteResult`."""
    shape: dict[str, Any] = {"values": list(completion.values), "hasMore": completion.has_more}
    if completion.total is not None:
        shape["total"] = completion.total
    return {"completion": shape}

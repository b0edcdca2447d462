"""Whether what a tool gave can be sent: a tool may be anybody's."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import cast

from tfo_mcp.domain.errors import ResultTooLarge
from tfo_mcp.domain.tool import Tool, ToolResult


def check_result(tool: Tool, outcome: object, max_size: int) -> ToolResult:
    """`outcome`, which is a result of `tool` that JSON can express.

    Its size is the characters of the text and of all that is structured, where a number counts as one.

    Raises:
        ResultTooLarge: it has more.
        TypeError, ValueError: it is no result, or holds what JSON has no form for; a fault of the tool.
    """
    if not isinstance(outcome, ToolResult):
        if inspect.iscoroutine(outcome):
            outcome.close()
        raise TypeError(f"tool {tool.name!r} gave {type(outcome).__name__}, not a ToolResult")
    if not isinstance(cast("object", outcome.text), str):
        raise TypeError(f"the text of the result of {tool.name!r} is {type(outcome.text).__name__}")
    left = max_size
    pending: list[object] = [outcome.text]
    if outcome.structured is not None:
        pending.append(_object(tool, outcome.structured))
    while pending:
        value = pending.pop()
        left -= _own_size(tool, value, pending)
        if left < 0:
            raise ResultTooLarge(tool.name, max_size)
    return outcome


def _object(tool: Tool, structured: object) -> dict[object, object]:
    if not isinstance(structured, Mapping):
        raise TypeError(f"the structured content of {tool.name!r} is {type(structured).__name__}")
    return dict(cast("Mapping[object, object]", structured))


def _own_size(tool: Tool, value: object, pending: list[object]) -> int:
    """The characters of `value` itself; what it holds goes to `pending`."""
    match value:
        case str():
            if not value.isascii():
                value.encode()  # half of a surrogate pair has no form
            return len(value)
        case None | bool() | int() | float():
            return 1
        case dict():
            items = cast("dict[object, object]", value)
            if not all(isinstance(name, str) for name in items):
                raise TypeError(f"a name in the structured content of {tool.name!r} is no text")
            pending += items
            pending += items.values()
            return len(items)
        case list() | tuple():
            elements = cast("list[object] | tuple[object, ...]", value)
            pending += elements
            return len(elements)
        case _:
            raise TypeError(f"the structured content of {tool.name!r} holds {type(value).__name__}")

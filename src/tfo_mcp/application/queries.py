"""Queries: plain reads, each beside the function that answers it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tfo_mcp.application.bus import RequestInfo
from tfo_mcp.domain.errors import UnknownCursor
from tfo_mcp.domain.tool import Tool, ToolRegistry


@dataclass(frozen=True, slots=True)
class Ping:
    """`ping`: is anybody there?"""


async def ping(query: Ping, info: RequestInfo) -> None:  # noqa: ARG001  # the type says it all
    """Nothing, promptly; before `initialize` too."""
    info.session.check_is_open()


@dataclass(frozen=True, slots=True)
class ListTools:
    """`tools/list`, from the page that `cursor` stands for."""

    cursor: str | None = None


class ToolQueries:
    """Reads over the tool registry."""

    def __init__(self, tools: ToolRegistry) -> None:
        self._tools = tools

    async def list_tools(self, query: ListTools, info: RequestInfo) -> Sequence[Tool]:  # noqa: ARG002  # not filtered yet
        """Every tool, in the order of registration.

        Raises:
            UnknownCursor: whichever it is: all tools are on the first page.
        """
        if query.cursor is not None:
            raise UnknownCursor(query.cursor)
        return tuple(self._tools)

"""The tools that Claude may use in a turn, and their use."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from tfo_mcp.application.bus import RequestInfo
from tfo_mcp.application.commands import CallTool
from tfo_mcp.application.context_window import ContextWindow
from tfo_mcp.application.conversation_desk import ConversationDesk
from tfo_mcp.application.tool_handler import ToolHandler
from tfo_mcp.application.turn_progress import TurnProgress
from tfo_mcp.domain.conversation import INTERRUPTED, Conversation
from tfo_mcp.domain.errors import ToolsNotAllowed, UnknownTool
from tfo_mcp.domain.message import Message, ToolAnswer, ToolUse
from tfo_mcp.domain.tool import Tool, ToolRegistry
from tfo_mcp.domain.transcript import Transcript

_TOO_LARGE = "The result has {} characters, more than this conversation has room for: ask for less at a time."


class TurnTools:
    """Runs tools for Claude.

    Args:
        tools: those that he may use at all (`claude.allow_tools`).
    """

    def __init__(
        self, tools: ToolRegistry, tool_handler: ToolHandler, desk: ConversationDesk, window: ContextWindow
    ) -> None:
        self._window = window
        self._tools = tools
        self._tool_handler = tool_handler
        self._desk = desk

    def check(self, names: Sequence[str] | None) -> None:
        """Guard of every send.

        Raises:
            ToolsNotAllowed: one of `names` is none that Claude may use.
        """
        allowed = [tool.name for tool in self._tools]
        if unknown := [name for name in names or () if name not in allowed]:
            raise ToolsNotAllowed(unknown, allowed)

    def offered(self, names: Sequence[str] | None) -> Sequence[Tool]:
        """Those of `names`; None: all."""
        return [tool for tool in self._tools if names is None or tool.name in names]

    async def use(
        self,
        uses: Sequence[ToolUse],
        begun: frozenset[str],
        conversation: Conversation,
        tools: Sequence[Tool],
        info: RequestInfo,
        progress: TurnProgress,
    ) -> None:
        """Run them side by side; commit each answer when it is there.

        Of those that must not run twice, it is committed first that they begin; whoever was begun before, by a
        process that died, is not run again.
        """
        offered = ToolRegistry(tools)
        once = {tool.name for tool in tools if not (tool.annotations.read_only or tool.annotations.idempotent)}
        cut = [use for use in uses if use.id in begun]
        runnable = [use for use in uses if use.id not in begun]
        for use in runnable:
            if use.name in once:
                conversation.begin_tool(use)
        for use in cut:
            conversation.add_tool_answer(ToolAnswer(use.id, INTERRUPTED, is_error=True))
        if cut or any(use.name in once for use in runnable):
            await self._desk.commit(conversation)
        progress.phase("running " + ", ".join(_known(use, offered) for use in runnable))
        running = [asyncio.create_task(self._use_tool(use, info, offered)) for use in runnable]
        try:
            for answer in asyncio.as_completed(running):
                conversation.add_tool_answer(await self._fitting(await answer, conversation))
                await self._desk.commit(conversation)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _fitting(self, answer: ToolAnswer, conversation: Conversation) -> ToolAnswer:
        """`answer`, or that it is too large: with it the conversation could never be sent again."""
        tokens = Transcript((Message("user", (answer,)),)).tokens
        if await self._window.has_room(conversation.model, conversation.prompt_tokens + tokens):
            return answer
        return replace(answer, content=_TOO_LARGE.format(len(answer.content)), is_error=True)

    async def _use_tool(self, use: ToolUse, info: RequestInfo, offered: ToolRegistry) -> ToolAnswer:
        """One tool call by Claude; what he may not call is recorded and answered, not run."""
        inner = replace(info, operation="execute_tool", progress_token=None)
        try:
            result = await self._tool_handler.call(CallTool(use.name, use.input), inner, offered)
        except UnknownTool:
            return ToolAnswer(use.id, f"there is no tool {use.name[:200]!r} in this conversation", is_error=True)
        return ToolAnswer(use.id, result.text, is_error=result.is_error)


def _known(use: ToolUse, offered: ToolRegistry) -> str:
    try:
        return offered.find(use.name).name
    except UnknownTool:
        return "an unknown tool"

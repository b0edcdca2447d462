"""The diagrams' "Claude Conversation": ask, commit the answer, run the tools, commit each answer, ask again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tfo_mcp.application.budget import Budget
from tfo_mcp.application.bus import RequestInfo
from tfo_mcp.application.claude_span import ClaudeSpan
from tfo_mcp.application.commands import CallTool
from tfo_mcp.application.conversation_desk import ConversationDesk
from tfo_mcp.application.deadlines import DeadlinePassed, Deadlines
from tfo_mcp.application.ports import (
    AnswerListener,
    Attempt,
    ClaudeRequest,
    ClaudeResponse,
    ClaudeService,
    ConversationRepository,
    Telemetry,
)
from tfo_mcp.application.tool_handler import ToolHandler
from tfo_mcp.application.turn_progress import TurnProgress
from tfo_mcp.domain.conversation import INTERRUPTED, Conversation
from tfo_mcp.domain.errors import BudgetExceeded, ClaudeFailure, ToolsNotAllowed, UnknownTool
from tfo_mcp.domain.message import ToolAnswer, ToolUse, Usage
from tfo_mcp.domain.tool import Tool, ToolRegistry
from tfo_mcp.domain.turn import Arrived, Turn, TurnOptions

_BYTES_A_TOKEN = 3
"""UTF-8 bytes that count as a token where nobody has counted (DESIGN §6)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnLimits:
    """What one turn may take.

    Attributes:
        max_steps: requests to Claude.
        max_tokens: that Claude may write.
        timeout: seconds, its tool calls included.
        max_failures: failed requests in a row that close a conversation.
    """

    max_steps: int
    max_tokens: int
    timeout: float
    max_failures: int


class TurnRunner:
    """Works on the last turn of a conversation until it has its end. Every step is one committed append.

    Args:
        tools: those that Claude may use at all (`claude.allow_tools`).
    """

    def __init__(
        self,
        desk: ConversationDesk,
        conversations: ConversationRepository,
        claude: ClaudeService,
        tools: ToolRegistry,
        tool_handler: ToolHandler,
        *,
        budget: Budget,
        telemetry: Telemetry,
        limits: TurnLimits,
    ) -> None:
        self._desk = desk
        self._conversations = conversations
        self._claude = claude
        self._tools = tools
        self._tool_handler = tool_handler
        self._budget = budget
        self._telemetry = telemetry
        self._limits = limits
        self._deadlines = Deadlines()

    def check_tools(self, names: Sequence[str] | None) -> None:
        """Guard of every send.

        Raises:
            ToolsNotAllowed: one of `names` is none that Claude may use.
        """
        allowed = [tool.name for tool in self._tools]
        if unknown := [name for name in names or () if name not in allowed]:
            raise ToolsNotAllowed(unknown, allowed)

    async def check_budget(self, conversation: Conversation, added: int, options: TurnOptions) -> None:
        """Guard of every send; `added` are about the tokens that it adds.

        Raises:
            BudgetExceeded: there is no room for its first request.
        """
        prompt = conversation.tokens + added + self._overhead(conversation.system_prompt, self._offered(options))
        await self._budget.allows(conversation, prompt, 1)

    async def run(
        self, conversation: Conversation, info: RequestInfo, progress: TurnProgress, *, own: bool = True
    ) -> None:
        """Bring the last turn, which is running, to its end; what is uncommitted goes with the first commit.

        A limit ends it too, and says so as its stop reason. One that is not the caller's `own` stays interrupted
        where he cancels.

        Raises:
            ClaudeFailure: the turn failed, and is stored so.
            StorageUnavailable, ConversationBusy: it is interrupted where storage has it.
        """
        turn = _turn(conversation)
        begun = frozenset[str]() if turn.steps == 0 else await self._conversations.begun_tools(conversation.id)
        try:
            with self._deadlines.within(self._limits.timeout):
                await self._steps(conversation, begun, info, progress)
        except DeadlinePassed:
            conversation.end_turn("timeout", unanswered="This tool call was stopped: the turn's time was over.")
            await self._desk.settle(conversation)
        except BudgetExceeded:
            conversation.end_turn("budget")
            await self._desk.commit(conversation)
        except asyncio.CancelledError:
            if own:
                conversation.cancel_turn()
                await self._desk.settle(conversation)
            raise

    async def _steps(
        self, conversation: Conversation, begun: frozenset[str], info: RequestInfo, progress: TurnProgress
    ) -> None:
        tools = self._offered(_turn(conversation).options)
        while True:
            if uses := conversation.open_calls():
                await self._use_tools(uses, begun, conversation, tools, info, progress)
            request, limit = await self._request(conversation, tools)
            answer = await self._ask(conversation, request, info, progress)
            reason = answer.message.stop_reason or ""
            if reason == "pause_turn":
                conversation.go_on()
            elif reason != "tool_use":
                conversation.end_turn(limit if reason == "max_tokens" and limit else reason)
            elif _turn(conversation).steps >= self._limits.max_steps:
                conversation.end_turn("max_steps", unanswered="This tool call was not run: the turn had its last step.")
            await self._desk.commit(conversation)
            if not conversation.is_interrupted:
                return
            if (stop := self._limit(conversation)) is not None:
                conversation.end_turn(stop, unanswered="This tool call was not run: the turn's limit was reached.")
                await self._desk.commit(conversation)
                return

    def _limit(self, conversation: Conversation) -> str | None:
        turn = _turn(conversation)
        if turn.steps >= self._limits.max_steps:
            return "max_steps"
        return "max_turn_tokens" if turn.usage.output_tokens >= self._limits.max_tokens else None

    async def _request(self, conversation: Conversation, tools: Sequence[Tool]) -> tuple[ClaudeRequest, str | None]:
        """What is to be asked, and which limit will be the cause where the answer is cut for being too long."""
        turn = _turn(conversation)
        options = turn.options
        left = self._limits.max_tokens - turn.usage.output_tokens
        prompt = conversation.tokens + self._overhead(conversation.system_prompt, tools)
        within_turn = min(options.max_tokens, left)
        max_tokens = await self._budget.allows(conversation, prompt, within_turn)
        request = ClaudeRequest(
            model=conversation.model,
            max_tokens=max_tokens,
            system=conversation.system_prompt,
            messages=conversation.transcript.turns,
            tools=tools,
            effort=options.effort,
            thinking=options.thinking,
            output_schema=options.output_schema,
        )
        limit = "budget" if max_tokens < within_turn else "max_turn_tokens" if left < options.max_tokens else None
        return request, limit

    async def _ask(
        self, conversation: Conversation, request: ClaudeRequest, info: RequestInfo, progress: TurnProgress
    ) -> ClaudeResponse:
        """Commit what is to be asked, and ask it. The answer is appended, not yet committed."""
        conversation.request_sent()
        await self._desk.commit(conversation)
        progress.phase("waiting for Claude")
        span = ClaudeSpan(self._telemetry, request, conversation.id, info.parent)
        arriving = _Arriving(span, progress, _turn(conversation).usage)
        try:
            with span.around():
                answer = await self._claude.create_message(request, arriving)
        except ClaudeFailure as failure:
            span.failed(failure)
            arrived = arriving.arrived
            conversation.request_failed(failure, max_failures=self._limits.max_failures, arrived=arrived)
            await self._desk.settle(conversation)
            failure.arrived = arrived.text
            raise
        except BaseException as error:  # a cancellation, or a fault of ours: nobody waits for the answer now
            if isinstance(error, asyncio.CancelledError):
                span.cancelled()
            else:
                span.broke(error)
            conversation.request_cancelled(arriving.arrived)
            await self._desk.settle(conversation)
            raise
        span.completed(answer)
        conversation.response_received(answer.message, answer.request_id)
        progress.counted(_all(_turn(conversation).usage))
        return answer

    async def _use_tools(
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
                conversation.add_tool_answer(await answer)
                await self._desk.commit(conversation)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _use_tool(self, use: ToolUse, info: RequestInfo, offered: ToolRegistry) -> ToolAnswer:
        """One tool call by Claude; what he may not call is recorded and answered, not run."""
        inner = replace(info, operation="execute_tool", progress_token=None)
        try:
            result = await self._tool_handler.call(CallTool(use.name, use.input), inner, offered)
        except UnknownTool:
            return ToolAnswer(use.id, f"there is no tool {use.name[:200]!r} in this conversation", is_error=True)
        return ToolAnswer(use.id, result.text, is_error=result.is_error)

    def _offered(self, options: TurnOptions) -> Sequence[Tool]:
        return [tool for tool in self._tools if options.tools is None or tool.name in options.tools]

    def _overhead(self, system: str | None, tools: Sequence[Tool]) -> int:
        """About the tokens of what stands before the messages."""
        size = len((system or "").encode())
        for tool in tools:
            size += len(tool.description.encode()) + len(json.dumps(tool.input_schema))
        return -(-size // _BYTES_A_TOKEN)


class _Arriving(AnswerListener):
    """Keeps what arrives of an answer, and passes on what the span and the client want to know."""

    def __init__(self, span: ClaudeSpan, progress: TurnProgress, before: Usage) -> None:
        self._span = span
        self._progress = progress
        self._before = _all(before)
        self._text: list[str] = []
        self._begun = False
        self._usage: Usage | None = None
        self._model: str | None = None
        self._request_id: str | None = None

    @property
    def arrived(self) -> Arrived:
        return Arrived(
            begun=self._begun,
            text="".join(self._text),
            usage=self._usage,
            model=self._model,
            request_id=self._request_id,
        )

    def attempted(self, attempt: Attempt) -> None:
        self._span.attempted(attempt)

    def begun(self, model: str, usage: Usage, request_id: str | None) -> None:
        self._begun = True
        self._model, self._request_id = model, request_id
        self.counted(usage)

    def thought(self, text: str) -> None:  # noqa: ARG002  # that he thinks is enough
        self._span.first_chunk()
        self._progress.phase("Claude is thinking")

    def wrote(self, text: str) -> None:
        self._text.append(text)
        self._span.first_chunk()
        self._progress.wrote(text)

    def calls(self, tool: str) -> None:
        self._span.first_chunk()
        self._progress.phase(f"Claude is calling {tool}")

    def counted(self, usage: Usage) -> None:
        self._usage = usage
        self._progress.counted(self._before + _all(usage))


def _turn(conversation: Conversation) -> Turn:
    if conversation.turn is None:
        msg = "the conversation has no turn"
        raise RuntimeError(msg)
    return conversation.turn


def _known(use: ToolUse, offered: ToolRegistry) -> str:
    try:
        return offered.find(use.name).name
    except UnknownTool:
        return "an unknown tool"


def _all(usage: Usage) -> int:
    return usage.prompt_tokens + usage.output_tokens

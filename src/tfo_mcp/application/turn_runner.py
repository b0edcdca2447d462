"""The diagrams' "Claude Conversation": ask, commit the answer, run the tools, commit each answer, ask again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tfo_mcp.application.arriving import Arriving
from tfo_mcp.application.budget import Budget
from tfo_mcp.application.bus import RequestInfo
from tfo_mcp.application.claude_span import ClaudeSpan
from tfo_mcp.application.context_window import ContextWindow
from tfo_mcp.application.conversation_desk import ConversationDesk
from tfo_mcp.application.deadlines import DeadlinePassed, Deadlines
from tfo_mcp.application.ports import (
    ClaudeRequest,
    ClaudeResponse,
    ClaudeService,
    ConversationRepository,
    Telemetry,
)
from tfo_mcp.application.turn_progress import TurnProgress
from tfo_mcp.application.turn_tools import TurnTools
from tfo_mcp.domain.conversation import Conversation
from tfo_mcp.domain.errors import BudgetExceeded, ClaudeFailure, ConversationTooLong
from tfo_mcp.domain.message import Block, Message, Usage
from tfo_mcp.domain.tool import Tool
from tfo_mcp.domain.transcript import Transcript
from tfo_mcp.domain.turn import Turn, TurnOptions, TurnState

_BYTES_A_TOKEN = 3
"""UTF-8 bytes that count as a token where nobody has counted (DESIGN §6)."""


_REACHED = {"max_steps": "the turn had its last step", "max_turn_tokens": "the turn had its last token"}


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
    """Works on the last turn of a conversation until it has its end. Every step is one committed append."""

    def __init__(
        self,
        desk: ConversationDesk,
        conversations: ConversationRepository,
        claude: ClaudeService,
        tools: TurnTools,
        *,
        budget: Budget,
        window: ContextWindow,
        telemetry: Telemetry,
        limits: TurnLimits,
    ) -> None:
        self._desk = desk
        self._conversations = conversations
        self._claude = claude
        self._tools = tools
        self._budget = budget
        self._window = window
        self._telemetry = telemetry
        self._limits = limits
        self._deadlines = Deadlines()

    async def check(self, conversation: Conversation, content: Sequence[Block], options: TurnOptions) -> None:
        """Guard of every send, which says `content`.

        Raises:
            BudgetExceeded: there is no room for its first request.
            ConversationTooLong: its model cannot take so much.
        """
        system = conversation.system_prompt if options.system_prompt is None else options.system_prompt
        tools = self._tools.offered(options.tools)
        said = Message("user", content)
        prompt = _tokens_before(system, tools) + conversation.tokens + Transcript((said,)).tokens
        await self._budget.allows(conversation, Usage(), prompt, 1)
        model = options.model or conversation.model
        if await self._window.has_room(model, prompt):
            return
        transcript = Transcript((*conversation.messages, said))
        counted = await self._claude.count_tokens(
            ClaudeRequest(model=model, max_tokens=1, system=system, transcript=transcript, tools=tools)
        )
        if counted is not None and not await self._window.has_room(model, counted):
            raise ConversationTooLong(counted, model)

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
            if _turn(conversation).state is TurnState.ENDED:  # it had its end, and only the commit was late
                await self._desk.commit(conversation)
                return
            conversation.end_turn("timeout", unanswered="This tool call was stopped: the turn's time was over.")
            await self._desk.settle(conversation)
        except BudgetExceeded:
            conversation.end_turn("budget")
            await self._desk.commit(conversation)
        except asyncio.CancelledError:
            if own:
                if _turn(conversation).state is not TurnState.ENDED:
                    conversation.cancel_turn()
                await self._desk.settle(conversation)
            raise

    async def _steps(
        self, conversation: Conversation, begun: frozenset[str], info: RequestInfo, progress: TurnProgress
    ) -> None:
        tools = self._tools.offered(_turn(conversation).options.tools)
        while (stop := self._limit(conversation)) is None:
            if uses := conversation.open_calls():
                await self._tools.use(uses, begun, conversation, tools, info, progress)
            request, limit = await self._request(conversation, tools)
            answer = await self._ask(conversation, request, info, progress)
            reason = answer.message.stop_reason or ""
            if reason == "pause_turn":
                conversation.go_on()
            elif reason != "tool_use" or not conversation.open_calls():
                conversation.end_turn(limit if reason == "max_tokens" and limit else reason)
            await self._desk.commit(conversation)
            if not conversation.is_interrupted:
                return
        conversation.end_turn(stop, unanswered=f"This tool call was not run: {_REACHED[stop]}.")
        await self._desk.commit(conversation)

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
        prompt = _tokens_before(conversation.system_prompt, tools) + conversation.tokens
        within_turn = min(options.max_tokens, left)
        max_tokens = await self._budget.allows(conversation, turn.usage, prompt, within_turn)
        request = ClaudeRequest(
            model=conversation.model,
            max_tokens=max_tokens,
            system=conversation.system_prompt,
            transcript=conversation.transcript,
            tools=tools,
            effort=options.effort,
            thinking=options.thinking,
            output_schema=options.output_schema,
        )
        limit = "budget" if max_tokens < within_turn else "max_turn_tokens" if left < options.max_tokens else None
        compact_at = await self._window.compact_at(request, prompt)
        return (request if compact_at is None else replace(request, compact_at=compact_at)), limit

    async def _ask(
        self, conversation: Conversation, request: ClaudeRequest, info: RequestInfo, progress: TurnProgress
    ) -> ClaudeResponse:
        """Commit what is to be asked, and ask it. The answer is appended, not yet committed."""
        conversation.request_sent(_tokens_before(request.system, request.tools))
        try:
            await self._desk.commit(conversation)
        except asyncio.CancelledError:
            conversation.request_cancelled(may_have_cost=False)
            raise
        progress.phase("waiting for Claude")
        span = ClaudeSpan(self._telemetry, request, conversation.id, info.parent, provider=self._claude.provider)
        arriving = Arriving(span, progress, _turn(conversation).usage)
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
            conversation.request_cancelled(arriving.arrived, may_have_cost=arriving.may_have_cost)
            await self._desk.settle(conversation)
            raise
        span.completed(answer)
        conversation.response_received(answer.message, answer.request_id)
        progress.counted(_turn(conversation).usage.all_tokens)
        return answer


def _tokens_before(system: str | None, tools: Sequence[Tool]) -> int:
    """About the tokens of what stands before the messages."""
    blocks: list[Mapping[str, Any]] = [
        {"name": tool.name, "description": tool.description, "input_schema": tool.input_schema} for tool in tools
    ]
    if system and system.strip():
        blocks.append({"type": "text", "text": system})
    sizes = (len(json.dumps(block, ensure_ascii=False, separators=(",", ":")).encode()) for block in blocks)
    return sum(-(-size // _BYTES_A_TOKEN) for size in sizes)


def _turn(conversation: Conversation) -> Turn:
    if conversation.turn is None:
        msg = "the conversation has no turn"
        raise RuntimeError(msg)
    return conversation.turn

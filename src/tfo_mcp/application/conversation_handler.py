"""The diagrams' "Claude Conversation": prepare → API call → process, until Claude has finished its turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

from tfo_mcp.application import attributes
from tfo_mcp.application.bus import RequestInfo
from tfo_mcp.application.commands import CallTool, SendMessage
from tfo_mcp.application.deadlines import DeadlinePassed, Deadlines
from tfo_mcp.application.ports import (
    AttributeValue,
    ClaudeRequest,
    ClaudeResponse,
    ClaudeService,
    ConversationRepository,
    EventPublisher,
    Telemetry,
    current_operation,
)
from tfo_mcp.application.tool_handler import ToolHandler
from tfo_mcp.domain.conversation import Conversation, ConversationState
from tfo_mcp.domain.errors import (
    ClaudeFailure,
    ConversationBusy,
    ConversationNotFound,
    StorageUnavailable,
    ToolFailure,
    TurnTimedOut,
    UnknownTool,
)
from tfo_mcp.domain.identifiers import parse_conversation_id
from tfo_mcp.domain.message import ToolAnswer, ToolUse, Usage
from tfo_mcp.domain.tool import ToolRegistry
from tfo_mcp.domain.transcript import Transcript


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnPolicy:
    """The `claude` section, as far as turns need it.

    Attributes:
        max_steps: API requests of one turn, at most.
        timeout: seconds that one turn may take, its tool calls included.
    """

    default_model: str
    max_tokens: int
    max_failures: int
    max_steps: int
    timeout: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one send led to: Claude's last message and what the turn took."""

    conversation_id: str
    text: str
    model: str
    stop_reason: str
    usage: Usage
    tool_calls: int


class ConversationHandler:
    """Sends messages. Every step of a turn is one committed append (DESIGN decision 4)."""

    def __init__(
        self,
        conversations: ConversationRepository,
        claude: ClaudeService,
        tools: ToolRegistry,
        tool_handler: ToolHandler,
        *,
        telemetry: Telemetry,
        publisher: EventPublisher,
        policy: TurnPolicy,
    ) -> None:
        self._conversations = conversations
        self._claude = claude
        self._tools = tools
        self._tool_handler = tool_handler
        self._telemetry = telemetry
        self._publisher = publisher
        self._policy = policy
        self._deadlines = Deadlines()
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    async def send(self, command: SendMessage, info: RequestInfo) -> Turn:
        """Append the user's message and let Claude answer, tools included.

        Raises:
            ClaudeNotConfigured: before anything is stored.
            ConversationNotFound, ConversationClosed: nothing was stored or sent.
            ClaudeFailure, TurnTimedOut, ConversationBusy, StorageUnavailable: with `kept_in`, the user's message
                is stored and sending the next one is the retry; without, it is not, or the conversation closed.
        """
        self._claude.check_configured()
        if command.conversation_id is None:
            conversation = Conversation.create(
                principal=info.principal,
                model=command.model or self._policy.default_model,
                system_prompt=command.system_prompt,
                fallback_model=self._policy.default_model,
            )
            return await self._turn(conversation, command, info)
        async with self._lock(command.conversation_id):
            return await self._turn(await self._load(command.conversation_id, info), command, info)

    async def _load(self, conversation_id: str, info: RequestInfo) -> Conversation:
        parsed = parse_conversation_id(conversation_id)
        conversation = None if parsed is None else await self._conversations.get(parsed, info.principal)
        if conversation is None:
            raise ConversationNotFound(conversation_id)
        return conversation

    async def _turn(self, conversation: Conversation, command: SendMessage, info: RequestInfo) -> Turn:
        conversation.configure(model=command.model, system_prompt=command.system_prompt)
        conversation.add_user_message(command.message)
        fence = conversation.fence
        try:
            return await self._in_time(self._steps(conversation, command, info))
        except ToolFailure as failure:
            if conversation.fence > fence and conversation.state is not ConversationState.CLOSED:
                failure.kept_in = conversation.id
            raise

    async def _in_time(self, turn: Awaitable[Turn]) -> Turn:
        seconds = self._policy.timeout
        try:
            with self._deadlines.within(seconds):
                return await turn
        except DeadlinePassed:
            raise TurnTimedOut(seconds) from None

    async def _steps(self, conversation: Conversation, command: SendMessage, info: RequestInfo) -> Turn:
        usage, tool_calls, steps = Usage(), 0, 0
        while True:
            answer = await self._ask(conversation, command.max_tokens or self._policy.max_tokens, info)
            usage, steps = usage + answer.usage, steps + 1
            # With any other stop reason the last call's input is cut off.
            uses = answer.message.tool_uses if answer.message.stop_reason == "tool_use" else ()
            if not uses or steps == self._policy.max_steps:
                break
            tool_calls += len(uses)
            await self._use_tools(uses, conversation, info)
        return Turn(
            conversation_id=conversation.id,
            text=answer.message.text,
            model=answer.message.model or conversation.model,
            stop_reason="max_steps" if uses else (answer.message.stop_reason or ""),
            usage=usage,
            tool_calls=tool_calls,
        )

    async def _ask(self, conversation: Conversation, max_tokens: int, info: RequestInfo) -> ClaudeResponse:
        """Commit what is to be asked, ask it, commit the answer."""
        conversation.request_sent()
        await self._commit(conversation)
        request = ClaudeRequest(
            model=conversation.model,
            max_tokens=max_tokens,
            system=conversation.system_prompt,
            messages=Transcript(conversation.messages).turns,
            tools=tuple(self._offered()),
        )
        try:
            answer = await self._request(request, conversation, info)
        except ClaudeFailure as failure:
            conversation.request_failed(failure, max_failures=self._policy.max_failures)
            await self._settle(conversation)
            raise
        except BaseException:  # a cancellation, or a fault of ours: nobody waits for the answer now
            conversation.request_cancelled()
            await self._settle(conversation)
            raise
        conversation.response_received(answer.message)
        await self._commit(conversation)
        return answer

    async def _request(self, request: ClaudeRequest, conversation: Conversation, info: RequestInfo) -> ClaudeResponse:
        span = self._telemetry.span(
            "claude",
            "claude.request",
            parent=info.parent,
            attributes={
                attributes.GEN_AI_OPERATION: "chat",
                attributes.PROVIDER: "anthropic",
                attributes.REQUEST_MODEL: request.model,
                attributes.CONVERSATION: conversation.id,
            },
        )
        around = current_operation.set(span.context)
        try:
            with span.active():
                answer = await self._claude.create_message(request)
        except ClaudeFailure as failure:
            self._record_error(failure, request, conversation)
            span.end("failed", _error_type(failure))
            raise
        except BaseException as error:
            cancelled = isinstance(error, asyncio.CancelledError)
            span.end("cancelled" if cancelled else "failed", None if cancelled else type(error).__name__)
            raise
        finally:
            current_operation.reset(around)
        span.set(attributes.RESPONSE_MODEL, answer.message.model or request.model)
        span.set(attributes.INPUT_TOKENS, answer.usage.prompt_tokens)  # the conventions want the cache's in it
        span.set(attributes.OUTPUT_TOKENS, answer.usage.output_tokens)
        span.set(attributes.CACHE_READ_TOKENS, answer.usage.cache_read_tokens)
        span.set(attributes.CACHE_WRITE_TOKENS, answer.usage.cache_write_tokens)
        span.end("completed")
        return answer

    def _record_error(self, failure: ClaudeFailure, request: ClaudeRequest, conversation: Conversation) -> None:
        known: dict[str, AttributeValue] = {
            attributes.EXCEPTION_TYPE: attributes.exception_type(failure),
            attributes.GEN_AI_OPERATION: "chat",
            attributes.PROVIDER: "anthropic",
            attributes.REQUEST_MODEL: request.model,
            attributes.CONVERSATION: conversation.id,
        }
        if failure.request_id is not None:
            known[attributes.CLAUDE_REQUEST_ID] = failure.request_id
        self._telemetry.record_error(_error_type(failure), known)

    def _offered(self) -> ToolRegistry:
        return ToolRegistry(tool for tool in self._tools if tool.for_claude and tool.annotations.read_only)

    async def _use_tools(self, uses: Sequence[ToolUse], conversation: Conversation, info: RequestInfo) -> None:
        """Run them side by side; commit each answer when it is there."""
        running = [asyncio.create_task(self._use_tool(use, info)) for use in uses]
        try:
            for answer in asyncio.as_completed(running):
                conversation.add_tool_answer(await answer)
                await self._commit(conversation)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _use_tool(self, use: ToolUse, info: RequestInfo) -> ToolAnswer:
        """One tool call by Claude; what he may not call is recorded and answered, not run."""
        inner = replace(info, operation="execute_tool")
        try:
            result = await self._tool_handler.call(CallTool(use.name, use.input), inner, self._offered())
        except UnknownTool:
            return ToolAnswer(use.id, f"there is no tool {use.name[:200]!r} in this conversation", is_error=True)
        return ToolAnswer(use.id, result.text, is_error=result.is_error)

    async def _commit(self, conversation: Conversation) -> None:
        events, fence = conversation.uncommitted_events, conversation.fence
        try:
            await self._conversations.save(conversation)
        finally:
            if conversation.fence > fence:  # a save that is cancelled may have gone through
                self._publisher.publish(events)

    async def _settle(self, conversation: Conversation) -> None:
        """Commit that a request ended badly; a commit that fails must not hide why.

        What storage then still calls Waiting, a second cancellation's case too, the next send recovers.
        """
        with suppress(StorageUnavailable, ConversationBusy):
            await self._commit(conversation)

    @asynccontextmanager
    async def _lock(self, conversation_id: str) -> AsyncGenerator[None]:
        """One turn at a time in one conversation; a lock goes with its last user."""
        lock, users = self._locks.get(conversation_id, (asyncio.Lock(), 0))
        self._locks[conversation_id] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(conversation_id)
            if users > 1:
                self._locks[conversation_id] = lock, users - 1


def _error_type(failure: ClaudeFailure) -> str:
    return str(failure.status or failure.error_type)

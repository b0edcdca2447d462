"""Conversations as they are run: the real handler, desk, runner, storage and locks, with a Claude who plays a script.

Two worlds with one storage are two processes. Time passes at once where a test says so (`pass_time`).
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import closing
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from support.tool_calls import ToolBench
from tfo_mcp.application.budget import Budget, BudgetLimits
from tfo_mcp.application.commands import SendMessage
from tfo_mcp.application.context_window import ContextWindow
from tfo_mcp.application.conversation_desk import ConversationDesk
from tfo_mcp.application.conversation_handler import ConversationHandler, SendDefaults, TurnResult
from tfo_mcp.application.ports import (
    AnswerListener,
    Attempt,
    ClaudeRequest,
    ClaudeResponse,
    ClaudeService,
    ModelInfo,
    RecordedTurn,
)
from tfo_mcp.application.structured import OutputSchemas
from tfo_mcp.application.turn_runner import TurnLimits, TurnRunner
from tfo_mcp.application.turn_tools import TurnTools
from tfo_mcp.domain.conversation import Conversation
from tfo_mcp.domain.errors import (
    ClaudeFailure,
    ClaudeNotConfigured,
    StorageUnavailable,
)
from tfo_mcp.domain.execution import Outcome
from tfo_mcp.domain.identifiers import ConversationId
from tfo_mcp.domain.message import Block, Message, OpaqueBlock, Text, ToolAnswer, ToolUse, Usage
from tfo_mcp.domain.price import Prices
from tfo_mcp.domain.tool import Tool, ToolAnnotations, ToolContext, ToolMode, ToolRegistry, ToolResult
from tfo_mcp.domain.turn import PendingSend, Send
from tfo_mcp.infrastructure.persistence.conversations import SqlConversationRepository
from tfo_mcp.infrastructure.persistence.locks import FileLocks
from tfo_mcp.infrastructure.persistence.storage import Storage as Database
from tfo_mcp.infrastructure.schemas import JsonSchemas
from tfo_mcp.infrastructure.subscriptions import FollowedResources

DEADLINE = 20.0
NO_BUDGET = BudgetLimits()
SO_FAR = Usage(10, 3, 2, 1)
CANCELLED = Attempt(
    number=1, status=None, error_type="CancelledError", request_id=None, duration=0.0, may_have_cost=True
)
Result = TypeVar("Result")


class _Loop(asyncio.SelectorEventLoop):
    """An event loop whose clock can be put forward."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


def pass_time(seconds: float) -> None:
    """Whatever was to happen within `seconds` of the loop's time happens now."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, _Loop)
    loop.ahead += seconds


class Silence:
    """Claude does not answer before `over` is set; unless it was `sent`, the request has not even left."""

    def __init__(self, *, sent: bool = True) -> None:
        self.sent = sent
        self.asked = asyncio.Event()
        self.over = asyncio.Event()


End = Message | ClaudeFailure | Silence


class Arriving:
    """An answer that comes in pieces, and then to its `end`.

    Args:
        pieces: text, a call that he begins to write, or a thought.
        usage: what the API says of the request until then; None: it says nothing, for the message does not begin.
        attempts: those that were made before.
    """

    def __init__(
        self,
        *pieces: str | ToolUse | OpaqueBlock,
        end: End,
        usage: Usage | None = SO_FAR,
        attempts: Sequence[Attempt] = (),
    ) -> None:
        self.end = end
        self._attempts = attempts
        self._pieces = pieces
        self._usage = usage

    def play(self, model: str, listener: AnswerListener) -> None:
        for attempt in self._attempts:
            listener.attempted(attempt)
        if self._usage is None:
            return
        listener.begun(model, replace(self._usage, output_tokens=0), "req_1")
        for piece in self._pieces:
            match piece:
                case str():
                    listener.wrote(piece)
                case ToolUse(name=name):
                    listener.calls(name)
                case OpaqueBlock():
                    listener.thought("")
        listener.counted(self._usage)


Step = End | Arriving


class ScriptedClaude:
    """`ClaudeService` that plays one step a request and then says "Done."."""

    def __init__(self, steps: Iterable[Step], *, configured: bool = True) -> None:
        self._steps = list(steps)
        self._configured = configured
        self.requests: list[ClaudeRequest] = []

    @property
    def provider(self) -> str:
        return "anthropic"

    def check_configured(self) -> None:
        if not self._configured:
            raise ClaudeNotConfigured

    async def create_message(self, request: ClaudeRequest, listener: AnswerListener | None = None) -> ClaudeResponse:
        self.check_configured()
        self.requests.append(replace(request, transcript=deepcopy(request.transcript)))
        step = self._steps.pop(0) if self._steps else says("Done.")
        if isinstance(step, Arriving):
            if listener is not None:
                step.play(request.model, listener)
            step = step.end
        if isinstance(step, Silence):
            step.asked.set()
            try:
                await step.over.wait()
            except asyncio.CancelledError:
                if step.sent and listener is not None:
                    listener.attempted(CANCELLED)
                raise
            step = says("Done.")
        if isinstance(step, ClaudeFailure):
            raise step
        assert step.usage is not None
        return ClaudeResponse(message=step, usage=step.usage, request_id="req_1")

    async def describe(self, model: str) -> ModelInfo | None:
        return None

    async def count_tokens(self, request: ClaudeRequest) -> int | None:
        return None


class Storage(SqlConversationRepository):
    """A repository whose storage can be taken away, refuse a commit, or be slow to say that one went through."""

    def __init__(self, database: Database | None = None) -> None:
        self.database = database or Database(Path(tempfile.mkdtemp()) / "tfo-mcp.db")
        self.folder = self.database.path.parent
        super().__init__(self.database)
        self.available = True
        self.refusals = 0
        self.slow: Silence | None = None
        if database is None:
            _opened.append(self)

    async def accept(
        self, conversation_id: ConversationId, principal: str, holder: str, send: Send, created: Conversation | None
    ) -> PendingSend | RecordedTurn:
        self._check()
        return await super().accept(conversation_id, principal, holder, send, created)

    async def save(self, conversation: Conversation) -> None:
        self._check()
        if self.refusals:
            self.refusals -= 1
            raise StorageUnavailable("the disk was full")
        await super().save(conversation)
        if self.slow is not None:
            self.slow.asked.set()
            await self.slow.over.wait()

    async def withdraw(self, pending: PendingSend) -> None:
        self._check()
        await super().withdraw(pending)

    def _check(self) -> None:
        if not self.available:
            raise StorageUnavailable("the disk is full")


_opened: list[Storage] = []


def run(scenario: Coroutine[Any, Any, Result]) -> Result:
    """Run it, and take away the storage that it made."""

    async def within() -> Result:
        try:
            return await scenario
        finally:
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            while _opened:
                storage = _opened.pop()
                await storage.database.close()
                shutil.rmtree(storage.folder)

    with runner() as running:
        return running.run(within())


def runner() -> asyncio.Runner:
    """Of a loop in which `pass_time` works."""
    return asyncio.Runner(loop_factory=_Loop)


class World(ToolBench):
    """A conversation handler with everything that it needs."""

    def __init__(  # noqa: PLR0913  # each test wants another one
        self,
        *steps: Step,
        claude: ClaudeService | None = None,
        tools: Sequence[Tool] = (),
        storage: Storage | None = None,
        max_steps: int = 20,
        max_turn_tokens: int = 100_000,
        timeout: float = DEADLINE,
        patience: float = DEADLINE,
        budget: BudgetLimits = NO_BUDGET,
        allowed: Sequence[Tool] | None = None,
        locks: Path | None = None,
        file_locks: FileLocks | None = None,
    ) -> None:
        super().__init__(tools)
        self.scripted = ScriptedClaude(steps)
        self.storage = storage or Storage()
        self.locks = locks or self.storage.folder / "locks"
        held = file_locks or FileLocks(self.locks)
        self.desk = ConversationDesk(
            self.storage, held, self.publisher, changes=FollowedResources(most=1), cache_bytes=1_000_000
        )
        claude = claude or self.scripted
        read_only = [tool for tool in tools if tool.for_claude and tool.annotations.read_only]
        offered = ToolRegistry(read_only if allowed is None else allowed)
        window = ContextWindow(claude, 0.8)
        turn_tools = TurnTools(offered, self.handler, self.desk, window)
        runner = TurnRunner(
            self.desk,
            self.storage,
            claude,
            turn_tools,
            budget=Budget(self.storage, budget),
            window=window,
            telemetry=self.telemetry,
            limits=TurnLimits(max_steps=max_steps, max_tokens=max_turn_tokens, timeout=timeout, max_failures=3),
        )
        defaults = SendDefaults(model="claude-test-1", max_tokens=100, patience=patience)
        self.conversations = ConversationHandler(
            self.desk,
            self.storage,
            claude,
            runner,
            turn_tools,
            schemas=OutputSchemas(JsonSchemas(), max_bytes=10_000),
            prices=Prices({}, "USD"),
            defaults=defaults,
        )

    async def send(
        self,
        message: str = "Hello",
        conversation_id: str | None = None,
        *,
        principal: str = "local",
        key: str | None = None,
    ) -> TurnResult:
        return await self.command(SendMessage(message, conversation_id, idempotency_key=key), principal=principal)

    async def command(
        self, command: SendMessage, *, principal: str = "local", progress_token: str | None = None
    ) -> TurnResult:
        info = self.info(measured=False, progress_token=progress_token)
        return await self.conversations.send(command, replace(info, principal=principal))

    async def rows(self, statement: str, *values: object) -> Sequence[tuple[Any, ...]]:
        """What the database answers."""
        await self.storage.database.open()
        with closing(sqlite3.connect(self.storage.database.path)) as database, database:
            return database.execute(statement, values).fetchall()

    def died(self, *steps: Step, **options: Any) -> World:  # noqa: ANN401  # those of a world
        """Another process, to which this one is dead: nobody has its locks any more."""
        elsewhere = Path(tempfile.mkdtemp(dir=self.storage.folder))
        return World(*steps, storage=self.storage, locks=elsewhere, **options)

    async def until_accepted(self, count: int) -> None:
        """Until so many sends are accepted and no turns yet."""
        async with asyncio.timeout(DEADLINE):
            while await self.rows("SELECT count(*) FROM pending_sends") != [(count,)]:  # noqa: ASYNC110  # it has no event
                await asyncio.sleep(0)

    @property
    def ended(self) -> list[tuple[str, Outcome, str | None]]:
        """Name, outcome and error type of every span, in the order of their starts."""
        return [(span.name, *span.ended) for span in self.telemetry.spans if span.ended]

    @property
    def held(self) -> Sequence[str]:
        """The locks that are left."""
        return [path.name for path in self.locks.glob("conv_*")]

    async def stored(self, conversation_id: str | None) -> Conversation:
        assert conversation_id is not None
        conversation = await self.storage.get(ConversationId(conversation_id), "local")
        assert conversation is not None
        return conversation

    def created(self) -> str:
        """The conversation that was created."""
        (conversation_id,) = {
            event.aggregate_id for event in self.publisher.events if event.name == "ConversationCreated"
        }
        return conversation_id


def says(*content: str | Block, stop_reason: str | None = None) -> Message:
    blocks = tuple(Text(block) if isinstance(block, str) else block for block in content)
    default = "tool_use" if any(isinstance(block, ToolUse) for block in blocks) else "end_turn"
    return Message(
        "assistant",
        blocks,
        usage=Usage(10, 5, 2, 1),
        model="claude-test-1",
        stop_reason=stop_reason or default,
    )


def uses(*names: str) -> Message:
    return says("Wait.", *(ToolUse(f"toolu_{name}", name, {}) for name in names))


def tool(name: str, run: Callable[[], Any] = lambda: None, *, read_only: bool = True, for_claude: bool = True) -> Tool:
    """A tool that awaits what `run` gives and then says its name."""

    async def call(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        waiting = run()
        if waiting is not None:
            await waiting
        return ToolResult(f"{name} ran")

    return Tool(
        name=name,
        title=name,
        description=name,
        input_schema={"type": "object"},
        run=call,
        mode=ToolMode.TASK,
        annotations=ToolAnnotations(read_only=read_only),
        for_claude=for_claude,
    )


def texts(conversation: Conversation) -> list[str]:
    """Every block in short."""
    shown: list[str] = []
    for message in conversation.messages:
        for block in message.content:
            match block:
                case Text(text):
                    shown.append(f"{message.role}: {text}")
                case ToolUse(name=name):
                    shown.append(f"{message.role} uses {name}")
                case ToolAnswer(tool_use_id, content, is_error):
                    shown.append(f"{tool_use_id}: {'failed: ' if is_error else ''}{content}")
                case _:
                    shown.append("?")
    return shown


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110  # what it waits for has no event
            await asyncio.sleep(0)


async def waiting(world: World, silence: Silence) -> tuple[asyncio.Task[TurnResult], str]:
    """A turn that waits for Claude."""
    sending = asyncio.create_task(world.send())
    await silence.asked.wait()
    return sending, world.created()

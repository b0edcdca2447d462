"""Sends: each is accepted, waits for its turn, and is answered; or was answered before, and is told so again."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

from tfo_mcp.application.bus import RequestInfo
from tfo_mcp.application.commands import CloseConversation, SendMessage
from tfo_mcp.application.conversation_desk import ConversationDesk, SendTaken
from tfo_mcp.application.deadlines import Deadline, DeadlinePassed, Deadlines
from tfo_mcp.application.ports import ClaudeService, ConversationRepository, RecordedTurn
from tfo_mcp.application.structured import Output, OutputSchemas
from tfo_mcp.application.turn_progress import TurnProgress
from tfo_mcp.application.turn_runner import TurnRunner
from tfo_mcp.application.turn_tools import TurnTools
from tfo_mcp.domain.conversation import Conversation
from tfo_mcp.domain.conversation_record import ConversationState
from tfo_mcp.domain.errors import (
    ClaudeFailure,
    ConversationBusy,
    ConversationNotFound,
    IdempotencyKeyReused,
    ToolFailure,
    TurnTimedOut,
)
from tfo_mcp.domain.identifiers import ConversationId, parse_conversation_id
from tfo_mcp.domain.message import Text, Usage
from tfo_mcp.domain.price import Cost, Prices
from tfo_mcp.domain.turn import PendingSend, Send, Turn, TurnOptions, TurnState, final_text, tool_calls

_POLL = 0.05
"""Seconds between two looks at a send that somebody else waits with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SendDefaults:
    """The `claude` section, as far as it says what a send means that does not say it itself.

    Attributes:
        patience: seconds that a send waits for the turns before it.
    """

    model: str
    max_tokens: int
    patience: float
    effort: str | None = None
    thinking: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnResult:
    """What one send led to: Claude's last words and what the turn took.

    Attributes:
        turn: its number within the conversation, counted from 1.
        stop_reason: the API's, or the limit that ended it.
        unknown_requests: requests of which nobody knows what they took, or took in the end.
        cost: of the usage, where the model has a price.
        output: the answer as the caller's schema has it, or why it is none.
        continued: whether an interrupted turn before it was brought to its end first.
    """

    conversation_id: str
    turn: int
    text: str
    model: str
    stop_reason: str
    usage: Usage
    unknown_requests: int
    tool_calls: int
    cost: Cost | None = None
    output: Output | None = None
    continued: bool = False


class ConversationHandler:
    """Sends messages, and closes conversations."""

    def __init__(
        self,
        desk: ConversationDesk,
        conversations: ConversationRepository,
        claude: ClaudeService,
        runner: TurnRunner,
        tools: TurnTools,
        *,
        schemas: OutputSchemas,
        prices: Prices,
        defaults: SendDefaults,
    ) -> None:
        self._desk = desk
        self._conversations = conversations
        self._claude = claude
        self._runner = runner
        self._tools = tools
        self._schemas = schemas
        self._prices = prices
        self._defaults = defaults
        self._deadlines = Deadlines()
        self._accepting = asyncio.Lock()

    async def send(self, command: SendMessage, info: RequestInfo) -> TurnResult:
        """Append the user's message and let Claude answer, tools included.

        Where the last turn was interrupted, it is brought to its end first. With an idempotency key that is known,
        the turn that has it is told again, or continued where it failed.

        Raises:
            ClaudeNotConfigured, InvalidOutputSchema: before anything is looked at.
            ConversationNotFound, ConversationClosed, ToolsNotAllowed, BudgetExceeded, ConversationTooLong,
                IdempotencyKeyReused: nothing was stored or sent.
            TurnTimedOut: the turns before it took too long; nothing was stored or sent.
            ClaudeFailure, ConversationBusy, StorageUnavailable: with `kept_in`, the user's message
                is stored and sending the next one is the retry; with `closed`, it is stored; without, it is not.
        """
        self._claude.check_configured()
        if command.output_schema is not None:
            self._schemas.check(command.output_schema)
        progress = TurnProgress(info)
        async with progress.told():
            try:
                with self._deadlines.within(self._defaults.patience) as patience:
                    return await self._answer(command, self._send(command), info, progress, patience)
            except DeadlinePassed:
                raise TurnTimedOut(self._defaults.patience) from None

    async def close(self, command: CloseConversation, info: RequestInfo) -> Conversation:
        """Let the conversation take no more messages; one that is closed stays so.

        A turn that was interrupted by the death of its process is not continued.

        Raises:
            ConversationNotFound: the caller has no such conversation.
            ConversationBusy: a turn of it is under way.
            StorageUnavailable: it stays open.
        """
        async with self._desk.at_once(command.conversation_id, info.principal) as conversation:
            if conversation.state is not ConversationState.CLOSED:
                # One that waits has no turn where a server of before there were turns died in it.
                if conversation.is_interrupted or conversation.state is ConversationState.WAITING:
                    conversation.abandon_turn()
                conversation.close()
                await self._desk.commit(conversation)
            return conversation

    async def _answer(
        self, command: SendMessage, send: Send, info: RequestInfo, progress: TurnProgress, patience: Deadline
    ) -> TurnResult:
        while True:
            accepted = await self._accept(command, send, info)
            if isinstance(accepted, RecordedTurn):
                return await self._again(accepted, info, progress, patience)
            try:
                return await self._take_turn(accepted, info, progress, patience)
            except SendTaken:
                if send.idempotency_key is None:  # nobody can say which turn it is
                    raise ConversationBusy(accepted.conversation_id) from None

    # --- to accept -----------------------------------------------------------------------------------

    def _send(self, command: SendMessage) -> Send:
        options = TurnOptions(
            model=command.model,
            system_prompt=command.system_prompt,
            max_tokens=command.max_tokens or self._defaults.max_tokens,
            tools=command.tools,
            effort=command.effort or self._defaults.effort,
            thinking=self._defaults.thinking if command.thinking is None else command.thinking,
            output_schema=command.output_schema,
        )
        content = (*command.attachments, Text(command.message))
        return Send(
            content=content, options=options, fingerprint=_fingerprint(command), idempotency_key=command.idempotency_key
        )

    async def _accept(self, command: SendMessage, send: Send, info: RequestInfo) -> PendingSend | RecordedTurn:
        """Commit the send, or find what has its idempotency key."""
        while True:
            async with self._accepting:  # so that they are accepted in the order in which they came
                conversation_id, created = await self._addressed(command, send, info)
                accepted = await self._desk.accept(conversation_id, info.principal, send, created)
            is_new = isinstance(accepted, PendingSend) and accepted.send is send
            if not is_new:
                _check_same(command, send, accepted)
            if is_new or isinstance(accepted, RecordedTurn):
                return accepted
            if await self._desk.adopt(accepted):
                return accepted
            await asyncio.sleep(_POLL)

    async def _addressed(
        self, command: SendMessage, send: Send, info: RequestInfo
    ) -> tuple[ConversationId, Conversation | None]:
        """The conversation, and what is to be stored where it is a new one."""
        if command.conversation_id is None:
            created = Conversation.create(principal=info.principal, model=self._defaults.model)
            if send.idempotency_key is None:  # with one, it may be a turn that was answered before
                await self._check(created, send)
            return created.id, created
        parsed = parse_conversation_id(command.conversation_id)
        found = None if parsed is None else await self._desk.look_at(parsed, info.principal)
        if found is None:
            raise ConversationNotFound(command.conversation_id)
        if send.idempotency_key is None:
            found.check_is_open()
            await self._check(found, send)
        return found.id, None

    async def _check(self, conversation: Conversation, send: Send) -> None:
        self._tools.check(send.options.tools)
        await self._runner.check(conversation, send.content, send.options)

    # --- to take one's turn --------------------------------------------------------------------------

    async def _take_turn(
        self, pending: PendingSend, info: RequestInfo, progress: TurnProgress, patience: Deadline
    ) -> TurnResult:
        is_turn = False
        with self._desk.waiting(pending):
            try:
                async with self._desk.turn_of(pending) as (conversation, ahead):
                    continued = await self._catch_up(conversation, ahead, info, progress, patience)
                    await self._check(conversation, pending.send)
                    conversation.begin_turn(pending.send, pending)
                    patience.lift()
                    try:
                        await self._run(conversation, info, progress)
                    finally:
                        is_turn = pending.id not in conversation.changes.begun_sends
                    return self._result(conversation, _turn(conversation), None, continued=continued)
            finally:
                if not is_turn:
                    await asyncio.shield(self._desk.withdraw(pending))

    async def _catch_up(
        self,
        conversation: Conversation,
        ahead: Sequence[PendingSend],
        info: RequestInfo,
        progress: TurnProgress,
        patience: Deadline,
    ) -> bool:
        """Bring to its end what others left when their processes died; whether there was anything.

        Each of those turns has its own time: were it cut by the sender's patience, it would be so by every next one's.
        """
        continued = conversation.is_interrupted
        if continued:
            conversation.resume_turn()
            with patience.suspended():
                await self._bring_to_an_end(conversation, info, progress)
        for lost in ahead:
            conversation.begin_turn(lost.send, lost)
            with patience.suspended():
                await self._bring_to_an_end(conversation, info, progress)
        return continued or bool(ahead)

    async def _bring_to_an_end(self, conversation: Conversation, info: RequestInfo, progress: TurnProgress) -> None:
        """Of a turn for which nobody waits any more; where it fails, the next message is its retry."""
        with suppress(ClaudeFailure):
            await self._runner.run(conversation, info, progress, own=False)

    async def _run(self, conversation: Conversation, info: RequestInfo, progress: TurnProgress) -> None:
        fence = conversation.fence
        try:
            await self._runner.run(conversation, info, progress)
        except ToolFailure as failure:
            if conversation.state is ConversationState.CLOSED and conversation.is_committed:
                failure.closed = conversation.id
            elif conversation.fence > fence:
                failure.kept_in = conversation.id
            raise

    # --- to be told again ----------------------------------------------------------------------------

    async def _again(
        self, recorded: RecordedTurn, info: RequestInfo, progress: TurnProgress, patience: Deadline
    ) -> TurnResult:
        """The turn that has the key: as it is recorded, or continued."""
        async with self._desk.when_free(recorded.conversation_id, info.principal) as conversation:
            found = await self._conversations.turn(recorded.conversation_id, recorded.number)
            if found is None:
                raise ConversationNotFound(recorded.conversation_id)
            turn, end = found
            if turn.state is TurnState.ENDED:
                return self._result(conversation, turn, end)
            if end is not None:
                raise IdempotencyKeyReused(
                    "the message with this idempotency_key was not answered, and the conversation went on without it: "
                    "send it again with another key"
                )
            conversation.resume_turn()
            patience.lift()
            await self._run(conversation, info, progress)
            return self._result(conversation, _turn(conversation), None)

    def _result(
        self, conversation: Conversation, turn: Turn, end: int | None, *, continued: bool = False
    ) -> TurnResult:
        messages = conversation.messages[turn.first_position : end]
        said = [message for message in messages if message.role == "assistant"]
        model = (said[-1].model if said else None) or conversation.model
        text, stop_reason, schema = final_text(messages), turn.stop_reason or "", turn.options.output_schema
        return TurnResult(
            conversation_id=conversation.id,
            turn=turn.number,
            text=text,
            model=model,
            stop_reason=stop_reason,
            cost=self._prices.cost(model, turn.usage),
            output=None if schema is None else self._schemas.read(schema, text, stop_reason),
            usage=turn.usage,
            unknown_requests=turn.unknown_requests,
            tool_calls=tool_calls(messages[1:]),
            continued=continued,
        )


def _fingerprint(command: SendMessage) -> str:
    """Of what is asked for, the conversation apart, and no defaults: those of a later start may be others.

    Without a key nobody will compare it.
    """
    if command.idempotency_key is None:
        return ""
    asked = {
        **asdict(replace(command, attachments=(), conversation_id=None, idempotency_key=None)),
        "attachments": [block.to_json() for block in command.attachments],
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _check_same(command: SendMessage, send: Send, known: PendingSend | RecordedTurn) -> None:
    """Raises `IdempotencyKeyReused` where the key was given with something else."""
    fingerprint = known.send.fingerprint if isinstance(known, PendingSend) else known.fingerprint
    elsewhere = command.conversation_id not in {None, known.conversation_id}
    if fingerprint != send.fingerprint or elsewhere:
        raise IdempotencyKeyReused(
            "this idempotency_key was given with another message, conversation or options before: a new message "
            "needs a key of its own"
        )


def _turn(conversation: Conversation) -> Turn:
    if conversation.turn is None:
        msg = "the conversation has no turn"
        raise RuntimeError(msg)
    return conversation.turn

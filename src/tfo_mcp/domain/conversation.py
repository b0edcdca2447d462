"""3.2 Conversation Aggregate: an append-only list of messages and where its turn stands.

The conversation is the checkpoint (DESIGN decision 4): every step of a turn is one append, and a turn
resumes from the last one. The machine is the diagrams' "Conversation State Machine" with the edges that
DESIGN §4 adds; Error → Error on a further failure is no edge, only a count.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from tfo_mcp.domain.errors import ClaudeFailure, ConversationClosed
from tfo_mcp.domain.events import ClaudeRequestFailed, ConversationCreated, DomainEvent, MessageAdded
from tfo_mcp.domain.events import ConversationClosed as ConversationClosedEvent
from tfo_mcp.domain.identifiers import ConversationId, new_conversation_id
from tfo_mcp.domain.message import Message, Text, ToolAnswer, ToolUse, Usage
from tfo_mcp.domain.state_machine import StateMachine

_INTERRUPTED = "This tool call was interrupted before its result was recorded."

_NOT_FOUND = 404
"""The status of a request whose model the API does not know."""


class ConversationState(Enum):
    """Where a conversation is."""

    CREATED = "created"
    ACTIVE = "active"
    WAITING = "waiting"
    ERROR = "error"
    CLOSED = "closed"


class ConversationTrigger(Enum):
    """What moves a conversation."""

    FIRST_MESSAGE = "first message"
    ADD_MESSAGE = "add message"
    REQUEST_SENT = "request sent"
    RESPONSE_RECEIVED = "response received"
    API_ERROR = "api error"
    CANCELLED = "cancelled"
    RECOVERED = "recovered"
    RETRY_SUCCESS = "retry success"
    MAX_RETRIES = "max retries"
    CLOSE = "close"


_S, _T = ConversationState, ConversationTrigger

CONVERSATION_TRANSITIONS = {
    (_S.CREATED, _T.FIRST_MESSAGE): _S.ACTIVE,
    (_S.CREATED, _T.CLOSE): _S.CLOSED,
    (_S.ACTIVE, _T.ADD_MESSAGE): _S.ACTIVE,
    (_S.ACTIVE, _T.REQUEST_SENT): _S.WAITING,
    (_S.ACTIVE, _T.CLOSE): _S.CLOSED,
    (_S.WAITING, _T.RESPONSE_RECEIVED): _S.ACTIVE,
    (_S.WAITING, _T.API_ERROR): _S.ERROR,
    (_S.WAITING, _T.CANCELLED): _S.ACTIVE,
    (_S.WAITING, _T.RECOVERED): _S.ACTIVE,
    (_S.ERROR, _T.RETRY_SUCCESS): _S.ACTIVE,
    (_S.ERROR, _T.MAX_RETRIES): _S.CLOSED,
    (_S.ERROR, _T.CLOSE): _S.CLOSED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationRecord:
    """A conversation's row as storage keeps it. `fence` rises with every commit (DESIGN decision 5)."""

    id: ConversationId
    principal: str
    model: str
    system_prompt: str | None
    state: ConversationState
    failures: int
    fence: int
    created_at: float
    updated_at: float


class Conversation:
    """One conversation of one principal."""

    def __init__(self, record: ConversationRecord, messages: Iterable[Message] = ()) -> None:
        self.id = record.id
        self.principal = record.principal
        self.model = record.model
        self._proven_model = record.model
        self.system_prompt = record.system_prompt
        self.failures = record.failures
        self.fence = record.fence
        self.created_at = record.created_at
        self._machine = StateMachine("conversation", CONVERSATION_TRANSITIONS, record.state)
        self._messages = list(messages)
        self._committed = len(self._messages)
        self._events: list[DomainEvent] = []

    @classmethod
    def create(
        cls, *, principal: str, model: str, system_prompt: str | None, fallback_model: str | None = None
    ) -> Conversation:
        """A new one, not yet stored; it continues with `fallback_model` if the API does not know `model`."""
        now = time.time()
        conversation = cls(
            ConversationRecord(
                id=new_conversation_id(),
                principal=principal,
                model=model,
                system_prompt=system_prompt,
                state=ConversationState.CREATED,
                failures=0,
                fence=0,
                created_at=now,
                updated_at=now,
            )
        )
        conversation._proven_model = fallback_model or model
        conversation._publish(
            ConversationCreated(aggregate_id=conversation.id, principal=principal, model=model),
        )
        return conversation

    @property
    def state(self) -> ConversationState:
        """Where the conversation is."""
        return self._machine.state

    @property
    def messages(self) -> Sequence[Message]:
        """Every message, oldest first."""
        return self._messages

    @property
    def uncommitted(self) -> tuple[tuple[int, Message], ...]:
        """What storage does not have yet: (position, message)."""
        return tuple(enumerate(self._messages[self._committed :], start=self._committed))

    @property
    def uncommitted_events(self) -> tuple[DomainEvent, ...]:
        """The events to be stored together with it."""
        return tuple(self._events)

    @property
    def usage(self) -> Usage:
        """Tokens of the whole conversation."""
        return sum((message.usage for message in self._messages if message.usage), Usage())

    def record(self) -> ConversationRecord:
        """The row to be stored, with the fence that it gets by the commit."""
        return ConversationRecord(
            id=self.id,
            principal=self.principal,
            model=self.model,
            system_prompt=self.system_prompt,
            state=self.state,
            failures=self.failures,
            fence=self.fence + 1,
            created_at=self.created_at,
            updated_at=time.time(),
        )

    def mark_committed(self) -> tuple[DomainEvent, ...]:
        """Storage has it all; returns the events, which may now be published."""
        events = self.uncommitted_events
        self._events.clear()
        self._committed = len(self._messages)
        self.fence += 1
        return events

    def check_is_open(self) -> None:
        """Guard of every send.

        Raises:
            ConversationClosed: it takes no more messages.
        """
        if self.state is ConversationState.CLOSED:
            raise ConversationClosed(self.id)

    def configure(self, *, model: str | None, system_prompt: str | None) -> None:
        """Continue with another model or system prompt; None leaves it as it is."""
        if model is not None and model != self.model:
            self._proven_model, self.model = self.model, model
        self.system_prompt = self.system_prompt if system_prompt is None else system_prompt

    def add_user_message(self, text: str) -> None:
        """Append what the user says, after answering tool calls that an interruption left open.

        In Error the message is appended too: sending it is the retry.
        """
        self.check_is_open()
        if self.state is ConversationState.WAITING:
            self._machine.fire(ConversationTrigger.RECOVERED)
        if self.state is ConversationState.CREATED:
            self._machine.fire(ConversationTrigger.FIRST_MESSAGE)
        elif self.state is ConversationState.ACTIVE:
            self._machine.fire(ConversationTrigger.ADD_MESSAGE)
        answers = [ToolAnswer(call.id, _INTERRUPTED, is_error=True) for call in self._open_calls()]
        self._append(Message("user", (*answers, Text(text))))

    def add_tool_answer(self, answer: ToolAnswer) -> None:
        """Append the answer to one tool call of the assistant's last message; each is a step of its own."""
        self._machine.fire(ConversationTrigger.ADD_MESSAGE)
        self._append(Message("user", (answer,)))

    def request_sent(self) -> None:
        """Active → Waiting. A retry out of Error stays there until it succeeds."""
        if self.state is not ConversationState.ERROR:
            self._machine.fire(ConversationTrigger.REQUEST_SENT)

    def response_received(self, message: Message) -> None:
        """Waiting or Error → Active, with the assistant's message appended."""
        retried = self.state is ConversationState.ERROR
        self._machine.fire(ConversationTrigger.RETRY_SUCCESS if retried else ConversationTrigger.RESPONSE_RECEIVED)
        self.failures = 0
        self._proven_model = self.model
        self._append(message)

    def request_failed(self, failure: ClaudeFailure, *, max_failures: int) -> None:
        """Waiting → Error, and → Closed after `max_failures` in a row that count.

        A model that the API does not know does not stay: the one before it does.
        """
        if failure.status == _NOT_FOUND:
            self.model = self._proven_model
        if self.state is not ConversationState.ERROR:
            self._machine.fire(ConversationTrigger.API_ERROR)
        self.failures += failure.counts
        self._publish(
            ClaudeRequestFailed(
                aggregate_id=self.id,
                principal=self.principal,
                status=failure.status,
                request_id=failure.request_id,
                failures=self.failures,
            )
        )
        if failure.counts and self.failures >= max_failures:
            self._machine.fire(ConversationTrigger.MAX_RETRIES)
            self._publish_closed(f"{self.failures} requests to Claude failed in a row")

    def request_cancelled(self) -> None:
        """Waiting → Active: the client no longer wants the answer. A retry out of Error stays there."""
        if self.state is not ConversationState.ERROR:
            self._machine.fire(ConversationTrigger.CANCELLED)

    def close(self) -> None:
        """Created, Active or Error → Closed; refused while Waiting (the table has no such edge)."""
        self._machine.fire(ConversationTrigger.CLOSE)
        self._publish_closed("closed")

    def _open_calls(self) -> Sequence[ToolUse]:
        """The tool calls of the assistant's last message that nothing has answered."""
        answered: set[str] = set()
        for message in reversed(self._messages):
            if message.role == "assistant":
                return [call for call in message.tool_uses if call.id not in answered]
            answered.update(block.tool_use_id for block in message.content if isinstance(block, ToolAnswer))
        return ()

    def _append(self, message: Message) -> None:
        self._publish(
            MessageAdded(
                aggregate_id=self.id,
                principal=self.principal,
                position=len(self._messages),
                role=message.role,
            )
        )
        self._messages.append(message)

    def _publish_closed(self, reason: str) -> None:
        self._publish(ConversationClosedEvent(aggregate_id=self.id, principal=self.principal, reason=reason))

    def _publish(self, event: DomainEvent) -> None:
        self._events.append(event)

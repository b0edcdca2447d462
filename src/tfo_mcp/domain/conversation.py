"""3.2 Conversation Aggregate: an append-only list of messages and where its turn stands.

The conversation is the checkpoint (DESIGN decision 4): every step of a turn is one append, and a turn
resumes from the last one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from tfo_mcp.domain.conversation_record import (
    CONVERSATION_TRANSITIONS,
    ConversationRecord,
    ConversationState,
    ConversationTrigger,
)
from tfo_mcp.domain.errors import ClaudeFailure, ConversationClosed
from tfo_mcp.domain.events import ClaudeRequestFailed, ConversationCreated, DomainEvent, MessageAdded
from tfo_mcp.domain.events import ConversationClosed as ConversationClosedEvent
from tfo_mcp.domain.identifiers import new_conversation_id
from tfo_mcp.domain.message import Message, Text, ToolAnswer, ToolUse, Usage
from tfo_mcp.domain.state_machine import StateMachine
from tfo_mcp.domain.transcript import Transcript
from tfo_mcp.domain.turn import NOTHING, Arrived, Changes, ClaudeCall, Outcome, PendingSend, Send, Turn, TurnState

INTERRUPTED = "This tool call was interrupted before its result was recorded."
"""Claude's answer to a tool call of which nobody knows whether it was made, or how it went."""

_GO_ON = "Go on where you stopped."
"""What Claude is asked when a message of his has to be followed by another: no request ends in one of his."""

_NOT_FOUND = 404
"""The status of a request whose model the API does not know."""


class Conversation:
    """One conversation of one principal.

    Args:
        record: its row.
        messages: all of them, oldest first.
        turn: the last one.
        call: the request to Claude that has no outcome yet, where there is one: its process died.
    """

    def __init__(
        self,
        record: ConversationRecord,
        messages: Iterable[Message] = (),
        turn: Turn | None = None,
        call: ClaudeCall | None = None,
    ) -> None:
        self._record = record
        self.id = record.id
        self.principal = record.principal
        self.turn = turn
        self.transcript = Transcript()
        self.changes = Changes()
        self._proven_model = record.model
        self._machine = StateMachine("conversation", CONVERSATION_TRANSITIONS, record.state)
        self._messages: list[Message] = []
        self._call = call
        self._known_tokens = self._known_estimate = self._known_before = self._asked_before = 0
        for message in messages:
            self._take(message)
        self._committed = len(self._messages)

    @classmethod
    def create(cls, *, principal: str, model: str) -> Conversation:
        """A new one, not yet stored."""
        now = time.time()
        record = ConversationRecord(
            id=new_conversation_id(),
            principal=principal,
            model=model,
            system_prompt=None,
            state=ConversationState.CREATED,
            failures=0,
            fence=0,
            created_at=now,
            updated_at=now,
        )
        conversation = cls(record)
        conversation._publish(ConversationCreated(aggregate_id=record.id, principal=principal, model=model))
        return conversation

    # --- how it is -----------------------------------------------------------------------------------

    @property
    def state(self) -> ConversationState:
        """Where the conversation is."""
        return self._machine.state

    @property
    def model(self) -> str:
        """The model that is asked next."""
        return self._record.model

    @property
    def system_prompt(self) -> str | None:
        """What Claude is told beforehand."""
        return self._record.system_prompt

    @property
    def failures(self) -> int:
        """Requests that failed in a row, of those that count."""
        return self._record.failures

    @property
    def fence(self) -> int:
        """How many commits it has had."""
        return self._record.fence

    @property
    def created_at(self) -> float:
        """In seconds since the epoch."""
        return self._record.created_at

    @property
    def usage(self) -> Usage:
        """What the API said that all requests took."""
        return self._record.usage

    @property
    def unknown_requests(self) -> int:
        """Requests of which nobody knows what they took, or took in the end."""
        return self._record.unknown_requests

    @property
    def messages(self) -> Sequence[Message]:
        """Every message, oldest first."""
        return self._messages

    @property
    def tokens(self) -> int:
        """About how many tokens its messages have: what the API last said, and an estimate of what was added.

        What stands before them is among them where another process asked last: then they are too many.
        """
        return self._known_tokens - self._known_before + self.transcript.tokens - self._known_estimate

    @property
    def prompt_tokens(self) -> int:
        """`tokens`, and about those that stood before the messages when Claude was last asked."""
        return self.tokens + self._known_before

    @property
    def is_interrupted(self) -> bool:
        """Whether its last turn waits to be continued, as long as nobody works on it."""
        return self.turn is not None and self.turn.state is TurnState.RUNNING

    @property
    def uncommitted(self) -> tuple[tuple[int, Message], ...]:
        """What storage does not have yet: (position, message)."""
        return tuple(enumerate(self._messages[self._committed :], start=self._committed))

    @property
    def is_committed(self) -> bool:
        """Whether storage has all of it."""
        return self._committed == len(self._messages) and self.changes == Changes()

    @property
    def uncommitted_events(self) -> tuple[DomainEvent, ...]:
        """The events to be stored together with it."""
        return tuple(self.changes.events)

    def record(self) -> ConversationRecord:
        """The row to be stored, with the fence that it gets by the commit."""
        return replace(self._record, state=self.state, fence=self.fence + 1, updated_at=time.time())

    def mark_committed(self) -> None:
        """Storage has it all."""
        self.changes = Changes()
        self._committed = len(self._messages)
        self._change(fence=self.fence + 1)

    # --- a turn --------------------------------------------------------------------------------------

    def check_is_open(self) -> None:
        """Guard of every send.

        Raises:
            ConversationClosed: it takes no more messages.
        """
        if self.state is ConversationState.CLOSED:
            raise ConversationClosed(self.id)

    def begin_turn(self, send: Send, pending: PendingSend | None = None) -> None:
        """Append what the user says, after answering tool calls that were left open.

        In Error the message is appended too: sending it is the retry.

        Raises:
            ConversationClosed: it takes no more messages.
        """
        self.check_is_open()
        self._recover()
        if self.state is ConversationState.CREATED:
            self._machine.fire(ConversationTrigger.FIRST_MESSAGE)
        elif self.state is ConversationState.ACTIVE:
            self._machine.fire(ConversationTrigger.ADD_MESSAGE)
        options = send.options
        if options.model is not None and options.model != self.model:
            self._proven_model = self.model
            self._change(model=options.model)
        if options.system_prompt is not None:
            self._change(system_prompt=options.system_prompt)
        self._change(turns=self._record.turns + 1)
        self.changes.turn_is_new = True
        self._set_turn(
            Turn(
                number=self._record.turns,
                idempotency_key=send.idempotency_key,
                fingerprint=send.fingerprint,
                options=options,
                state=TurnState.RUNNING,
                stop_reason=None,
                first_position=len(self._messages),
                steps=0,
                usage=Usage(),
                unknown_requests=0,
                started_at=time.time(),
                ended_at=None,
            )
        )
        if pending is not None:
            self.changes.begun_sends.append(pending.id)
        answers = [ToolAnswer(call.id, INTERRUPTED, is_error=True) for call in self.open_calls()]
        self._append(Message("user", (*answers, *send.content)))

    def resume_turn(self) -> None:
        """Go on with the last turn, from its last append.

        Raises:
            ConversationClosed: it takes no more messages.
        """
        self.check_is_open()
        self._recover()
        self._change_turn(state=TurnState.RUNNING, stop_reason=None, ended_at=None)
        if self._messages[-1].role == "assistant" and not self.open_calls():
            self.go_on()

    def go_on(self) -> None:
        """Ask Claude to continue a message that was cut, or that he paused in."""
        self._append(Message("user", (Text(_GO_ON),)))

    def end_turn(self, stop_reason: str, *, unanswered: str = INTERRUPTED) -> None:
        """The turn has its end; tool calls that nobody will answer any more are answered by `unanswered`."""
        self._answer_open(unanswered)
        self._change_turn(state=TurnState.ENDED, stop_reason=stop_reason, ended_at=time.time())

    def cancel_turn(self) -> None:
        """Nobody waits for the turn any more."""
        self._answer_open("This tool call was cancelled.")
        self._change_turn(state=TurnState.CANCELLED, ended_at=time.time())

    def abandon_turn(self) -> None:
        """Nobody will continue the turn that a process left which died."""
        self._recover()
        self.cancel_turn()

    def open_calls(self) -> Sequence[ToolUse]:
        """The tool calls of the assistant's last message that nothing has answered."""
        answered: set[str] = set()
        for message in reversed(self._messages):
            if message.role == "assistant":
                return [call for call in message.tool_uses if call.id not in answered]
            answered.update(block.tool_use_id for block in message.content if isinstance(block, ToolAnswer))
        return ()

    def begin_tool(self, call: ToolUse) -> None:
        """A tool that must not run twice is about to run."""
        self.changes.begun_tools.append(call.id)

    def add_tool_answer(self, answer: ToolAnswer) -> None:
        """Append the answer to one tool call of the assistant's last message; each is a step of its own."""
        self._machine.fire(ConversationTrigger.ADD_MESSAGE)
        self._append(Message("user", (answer,)))

    # --- a request to Claude -------------------------------------------------------------------------

    def request_sent(self, before: int = 0) -> None:
        """Active → Waiting. A retry out of Error stays there until it succeeds.

        `before` are about the tokens of what stands before the messages.
        """
        self._asked_before = before
        if self.state is not ConversationState.ERROR:
            self._machine.fire(ConversationTrigger.REQUEST_SENT)
        number = self._record.requests + 1
        self._change(requests=number, open_request=number)
        turn = 0 if self.turn is None else self.turn.number
        self._call = self.changes.calls[number] = ClaudeCall(
            number=number, turn=turn, model=self.model, started_at=time.time()
        )

    def response_received(self, message: Message, request_id: str | None = None) -> None:
        """Waiting or Error → Active, with the assistant's message appended.

        Of one that stops for anything but tools, calls are left out: the last one's input may be cut off.
        """
        retried = self.state is ConversationState.ERROR
        self._machine.fire(ConversationTrigger.RETRY_SUCCESS if retried else ConversationTrigger.RESPONSE_RECEIVED)
        self._proven_model = self.model
        self._change(failures=0)
        if message.stop_reason != "tool_use":
            message = replace(message, content=tuple(b for b in message.content if not isinstance(b, ToolUse)))
        self._conclude("completed", message.usage, request_id=request_id, position=len(self._messages))
        if self.turn is not None:
            self._change_turn(steps=self.turn.steps + 1)
        self._append(message)
        self._known_before = 0 if message.is_compacted else self._asked_before

    def request_failed(self, failure: ClaudeFailure, *, max_failures: int, arrived: Arrived = NOTHING) -> None:
        """Waiting → Error, and → Closed after `max_failures` in a row that count. What arrived is kept, as cut.

        A model that the API does not know does not stay: the one before it does.
        """
        if failure.status == _NOT_FOUND:
            self._change(model=self._proven_model)
        if self.state is not ConversationState.ERROR:
            self._machine.fire(ConversationTrigger.API_ERROR)
        self._change(failures=self.failures + failure.counts)
        request_id = failure.request_id or arrived.request_id
        self._cut("cut" if arrived.begun else "failed", arrived, request_id=request_id, status=failure.status)
        if failure.may_have_cost:
            self._count_unknown()
        self._change_turn(state=TurnState.FAILED, ended_at=time.time())
        self._publish(
            ClaudeRequestFailed(
                aggregate_id=self.id,
                principal=self.principal,
                status=failure.status,
                request_id=request_id,
                failures=self.failures,
            )
        )
        if failure.counts and self.failures >= max_failures:
            self._machine.fire(ConversationTrigger.MAX_RETRIES)
            self._publish_closed(f"{self.failures} requests to Claude failed in a row")

    def request_cancelled(self, arrived: Arrived = NOTHING, *, may_have_cost: bool = True) -> None:
        """Waiting → Active: nobody wants the answer any more. What arrived is kept, as cut.

        A retry out of Error stays there. What was not even sent, or was refused each time, took nothing.
        """
        if self.state is not ConversationState.ERROR:
            self._machine.fire(ConversationTrigger.CANCELLED)
        self._cut("cancelled", arrived, request_id=arrived.request_id)
        if may_have_cost:
            self._count_unknown()

    def close(self) -> None:
        """Created, Active or Error → Closed; refused while Waiting (the table has no such edge)."""
        self._machine.fire(ConversationTrigger.CLOSE)
        self._publish_closed("closed")

    # --- within --------------------------------------------------------------------------------------

    def _recover(self) -> None:
        """The process that worked on it died: what its request took will never be known."""
        if self._call is not None:
            self._conclude("lost", None)
            self._count_unknown()
        if self.state is ConversationState.WAITING:
            self._machine.fire(ConversationTrigger.RECOVERED)

    def _cut(
        self, outcome: Outcome, arrived: Arrived, *, request_id: str | None = None, status: int | None = None
    ) -> None:
        """Of a message that was cut only the text is kept."""
        position = len(self._messages) if arrived.text.strip() else None
        self._conclude(outcome, arrived.usage, request_id=request_id, status=status, position=position)
        if position is not None:
            content = (Text(arrived.text),)
            model = arrived.model or self.model
            self._append(Message("assistant", content, usage=arrived.usage, model=model, stop_reason="cut"))

    def _conclude(
        self,
        outcome: Outcome,
        usage: Usage | None,
        *,
        request_id: str | None = None,
        status: int | None = None,
        position: int | None = None,
    ) -> None:
        """The request has its outcome; what it took is counted everywhere at once."""
        call, self._call = self._call, None
        self._change(open_request=None, usage=self.usage + (usage or Usage()))
        if self.turn is not None:
            self._change_turn(usage=self.turn.usage + (usage or Usage()))
        if call is not None:
            self.changes.calls[call.number] = replace(
                call,
                outcome=outcome,
                request_id=request_id,
                status=status,
                position=position,
                usage=usage,
                ended_at=time.time(),
            )

    def _count_unknown(self) -> None:
        self._change(unknown_requests=self.unknown_requests + 1)
        if self.turn is not None:
            self._change_turn(unknown_requests=self.turn.unknown_requests + 1)

    def _answer_open(self, text: str) -> None:
        answers = tuple(ToolAnswer(call.id, text, is_error=True) for call in self.open_calls())
        if answers:
            self._append(Message("user", answers))

    def _append(self, message: Message) -> None:
        self._publish(
            MessageAdded(
                aggregate_id=self.id, principal=self.principal, position=len(self._messages), role=message.role
            )
        )
        self._take(message)

    def _take(self, message: Message) -> None:
        before = self.transcript.tokens
        self._messages.append(message)
        self.transcript.add(message)
        if message.usage is not None and message.stop_reason != "cut":
            # With a summary, the next prompt begins with it; what was summed up is in this request's usage still.
            own = self.transcript.tokens - before
            self._known_tokens = own if message.is_compacted else message.usage.all_tokens
            self._known_estimate = self.transcript.tokens
            self._known_before = 0

    def _change(self, **values: Any) -> None:  # noqa: ANN401  # the record's fields
        self._record = replace(self._record, **values)

    def _change_turn(self, **values: Any) -> None:  # noqa: ANN401  # the turn's fields
        if self.turn is not None:
            self._set_turn(replace(self.turn, **values))

    def _set_turn(self, turn: Turn) -> None:
        self.turn = turn
        self.changes.turn = True

    def _publish_closed(self, reason: str) -> None:
        self._publish(ConversationClosedEvent(aggregate_id=self.id, principal=self.principal, reason=reason))

    def _publish(self, event: DomainEvent) -> None:
        self.changes.events.append(event)

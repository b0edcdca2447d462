"""The rows of conversations, messages, turns and the ledger, and what they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tfo_mcp.domain.conversation_record import ConversationRecord, ConversationState
from tfo_mcp.domain.identifiers import ConversationId
from tfo_mcp.domain.message import Message, Usage, block_from_json
from tfo_mcp.domain.turn import ClaudeCall, PendingSend, Send, Turn, TurnOptions, TurnState

if TYPE_CHECKING:
    from sqlalchemy import RowMapping


def conversation_row(record: ConversationRecord) -> dict[str, Any]:
    """A row of `conversations`; its title is the search's."""
    return {
        "id": record.id,
        "principal": record.principal,
        "model": record.model,
        "system_prompt": record.system_prompt,
        "state": record.state.value,
        "failures": record.failures,
        "fence": record.fence,
        "created_at": record.created_at,
        "updated_at": record.updated_at,
        "turns": record.turns,
        "requests": record.requests,
        "open_request": record.open_request,
        "unknown_requests": record.unknown_requests,
        "forked_from": record.forked_from,
        "forked_at": record.forked_at,
        **_tokens(record.usage),
    }


def record_of(row: RowMapping) -> ConversationRecord:
    """The record that a row of `conversations` holds."""
    return ConversationRecord(
        id=row["id"],
        principal=row["principal"],
        model=row["model"],
        system_prompt=row["system_prompt"],
        state=ConversationState(row["state"]),
        failures=row["failures"],
        fence=row["fence"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        turns=row["turns"],
        requests=row["requests"],
        open_request=row["open_request"],
        usage=_usage(row) or Usage(),
        unknown_requests=row["unknown_requests"],
        forked_from=row["forked_from"],
        forked_at=row["forked_at"],
    )


def turn_row(conversation_id: str, principal: str, turn: Turn) -> dict[str, Any]:
    """A row of `turns`."""
    return {
        "conversation_id": conversation_id,
        "number": turn.number,
        "principal": principal,
        "idempotency_key": turn.idempotency_key,
        "fingerprint": turn.fingerprint,
        "options": turn.options.to_json(),
        "state": turn.state.value,
        "stop_reason": turn.stop_reason,
        "first_position": turn.first_position,
        "steps": turn.steps,
        "unknown_requests": turn.unknown_requests,
        "started_at": turn.started_at,
        "ended_at": turn.ended_at,
        **_tokens(turn.usage),
    }


def turn_of(row: RowMapping) -> Turn:
    """The turn that a row of `turns` holds."""
    return Turn(
        number=row["number"],
        idempotency_key=row["idempotency_key"],
        fingerprint=row["fingerprint"],
        options=TurnOptions.from_json(row["options"]),
        state=TurnState(row["state"]),
        stop_reason=row["stop_reason"],
        first_position=row["first_position"],
        steps=row["steps"],
        usage=_usage(row) or Usage(),
        unknown_requests=row["unknown_requests"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
    )


def call_row(conversation_id: str, principal: str, call: ClaudeCall) -> dict[str, Any]:
    """A row of the ledger."""
    return {
        "conversation_id": conversation_id,
        "number": call.number,
        "principal": principal,
        "turn": call.turn,
        "model": call.model,
        "outcome": call.outcome,
        "request_id": call.request_id,
        "status": call.status,
        "position": call.position,
        "started_at": call.started_at,
        "ended_at": call.ended_at,
        **_tokens(call.usage),
    }


def open_call_of(row: RowMapping) -> ClaudeCall:
    """The request in a row of the ledger that has no outcome yet."""
    return ClaudeCall(number=row["number"], turn=row["turn"], model=row["model"], started_at=row["started_at"])


def pending_row(conversation_id: str, principal: str, holder: str, send: Send) -> dict[str, Any]:
    """A row of `pending_sends`, without what storage adds."""
    return {
        "conversation_id": conversation_id,
        "principal": principal,
        "holder": holder,
        "idempotency_key": send.idempotency_key,
        "fingerprint": send.fingerprint,
        "content": [block.to_json() for block in send.content],
        "options": send.options.to_json(),
    }


def pending_of(row: RowMapping) -> PendingSend:
    """The send that a row of `pending_sends` holds."""
    return PendingSend(
        id=row["id"],
        conversation_id=ConversationId(row["conversation_id"]),
        principal=row["principal"],
        holder=row["holder"],
        send=Send(
            content=tuple(block_from_json(block) for block in row["content"]),
            options=TurnOptions.from_json(row["options"]),
            fingerprint=row["fingerprint"],
            idempotency_key=row["idempotency_key"],
        ),
    )


def message_row(conversation_id: str, principal: str, position: int, message: Message) -> dict[str, Any]:
    """A row of `messages`."""
    return {
        "conversation_id": conversation_id,
        "position": position,
        "principal": principal,
        "role": message.role,
        "content": [block.to_json() for block in message.content],
        "model": message.model,
        "stop_reason": message.stop_reason,
        "created_at": message.created_at,
        **_tokens(message.usage),
    }


def message_of(row: RowMapping) -> Message:
    """The message that a row of `messages` holds."""
    return Message(
        role=row["role"],
        content=tuple(block_from_json(block) for block in row["content"]),
        usage=_usage(row),
        model=row["model"],
        stop_reason=row["stop_reason"],
        created_at=row["created_at"],
    )


def _tokens(usage: Usage | None) -> dict[str, int | None]:
    return {
        "input_tokens": usage and usage.input_tokens,
        "output_tokens": usage and usage.output_tokens,
        "cache_read_tokens": usage and usage.cache_read_tokens,
        "cache_write_tokens": usage and usage.cache_write_tokens,
    }


def _usage(row: Mapping[Any, Any]) -> Usage | None:
    if row["input_tokens"] is None:
        return None
    return Usage(row["input_tokens"], row["output_tokens"], row["cache_read_tokens"], row["cache_write_tokens"])

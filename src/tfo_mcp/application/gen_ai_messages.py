"""Messages as telemetry tells of them, in the shapes of OpenTelemetry's GenAI conventions.

Their JSON schemas are `gen-ai-input-messages` and `gen-ai-output-messages`: a message has a role and parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfo_mcp.domain.message import Message
from tfo_mcp.domain.transcript import Transcript

_FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_call",
    "refusal": "content_filter",
}
"""The API's stop reasons to the conventions'; any other is told as it is."""


def text_part(text: str) -> dict[str, Any]:
    """A part that says something."""
    return {"type": "text", "content": text}


def new_messages(transcript: Transcript) -> list[dict[str, Any]]:
    """What is said to Claude since he spoke: what was said before, the requests before told of."""
    new: list[dict[str, Any]] = []
    for turn in reversed(transcript.turns):
        if turn["role"] == "assistant":
            break
        new.append(_message(turn["role"], turn["content"]))
    return new[::-1]


def answer_message(answer: Message) -> dict[str, Any]:
    """What Claude answered."""
    told = _message(answer.role, [block.to_json() for block in answer.content])
    reason = answer.stop_reason or ""
    return {**told, "finish_reason": _FINISH_REASONS.get(reason, reason)}


def _message(role: str, blocks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    is_tools = all(block["type"] == "tool_result" for block in blocks)
    return {"role": "tool" if is_tools and blocks else role, "parts": [_part(block) for block in blocks]}


def _part(block: Mapping[str, Any]) -> dict[str, Any]:
    match block:
        case {"type": "text", "text": text}:
            return text_part(text)
        case {"type": "thinking", "thinking": thoughts}:
            return {"type": "reasoning", "content": thoughts}
        case {"type": "tool_use", "id": use_id, "name": name, "input": arguments}:
            return {"type": "tool_call", "id": use_id, "name": name, "arguments": arguments}
        case {"type": "tool_result", "tool_use_id": use_id, "content": content}:
            return {"type": "tool_call_response", "id": use_id, "response": content}
        case _:  # pictures, documents, summaries, what the API adds: that it was there
            return {"type": block["type"]}

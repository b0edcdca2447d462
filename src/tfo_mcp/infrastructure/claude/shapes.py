"""Requests and answers in the API's shapes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tfo_mcp.application.ports import ClaudeRequest, ClaudeResponse
from tfo_mcp.domain.message import Message, Usage, block_from_json

if TYPE_CHECKING:
    from anthropic.types import Message as ApiMessage
    from anthropic.types import Usage as ApiUsage


def parameters_of(request: ClaudeRequest) -> dict[str, Any]:
    """The keyword arguments of the SDK's method."""
    parameters: dict[str, Any] = {
        "model": request.model,
        "max_tokens": request.max_tokens,
        "messages": list(request.messages),
        "cache_control": {"type": "ephemeral"},
    }
    output: dict[str, Any] = {} if request.effort is None else {"effort": request.effort}
    if request.output_schema is not None:
        output |= {"format": {"type": "json_schema", "schema": request.output_schema}}
    if output:
        parameters["output_config"] = output
    if request.thinking:
        parameters["thinking"] = {"type": "adaptive"}
    if request.system and request.system.strip():
        parameters["system"] = request.system
    if request.tools:
        parameters["tools"] = [
            {"name": tool.name, "description": tool.description, "input_schema": tool.input_schema}
            for tool in request.tools
        ]
    return parameters


def response_of(message: ApiMessage, request_id: str | None) -> ClaudeResponse:
    """The answer; raises whatever it may where `message` is not what the types promise: the SDK does not check."""
    usage = usage_of(message.usage)
    if message.stop_reason is None:
        raise ValueError("a message without a stop reason")
    blocks = [block.model_dump(mode="json", exclude_none=True, warnings=False) for block in message.content]
    answer = Message(
        "assistant",
        tuple(block_from_json(block) for block in json.loads(encodable(json.dumps(blocks, ensure_ascii=False)))),
        usage=usage,
        model=encodable(str(message.model)),
        stop_reason=encodable(str(message.stop_reason)),
    )
    return ClaudeResponse(message=answer, usage=usage, request_id=request_id)


def usage_of(usage: ApiUsage) -> Usage:
    """What the API counted; raises whatever it may where it is not what the SDK's types promise."""
    return Usage(
        input_tokens=int(usage.input_tokens),
        output_tokens=int(usage.output_tokens),
        cache_read_tokens=int(usage.cache_read_input_tokens or 0),
        cache_write_tokens=int(usage.cache_creation_input_tokens or 0),
    )


def encodable(text: str) -> str:
    """`text` as UTF-8 can carry it: two halves of a surrogate pair joined, a lone half replaced by U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

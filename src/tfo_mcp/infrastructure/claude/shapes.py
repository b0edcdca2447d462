"""Requests and answers in the API's shapes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tfo_mcp.application.ports import ClaudeRequest, ClaudeResponse, ModelInfo
from tfo_mcp.domain.message import Message, OpaqueBlock, Usage, block_from_json

if TYPE_CHECKING:
    from anthropic.types import Message as ApiMessage
    from anthropic.types import Usage as ApiUsage
    from anthropic.types.beta import BetaMessage, BetaUsage


_CACHED = {"type": "ephemeral"}

_TURNS = 3
"""Of the prompt: the one at whose end Claude was asked before, his answer, and the one at whose end he is now."""

_MOST_TOKENS = 2**31 - 1
"""Of one kind in one request: far more than any model can take, and their sums are numbers that storage takes."""

_LEAST_TRIGGER = 50_000
"""Tokens of a prompt below which the API compacts none."""

_COMPACT = "compact_20260112"
_CLEAR = "clear_tool_uses_20250919"
_BETAS = {_COMPACT: "compact-2026-01-12", _CLEAR: "context-management-2025-06-27"}
"""What each edit of the context needs."""


def parameters_of(request: ClaudeRequest, model: ModelInfo | None, *, in_cloud: bool = False) -> dict[str, Any]:
    """The keyword arguments of the SDK's method; with `betas` among them, of the one below `beta`.

    Effort and thinking are left out where `model` has none. Where nothing is known of it, the API judges. The whole
    prompt is cached, of which the clouds want to be told at its last block: they refuse the field at the top level.
    The other three of the breakpoints that the API takes stand after the tools and the system prompt, which other
    conversations may have too, and where the prompt before this one ended.
    """
    parameters: dict[str, Any] = {"model": request.model, "max_tokens": request.max_tokens}
    messages = _with_breakpoint_before(request.transcript.turns)
    if in_cloud:
        parameters["messages"] = _with_breakpoint(messages)
    else:
        parameters |= {"messages": messages, "cache_control": _CACHED}
    output: dict[str, Any] = {}
    if request.effort is not None and (model is None or model.efforts is None or request.effort in model.efforts):
        output["effort"] = request.effort
    if request.output_schema is not None:
        output |= {"format": {"type": "json_schema", "schema": request.output_schema}}
    if output:
        parameters["output_config"] = output
    if request.thinking and (model is None or model.thinks is not False):
        parameters["thinking"] = {"type": "adaptive"}
    if request.system and request.system.strip():
        parameters["system"] = [{"type": "text", "text": request.system, "cache_control": _CACHED}]
    if request.tools:
        tools: list[dict[str, Any]] = [
            {"name": tool.name, "description": tool.description, "input_schema": tool.input_schema}
            for tool in request.tools
        ]
        tools[-1]["cache_control"] = _CACHED
        parameters["tools"] = tools
    return parameters | _editing(request, model)


def prompt_of(request: ClaudeRequest, model: ModelInfo | None, *, in_cloud: bool = False) -> dict[str, Any]:
    """The keyword arguments of the SDK's `count_tokens`: what was compacted counts, what is to be edited does not."""
    parameters = parameters_of(replace(request, compact_at=None), model, in_cloud=in_cloud)
    del parameters["max_tokens"]
    return parameters


def _with_breakpoint(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The messages with a breakpoint of the prompt cache at the last block: a user's, which is no thought."""
    *before, last = messages
    return [*before, _marked(last)]


def _with_breakpoint_before(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The messages with a breakpoint at the last block of the user's turn before the last.

    There the prompt before this one ended. From the end of this one the API finds it no more where a turn has many
    blocks: it looks for what was cached at 20 of them only.
    """
    marked = list(messages)
    if len(marked) >= _TURNS and not _is_summary(marked[-2]):
        marked[-_TURNS] = _marked(marked[-_TURNS])
    return marked


def _marked(turn: Mapping[str, Any]) -> Mapping[str, Any]:
    *blocks, block = turn["content"]
    return {**turn, "content": [*blocks, {**block, "cache_control": _CACHED}]}


def _editing(request: ClaudeRequest, model: ModelInfo | None) -> dict[str, Any]:
    """What makes the API keep a prompt short, and take back the summaries that it made."""
    betas = {_BETAS[_COMPACT]} if request.transcript.is_compacted else set[str]()
    if request.compact_at is None:
        return {"betas": list(betas)} if betas else {}
    edit = _CLEAR if model is not None and model.compacts is False else _COMPACT
    least = _LEAST_TRIGGER if edit == _COMPACT else 1
    trigger = {"type": "input_tokens", "value": max(least, request.compact_at)}
    return {
        "betas": sorted(betas | {_BETAS[edit]}),
        "context_management": {"edits": [{"type": edit, "trigger": trigger}]},
    }


def _is_summary(turn: Mapping[str, Any]) -> bool:
    """Whether what stands before it counts no more."""
    return any(block["type"] == "compaction" for block in turn["content"])


def response_of(message: ApiMessage | BetaMessage, request_id: str | None) -> ClaudeResponse:
    """The answer; raises whatever it may where `message` is not what the types promise: the SDK does not check."""
    usage = usage_of(message.usage)
    if message.stop_reason is None:
        raise ValueError("a message without a stop reason")
    blocks = [block.model_dump(mode="json", exclude_none=True, warnings=False) for block in message.content]
    content = tuple(block_from_json(block) for block in json.loads(encodable(json.dumps(blocks, ensure_ascii=False))))
    if any(isinstance(block, OpaqueBlock) and block.data["type"] == "tool_use" for block in content):
        raise ValueError("a tool call that nobody can answer, so that every next request would be refused")
    answer = Message(
        "assistant",
        content,
        usage=usage,
        model=encodable(str(message.model)),
        stop_reason=encodable(str(message.stop_reason)),
    )
    return ClaudeResponse(message=answer, usage=usage, request_id=request_id)


def usage_of(usage: ApiUsage | BetaUsage) -> Usage:
    """What the API counted; raises whatever it may where it is not what the SDK's types promise.

    The top level leaves out what it took to compact the conversation, which only `iterations` has.
    """
    iterations: Sequence[Any] = getattr(usage, "iterations", None) or ()
    summing_up = [_tokens_of(iteration) for iteration in iterations if iteration.type == "compaction"]
    return sum(summing_up, _tokens_of(usage))


def _tokens_of(usage: Any) -> Usage:  # noqa: ANN401  # a usage or an iteration, whose fields have the same names
    return Usage(
        input_tokens=_count(usage.input_tokens),
        output_tokens=_count(usage.output_tokens),
        cache_read_tokens=_count(usage.cache_read_input_tokens or 0),
        cache_write_tokens=_count(usage.cache_creation_input_tokens or 0),
    )


def _count(tokens: Any) -> int:  # noqa: ANN401  # what the API says
    if not 0 <= (count := int(tokens)) <= _MOST_TOKENS:
        raise ValueError("a number of tokens that cannot be")
    return count


def encodable(text: str) -> str:
    """`text` as UTF-8 can carry it: two halves of a surrogate pair joined, a lone half replaced by U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

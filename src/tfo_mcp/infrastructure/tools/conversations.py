"""The tool that talks to Claude: each call is one turn of a conversation that lasts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tfo_mcp.application.commands import SendMessage
from tfo_mcp.application.conversation_handler import TurnResult
from tfo_mcp.domain.tool import Tool, ToolAnnotations, ToolContext, ToolMode, ToolResult
from tfo_mcp.infrastructure.tools.attachments import Attachments

_NO_KEY = " It needs an Anthropic API key, and none is configured: calls fail until there is one."


def conversation_tools(
    attachments: Attachments, *, default_model: str, has_key: bool, max_message: int, timeout: float
) -> list[Tool]:
    """`claude_conversation`.

    Args:
        attachments: reads the files that go with a message.
        default_model: the model of a conversation that names none, for the description.
        has_key: whether Claude can be asked at all; if not, the description says so to whoever chooses tools.
        max_message: characters that a message or a system prompt may have.
        timeout: seconds that one turn may take, its tool calls included.
    """

    async def send(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        return await _send(arguments, context, attachments)

    return [
        Tool(
            name="claude_conversation",
            title="Talk to Claude",
            description=(
                "Send a message to Claude and get the answer. Claude may use those of this server's tools for it that "
                "are allowed to him. "
                "The conversation is kept: pass the conversation_id of an earlier answer to continue there, "
                "or leave it out to start a new one." + ("" if has_key else _NO_KEY)
            ),
            input_schema=_input_schema(default_model, max_message),
            output_schema=_OUTPUT_SCHEMA,
            run=send,
            mode=ToolMode.TASK,
            annotations=ToolAnnotations(read_only=False, destructive=False, idempotent=False, open_world=True),
            timeout=timeout,
            for_claude=False,
            audited=("conversation_id", "model", "files"),
        )
    ]


def _input_schema(default_model: str, max_message: int) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "message": {
                "type": "string",
                "description": "What to say to Claude.",
                "minLength": 1,
                "maxLength": max_message,
                "pattern": r"\S",  # the API refuses a text of blanks, and with it every later message
            },
            "conversation_id": {
                "type": "string",
                "description": "The conversation to continue. Left out: a new one.",
            },
            "system_prompt": {
                "type": "string",
                "description": "Instructions to Claude, from now on in this conversation.",
                "maxLength": max_message,
            },
            "model": {
                "type": "string",
                "description": f"The Claude model, from now on in this conversation; a new one has {default_model}.",
                "minLength": 1,
                "maxLength": 200,
            },
            "max_tokens": {
                "type": "integer",
                "description": "The most tokens that one answer of Claude may have.",
                "minimum": 1,
            },
            "tools": {
                "type": "array",
                "description": "Names of this server's tools that Claude may use for it. Left out: all that he may.",
                "items": {"type": "string", "maxLength": 200},
                "maxItems": 200,
            },
            "idempotency_key": {
                "type": "string",
                "description": (
                    "A name for this message. Sent again with the same key it is not said twice: the answer is given "
                    "again, or the turn goes on where it failed."
                ),
                "minLength": 1,
                "maxLength": 200,
            },
            "effort": {
                "type": "string",
                "description": "How much effort Claude puts into it; not every model knows this.",
                "enum": ["low", "medium", "high", "xhigh", "max"],
            },
            "thinking": {
                "type": "boolean",
                "description": "Whether Claude may think first, as far as he sees fit.",
            },
            "files": {
                "type": "array",
                "description": (
                    "Paths of pictures (PNG, JPEG, GIF, WebP), PDFs and texts inside the roots, for Claude to see."
                ),
                "items": {"type": "string", "minLength": 1, "maxLength": 4096},
                "maxItems": 100,
            },
            "output_schema": {
                "type": "object",
                "description": "JSON Schema of an object: the answer is then JSON that fits it, given as `output`.",
            },
        },
        "required": ["message"],
        "additionalProperties": False,
    }


_COUNT = {"type": "integer", "minimum": 0}

_OUTPUT_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "conversation_id": {"type": "string"},
        "turn": {"type": "integer", "minimum": 1, "description": "The turn's number in the conversation."},
        "text": {"type": "string"},
        "model": {"type": "string"},
        "stop_reason": {
            "type": "string",
            "description": (
                "The API's, or the limit that ended the turn: max_steps, max_turn_tokens, timeout, budget. Such a "
                "turn can be continued with another message."
            ),
        },
        "usage": {
            "type": "object",
            "description": "What the API said that the whole turn took.",
            "properties": {
                "input_tokens": _COUNT,
                "output_tokens": _COUNT,
                "cache_read_tokens": _COUNT,
                "cache_write_tokens": _COUNT,
            },
            "required": ["input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"],
        },
        "unknown_requests": {**_COUNT, "description": "Requests of which nobody knows all that they took."},
        "tool_calls": _COUNT,
        "cost": {
            "type": "object",
            "description": "Of the usage; only where claude.prices has the model.",
            "properties": {"amount": {"type": "string"}, "currency": {"type": "string"}},
            "required": ["amount", "currency"],
        },
        "output": {"type": "object", "description": "The answer by output_schema."},
        "output_problem": {"type": "string", "description": "Why there is no output, where there should be one."},
        "continued": {"type": "boolean", "description": "Whether an interrupted turn was brought to its end first."},
    },
    "required": [
        "conversation_id",
        "turn",
        "text",
        "model",
        "stop_reason",
        "usage",
        "unknown_requests",
        "tool_calls",
        "continued",
    ],
}


async def _send(arguments: Mapping[str, Any], context: ToolContext, attachments: Attachments) -> ToolResult:
    """The schema's properties are the command's fields, the output schema's those of the turn."""
    asked: dict[str, Any] = dict(arguments)
    if "tools" in asked:
        asked["tools"] = tuple(asked["tools"])
    if "max_tokens" in asked:
        asked["max_tokens"] = int(asked["max_tokens"])  # 1.0 is an integer too, but not for Claude's API
    files = await attachments.read(asked.pop("files", ()))
    turn: TurnResult = await context.dispatch(SendMessage(**asked, attachments=files))
    stopped = "" if turn.stop_reason == "end_turn" else f", stopped by {turn.stop_reason}"
    # Clients that show text only must be able to continue the conversation too.
    text = f"{turn.text}\n\n[conversation_id: {turn.conversation_id}{stopped}]".lstrip()
    late = turn.stop_reason == "timeout"
    return ToolResult(text, structured=_shown(turn), is_error=late, timed_out=late)


def _shown(turn: TurnResult) -> dict[str, Any]:
    shown = {name: value for name, value in asdict(turn).items() if name not in {"cost", "output"}}
    if turn.cost is not None:
        shown["cost"] = turn.cost.to_json()
    if turn.output is not None and turn.output.value is not None:
        shown["output"] = turn.output.value
    elif turn.output is not None:
        shown["output_problem"] = turn.output.problem
    return shown

"""The tools for conversations that are there already: find, read, fork and close them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tfo_mcp.application.commands import CloseConversation, ForkConversation
from tfo_mcp.application.conversation_queries import GetConversation, ListConversations
from tfo_mcp.application.conversation_views import View, as_json, beginning, size_of, summary_view
from tfo_mcp.application.excerpts import Excerpt
from tfo_mcp.application.pages import Page
from tfo_mcp.domain.catalog import ConversationSummary
from tfo_mcp.domain.conversation_record import ConversationState
from tfo_mcp.domain.fork import Fork
from tfo_mcp.domain.tool import Tool, ToolAnnotations, ToolContext, ToolMode, ToolResult
from tfo_mcp.infrastructure.tools.shapes import COUNT, TEXT, TEXT_OR_NULL, arguments_of, object_of

_LARGEST_LIST: Final = 50
_LARGEST_PAGE: Final = 200
"""Conversations, and messages, that one call may ask for."""

_SYSTEM_PROMPT: Final = 1000
"""Bytes of a system prompt that are shown."""

_FRAME: Final = 6000
"""Bytes of a page that are kept for what stands around the messages: the summary and the system prompt, twice."""

_READS = ToolAnnotations(read_only=True, destructive=False, idempotent=True, open_world=False)
_ADDS = ToolAnnotations(read_only=False, destructive=False, idempotent=False, open_world=False)
_ENDS = ToolAnnotations(read_only=False, destructive=True, idempotent=True, open_world=False)


def conversation_record_tools(*, max_page_bytes: int) -> list[Tool]:
    """`list_conversations`, `get_conversation`, `fork_conversation`, `close_conversation`.

    Args:
        max_page_bytes: of JSON that one page of a conversation has at most, its text and its structure together.
    """
    return [*_reading_tools(max_page_bytes), *_changing_tools()]


def _reading_tools(max_page_bytes: int) -> list[Tool]:
    async def get(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        return await _get(arguments, context, max_page_bytes)

    return [
        Tool(
            name="list_conversations",
            title="List conversations",
            description=(
                "List or search the conversations of claude_conversation, those changed last first. A search finds "
                "the conversations in which the user or Claude said every word of the query; of the last word the "
                "beginning is enough. Case and accents do not matter. Tool results are not searched."
            ),
            input_schema=_LIST_INPUT,
            output_schema=_LIST_OUTPUT,
            run=_list,
            mode=ToolMode.TASK,
            annotations=_READS,
            for_claude=False,
        ),
        Tool(
            name="get_conversation",
            title="Read a conversation",
            description=(
                "Read a conversation of claude_conversation, oldest message first, a page at a time: next_start is "
                "where the next page starts. Long tool calls and results are cut."
            ),
            input_schema=_GET_INPUT,
            output_schema=_GET_OUTPUT,
            run=get,
            mode=ToolMode.TASK,
            annotations=_READS,
            for_claude=False,
        ),
    ]


def _changing_tools() -> list[Tool]:
    return [
        Tool(
            name="fork_conversation",
            title="Fork a conversation",
            description=(
                "Begin a new conversation with the messages of another one, from its first to from_message. The "
                "other one stays as it is, and may be closed. Continue with the conversation_id that this gives."
            ),
            input_schema=_FORK_INPUT,
            output_schema=_FORK_OUTPUT,
            run=_fork,
            mode=ToolMode.TASK,
            annotations=_ADDS,
            for_claude=False,
            audited=("conversation_id", "from_message"),
        ),
        Tool(
            name="close_conversation",
            title="Close a conversation",
            description=(
                "Close a conversation of claude_conversation for good: it takes no more messages, and can still be "
                "read and forked. Refused while a turn of it is under way."
            ),
            input_schema=_CLOSE_INPUT,
            output_schema=_CLOSE_OUTPUT,
            run=_close,
            mode=ToolMode.TASK,
            annotations=_ENDS,
            for_claude=False,
            audited=("conversation_id",),
        ),
    ]


# --- what they take and give -------------------------------------------------------------------------

_ID: Mapping[str, Any] = {"type": "string", "description": "Which conversation."}
_COUNT_OR_NULL: Mapping[str, Any] = {"type": ["integer", "null"], "minimum": 0}
_STATES = [state.value for state in ConversationState]


_USAGE = object_of(dict.fromkeys(("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"), COUNT))

_SUMMARY = object_of(
    {
        "conversation_id": TEXT,
        "title": {"type": "string", "description": "The beginning of the first message."},
        "state": {"type": "string", "enum": _STATES},
        "model": TEXT,
        "created_at": TEXT,
        "updated_at": TEXT,
        "messages": COUNT,
        "turns": COUNT,
        "requests": {"type": "integer", "minimum": 0, "description": "Requests to Claude."},
        "unknown_requests": {"type": "integer", "minimum": 0, "description": "Those whose usage is not known."},
        "usage": _USAGE,
        "forked_from": {"type": ["string", "null"], "description": "The conversation that it began with."},
        "forked_at": {"type": ["integer", "null"], "description": "The position of its last message taken over."},
    }
)

_MESSAGE = object_of(
    {
        "position": COUNT,
        "role": {"type": "string", "enum": ["user", "assistant"]},
        "created_at": TEXT,
        "content": {
            "type": "array",
            "description": "Blocks as in Claude's API; what is cut says truncated and its whole size in bytes.",
            "items": {"type": "object", "properties": {"type": TEXT}, "required": ["type"]},
        },
        "omitted_blocks": COUNT,
        "model": TEXT_OR_NULL,
        "stop_reason": TEXT_OR_NULL,
        "usage": {"anyOf": [_USAGE, {"type": "null"}]},
    },
    optional=("omitted_blocks", "model", "stop_reason", "usage"),
)

_LIST_INPUT = arguments_of(
    {
        "query": {"type": "string", "description": "Words to search for. Left out: all.", "maxLength": 500},
        "state": {"type": "string", "description": "Only those in this state.", "enum": _STATES},
        "cursor": {"type": "string", "description": "The next_cursor of the page before.", "maxLength": 1000},
        "limit": {"type": "integer", "description": "Conversations at most.", "minimum": 1, "maximum": _LARGEST_LIST},
    }
)
_LIST_OUTPUT = object_of({"conversations": {"type": "array", "items": _SUMMARY}, "next_cursor": TEXT_OR_NULL})

_GET_INPUT = arguments_of(
    {
        "conversation_id": _ID,
        "start": {
            "type": "integer",
            "description": "The position of the first message, counted from 0; negative: from the end, so -10 is "
            "for the last ten.",
        },
        "limit": {"type": "integer", "description": "Messages at most.", "minimum": 1, "maximum": _LARGEST_PAGE},
    },
    required=("conversation_id",),
)
_GET_OUTPUT = object_of(
    {
        "conversation": _SUMMARY,
        "system_prompt": {"type": ["string", "null"], "description": "Its beginning."},
        "messages": {"type": "array", "items": _MESSAGE},
        "next_start": {"type": ["integer", "null"], "description": "Where the next page starts; null at the end."},
    }
)

_FORK_INPUT = arguments_of(
    {
        "conversation_id": _ID,
        "from_message": {
            "type": "integer",
            "description": "The position of the last message that is taken over, counted from 0. Left out: all are.",
            "minimum": 0,
        },
    },
    required=("conversation_id",),
)
_FORK_OUTPUT = object_of(
    {"conversation_id": TEXT, "forked_from": TEXT, "forked_at": COUNT, "messages": COUNT, "model": TEXT}
)

_CLOSE_INPUT = arguments_of({"conversation_id": _ID}, required=("conversation_id",))
_CLOSE_OUTPUT = object_of({"conversation_id": TEXT, "state": {"type": "string", "enum": _STATES}})


# --- what they do ------------------------------------------------------------------------------------


async def _list(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
    state = arguments.get("state")
    page: Page[ConversationSummary] = await context.dispatch(
        ListConversations(
            query=arguments.get("query", ""),
            state=None if state is None else ConversationState(state),
            cursor=arguments.get("cursor"),
            limit=int(arguments.get("limit", 20)),
        )
    )
    shown = [_summary(summary) for summary in page.items]
    lines = [_line(view) for view in shown] or ["No conversations."]
    if page.next_cursor is not None:
        lines.append(f"There are more: continue with cursor {page.next_cursor!r}.")
    return ToolResult("\n".join(lines), structured={"conversations": shown, "next_cursor": page.next_cursor})


async def _get(arguments: Mapping[str, Any], context: ToolContext, max_page_bytes: int) -> ToolResult:
    excerpt: Excerpt = await context.dispatch(
        GetConversation(
            conversation_id=arguments["conversation_id"],
            start=int(arguments.get("start", 0)),
            limit=int(arguments.get("limit", 50)),
            room=(max_page_bytes - _FRAME) // 2,
        )
    )
    summary = _summary(excerpt.summary)
    prompt = excerpt.system_prompt and beginning(excerpt.system_prompt, _SYSTEM_PROMPT)
    lines = [_line(summary)]
    if prompt:
        lines.append(f"System prompt: {prompt}{'' if prompt == excerpt.system_prompt else ' …'}")
    shown = _said_twice(excerpt.messages, max_page_bytes - _FRAME)
    lines += [text for _, text in shown]
    end = excerpt.start + len(shown)
    next_start = end if end < excerpt.summary.messages else None
    if next_start is not None:
        lines.append(f"There are more messages: continue with start {next_start}.")
    structured = {
        "conversation": summary,
        "system_prompt": prompt,
        "messages": [view for view, _ in shown],
        "next_start": next_start,
    }
    return ToolResult("\n\n".join(lines), structured=structured)


def _said_twice(messages: Sequence[View], room: int) -> list[tuple[View, str]]:
    """Messages and their texts, as long as both fit; the first one does by itself."""
    shown: list[tuple[View, str]] = []
    for view in messages:
        text = _spelled_out(view)
        room -= size_of(view) + size_of(text)
        if room < 0 and shown:
            break
        shown.append((view, text))
    return shown


async def _fork(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
    last = arguments.get("from_message")
    fork: Fork = await context.dispatch(
        ForkConversation(arguments["conversation_id"], None if last is None else int(last))  # 1.0 is an integer too
    )
    structured = {
        "conversation_id": fork.id,
        "forked_from": fork.forked_from,
        "forked_at": fork.forked_at,
        "messages": fork.messages,
        "model": fork.model,
    }
    text = f"Forked {fork.forked_from} with its messages 0 to {fork.forked_at}.\n\n[conversation_id: {fork.id}]"
    return ToolResult(text, structured=structured)


async def _close(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
    conversation_id = arguments["conversation_id"]
    await context.dispatch(CloseConversation(conversation_id))
    structured = {"conversation_id": conversation_id, "state": ConversationState.CLOSED.value}
    return ToolResult(f"Conversation {conversation_id} is closed; it can still be read and forked.", structured)


# --- how they say it ---------------------------------------------------------------------------------


def _summary(summary: ConversationSummary) -> View:
    return {"conversation_id": summary.id, **summary_view(summary)}


def _line(summary: View) -> str:
    """A conversation on one line, for people."""
    told = [
        summary["conversation_id"],
        summary["state"],
        f"changed {summary['updated_at']}",
        summary["model"],
        f"{summary['messages']} messages",
        f"{sum(summary['usage'].values())} tokens",
    ]
    if summary["forked_from"] is not None:
        told.append(f"forked from {summary['forked_from']} at {summary['forked_at']}")
    return f"{summary['title'] or '(no text)'}\n  {' · '.join(told)}"


def _spelled_out(message: View) -> str:
    """A message as text: who, when, and what of each block."""
    lines = [f"[{message['position']}] {message['role']}, {message['created_at']}"]
    lines += [_block(block) for block in message["content"]]
    if "omitted_blocks" in message:
        lines.append(f"[{message['omitted_blocks']} more parts are left out]")
    return "\n".join(lines)


def _block(block: View) -> str:
    cut = f" … [cut: {block['size']} bytes in all]" if "truncated" in block else ""
    match block["type"]:
        case "text":
            return f"{block['text']}{cut}"
        case "tool_use" if "input" in block:
            given = block["input"]
            return f"→ {block['name']} {given if isinstance(given, str) else as_json(given)}{cut}"
        case "tool_result" if "content" in block:
            return f"← {'error: ' if block['is_error'] else ''}{block['content']}{cut}"
        case other:
            return f"[{other}]"

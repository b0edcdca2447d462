r"""Conversations as files: JSON Lines, which keep everything, and Markdown, which is for people.

What people read shows characters that could command a terminal, or turn the order of letters around, as escapes
(`\x1b`). No content can pretend to be the frame around it: in Markdown a text is a quotation, and what tools were
asked and gave stands in a fence that is longer than any inside.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from tfo_mcp.application.conversation_views import summary_view, usage_view
from tfo_mcp.domain.catalog import ConversationPage, ConversationSummary
from tfo_mcp.domain.health import moment
from tfo_mcp.domain.message import Block, Message, OpaqueBlock, Text, ToolAnswer, ToolUse

FORMAT: Final = 1
"""Of the lines, told in a conversation's first one; it rises when a program that reads them must know."""

_COMMANDING: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls but for tab and line feed, separators of lines, what turns the direction, and halves of surrogate pairs."""

_UNLIKE_ITSELF: Final = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What may stand in a string of JSON, and yet ends a line for some, commands a terminal, or is not UTF-8."""

_MARKS: Final = re.compile(r"([\\`*_\[\]<>#&|~!])")
"""Characters that mean something in a line of Markdown."""


def plain(text: str) -> str:
    """`text` with every character that could do something to a terminal as an escape."""
    return _COMMANDING.sub(_escape, text.replace("\r\n", "\n"))


def on_one_line(text: str) -> str:
    """As `plain`, without line feeds and tabs."""
    return plain(" ".join(text.split()))


def json_line(value: object) -> str:
    """`value` as one line of JSON, which is one line for everybody."""
    line = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return _UNLIKE_ITSELF.sub(lambda match: f"\\u{ord(match[0]):04x}", line) + "\n"


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004  # the last code of two digits


# --- JSON Lines --------------------------------------------------------------------------------------------


def conversation_line(page: ConversationPage) -> str:
    """A conversation's first line: all but its messages."""
    head: dict[str, Any] = {"type": "conversation", "format": FORMAT, "conversation_id": page.summary.id}
    return json_line({**head, **summary_view(page.summary), "system_prompt": page.system_prompt})


def message_line(conversation_id: str, position: int, message: Message) -> str:
    """One message, its blocks whole and in the shape of Claude's API."""
    line: dict[str, Any] = {
        "type": "message",
        "conversation_id": conversation_id,
        "position": position,
        "role": message.role,
        "created_at": moment(message.created_at),
        "content": [block.to_json() for block in message.content],
    }
    if message.role == "assistant":
        usage = None if message.usage is None else usage_view(message.usage)
        line |= {"model": message.model, "stop_reason": message.stop_reason, "usage": usage}
    return json_line(line)


def summary_line(summary: ConversationSummary) -> str:
    """A conversation in a list, in the fields of `list_conversations`."""
    return json_line({"conversation_id": summary.id, **summary_view(summary)})


# --- Markdown ----------------------------------------------------------------------------------------------


def conversation_heading(page: ConversationPage) -> str:
    """The beginning of a conversation in Markdown."""
    summary, usage = page.summary, page.summary.usage
    lines = [
        f"# {_marked(summary.title) or 'A conversation without a title'}",
        "",
        f"- conversation: {summary.id}",
        f"- state: {summary.state.value}",
        f"- model: {_marked(summary.model)}",
        f"- begun {moment(summary.created_at)}, changed {moment(summary.updated_at)}",
        f"- messages: {summary.messages}",
        f"- tokens: {usage.input_tokens} input, {usage.output_tokens} output",
        f"- tokens of the cache: {usage.cache_read_tokens} read, {usage.cache_write_tokens} written",
    ]
    if summary.forked_from is not None:
        lines.append(f"- forked from {summary.forked_from}, with its messages up to {summary.forked_at}")
    if page.system_prompt:
        lines += ["", "## System prompt", "", _quoted(page.system_prompt)]
    return "\n".join([*lines, ""])


def message_section(position: int, message: Message) -> str:
    """One message in Markdown."""
    who = "User" if message.role == "user" else "Claude"
    heading = f"\n## {position} · {who} · {moment(message.created_at)}\n"
    return heading + "".join(f"\n{part}\n" for block in message.content for part in _markdown(block))


def _markdown(block: Block) -> Iterator[str]:
    match block:
        case Text(text) | OpaqueBlock({"type": "text", "text": str(text)}):
            if text.strip():
                yield _quoted(text)
        case ToolUse(name=name, input=arguments):
            yield "Tool call:"
            yield _fenced(json.dumps({"name": name, "input": arguments}, ensure_ascii=False, indent=2), "json")
        case ToolAnswer(content=content, is_error=is_error):
            yield "Tool result, a failure:" if is_error else "Tool result:"
            yield _fenced(content)
        case OpaqueBlock(data):
            yield f"*{_marked(str(data.get('type')))}: not shown here*"


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" if line else ">" for line in plain(text).split("\n"))


def _fenced(text: str, language: str = "") -> str:
    shown = plain(text)
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{shown}\n{fence}"


def _marked(text: str) -> str:
    return _MARKS.sub(r"\\\1", on_one_line(text))

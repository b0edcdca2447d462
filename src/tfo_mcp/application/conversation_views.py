"""Conversations in JSON types, one shape for whoever shows them: resources, tools and exports."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from tfo_mcp.domain.catalog import ConversationSummary
from tfo_mcp.domain.health import moment
from tfo_mcp.domain.message import Block, Message, OpaqueBlock, Usage

View = dict[str, Any]

_MARKS: Final = 40
"""Bytes that it takes to say that a block is cut."""


def summary_view(summary: ConversationSummary) -> View:
    """All that a summary tells, its id apart; times are ISO 8601 in UTC."""
    return {
        "title": summary.title,
        "state": summary.state.value,
        "model": summary.model,
        "created_at": moment(summary.created_at),
        "updated_at": moment(summary.updated_at),
        "messages": summary.messages,
        "turns": summary.turns,
        "requests": summary.requests,
        "unknown_requests": summary.unknown_requests,
        "usage": usage_view(summary.usage),
        "forked_from": summary.forked_from,
        "forked_at": summary.forked_at,
    }


def message_view(position: int, message: Message, *, room: int | None = None, most: int | None = None) -> View:
    """One message and its position. What is cut says `truncated` and its whole `size` in bytes.

    `room` is how many bytes of JSON its blocks may have in all; the message says how many blocks did not fit at all.
    `most` is how many a tool call's input, and a tool's result, may have each.
    """
    blocks = [block_view(block) for block in message.content]
    if most is not None:
        blocks = [_cut(view, most, ("content", "input")) for view in blocks]
    content = blocks if room is None else _fitting(blocks, room)
    shown: View = {
        "position": position,
        "role": message.role,
        "created_at": moment(message.created_at),
        "content": content,
    }
    if len(content) < len(blocks):
        shown["omitted_blocks"] = len(blocks) - len(content)
    if message.role == "assistant":
        usage = None if message.usage is None else usage_view(message.usage)
        shown |= {"model": message.model, "stop_reason": message.stop_reason, "usage": usage}
    return shown


def block_view(block: Block) -> View:
    """A block in the API's shape; of one that only the API can use (a signature, a picture) its type."""
    match block:
        case OpaqueBlock({"type": "text", "text": str(text)}):
            return {"type": "text", "text": text}
        case OpaqueBlock(data):
            return {"type": data.get("type")}
        case _:
            return block.to_json()


def usage_view(usage: Usage) -> dict[str, int]:
    """Tokens, as the API counts them apart."""
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
    }


def size_of(value: object) -> int:
    """Bytes of `value` as JSON."""
    return len(as_json(value).encode("utf-8", "surrogatepass"))


def beginning(text: str, room: int) -> str:
    """As much of `text` as has at most `room` bytes as JSON."""
    shown = text[:room]
    while shown and (size := size_of(shown)) > room:
        shown = shown[: min(len(shown) - 1, len(shown) * room // size)]
    return shown


def _fitting(blocks: Sequence[View], room: int) -> list[View]:
    """As many of `blocks` as there is room for, the last of them cut; of the first at least its type."""
    shown: list[View] = []
    for block in blocks:
        view = block
        if size_of(view) > room:
            said = {key: view[key] for key in ("text", "content", "input") if key in view}
            frame = size_of(view) - sum(map(size_of, said.values())) + _MARKS
            if shown and frame >= room:
                break
            view = _cut(view, max(0, room - frame), tuple(said))
        room -= size_of(view)
        shown.append(view)
    return shown


def _cut(view: View, room: int, keys: Sequence[str]) -> View:
    """`view` with what stands at each of `keys` in at most `room` bytes."""
    for key in keys:
        if key in view and (size := size_of(view[key])) > room:
            text = view[key] if isinstance(view[key], str) else as_json(view[key])
            view = {**view, key: beginning(text, room), "truncated": True, "size": size}
    return view


def as_json(value: object) -> str:
    """`value` as JSON without blanks."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

"""One message of a conversation, in the shapes of the Messages API.

A block that the program does not act on (thinking, citations, what the API adds tomorrow) is kept as it
came, because the API wants it back unchanged.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["user", "assistant"]


@dataclass(frozen=True, slots=True)
class Text:
    """Text by either side."""

    text: str

    def to_json(self) -> dict[str, Any]:
        """The API's shape."""
        return {"type": "text", "text": self.text}


@dataclass(frozen=True, slots=True)
class ToolUse:
    """Claude asks for a tool call."""

    id: str
    name: str
    input: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The API's shape."""
        return {"type": "tool_use", "id": self.id, "name": self.name, "input": dict(self.input)}


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """The answer to a `ToolUse`."""

    tool_use_id: str
    content: str
    is_error: bool = False

    def to_json(self) -> dict[str, Any]:
        """The API's shape."""
        return {
            "type": "tool_result",
            "tool_use_id": self.tool_use_id,
            "content": self.content,
            "is_error": self.is_error,
        }


@dataclass(frozen=True, slots=True)
class OpaqueBlock:
    """A block kept as it came."""

    data: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The API's shape."""
        return dict(self.data)


Block = Text | ToolUse | ToolAnswer | OpaqueBlock


def block_from_json(data: Mapping[str, Any]) -> Block:
    """The block that `to_json` made `data` from."""
    match data:
        case {"type": "text", "text": str(text), **rest} if not rest.get("citations"):
            return Text(text)
        case {"type": "tool_use", "id": str(use_id), "name": str(name), "input": {**arguments}}:
            return ToolUse(use_id, name, arguments)
        case {"type": "tool_result", "tool_use_id": str(use_id), "content": str(content)}:
            return ToolAnswer(use_id, content, bool(data.get("is_error")))
        case _:
            return OpaqueBlock(dict(data))


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the API reported them: `input_tokens` are those that the cache had no part in."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0

    @property
    def prompt_tokens(self) -> int:
        """All that went in, whether it came from the cache, went into it, or neither."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens

    @property
    def all_tokens(self) -> int:
        """Those that went in and those that came out."""
        return self.prompt_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_read_tokens + other.cache_read_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
        )


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `usage`, `model` and `stop_reason` stand on the assistant's only."""

    role: Role
    content: Sequence[Block]
    usage: Usage | None = None
    model: str | None = None
    stop_reason: str | None = None
    created_at: float = field(default_factory=time.time)

    @property
    def text(self) -> str:
        """The text blocks, joined."""
        return "".join(block.text for block in self.content if isinstance(block, Text))

    @property
    def tool_uses(self) -> tuple[ToolUse, ...]:
        """The tool calls that this message asks for, in order."""
        return tuple(block for block in self.content if isinstance(block, ToolUse))

    @property
    def is_compacted(self) -> bool:
        """Whether it begins with the API's summary of all that was said before."""
        return any(isinstance(block, OpaqueBlock) and block.data.get("type") == "compaction" for block in self.content)

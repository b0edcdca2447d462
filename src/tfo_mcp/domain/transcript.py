"""A conversation as the Messages API is told it: turns of alternating roles, made from its messages one by one.

A turn that has been made never changes once the other role has spoken, so a request writes what is here and
nothing is made anew for it, however long the conversation is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfo_mcp.domain.message import Message, Text

_THOUGHTS = frozenset({"thinking", "redacted_thinking"})
"""The types of blocks that no assistant's message may end with."""


_BYTES_A_TOKEN = 3
_BYTES_A_TOKEN_OF_A_FILE = 25
"""UTF-8 bytes that are counted as a token where nobody has counted; base64 of a picture or a document has more."""
_MOST_TOKENS_OF_A_PICTURE = 4784
"""The API makes larger pictures smaller."""


class Transcript:
    """The turns so far.

    Attributes:
        size: bytes of their blocks as JSON.
        tokens: an estimate of how many they have.
        result_tokens: those among them that tool results have, which the API may have emptied.
        is_compacted: whether the API has summed up what is oldest.

    Left out is what the API refuses: texts that say nothing, messages that are empty, a thought at the end of
    an assistant's message, as one has that was cut while Claude was thinking. Neighbours of one role become one
    turn, so that the answers to one message's tool calls, each appended when it was there, stand together: at
    the turn's beginning and in the order of the calls, whichever came first.
    """

    def __init__(self, messages: Iterable[Message] = ()) -> None:
        self.size = 0
        self.tokens = 0
        self.result_tokens = 0
        self.is_compacted = False
        self._turns: list[dict[str, Any]] = []
        self._calls: dict[str, int] = {}
        for message in messages:
            self.add(message)

    @property
    def turns(self) -> Sequence[Mapping[str, Any]]:
        """`{"role": …, "content": [block, …]}` each, in the API's shape; not to be changed."""
        return self._turns

    def add(self, message: Message) -> None:
        """Append `message`."""
        content = [block.to_json() for block in message.content if not isinstance(block, Text) or block.text.strip()]
        while message.role == "assistant" and content and content[-1]["type"] in _THOUGHTS:
            content.pop()
        if not content:
            return
        for block in content:
            self._count(block)
        if self._turns and self._turns[-1]["role"] == message.role:
            self._turns[-1]["content"] += content
        else:
            self._turns.append({"role": message.role, "content": content})
        if message.role == "assistant":
            for call in message.tool_uses:
                self._calls[call.id] = len(self._calls)
        else:
            self._turns[-1]["content"].sort(key=self._place)

    def _count(self, block: Mapping[str, Any]) -> None:
        is_file = block["type"] in {"image", "document"} and block.get("source", {}).get("type") == "base64"
        if is_file:  # megabytes, of which the rest of the block is nothing
            size = len(block["source"]["data"])
        else:
            size = len(json.dumps(block, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"))
        tokens = -(-size // (_BYTES_A_TOKEN_OF_A_FILE if is_file else _BYTES_A_TOKEN))
        self.size += size
        self.tokens += min(tokens, _MOST_TOKENS_OF_A_PICTURE) if is_file and block["type"] == "image" else tokens
        if block["type"] == "tool_result":
            self.result_tokens += tokens
        self.is_compacted = self.is_compacted or block["type"] == "compaction"

    def _place(self, block: Mapping[str, Any]) -> float:
        """Where `block` belongs in the user's turn; the sort is stable."""
        if block["type"] != "tool_result":
            return float("inf")
        return self._calls.get(block["tool_use_id"], float("inf"))

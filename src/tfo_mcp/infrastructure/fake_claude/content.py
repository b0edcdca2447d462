"""What an answer consists of: its blocks, cut where the request says that it must end."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from tfo_mcp.infrastructure.fake_claude.conversation import Asked
from tfo_mcp.infrastructure.fake_claude.editing import Compaction
from tfo_mcp.infrastructure.fake_claude.script import Reply, ToolUse
from tfo_mcp.infrastructure.fake_claude.shapes import BYTES_PER_TOKEN, tokens
from tfo_mcp.infrastructure.fake_claude.thoughts import seal

SIMULATED = "[simulated] No model was asked."
"""Every text that the stand-in sends begins with this sentence."""

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Part:
    """One block: as its start event shows it, what its deltas add, and as it is in the end."""

    opened: Json
    deltas: Sequence[Json]
    block: Json


@dataclass(slots=True)
class Content:
    """The blocks of an answer, its end, and its length in tokens."""

    parts: list[Part] = field(default_factory=list[Part])
    stop_reason: str = "end_turn"
    stop_sequence: str | None = None
    output_tokens: int = 0
    thinking_tokens: int = 0


def simulated(text: str) -> str:
    """Put the constant sentence before a text."""
    return f"{SIMULATED} {text}" if text else SIMULATED


def write(reply: Reply, asked: Asked, new_id: str) -> Content:
    """Write what `reply` describes, as far as stop sequences, `max_tokens` and the model's window let it.

    `new_id` begins the ids of tool calls.
    """
    begun = [] if asked.compaction is None else [_compaction(asked.compaction)]
    content = Content(begun, reply.stop_reason or ("tool_use" if reply.tool_use else "end_turn"))
    text, uses = reply.text, reply.tool_use
    if text is not None:
        written = simulated(text) if asked.schema is None else text  # which is to be JSON
        text, content.stop_sequence = _stopped(written, asked.request.stop_sequences)
    if content.stop_sequence is not None:
        content.stop_reason, uses = "stop_sequence", ()
    elif reply.stop_reason == "stop_sequence":
        content.stop_sequence = next(iter(asked.request.stop_sequences), None)
    room = _Room(asked.most_output * BYTES_PER_TOKEN)
    if reply.thinking is not None:
        thought = room.fit(reply.thinking)
        content.thinking_tokens = tokens(room.used)
        if thought:
            content.parts.append(_thinking(thought, shown=asked.shows_thinking))
    if text is not None and (text := room.fit(text)):
        content.parts.append(_text(text))
    for number, use in enumerate(uses):
        if room.fit(use.name) != use.name:
            break
        content.parts.append(_tool_use(use, f"{new_id}{number:02}", room))
    if room.is_over:
        ended_by_window = asked.window_left < (asked.request.max_tokens or 0)
        content.stop_reason = "model_context_window_exceeded" if ended_by_window else "max_tokens"
        content.stop_sequence = None
    content.output_tokens = min(max(1, tokens(room.used)), asked.most_output)
    return content


class _Room:
    """What is left of the bytes that the answer may have."""

    def __init__(self, most: int) -> None:
        self._left = most
        self.used = 0
        self.is_over = most == 0

    def fit(self, text: str) -> str:
        """Give as much of the beginning as fits, whole characters only; nothing follows what did not fit."""
        encoded = b"" if self.is_over else text.encode()
        self.is_over = self.is_over or len(encoded) > self._left
        kept = encoded[: self._left].decode("utf-8", "ignore")
        taken = len(kept.encode())
        self._left -= taken
        self.used += taken
        return kept


def _stopped(text: str, sequences: Sequence[str]) -> tuple[str, str | None]:
    begun = len(SIMULATED)
    found = [(text.find(sequence, begun), sequence) for sequence in sequences if text.find(sequence, begun) >= 0]
    if not found:
        return text, None
    place, sequence = min(found)
    return text[:place], sequence


def _thinking(thought: str, *, shown: bool) -> Part:
    signature = seal(thought)
    pieces = _words(thought) if shown else []
    return Part(
        {"type": "thinking", "thinking": "", "signature": ""},
        [
            *({"type": "thinking_delta", "thinking": piece} for piece in pieces),
            {"type": "signature_delta", "signature": signature},
        ],
        {"type": "thinking", "thinking": "".join(pieces), "signature": signature},
    )


def _compaction(compaction: Compaction) -> Part:
    written = {name: compaction.block[name] for name in ("content", "encrypted_content")}
    opened: Json = {"type": "compaction", "content": None, "encrypted_content": None}
    return Part(opened, [{"type": "compaction_delta", **written}], compaction.block)


def _text(text: str) -> Part:
    deltas: list[Json] = [{"type": "text_delta", "text": piece} for piece in _words(text)]
    return Part({"type": "text", "text": ""}, deltas, {"type": "text", "text": text})


def _tool_use(use: ToolUse, use_id: str, room: _Room) -> Part:
    whole = msgspec.json.encode(use.input).decode()
    written = room.fit(whole)
    middle = len(written) // 2
    pieces = ["", written[:middle], written[middle:]]
    block: Json = {"type": "tool_use", "id": use_id, "name": use.name}
    return Part(
        {**block, "input": {}},
        [{"type": "input_json_delta", "partial_json": piece} for piece in pieces],
        {**block, "input": use.input if written == whole else {}},
    )


def _words(text: str) -> list[str]:
    return re.findall(r"\S+\s*|\s+", text)

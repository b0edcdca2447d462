"""Answers on the wire: the message object and its stream of events."""

import uuid
from dataclasses import dataclass

import msgspec

from tfo_mcp.infrastructure.fake_claude.cache import CacheUse
from tfo_mcp.infrastructure.fake_claude.content import Content, Json, Part, write
from tfo_mcp.infrastructure.fake_claude.conversation import Asked
from tfo_mcp.infrastructure.fake_claude.script import Reply
from tfo_mcp.infrastructure.fake_claude.shapes import tokens


def new_id(prefix: str) -> str:
    """Make an id. Random, because stored conversations bring back ids from earlier runs."""
    return f"{prefix}_fake{uuid.uuid4().hex}"


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete assistant message; tokens are counted, not estimated."""

    message_id: str
    model: str
    content: Content
    uses: tuple[CacheUse, ...]
    asked: Asked

    def body(self) -> bytes:
        """Encode the message of a non-streaming answer."""
        blocks = [part.block for part in self.content.parts]
        usage = {**self._usage(self.uses[-1], 1), **self._final_usage()}
        return msgspec.json.encode({**self._message(blocks, self._end(), usage), **self._edits()})

    def events(self, delay_between: float) -> list[tuple[float, bytes]]:
        """List the server-sent events, each with the seconds to wait before it."""
        nothing: Json = {"stop_reason": None, "stop_sequence": None, "stop_details": None}
        begun: Json = {"type": "message_start", "message": self._message([], nothing, self._usage(self.uses[-1], 1))}
        events = [(0.0, begun), (0.0, Json(type="ping"))]
        for index, part in enumerate(self.content.parts):
            events += _block_events(index, part, delay_between)
        end: Json = {"type": "message_delta", "delta": self._end(), "usage": self._final_usage(), **self._edits()}
        events.append((0.0, end))
        events.append((0.0, {"type": "message_stop"}))
        return [(pause, encoded_event(event)) for pause, event in events]

    def _end(self) -> Json:
        refused = self.content.stop_reason == "refusal"
        return {
            "stop_reason": self.content.stop_reason,
            "stop_sequence": self.content.stop_sequence,
            "stop_details": {"type": "refusal", "category": None, "explanation": None} if refused else None,
        }

    def _message(self, blocks: list[Json], end: Json, usage: Json) -> Json:
        return {
            "id": self.message_id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": blocks,
            **end,
            "usage": usage,
        }

    def _edits(self) -> Json:
        applied = self.asked.edited.applied
        return {} if applied is None else {"context_management": {"applied_edits": applied}}

    def _usage(self, use: CacheUse, output_tokens: int) -> Json:
        lifetimes = {f"ephemeral_{ttl}_input_tokens": written for ttl, written in use.written.items()}
        return {
            "input_tokens": use.rest,
            "cache_creation_input_tokens": sum(use.written.values()),
            "cache_read_input_tokens": use.read,
            "cache_creation": lifetimes,
            "output_tokens": output_tokens,
            "service_tier": "standard",
        }

    def _final_usage(self) -> Json:
        """What `message_delta` tells: totals, not what was added."""
        usage = self._usage(self.uses[-1], self.content.output_tokens)
        iterations = self._iterations(usage)
        del usage["cache_creation"], usage["service_tier"]
        return {
            **usage,
            "output_tokens_details": {"thinking_tokens": self.content.thinking_tokens},
            **({"iterations": iterations} if iterations else {}),
        }

    def _iterations(self, usage: Json) -> list[Json]:
        """List the samplings, where there was more than one; the summary's tokens stand here only."""
        if self.asked.compaction is None:
            return []
        summing_up = self._usage(self.uses[0], tokens(self.asked.compaction.written))
        iterations: list[Json] = [{**summing_up, "type": "compaction"}, {**usage, "type": "message"}]
        for iteration in iterations:
            del iteration["service_tier"]
        return iterations


def compose(reply: Reply, asked: Asked, uses: tuple[CacheUse, ...]) -> Answer:
    """Make the message that `reply` describes; `uses` are those of `asked.prompts`."""
    content = write(reply, asked, new_id("toolu"))
    return Answer(new_id("msg"), asked.model.id, content, uses, asked)


def encoded_event(event: Json) -> bytes:
    """Encode one server-sent event."""
    return b"event: %s\ndata: %s\n\n" % (str(event["type"]).encode(), msgspec.json.encode(event))


def _block_events(index: int, part: Part, delay_between: float) -> list[tuple[float, Json]]:
    pauses = [0.0] + [delay_between] * (len(part.deltas) - 1)
    events: list[Json] = [{"type": "content_block_delta", "index": index, "delta": delta} for delta in part.deltas]
    return [
        (0.0, {"type": "content_block_start", "index": index, "content_block": part.opened}),
        *zip(pauses, events, strict=True),
        (0.0, {"type": "content_block_stop", "index": index}),
    ]

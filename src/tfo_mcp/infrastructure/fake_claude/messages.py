"""Answers on the wire: the message object, its stream of events, and errors."""

import re
import uuid
from dataclasses import dataclass

import msgspec

from tfo_mcp.infrastructure.fake_claude.conversation import Asked, tokens
from tfo_mcp.infrastructure.fake_claude.script import Reply

SIMULATED = "[simulated] No model was asked."
"""Every text that the stand-in sends begins with this sentence."""

ERROR_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}

Event = dict[str, object]


def new_id(prefix: str) -> str:
    """Make an id. Random, because stored conversations bring back ids from earlier runs."""
    return f"{prefix}_fake{uuid.uuid4().hex}"


def error_body(status: int, message: str, request_id: str) -> bytes:
    """Encode an error in the API's shape; the type follows from the HTTP status."""
    first_server_error = 500
    other = "invalid_request_error" if status < first_server_error else "api_error"
    error = {"type": ERROR_TYPES.get(status, other), "message": message}
    return msgspec.json.encode({"type": "error", "error": error, "request_id": request_id})


def simulated(text: str) -> str:
    """Put the constant sentence before a text."""
    return f"{SIMULATED} {text}" if text else SIMULATED


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete assistant message; tokens are counted, not estimated."""

    model: str
    content: list[Event]
    stop_reason: str
    input_tokens: int
    output_tokens: int

    def body(self) -> bytes:
        """Encode the message of a non-streaming answer."""
        return msgspec.json.encode(self._message(self.content, self.stop_reason, self.output_tokens))

    def events(self, delay_between: float) -> list[tuple[float, bytes]]:
        """List the server-sent events, each with the seconds to wait before it."""
        begun: Event = {"type": "message_start", "message": self._message([], None, 1)}
        delta = {"stop_reason": self.stop_reason, "stop_sequence": None}
        usage = {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens}
        events = [(0.0, begun), (0.0, Event(type="ping"))]
        for index, block in enumerate(self.content):
            events += _block_events(index, block, delay_between)
        events.append((0.0, {"type": "message_delta", "delta": delta, "usage": usage}))
        events.append((0.0, {"type": "message_stop"}))
        return [(pause, _encoded(event)) for pause, event in events]

    def _message(self, content: list[Event], stop_reason: str | None, output_tokens: int) -> Event:
        return {
            "id": new_id("msg"),
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": {
                "input_tokens": self.input_tokens,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": output_tokens,
            },
        }


def compose(reply: Reply, asked: Asked) -> Answer:
    """Make the message that `reply` describes."""
    content: list[Event] = [
        {"type": "tool_use", "id": new_id("toolu"), "name": call.name, "input": call.input} for call in reply.tool_use
    ]
    if reply.text is not None:
        content.insert(0, {"type": "text", "text": simulated(reply.text)})
    return Answer(
        model=asked.request.model,
        content=content,
        stop_reason=reply.stop_reason or ("tool_use" if reply.tool_use else "end_turn"),
        input_tokens=asked.input_tokens,
        output_tokens=max(1, tokens(b"".join(map(_written, content)))),
    )


def _written(block: Event) -> bytes:
    if block["type"] == "text":
        return str(block["text"]).encode()
    return str(block["name"]).encode() + msgspec.json.encode(block["input"])


def _block_events(index: int, block: Event, delay_between: float) -> list[tuple[float, Event]]:
    if block["type"] == "text":
        opened: Event = {"type": "text", "text": ""}
        deltas = [{"type": "text_delta", "text": piece} for piece in _words(str(block["text"]))]
        pauses = [0.0] + [delay_between] * (len(deltas) - 1)
    else:
        opened = {**block, "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in _halves(block["input"])]
        pauses = [0.0] * len(deltas)
    events: list[Event] = [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
    return [
        (0.0, {"type": "content_block_start", "index": index, "content_block": opened}),
        *zip(pauses, events, strict=True),
        (0.0, {"type": "content_block_stop", "index": index}),
    ]


def _words(text: str) -> list[str]:
    return re.findall(r"\S+\s*|\s+", text)


def _halves(value: object) -> list[str]:
    encoded = msgspec.json.encode(value).decode()
    middle = len(encoded) // 2
    return ["", encoded[:middle], encoded[middle:]]


def _encoded(event: Event) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (str(event["type"]).encode(), msgspec.json.encode(event))

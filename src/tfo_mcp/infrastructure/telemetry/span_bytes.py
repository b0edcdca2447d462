"""Spans of our own as protobuf, written byte by byte.

Every call leaves two of them, and protobuf's library takes three times as long. What the bytes mean: "Encoding" in
protobuf's documentation, and `opentelemetry/proto/trace/v1/trace.proto`. A field is its tag, number * 8 + type, and its
value; text, bytes and messages have their length before them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from struct import Struct
from typing import Final, cast

from tfo_mcp.application.ports import AttributeValue, TraceContext
from tfo_mcp.domain.execution import FAILURES
from tfo_mcp.infrastructure.telemetry.otlp_values import any_value, text
from tfo_mcp.infrastructure.telemetry.records import Record
from tfo_mcp.infrastructure.telemetry.table import TABLE

# OTLP's `Span.flags`: the sampled bit of W3C trace context; whether the parent is remote, and that we know it.
SAMPLED: Final = 0x1
KNOWN: Final = 0x100
REMOTE: Final = 0x200

# The tags of `Span`. The ids' lengths are always the same, and stand behind theirs.
_TRACE_ID: Final = b"\x0a\x10"
_SPAN_ID: Final = b"\x12\x08"
_TRACE_STATE: Final = b"\x1a"
_PARENT_ID: Final = b"\x22\x08"
_NAME: Final = b"\x2a"
_KINDS: Final = {"server": b"\x30\x02", "internal": b"\x30\x01", None: b""}
"""With their value: SPAN_KIND_SERVER is 2, SPAN_KIND_INTERNAL 1."""
_TIMES: Final = Struct("<cQcQ")
_START, _END = b"\x39", b"\x41"
_ATTRIBUTE: Final = b"\x4a"
_EVENT: Final = b"\x5a"
_STATUS_ERROR: Final = b"\x7a\x02\x18\x02"
"""`status`, of two bytes: its `code` is STATUS_CODE_ERROR."""
_FLAGS: Final = Struct("<2sI")
_FLAGS_TAG: Final = b"\x85\x01"

# Those of `Span.Event`, `KeyValue` and `AnyValue`.
_EVENT_TIME: Final = Struct("<cQ")
_EVENT_TIME_TAG: Final = b"\x09"
_EVENT_NAME: Final = b"\x12"
_EVENT_ATTRIBUTE: Final = b"\x1a"
_KEY: Final = b"\x0a"
_VALUE: Final = b"\x12"
_STRING_VALUE: Final = b"\x0a"

_SHORT: Final = 64
"""Characters of a value up to which an attribute is remembered."""


def own_span(record: Record) -> bytes:
    """The `Span` that an operation becomes."""
    context = cast("TraceContext", record.context)
    start, parent = record.start_ns, record.parent_id
    # The parent of a request can only be the client's span.
    flags = SAMPLED | KNOWN | (REMOTE if record.kind == "request" and parent else 0)
    return b"".join(
        (
            _TRACE_ID,
            context.trace_id.to_bytes(16, "big"),
            _SPAN_ID,
            context.span_id.to_bytes(8, "big"),
            b"" if context.carried is None else delimited(_TRACE_STATE, context.carried.trace_state.encode()),
            _PARENT_ID + parent.to_bytes(8, "big") if parent else b"",
            _text(_NAME, record.name),
            _KINDS[TABLE[record.kind].span],
            _TIMES.pack(_START, start, _END, start + record.duration_ns),
            *_attributes(_ATTRIBUTE, record.attributes),
            *([] if record.contents is None else _contents(record.contents)),
            *[_event(at, name, attributes) for at, name, attributes in record.events],
            # Without a description: an error's text may hold secrets.
            _STATUS_ERROR if record.outcome in FAILURES else b"",
            _FLAGS.pack(_FLAGS_TAG, flags),
        )
    )


def delimited(tag: bytes, body: bytes) -> bytes:
    """A field whose length stands before it."""
    size = len(body)
    return tag + (_SIZES[size] if size < len(_SIZES) else _varint(size)) + body


def _event(at: int, name: str, attributes: Mapping[str, AttributeValue]) -> bytes:
    time = _EVENT_TIME.pack(_EVENT_TIME_TAG, at)
    return delimited(_EVENT, b"".join((time, _text(_EVENT_NAME, name), *_attributes(_EVENT_ATTRIBUTE, attributes))))


def _attributes(tag: bytes, attributes: Mapping[str, AttributeValue]) -> list[bytes]:
    """Most attributes of a span are those of the span before."""
    return [
        _remembered(tag, key, value) if type(value) is str and len(value) <= _SHORT else _attribute(tag, key, value)
        for key, value in attributes.items()
    ]


def _contents(contents: Mapping[str, str]) -> list[bytes]:
    """Attributes that have a length of their own, `telemetry.content_length`, and have it already."""
    return [
        delimited(
            _ATTRIBUTE, delimited(_KEY, key.encode()) + delimited(_VALUE, delimited(_STRING_VALUE, said.encode()))
        )
        for key, said in contents.items()
    ]


def _attribute(tag: bytes, key: str, value: AttributeValue) -> bytes:
    if isinstance(value, str):
        what = delimited(_STRING_VALUE, text(value).encode())
    else:
        what = any_value(value).SerializeToString()
    return delimited(tag, delimited(_KEY, key.encode()) + delimited(_VALUE, what))


@lru_cache(256)
def _text(tag: bytes, value: str) -> bytes:
    return delimited(tag, text(value).encode())


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; all but the last have their eighth bit set."""
    encoded = bytearray()
    while rest := number >> 7:
        encoded.append(number & 0x7F | 0x80)
        number = rest
    encoded.append(number)
    return bytes(encoded)


_remembered = lru_cache(512)(_attribute)
_SIZES: Final = [_varint(size) for size in range(1024)]

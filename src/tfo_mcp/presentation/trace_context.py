"""What a client's `_meta` says of its trace (SEP-414): `traceparent`, `tracestate` and `baggage`.

W3C Trace Context and W3C Baggage, as a header each. What is malformed or too long is left out: telemetry never
fails a request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from tfo_mcp.application.ports import Carried, TraceContext

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")

_MAX_TRACE_STATE: Final = 512
"""Characters of `tracestate`: what the recommendation wants passed on at least."""
_MAX_VENDORS: Final = 32
_TRACE_STATE_MEMBER: Final = re.compile(
    r"([a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)

_MAX_BAGGAGE: Final = 8192
_MAX_BAGGAGE_MEMBERS: Final = 64
_BAGGAGE_MEMBER: Final = re.compile(
    r"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*([\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*)[ \t]*(?:;.*)?"
)


def trace_context(meta: Mapping[str, Any]) -> TraceContext | None:
    """The context that `meta` holds; None where it has none. Ids of 0: it carries something, but has no trace."""
    if "traceparent" not in meta and "baggage" not in meta:
        return None
    trace_id, span_id = _ids(meta.get("traceparent"))
    trace_state = _trace_state(meta.get("tracestate")) if trace_id else ""
    baggage = _baggage(meta.get("baggage"))
    if trace_state or baggage:
        return TraceContext(trace_id, span_id, Carried(trace_state, baggage))
    return TraceContext(trace_id, span_id) if trace_id else None


def _ids(value: object) -> tuple[int, int]:
    match = _TRACEPARENT.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[1] == "ff" or (match[1] == "00" and match[4]):  # only later versions may say more
        return 0, 0
    trace_id, span_id = int(match[2], 16), int(match[3], 16)
    return (trace_id, span_id) if trace_id and span_id else (0, 0)


def _trace_state(value: object) -> str:
    """All of it or nothing, as the recommendation wants it."""
    if not isinstance(value, str) or len(value) > _MAX_TRACE_STATE:
        return ""
    members = [member for each in value.split(",") if (member := each.strip(" \t"))]
    matches = [_TRACE_STATE_MEMBER.fullmatch(member) for member in members]
    vendors = {match[1] for match in matches if match is not None}
    return ",".join(members) if len(vendors) == len(members) <= _MAX_VENDORS else ""


def _baggage(value: object) -> dict[str, str]:
    """Its members, without their properties; of two with one name the last."""
    if not isinstance(value, str) or len(value) > _MAX_BAGGAGE:
        return {}
    matches = [match for member in value.split(",") if (match := _BAGGAGE_MEMBER.fullmatch(member))]
    return {match[1]: unquote(match[2]) for match in matches[:_MAX_BAGGAGE_MEMBERS]}

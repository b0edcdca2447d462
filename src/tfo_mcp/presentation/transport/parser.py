"""From one line to one JSON-RPC 2.0 message, or to the reason why it is none (DESIGN §5, first rows)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import msgspec

from tfo_mcp.presentation.wire import INVALID_REQUEST, PARSE_ERROR

RequestId = str | int


@dataclass(frozen=True, slots=True)
class Request:
    """A message that wants an answer."""

    id: RequestId
    method: str
    params: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Notification:
    """A message that wants none."""

    method: str
    params: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Response:
    """An answer of the client to a request of ours."""

    id: RequestId | None


@dataclass(frozen=True, slots=True)
class Rejection:
    """Not a message. `reason` is what it is counted under."""

    code: int
    message: str
    reason: str
    id: RequestId | None = None


Message = Request | Notification | Response

_ABSENT: Final = object()


def parse(line: bytes | bytearray, max_depth: int) -> Message | Rejection:
    """Read one line.

    Args:
        line: without its newline; of any content.
        max_depth: levels of nesting that are accepted (`mcp.max_depth`).
    """
    try:
        if line.lstrip()[:1] == b"[":
            line.decode()  # well-formed? without building a million objects, and `Raw` does not look into strings
            msgspec.json.decode(line, type=msgspec.Raw)
            return Rejection(INVALID_REQUEST, "Invalid Request: batches are not supported", "batch")
        data: object = msgspec.json.decode(line)
    except RecursionError:
        return _too_deep(max_depth)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Rejection(PARSE_ERROR, f"Parse error: {error}"[:300], "parse_error")
    if line.count(b"{") + line.count(b"[") > max_depth and _depth(data) > max_depth:
        return _too_deep(max_depth)
    if not isinstance(data, dict):
        return Rejection(INVALID_REQUEST, "Invalid Request: a message is a JSON object", "not_an_object")
    return _message(cast("dict[str, Any]", data))


def _message(data: dict[str, Any]) -> Message | Rejection:  # noqa: PLR0911  # one a rule of DESIGN §5
    request_id = data.get("id", _ABSENT)
    has_id = isinstance(request_id, str | int) and not isinstance(request_id, bool)
    known_id: RequestId | None = request_id if has_id else None

    def invalid(why: str, reason: str) -> Rejection:
        return Rejection(INVALID_REQUEST, f"Invalid Request: {why}", reason, known_id)

    if data.get("jsonrpc") != "2.0":
        return invalid("'jsonrpc' must be \"2.0\"", "not_jsonrpc")
    method = data.get("method", _ABSENT)
    if method is _ABSENT and ("result" in data or "error" in data):
        return Response(known_id)
    if not isinstance(method, str):
        return invalid("'method' must be a string", "bad_method")
    if request_id is not _ABSENT and not has_id:
        return invalid("'id' must be a string or an integer", "bad_id")
    params = data.get("params", _ABSENT)
    if params is not _ABSENT and not isinstance(params, dict):
        return invalid("'params' must be an object", "bad_params")
    arguments = None if params is _ABSENT else cast("dict[str, Any]", params)
    if known_id is None:
        return Notification(method, arguments)
    return Request(known_id, method, arguments)


def _too_deep(max_depth: int) -> Rejection:
    return Rejection(PARSE_ERROR, f"Parse error: nested deeper than {max_depth} levels", "too_deep")


def _depth(data: object) -> int:
    """Levels of nesting, counted without recursion."""
    level: list[object] = [data]
    depth = 0
    while level:
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(cast("dict[str, object]", item).values())
            elif isinstance(item, list):
                below.extend(cast("list[object]", item))
            else:
                continue
        if any(isinstance(item, dict | list) for item in level):
            depth += 1
        level = below
    return depth

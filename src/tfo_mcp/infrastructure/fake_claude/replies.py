"""From a reply of the script to the bytes that are sent."""

from tfo_mcp.infrastructure.fake_claude.cache import CacheUse
from tfo_mcp.infrastructure.fake_claude.content import simulated
from tfo_mcp.infrastructure.fake_claude.conversation import Asked
from tfo_mcp.infrastructure.fake_claude.delivery import Chunks, End, Parcel, cut_off
from tfo_mcp.infrastructure.fake_claude.errors import STATUSES, error_body, error_type
from tfo_mcp.infrastructure.fake_claude.messages import compose
from tfo_mcp.infrastructure.fake_claude.script import HeaderValue, Reply, StreamError

JSON = "application/json"
EVENTS = "text/event-stream"
SUCCESS = 200
NO_ANSWER = 0
"""The status of what is never answered."""

GARBAGE = b'\xff\xfe\x00{"type": \xc3\x28\n\n\x80data:'
"""Neither UTF-8 nor JSON nor events."""


def pack(reply: Reply, asked: Asked, uses: tuple[CacheUse, ...], request_id: str) -> Parcel:
    """Make what is to be sent for `reply`; `uses` are those of the prompts that are read for it."""
    media_type = EVENTS if asked.request.stream else JSON
    match reply:
        case Reply(fault="silence"):
            return Parcel(NO_ANSWER, media_type, delay=reply.delay, end="never")
        case Reply(fault="hang_up"):
            return Parcel(NO_ANSWER, media_type, delay=reply.delay, end="unbegun")
        case Reply(fault="garbage"):
            return _parcel(reply, SUCCESS, media_type, [(0.0, GARBAGE)])
        case Reply(raw=str(raw)):
            return _parcel(reply, reply.status or SUCCESS, reply.content_type or media_type, [(0.0, raw.encode())])
        case Reply(status=int(status)):
            return _refusal(reply, status, request_id)
        case _:
            return _answer(reply, asked, uses, request_id)


def _answer(reply: Reply, asked: Asked, uses: tuple[CacheUse, ...], request_id: str) -> Parcel:
    answer, error = compose(reply, asked, uses), reply.stream_error
    if asked.request.stream:
        events: Chunks = answer.events(reply.delay_between)
        if error is not None:
            before = error.after_events or len(events) - 2  # as late as it can come
            events = [*events[:before], (0.0, b"event: error\ndata: %s\n\n" % _error(error, request_id))]
        return _parcel(reply, SUCCESS, EVENTS, events)
    if error is not None:
        return _parcel(reply, STATUSES[error.type], JSON, [(0.0, _error(error, request_id))])
    return _parcel(reply, SUCCESS, JSON, [(0.0, answer.body())])


def _parcel(reply: Reply, status: int, media_type: str, chunks: Chunks) -> Parcel:
    headers = {name: _header(value) for name, value in reply.headers.items()}
    if reply.retry_after is not None:
        headers["retry-after"] = f"{reply.retry_after:g}"
    end: End = "complete"
    if reply.cut is not None:
        chunks, end = cut_off(chunks, reply.cut)
    return Parcel(status, media_type, chunks, headers, reply.delay, end)


def _refusal(reply: Reply, status: int, request_id: str) -> Parcel:
    text = simulated(reply.text or "The script refuses this request.")
    body = error_body(reply.error_type or error_type(status), text, request_id, reply.error_code)
    return _parcel(reply, status, JSON, [(0.0, body)])


def _error(error: StreamError, request_id: str) -> bytes:
    text = simulated(error.text or "The script breaks this answer off.")
    return error_body(error.type, text, request_id, error.error_code)


def _header(value: HeaderValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

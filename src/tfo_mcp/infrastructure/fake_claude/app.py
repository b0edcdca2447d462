"""The stand-in over HTTP: routes, what was received, and the server."""

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import cast

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tfo_mcp.infrastructure.fake_claude.answers import Player
from tfo_mcp.infrastructure.fake_claude.messages import compose, error_body, new_id, simulated
from tfo_mcp.infrastructure.fake_claude.rules import Rejected, check_headers, parse
from tfo_mcp.infrastructure.fake_claude.script import Reply, Script

MAX_BODY = 32 * 1024 * 1024
MAX_RECORDS = 200
SECRET_HEADERS = frozenset({"authorization", "x-api-key", "proxy-authorization", "cookie"})
JSON = "application/json"
NULL = msgspec.Raw(b"null")


class Record(msgspec.Struct):
    """One received request; `body` is `null` if it was no JSON or too large, `status` until it is decided."""

    request_id: str
    headers: dict[str, str]
    body: msgspec.Raw = NULL
    status: int | None = None
    disconnected: bool = False


def build_app(script: Script) -> Starlette:
    """Make the application; it plays `script` once, over all its connections."""
    stand_in = _StandIn(script)
    app = Starlette(
        routes=[
            Route("/v1/messages", stand_in.answer, methods=["POST"]),
            Route("/__requests", stand_in.show, methods=["GET"]),
            Route("/__requests", stand_in.forget, methods=["DELETE"]),
        ],
        exception_handlers={HTTPException: _unrouted},
    )
    app.router.redirect_slashes = False
    return app


async def serve(host: str, port: int, script: Script, on_ready: Callable[[str], None]) -> None:
    """Serve `script` until SIGINT, SIGTERM or cancellation; `on_ready` is given the base URL once.

    Port 0 takes any free port. Nothing is written to stdout. Raises `ValueError` for a host
    that is not the loopback, `OSError` when the port is taken.
    """
    import uvicorn

    address = _loopback(host)
    family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            on_ready(_base_url(address, listening))

    with socket.create_server((str(address), port), family=family) as listening:
        # asyncio sets this itself only on sockets made with IPPROTO_TCP; without it an answer takes 40 ms.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        config = uvicorn.Config(
            build_app(script),
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        server = Announcing(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            await asyncio.shield(serving)
        finally:
            # A cancelled caller still gets closed connections: uvicorn itself leaves them open.
            server.should_exit = True
            await serving


class _StandIn:
    def __init__(self, script: Script) -> None:
        self._player = Player(script)
        self._records: deque[Record] = deque(maxlen=MAX_RECORDS)

    async def answer(self, request: Request) -> Response:
        record = Record(new_id("req"), _shown(request.headers.items()))
        self._records.append(record)
        try:
            body = await _read(request)
            record.body = _json_or_null(body)
            check_headers(request.headers)
            asked = parse(body)
        except Rejected as rejected:
            record.status = rejected.status
            return _error(rejected.status, str(rejected), record.request_id)
        reply = self._player.reply_to(asked)
        record.status = reply.status or 200
        if reply.status is not None:
            return _refusal(reply, reply.status, record)
        answer = compose(reply, asked)
        if asked.request.stream:
            return _Watched(record, "text/event-stream", reply.delay, answer.events(reply.delay_between))
        return _Watched(record, JSON, reply.delay, [(0.0, answer.body())])

    async def show(self, _request: Request) -> Response:
        return Response(msgspec.json.encode(list(self._records)), media_type=JSON)

    async def forget(self, _request: Request) -> Response:
        self._records.clear()
        return Response(status_code=204)


class _Watched(StreamingResponse):
    """Sends chunks, each after its pause in seconds, and records when the client leaves before the end."""

    def __init__(self, record: Record, media_type: str, delay: float, chunks: Iterable[tuple[float, bytes]]) -> None:
        super().__init__(_paced(chunks), record.status or 200, {"request-id": record.request_id}, media_type)
        self._record = record
        self._delay = delay

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            self._record.disconnected = not sending.done()
        finally:
            sending.cancel()
            leaving.cancel()
            await asyncio.wait({sending, leaving})
        if not sending.cancelled():
            sending.result()

    async def _send(self, send: Send) -> None:
        await asyncio.sleep(self._delay)
        await self.stream_response(send)


async def _paced(chunks: Iterable[tuple[float, bytes]]) -> AsyncIterator[bytes]:
    for pause, chunk in chunks:
        await asyncio.sleep(pause)
        yield chunk


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _read(request: Request) -> bytes:
    kept = bytearray()
    total = 0
    # Read to the end even when it is too much: a client cut off while sending would see a
    # broken connection, and retry, instead of the 413.
    async for chunk in request.stream():
        total += len(chunk)
        if total <= MAX_BODY:
            kept += chunk
    if total > MAX_BODY:
        raise Rejected(f"Request exceeds the maximum size of {MAX_BODY} bytes", 413)
    return bytes(kept)


def _json_or_null(body: bytes) -> msgspec.Raw:
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return NULL
    return msgspec.Raw(body)


def _shown(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name: "***" if name in SECRET_HEADERS else value for name, value in headers}


def _refusal(reply: Reply, status: int, record: Record) -> Response:
    body = error_body(status, simulated(reply.text or "The script refuses this request."), record.request_id)
    response = _Watched(record, JSON, reply.delay, [(0.0, body)])
    if reply.retry_after is not None:
        response.headers["retry-after"] = f"{reply.retry_after:g}"
    return response


def _error(status: int, message: str, request_id: str) -> Response:
    body = error_body(status, message, request_id)
    return Response(body, status, {"request-id": request_id}, JSON)


def _unrouted(_request: Request, error: Exception) -> Response:
    unrouted = cast("HTTPException", error)  # Starlette's type is wider than the table it is called from
    return _error(unrouted.status_code, unrouted.detail, new_id("req"))


def _loopback(host: str) -> IPv4Address | IPv6Address:
    with contextlib.suppress(ValueError):
        address = ip_address("127.0.0.1" if host == "localhost" else host)
        if address.is_loopback:
            return address
    raise ValueError(f"fake-claude serves the loopback only (127.0.0.1, ::1 or localhost), not {host!r}.")


def _base_url(address: IPv4Address | IPv6Address, listening: socket.socket) -> str:
    shown = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
    return f"http://{shown}:{listening.getsockname()[1]}"

"""The stand-in over HTTP: routes, what was received, and the server."""

import asyncio
import contextlib
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, cast

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tfo_mcp.infrastructure.fake_claude.answers import Player
from tfo_mcp.infrastructure.fake_claude.cache import CacheUse, PromptCache
from tfo_mcp.infrastructure.fake_claude.clock import Clock
from tfo_mcp.infrastructure.fake_claude.conversation import Asked
from tfo_mcp.infrastructure.fake_claude.delivery import Connection, Delivery
from tfo_mcp.infrastructure.fake_claude.errors import Rejected, error_body, error_type
from tfo_mcp.infrastructure.fake_claude.listing import list_models
from tfo_mcp.infrastructure.fake_claude.messages import new_id
from tfo_mcp.infrastructure.fake_claude.models import describe
from tfo_mcp.infrastructure.fake_claude.replies import JSON, NO_ANSWER, SUCCESS, pack
from tfo_mcp.infrastructure.fake_claude.rules import betas_of, check_headers, credential, existing_model, parse
from tfo_mcp.infrastructure.fake_claude.script import Script

MAX_BODY = 32 * 1024 * 1024
MAX_RECORDS = 200
MAX_RECORDED = 128 * 1024 * 1024
"""Bytes of bodies that are kept; beyond it the oldest requests are forgotten."""

SECRET_HEADERS = frozenset({"authorization", "x-api-key", "proxy-authorization", "cookie"})
TOO_MANY_REQUESTS = 429
NULL = msgspec.Raw(b"null")
LIMITS = {"requests": 4000, "tokens": 2_400_000, "input-tokens": 2_000_000, "output-tokens": 400_000}
"""What the rate limit headers tell; requests and tokens a minute."""


class Record(msgspec.Struct):
    """One received request; `body` is `null` without one that is JSON and not too large, `status` before an answer.

    `received_at`: seconds, by a clock of which only differences mean anything.
    """

    request_id: str
    received_at: float
    path: str
    headers: dict[str, str]
    body: msgspec.Raw = NULL
    status: int | None = None
    disconnected: bool = False

    def left(self) -> None:
        """Note that the client did not wait for the end."""
        self.disconnected = True


class Advance(msgspec.Struct, forbid_unknown_fields=True):
    """How many seconds the clock is to be put forward."""

    advance: Annotated[float, msgspec.Meta(ge=0)]


def build_app(script: Script) -> Starlette:
    """Make the application; it plays `script` once, over all its connections."""
    stand_in = _StandIn(script)
    app = Starlette(
        routes=[
            Route("/v1/messages", stand_in.answer, methods=["POST"]),
            Route("/v1/messages/count_tokens", stand_in.count, methods=["POST"]),
            Route("/v1/models", stand_in.models, methods=["GET"]),
            Route("/v1/models/{model_id}", stand_in.model, methods=["GET"]),
            Route("/__requests", stand_in.show, methods=["GET"]),
            Route("/__requests", stand_in.forget, methods=["DELETE"]),
            Route("/__cache", stand_in.empty_cache, methods=["DELETE"]),
            Route("/__clock", stand_in.advance, methods=["POST"]),
        ],
        exception_handlers={HTTPException: _unrouted, ClientDisconnect: _unread},
    )
    app.router.redirect_slashes = False
    return app


async def serve(host: str, port: int, script: Script, on_ready: Callable[[str], None]) -> None:
    """Serve `script` until SIGINT, SIGTERM or cancellation; `on_ready` is given the base URL once.

    Port 0 takes any free port. Nothing is written to stdout. Raises `ValueError` for a host
    that is not the loopback, `OSError` when the port is taken.
    """
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
            http=Connection,
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
        self._clock = Clock()
        self._cache = PromptCache(self._clock)
        self._records: deque[Record] = deque(maxlen=MAX_RECORDS)

    async def answer(self, request: Request) -> Response:
        record = self._received(request)
        try:
            asked = await self._asked(request, record)
        except Rejected as rejected:
            return _refused(rejected, record)
        reply = self._player.reply_to(asked)
        account = credential(request.headers)
        uses = tuple(self._cache.look_up(account, prompt) for prompt in asked.prompts)
        parcel = pack(reply, asked, uses, record.request_id)
        record.status = None if parcel.status == NO_ANSWER else parcel.status
        headers = {"request-id": record.request_id, **rate_limits(parcel.status), **parcel.headers}
        begun = partial(self._commit, uses) if parcel.status == SUCCESS else parcel.begun
        return Delivery(replace(parcel, headers=headers, begun=begun), record.left)

    async def count(self, request: Request) -> Response:
        record = self._received(request)
        try:
            asked = await self._asked(request, record, only_counted=True)
        except Rejected as rejected:
            return _refused(rejected, record)
        count: dict[str, object] = {"input_tokens": asked.edited.prefix.tokens}
        if asked.edited.applied is not None:
            count["context_management"] = {"original_input_tokens": asked.edited.original_tokens}
        return _found(count, record)

    async def models(self, request: Request) -> Response:
        query = request.query_params
        record = self._received(request)
        try:
            check_headers(request.headers)
            page = list_models(
                limit=query.get("limit"),
                after_id=query.get("after_id"),
                before_id=query.get("before_id"),
                lifecycle=query.getlist("lifecycle") or query.getlist("lifecycle[]"),
            )
        except Rejected as rejected:
            return _refused(rejected, record)
        return _found(page, record)

    async def model(self, request: Request) -> Response:
        record = self._received(request)
        name = str(request.path_params["model_id"])
        try:
            check_headers(request.headers)
            model = existing_model(name)
        except Rejected as rejected:
            return _refused(rejected, record)
        return _found(describe(model), record)

    async def show(self, _request: Request) -> Response:
        return Response(msgspec.json.encode(list(self._records)), media_type=JSON)

    async def forget(self, _request: Request) -> Response:
        self._records.clear()
        return Response(status_code=204)

    async def empty_cache(self, _request: Request) -> Response:
        self._cache.clear()
        return Response(status_code=204)

    async def advance(self, request: Request) -> Response:
        try:
            step = msgspec.json.decode(await _read(request), type=Advance)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _error(400, f'the body is to be {{"advance": seconds}}: {error}', new_id("req"))
        self._clock.advance(step.advance)
        return Response(status_code=204)

    def _commit(self, uses: tuple[CacheUse, ...]) -> None:
        for use in uses:
            self._cache.commit(use)

    def _received(self, request: Request) -> Record:
        record = Record(new_id("req"), time.monotonic(), request.url.path, _shown(request.headers.items()))
        self._records.append(record)
        return record

    async def _asked(self, request: Request, record: Record, *, only_counted: bool = False) -> Asked:
        try:
            body = await _read(request)
        except ClientDisconnect:
            record.left()
            raise
        record.body = _json_or_null(body)
        while len(self._records) > 1 and sum(len(one.body) for one in self._records) > MAX_RECORDED:
            self._records.popleft()
        check_headers(request.headers)
        return parse(body, betas=betas_of(request.headers), only_counted=only_counted)


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


def rate_limits(status: int) -> dict[str, str]:
    """Give the headers that the API sends with every answer. Nothing here is used up, but a 429 says so."""
    if status == NO_ANSWER:
        return {}
    reset = (datetime.now(UTC) + timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    spent = status == TOO_MANY_REQUESTS
    headers: dict[str, str] = {}
    for what, limit in LIMITS.items():
        headers[f"anthropic-ratelimit-{what}-limit"] = str(limit)
        headers[f"anthropic-ratelimit-{what}-remaining"] = "0" if spent and what == "requests" else str(limit)
        headers[f"anthropic-ratelimit-{what}-reset"] = reset
    return headers


def _found(content: dict[str, object], record: Record) -> Response:
    record.status = SUCCESS
    headers = {"request-id": record.request_id, **rate_limits(SUCCESS)}
    return Response(msgspec.json.encode(content), SUCCESS, headers, JSON)


def _refused(rejected: Rejected, record: Record) -> Response:
    record.status = rejected.status
    return _error(rejected.status, str(rejected), record.request_id)


def _error(status: int, message: str, request_id: str) -> Response:
    body = error_body(error_type(status), message, request_id)
    return Response(body, status, {"request-id": request_id, **rate_limits(status)}, JSON)


def _unread(_request: Request, _error: Exception) -> Response:
    """For a client that left while it sent; nobody gets it."""
    return Response(status_code=400)


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

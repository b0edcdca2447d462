"""How an answer leaves, whole or not: paced, cut off, hung up on, or never."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

from starlette.responses import StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from tfo_mcp.infrastructure.fake_claude.script import Cut

Chunks = Sequence[tuple[float, bytes]]
"""Pieces of a body, each with the seconds to wait before it."""

End = Literal["complete", "broken", "unbegun", "never"]
"""What becomes of a delivery: the whole body, a connection closed within or before it, or silence."""

_CONNECTION = "fake_claude.connection"


class Connection(H11Protocol):
    """uvicorn's HTTP protocol, which lets the application close the connection that a request came over."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Tell the application of its transport, in each request's scope."""
        super().connection_made(transport)
        app = cast("ASGIApp", self.app)

        async def with_connection(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, _CONNECTION: transport}, receive, send)

        self.app = with_connection


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is to be sent.

    Attributes:
        delay: seconds before the first byte.
        begun: called when the first byte is about to leave.
    """

    status: int
    media_type: str
    chunks: Chunks = ()
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    delay: float = 0
    end: End = "complete"
    begun: Callable[[], None] = lambda: None


def cut_off(chunks: Chunks, cut: Cut) -> tuple[Chunks, End]:
    """Give what is left of a body. Without events, a cut after events leaves half of it."""
    end = "complete" if cut.clean else "broken"
    if cut.events is not None and len(chunks) > 1:
        return chunks[: cut.events], end
    left = cut.bytes if cut.bytes is not None else sum(len(chunk) for _, chunk in chunks) // 2
    kept: list[tuple[float, bytes]] = []
    for pause, chunk in chunks:
        if left <= 0:
            break
        kept.append((pause, chunk[:left]))
        left -= len(chunk)
    return kept, end


class Delivery(StreamingResponse):
    """Sends a parcel; `left` is called when the client leaves before its end."""

    def __init__(self, parcel: Parcel, left: Callable[[], None]) -> None:
        """Send nothing yet."""
        super().__init__(_paced(parcel.chunks), parcel.status, dict(parcel.headers), parcel.media_type)
        self._parcel = parcel
        self._left = left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, unless the client leaves first."""
        sending = asyncio.create_task(self._send(send, scope.get(_CONNECTION)))
        leaving = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                self._left()
            elif self._parcel.end != "complete":
                await leaving  # uvicorn takes an unfinished answer for a fault, unless nobody is there
        finally:
            sending.cancel()
            leaving.cancel()
            await asyncio.wait({sending, leaving})
        if not sending.cancelled():
            sending.result()

    async def _send(self, send: Send, connection: asyncio.Transport | None) -> None:
        parcel = self._parcel
        await asyncio.sleep(parcel.delay)
        if parcel.end == "never":
            await asyncio.Event().wait()
        if parcel.end != "unbegun":
            parcel.begun()
            await self.stream_response(send if parcel.end == "complete" else _without_last(send))
        if parcel.end != "complete" and connection is not None:
            connection.close()


def _without_last(send: Send) -> Send:
    """Let everything through but the end of the body."""

    async def passing(message: dict[str, object]) -> None:
        if message["type"] != "http.response.body" or message.get("more_body"):
            await send(message)

    return cast("Send", passing)


async def _paced(chunks: Chunks) -> AsyncIterator[bytes]:
    for pause, chunk in chunks:
        await asyncio.sleep(pause)
        yield chunk


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

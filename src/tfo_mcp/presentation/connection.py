"""One client: its era, its Session, its requests in flight, their cancellation, and its end.

The transport gives it lines and writes what it sends; a door turns messages into commands and queries.
Neither knows the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Literal, Protocol
from uuid import uuid4

import msgspec

from tfo_mcp.application.bus import RequestInfo
from tfo_mcp.application.commands import CloseSession
from tfo_mcp.application.ports import Telemetry
from tfo_mcp.domain.errors import DuplicateRequestId, InternalError, SessionClosing
from tfo_mcp.domain.session import Session, SessionState
from tfo_mcp.presentation.transport.parser import Notification, Rejection, Request, RequestId, Response, parse
from tfo_mcp.presentation.wire import INVALID_REQUEST, error_of

Era = Literal["handshake", "stateless"]
"""2024-11-05 to 2025-11-25, which begin with `initialize`; 2026-07-28, where each request speaks for itself."""

_CLEANUP_SHARE = 0.1
"""Of the time to finish answers: what cut requests get to clean up in."""


class Door(Protocol):
    """What a message is offered to."""

    def offer(self, message: Request | Notification, connection: Connection) -> bool:
        """Take the message, or leave it to the next door. Never blocks."""
        ...


class Wire(Protocol):
    """The transport's outgoing side."""

    def write(self, line: bytes) -> None:
        """Send one line, whole and in order."""
        ...

    @property
    def is_read(self) -> bool:
        """Whether the client keeps up."""
        ...

    async def writable(self) -> None:
        """Wait until the client reads again."""
        ...

    def resume(self) -> None:
        """The connection takes lines again."""
        ...


class _InFlight:
    """One request that is still to be answered."""

    __slots__ = ("cancellable", "task")

    def __init__(self, *, cancellable: bool) -> None:
        self.cancellable = cancellable
        self.task: asyncio.Task[None] | None = None


class Connection:
    """One client's connection; to handlers it is the port `Client`.

    Args:
        doors: in the order in which messages are offered to them; the last takes all.
        dispatch: the bus, for the end of the session.
        max_depth: levels of JSON nesting accepted.
        max_in_flight: requests at a time; beyond it no more lines are taken until one ends.
        answer_time: seconds that requests get to finish once the end has come.
        on_first_answer: called once, after the first answer was given to the transport.
        report: told of what was unforeseen, with its error id, before it is masked.
    """

    def __init__(
        self,
        doors: tuple[Door, ...],
        dispatch: Callable[[object, RequestInfo], Coroutine[Any, Any, Any]],
        *,
        telemetry: Telemetry,
        max_depth: int,
        max_in_flight: int,
        answer_time: float,
        on_first_answer: Callable[[], None],
        report: Callable[[str, BaseException], None],
    ) -> None:
        self.session = Session()
        self.era: Era | None = None
        self.ended = asyncio.Event()
        """Set when the client or a signal wants the end."""
        self.ends_since: float | None = None
        """The loop's time at which the end began, by `shutdown` before `ended` is set."""
        self._doors = doors
        self._dispatch = dispatch
        self._telemetry = telemetry
        self._max_depth = max_depth
        self._max_in_flight = max_in_flight
        self._answer_time = answer_time
        self._on_first_answer: Callable[[], None] | None = on_first_answer
        self._report = report
        self._wire: Wire | None = None
        self._in_flight: dict[RequestId, _InFlight] = {}
        self._cut: set[asyncio.Task[None]] = set()
        self._running: set[asyncio.Task[None]] = set()
        """The tasks of those, and of cancelled ones that have not ended yet."""
        self._kept_open: dict[asyncio.Task[Any] | None, Callable[[], None]] = {}
        """Of those, the ones that end when client or server want it, and how the server ends them."""
        self._draining: asyncio.Task[Any] | None = None
        self._background: set[asyncio.Task[None]] = set()

    # --- the transport's side ---

    def attach(self, wire: Wire) -> None:
        """Connect the outgoing side."""
        self._wire = wire

    @property
    def full(self) -> bool:
        """Whether no more lines should be given for now."""
        return len(self._running) - len(self._kept_open) >= self._max_in_flight

    def receive(self, line: bytes | bytearray) -> None:
        """Take one line of input."""
        match parse(line, self._max_depth):
            case Rejection() as rejection:
                self.reject(rejection)
            case Request() as request if request.id in self._in_flight:
                code, message, _ = error_of(DuplicateRequestId(request.id))
                self.reject(Rejection(code, message, "duplicate_id", request.id))
            case Notification(method="notifications/cancelled", params=params):
                self._cancel(params)
            case Response():
                pass  # nothing is ever asked of the client at present
            case message:
                any(door.offer(message, self) for door in self._doors)

    def reject_oversized(self, limit: int) -> None:
        """Answer a line that was over `mcp.max_message_size`; its content is gone."""
        self.reject(Rejection(INVALID_REQUEST, f"Invalid Request: message over {limit} bytes", "too_large"))

    def reject(self, rejection: Rejection) -> None:
        """Answer and count what never became a request."""
        self._telemetry.record_rejected(rejection.reason)
        self._send(_error(rejection.id, rejection.code, rejection.message, None))

    # --- the doors' side ---

    def run(
        self, request_id: RequestId, answer: Callable[[], Awaitable[Mapping[str, Any]]], *, cancellable: bool = True
    ) -> None:
        """Run a request concurrently; `answer` gives the members of the response beside `jsonrpc` and `id`."""
        entry = self._in_flight[request_id] = _InFlight(cancellable=cancellable)
        entry.task = asyncio.get_running_loop().create_task(self._run(request_id, entry, answer))
        self._running.add(entry.task)
        entry.task.add_done_callback(partial(self._forget, request_id, entry))

    def keep_open(self, end: Callable[[], None]) -> None:
        """The request that asks stays open, in nobody's way, until it is cancelled or `end` is called at the end."""
        self._kept_open[asyncio.current_task()] = end
        self._note_answer()  # its own comes with its end
        if self.ends_since is not None:
            asyncio.get_running_loop().call_soon(end)
        if self._wire is not None:
            self._wire.resume()

    def run_unanswered(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what a notification asks for."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def notify(self, method: str, params: Mapping[str, Any] | None) -> None:
        """Send a notification; waits while the client does not read."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        if params is not None:
            message["params"] = params
        await self.reads()
        self._send(message)

    async def _run(
        self, request_id: RequestId, entry: _InFlight, answer: Callable[[], Awaitable[Mapping[str, Any]]]
    ) -> None:
        members = await answer()
        if self._in_flight.get(request_id) is entry:
            # At once, not only when the task is done: a quick client may use the id again with its next line.
            del self._in_flight[request_id]
            self._send({"jsonrpc": "2.0", "id": request_id, **members})

    def _forget(self, request_id: RequestId, entry: _InFlight, task: asyncio.Task[None]) -> None:
        """A request's task is done, one way or the other."""
        self._running.discard(task)
        self._kept_open.pop(task, None)
        if self._in_flight.get(request_id) is entry:
            del self._in_flight[request_id]
        if not task.cancelled() and (fault := task.exception()) is not None:
            raise fault  # to the loop's exception handler: a fault of this module
        if self.session.state is SessionState.CLOSED:
            self.ended.set()
        if self._wire is not None:
            self._wire.resume()

    def _cancel(self, params: Mapping[str, Any] | None) -> None:
        """`notifications/cancelled`: the work ends and its answer is never sent."""
        request_id = (params or {}).get("requestId")
        if not isinstance(request_id, str | int) or isinstance(request_id, bool):
            return
        if request_id not in self._in_flight:
            request_id = _other_spelling(request_id)
        entry = self._in_flight.get(request_id)
        if entry is not None and entry.task is not None and entry.cancellable:
            del self._in_flight[request_id]
            # Not before its first step: every request that was accepted is also recorded.
            asyncio.get_running_loop().call_soon(entry.task.cancel)

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._wire is None:
            return
        self._wire.write(self._encode(message))
        if "id" in message:
            self._note_answer()

    def _note_answer(self) -> None:
        if self._on_first_answer is not None:
            hook, self._on_first_answer = self._on_first_answer, None
            hook()

    def _encode(self, message: Mapping[str, Any]) -> bytes:
        try:
            return msgspec.json.encode(message) + b"\n"
        except (TypeError, ValueError) as error:  # a result that is not JSON, a lone surrogate for example
            error_id = uuid4().hex
            self._report(error_id, error)
            return msgspec.json.encode(_error(message.get("id"), *error_of(InternalError(error_id)))) + b"\n"

    # --- the port `Client` ---

    async def progress(
        self, token: str | int, progress: float, total: float | None = None, message: str | None = None
    ) -> None:
        """Send `notifications/progress`."""
        params: dict[str, Any] = {"progressToken": token, "progress": progress}
        if total is not None:
            params["total"] = total
        if message is not None:
            params["message"] = message
        await self.notify("notifications/progress", params)

    def log(self, level: str, logger: str, data: Mapping[str, Any]) -> bool:
        """Send `notifications/message`, unless the client does not read; whether it was sent."""
        if self._wire is None or not self._wire.is_read:
            return False
        params = {"level": level, "logger": logger, "data": data}
        self._send({"jsonrpc": "2.0", "method": "notifications/message", "params": params})
        return True

    def changed(self, uri: str) -> bool:
        """Send `notifications/resources/updated`, unless the client does not read; whether it was sent."""
        if not self.is_read:
            return False
        self._send({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}})
        return True

    @property
    def is_read(self) -> bool:
        """Whether the client keeps up."""
        return self._wire is None or self._wire.is_read

    async def reads(self) -> None:
        """Wait while the client does not read."""
        if self._wire is not None:
            await self._wire.writable()

    async def drain(self) -> None:
        """Let the other requests in flight end within `answer_time`; answer what is left with -32000 and cut it."""
        me = self._draining = asyncio.current_task()
        self.ends_since = self.ends_since or asyncio.get_running_loop().time()
        for end in list(self._kept_open.values()):
            end()
        if others := self._running - {me}:
            await asyncio.wait(others, timeout=self._answer_time * (1 - _CLEANUP_SHARE))
        code, message, data = error_of(SessionClosing())
        for request_id, entry in list(self._in_flight.items()):
            if entry.task is not me:
                del self._in_flight[request_id]
                self._send(_error(request_id, code, message, data))
        if cut := self._running - {me}:
            self._running -= cut
            for task in cut:
                task.cancel()
            _, self._cut = await asyncio.wait(cut, timeout=self._answer_time * _CLEANUP_SHARE)

    async def cut_ones_end(self, seconds: float) -> None:
        """Wait at most so long for requests that `drain` has cut and that still clean up: each ends recorded."""
        if self._cut:
            await asyncio.wait(self._cut, timeout=seconds)

    # --- the end ---

    async def close(self) -> None:
        """End the session, unless a `shutdown` request has done or is doing so already; every way to end is one."""
        if not self.session.closing:
            info = RequestInfo(
                operation="shutdown",
                session=self.session,
                client=self,
                protocol_version=self.session.protocol_version or "",
                nested=True,  # not a request of the client's
            )
            await self._dispatch(CloseSession(), info)
        elif self._draining is not None:
            await asyncio.wait([self._draining], timeout=self._answer_time)
        await self.drain()


def _other_spelling(request_id: RequestId) -> RequestId:
    """7 for "7", as peers that stringify ids send it."""
    if isinstance(request_id, str):
        try:
            return int(request_id)
        except ValueError:
            return request_id
    return str(request_id)


def _error(request_id: RequestId | None, code: int, message: str, data: object) -> dict[str, Any]:
    error: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return {"jsonrpc": "2.0", "id": request_id, "error": error}

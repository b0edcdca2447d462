"""The door that takes every message: the official SDK's kernel, made from `routes.py`.

The SDK validates, negotiates and shapes, for all revisions in both eras (DESIGN decision 1). It gets one
message at a time: streams, requests in flight and cancellation are our connection's. What would be lost by
that, the choice of an era by the first request, stands here and follows `serve_dual_era_loop`.

The only module that imports `mcp`, `mcp_types` or pydantic, and that knows a private name of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import uuid4
from weakref import WeakKeyDictionary

import anyio
import mcp_types as types
from mcp.server import runner as sdk
from mcp.server.caching import CACHEABLE_METHODS, CacheHint
from mcp.server.connection import Connection as SdkConnection
from mcp.server.connection import NotifyOnlyOutbound
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.subscriptions import ListenHandler, ResourceUpdated, ServerEvent
from mcp.shared.exceptions import MCPError, NoBackChannelError
from mcp.shared.inbound import InboundLadderRejection, classify_inbound_request
from mcp.shared.jsonrpc_dispatcher import handler_exception_to_error_data, progress_token_from_params
from mcp.shared.transport_context import TransportContext
from mcp_types.version import LATEST_MODERN_VERSION
from pydantic import ValidationError

from tfo_mcp.application.bus import Bus, RequestInfo
from tfo_mcp.application.commands import ConfirmInitialized, InitializeSession
from tfo_mcp.application.ports import Telemetry
from tfo_mcp.domain.errors import DomainError
from tfo_mcp.domain.log_level import LogLevel
from tfo_mcp.domain.session import SessionState
from tfo_mcp.presentation.connection import Connection
from tfo_mcp.presentation.routes import NOTIFICATIONS, Route
from tfo_mcp.presentation.trace_context import trace_context
from tfo_mcp.presentation.transport.parser import Notification, Request
from tfo_mcp.presentation.wire import error_of

if TYPE_CHECKING:
    from mcp.shared.dispatcher import CallOptions

# `_has_modern_envelope` decides the era, `_initialize_after_modern_data` words the refusal of a late `initialize`.
_opens_stateless: Final = sdk._has_modern_envelope  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
_late_initialize_data: Final = sdk._initialize_after_modern_data  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

_CONSTRUCTOR_NAMES: Final = {
    "ping": "on_ping",
    "tools/list": "on_list_tools",
    "tools/call": "on_call_tool",
    "resources/list": "on_list_resources",
    "resources/templates/list": "on_list_resource_templates",
    "resources/read": "on_read_resource",
    "resources/subscribe": "on_subscribe_resource",
    "resources/unsubscribe": "on_unsubscribe_resource",
    "subscriptions/listen": "on_subscriptions_listen",
    "prompts/list": "on_list_prompts",
    "prompts/get": "on_get_prompt",
    "completion/complete": "on_completion",
}
"""What the SDK's `Server` calls the handlers whose params it has models for; others are registered as they are."""

_BUILT_IN: Final = ("initialize", "server/discover")
"""What the SDK answers by itself; our part of it stands around that."""

_LIFECYCLE: Final = ("initialize", "shutdown")
"""What a client cannot cancel: the protocol says so of the first, and half of the second would leave no way out."""

_LATE_ENVELOPE = (
    "this connection serves the handshake protocol era; "
    "requests carrying the 2026-07-28 envelope are not accepted on it"
)
_LATE_INITIALIZE = "connection is serving the 2026-07-28 protocol; the initialize handshake is not accepted"

_Context = ServerRequestContext["_Call", Any]


class SdkDoor:
    """Takes every message.

    Args:
        routes: the methods that it serves; what the server says that it can follows from them.
        name, version, instructions: what the server says of itself.
        report: told of what was unforeseen, with its error id, before it is masked.
    """

    def __init__(
        self,
        bus: Bus,
        telemetry: Telemetry,
        *,
        routes: Mapping[str, Route],
        name: str,
        version: str,
        instructions: str | None,
        report: Callable[[str, BaseException], None],
    ) -> None:
        self._bus = bus
        self._telemetry = telemetry
        self._report = report
        self._routes = routes
        handlers: dict[str, Any] = {
            method: partial(self._listen if method == "subscriptions/listen" else self._handle, route)
            for method, route in routes.items()
            if method not in _BUILT_IN
        }
        known: dict[str, Any] = {
            _CONSTRUCTOR_NAMES[method]: handlers[method] for method in handlers if method in _CONSTRUCTOR_NAMES
        }
        # 2026-07-28 wants the hints on every result that may be kept; these are the SDK's own defaults: keep nothing.
        hints: dict[Any, CacheHint] = {method: CacheHint() for method in CACHEABLE_METHODS if method in routes}
        self._server: Server[_Call] = Server(
            name, version=version, instructions=instructions, cache_hints=hints, **known
        )
        for method, handler in handlers.items():
            if method not in _CONSTRUCTOR_NAMES:
                self._server.add_request_handler(method, types.RequestParams, handler)
        for method, message in NOTIFICATIONS.items():
            self._server.add_notification_handler(method, types.NotificationParams, partial(self._notified, message))
        # Takes the SDK's OpenTelemetry out: ours wraps the bus.
        self._server.middleware[:] = [self._initialize, self._discover]
        self._handshakes: WeakKeyDictionary[Connection, SdkConnection] = WeakKeyDictionary()

    def offer(self, message: Request | Notification, connection: Connection) -> bool:
        """Take the message; the first request decides the connection's era."""
        if isinstance(message, Notification):
            connection.run_unanswered(self._notify(message, connection))
            return True
        if connection.era is None:
            stateless = message.method != "initialize" and _opens_stateless(message.params)
            connection.era = "stateless" if stateless else "handshake"
        cancellable = message.method not in _LIFECYCLE
        connection.run(message.id, partial(self._answer, message, connection), cancellable=cancellable)
        return True

    # --- one request through the SDK's kernel ---

    async def _answer(self, request: Request, connection: Connection) -> Mapping[str, Any]:
        call = _Call(request, connection)
        serve = self._serve_handshake if connection.era == "handshake" else self._serve_stateless
        try:
            return {"result": await serve(request, call)}
        except Exception as fault:  # noqa: BLE001  # the one place where anything becomes an answer
            error = self._known_error(request, fault)
            if error is None or (error.code == types.INTERNAL_ERROR and error.data is None):  # the kernel's has no id
                error_id = uuid4().hex
                self._report(error_id, fault)
                error = types.ErrorData(code=types.INTERNAL_ERROR, message="Internal error", data={"errorId": error_id})
            if not call.recorded:
                self._telemetry.record_rejected(_REASONS.get(error.code, "other"))
            return {"error": error.model_dump(mode="json", exclude_none=True)}

    def _known_error(self, request: Request, fault: Exception) -> types.ErrorData | None:
        if not isinstance(fault, ValidationError):
            return handler_exception_to_error_data(fault)
        if request.method not in self._routes:  # the kernel looks at its params before it asks whether it is served
            return types.ErrorData(code=types.METHOD_NOT_FOUND, message="Method not found", data=request.method)
        return _malformed(fault)

    async def _serve_handshake(self, request: Request, call: _Call) -> dict[str, Any]:
        if request.method != "initialize" and _opens_stateless(request.params):
            raise MCPError(types.INVALID_REQUEST, _LATE_ENVELOPE)
        return await self._handshake_runner(call).on_request(call, request.method, request.params)

    async def _serve_stateless(self, request: Request, call: _Call) -> dict[str, Any]:
        if request.method == "initialize":
            raise MCPError(types.UNSUPPORTED_PROTOCOL_VERSION, _LATE_INITIALIZE, _late_initialize_data(request.params))
        route = classify_inbound_request({"method": request.method, "params": request.params})
        if isinstance(route, InboundLadderRejection):
            raise MCPError(route.code, route.message, route.data)
        envelope = SdkConnection.from_envelope(
            route.protocol_version,
            route.client_info,
            route.client_capabilities,
            outbound=NotifyOnlyOutbound(call),
        )
        return await sdk.serve_one(
            self._server, call, request.method, request.params, connection=envelope, lifespan_state=call
        )

    def _handshake_runner(self, call: _Call) -> sdk.ServerRunner[_Call]:
        """The kernel for one message, over what it remembers of the connection: which revision was agreed on."""
        state = self._handshakes.get(call.connection)
        if state is None:
            state = self._handshakes[call.connection] = SdkConnection.for_loop(_Call(None, call.connection))
            state.initialized.set()  # the session guard on the bus is the one gate
        return sdk.ServerRunner(self._server, state, call)

    async def _notify(self, message: Notification, connection: Connection) -> None:
        call = _Call(None, connection)
        if connection.era == "stateless":
            state = SdkConnection.from_envelope(LATEST_MODERN_VERSION, None, None, outbound=NotifyOnlyOutbound(call))
            runner = sdk.ServerRunner(self._server, state, call)
        else:
            runner = self._handshake_runner(call)
        await runner.on_notify(call, message.method, message.params)

    # --- from the kernel to the bus ---

    async def _handle(self, route: Route, ctx: _Context, _params: object) -> dict[str, Any]:
        result = route.result(await self._dispatch(route, ctx))
        if ctx.lifespan_context.connection.era == "stateless":
            result["resultType"] = "complete"  # the kernel demands it before it would add it
        return result

    async def _listen(
        self, route: Route, ctx: _Context, params: types.SubscriptionsListenRequestParams
    ) -> types.Result:
        stream = _Stream(ctx, params)
        await self._dispatch(route, ctx, stream)
        return stream.result

    async def _dispatch(self, route: Route, ctx: _Context, stream: _Stream | None = None) -> Any:  # noqa: ANN401  # each message has a result type of its own
        call = ctx.lifespan_context
        info = _request_info(ctx)
        info.stream = stream
        try:
            if call.connection.era == "stateless" and info.session.state is SessionState.CREATED:
                await self._bus.dispatch(_first_stateless(ctx), replace(info, nested=True))
                await self._bus.dispatch(ConfirmInitialized(), replace(info, nested=True))
            call.recorded = True
            return await self._bus.dispatch(route.message(ctx.params or {}), info)
        except DomainError as error:
            raise MCPError(*error_of(error)) from error

    async def _initialize(self, ctx: _Context, call_next: CallNext) -> HandlerResult:
        """Around the SDK's `initialize`, which cannot be replaced: the session's part of it."""
        if ctx.method != "initialize" or ctx.request_id is None:
            return await call_next(ctx)
        info = _request_info(ctx)
        try:
            info.session.check_may_initialize()
            result = cast("dict[str, Any]", await call_next(ctx))
            info.protocol_version = result["protocolVersion"]
            agreed = {**(ctx.params or {}), "protocolVersion": info.protocol_version}
            ctx.lifespan_context.recorded = True
            await self._bus.dispatch(self._routes["initialize"].message(agreed), info)
        except DomainError as error:
            raise MCPError(*error_of(error)) from error
        return result

    async def _discover(self, ctx: _Context, call_next: CallNext) -> HandlerResult:
        """Around the SDK's `server/discover`: guarded and recorded as every other request."""
        result = await call_next(ctx)
        if ctx.method == "server/discover" and ctx.request_id is not None:
            await self._dispatch(self._routes[ctx.method], ctx)
            for offered in cast("dict[str, Any]", result)["capabilities"].values():
                if "listChanged" in offered:  # the kernel takes it to follow from `subscriptions/listen`
                    offered["listChanged"] = False
        return result

    async def _notified(self, message: Callable[[Mapping[str, Any]], object], ctx: _Context, _params: object) -> None:
        await self._bus.dispatch(message(ctx.params or {}), replace(_request_info(ctx), nested=True))


class _Call:
    """One message on its way through the kernel: what that asks of a transport, and what our handlers ask of it.

    Implements `mcp.shared.dispatcher.DispatchContext`. Nothing is ever asked of the client through it: that comes
    with the tools that need it.

    Attributes:
        recorded: whether the bus has taken the request, so that nobody else counts it.
    """

    def __init__(self, request: Request | None, connection: Connection) -> None:
        self.connection = connection
        self.recorded = False
        self.transport = _TRANSPORT
        self.can_send_request = False
        self.request_id = request.id if request else None
        self.message_metadata = None
        self.progress_token = progress_token_from_params(request.params) if request else None

    @property
    def cancel_requested(self) -> anyio.Event:
        """Never set: a cancelled request's task is cancelled, nobody has to poll."""
        return anyio.Event()

    async def send_raw_request(
        self,
        method: str,
        params: Mapping[str, Any] | None,  # noqa: ARG002  # the protocol's signature
        opts: CallOptions | None = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        raise NoBackChannelError(method)

    async def notify(
        self,
        method: str,
        params: Mapping[str, Any] | None,
        opts: CallOptions | None = None,  # noqa: ARG002  # no option of it means anything on a stream
    ) -> None:
        await self.connection.notify(method, params)

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        if self.progress_token is not None:
            await self.connection.progress(self.progress_token, progress, total, message)


class _Stream:
    """One `subscriptions/listen`, served by the SDK's handler: the port `ChangeStream`.

    To the handler it is a `SubscriptionBus` of its own: who is told how often is decided before.
    """

    result: types.SubscriptionsListenResult
    """Once it has ended."""

    def __init__(self, ctx: _Context, params: types.SubscriptionsListenRequestParams) -> None:
        self._ctx = ctx
        self._params = params
        self._connection = ctx.lifespan_context.connection
        self._deliver: Callable[[ServerEvent], None] = lambda _: None

    async def serve(self, uris: Sequence[str]) -> None:
        """Acknowledge these resources and nothing else of what was asked for, then tell of their changes."""
        only = types.SubscriptionFilter(resource_subscriptions=list(uris))
        handler = ListenHandler(self, max_subscriptions=1)
        self._connection.keep_open(handler.close)
        self.result = await handler(self._ctx, self._params.model_copy(update={"notifications": only}))

    def changed(self, uri: str) -> bool:
        if not self._connection.is_read:
            return False
        self._deliver(ResourceUpdated(uri))
        return True

    async def reads(self) -> None:
        await self._connection.reads()

    async def publish(self, event: ServerEvent) -> None:
        self._deliver(event)

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        self._deliver = listener
        return lambda: None


_SHOWN: Final = 3
"""Mistakes in one message's params that are named at most."""

_TRANSPORT: Final = TransportContext(kind="stdio", can_send_request=False)

_REASONS: Final = {
    types.INVALID_REQUEST: "invalid_request",
    types.METHOD_NOT_FOUND: "method_not_found",
    types.INVALID_PARAMS: "invalid_params",
    types.UNSUPPORTED_PROTOCOL_VERSION: "unsupported_protocol_version",
}


def _malformed(fault: ValidationError) -> types.ErrorData:
    """Which of the params is wrong and why; what it says is not repeated."""
    wrong = fault.errors(include_url=False, include_context=False, include_input=False)[:_SHOWN]
    why = "; ".join(f"{'/'.join(map(str, error['loc']))[:100]}: {error['msg']}" for error in wrong)
    return types.ErrorData(code=types.INVALID_PARAMS, message=f"Invalid params: {why}")


def _request_info(ctx: _Context) -> RequestInfo:
    call = ctx.lifespan_context
    return RequestInfo(
        operation=ctx.method,
        session=call.connection.session,
        client=call.connection,
        protocol_version=ctx.protocol_version,
        request_id=ctx.request_id,
        parent=trace_context(_meta(ctx)),
        progress_token=call.progress_token,
        log_level=_log_level(ctx) if call.connection.era == "stateless" else None,
    )


def _log_level(ctx: _Context) -> LogLevel | None:
    """What 2026-07-28 has in the place of `logging/setLevel`.

    An unknown one is none: the kernel refuses it, except in what is no method of MCP's.
    """
    label: object = _meta(ctx).get(types.LOG_LEVEL_META_KEY)
    return next((level for level in LogLevel if level.label == label), None)


def _first_stateless(ctx: _Context) -> InitializeSession:
    """On 2026-07-28 the first request takes the place of `initialize` (DESIGN §4)."""
    client: object = _meta(ctx).get(types.CLIENT_INFO_META_KEY)
    known = cast("dict[str, Any]", client) if isinstance(client, dict) else {}
    return InitializeSession(ctx.protocol_version, str(known.get("name", "")), str(known.get("version", "")))


def _meta(ctx: _Context) -> Mapping[str, Any]:
    meta: object = (ctx.params or {}).get("_meta")
    return cast("dict[str, Any]", meta) if isinstance(meta, dict) else {}

"""The one road in: every command and query passes here, whichever door it came through.

record → error map → session guard → handler (DESIGN decision 1a). What a handler sends on the bus itself,
on behalf of the request that it serves, is part of that request and is not recorded as another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from tfo_mcp.application import attributes
from tfo_mcp.application.commands import ConfirmInitialized
from tfo_mcp.application.ports import (
    AttributeValue,
    ChangeStream,
    Client,
    ClientLog,
    Span,
    Telemetry,
    TraceContext,
    current_operation,
)
from tfo_mcp.domain.errors import DomainError, InternalError, ResourceUnavailable
from tfo_mcp.domain.execution import Outcome
from tfo_mcp.domain.identifiers import LOCAL_PRINCIPAL
from tfo_mcp.domain.log_level import LogLevel
from tfo_mcp.domain.session import Session, SessionState
from tfo_mcp.domain.tool import ToolResult


@dataclass(slots=True, kw_only=True)
class RequestInfo:
    """Who asks, on which connection, and how to reach him; carries no type of any protocol library.

    Attributes:
        operation: the MCP method, or `execute_tool` for a tool call by Claude.
        parent: the client's trace context, or that of the operation around this one.
        progress_token: the client's, where it wants progress.
        log_level: from where on it wants the records that this request logs (2026-07-28).
        stream: what a request that listens to changes is answered on until it ends.
        span: what measures this request; set by the bus.
        nested: whether this is part of a request that is recorded already.
    """

    operation: str
    session: Session
    client: Client
    protocol_version: str
    request_id: str | int | None = None
    principal: str = LOCAL_PRINCIPAL
    transport: str = "pipe"
    parent: TraceContext | None = None
    progress_token: str | int | None = None
    log_level: LogLevel | None = None
    stream: ChangeStream | None = None
    span: Span | None = None
    nested: bool = False

    def inside(self, span: Span, operation: str | None = None) -> RequestInfo:
        """The same request one level further in, below `span`."""
        return RequestInfo(
            operation=operation or self.operation,
            session=self.session,
            client=self.client,
            protocol_version=self.protocol_version,
            request_id=self.request_id,
            principal=self.principal,
            transport=self.transport,
            parent=span.context,
            progress_token=self.progress_token,
            nested=True,
        )


MessageHandler = Callable[[Any, RequestInfo], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A handler and whether the session guard stands before it."""

    handle: MessageHandler
    guarded: bool = True


class Bus:
    """Finds the handler of a message and wraps it.

    Args:
        endpoints: message type to endpoint; the system's table of contents.
        telemetry: where each request is recorded.
        error_code: the JSON-RPC code of an error, for `error.type` as the semantic conventions want it.
        report: told of what was unforeseen, with its error id, before it is masked.
        client_log: where requests let their client follow the log; None: nowhere.
    """

    def __init__(
        self,
        endpoints: Mapping[type, Endpoint],
        *,
        telemetry: Telemetry,
        error_code: Callable[[DomainError], int],
        report: Callable[[str, BaseException], None],
        client_log: ClientLog | None = None,
    ) -> None:
        self._endpoints = endpoints
        self._telemetry = telemetry
        self._error_code = error_code
        self._report = report
        self._client_log = client_log

    async def dispatch(self, message: object, info: RequestInfo) -> Any:  # noqa: ANN401  # each message has a result type of its own
        """Handle `message` and return its result.

        Raises:
            DomainError: what was wrong, fit for the client. Anything else has become `InternalError`.
        """
        endpoint = self._endpoints[type(message)]
        if info.nested:
            return await self._handle(endpoint, message, info)
        span = info.span = self._telemetry.span(
            "request", info.operation, parent=info.parent, principal=info.principal, attributes=_attributes(info)
        )
        # Never reset: the task is the request's own, and what its door says of the answer belongs to it too.
        current_operation.set(span.context)
        try:
            if info.log_level is None or self._client_log is None:
                result = await self._handle(endpoint, message, info)
            else:
                async with self._client_log.following(info.client, info.log_level):
                    result = await self._handle(endpoint, message, info)
        except asyncio.CancelledError:
            span.end("cancelled")
            raise
        except DomainError as error:
            outcome, code = self._classify(error)
            span.set(attributes.ERROR_CODE, code)
            span.end(outcome, code)
            raise
        if isinstance(result, ToolResult) and result.is_error:
            span.end("failed", "tool_error")
        else:
            span.end("completed")
        return result

    async def _handle(self, endpoint: Endpoint, message: object, info: RequestInfo) -> object:
        try:
            if not endpoint.guarded or info.nested:
                return await endpoint.handle(message, info)
            info.session.check_accepts(info.operation)
            if info.session.state is SessionState.INITIALIZING:  # its first request says what the notification would
                await self._endpoints[ConfirmInitialized].handle(ConfirmInitialized(), info)
            info.session.begin_request()
            try:
                return await endpoint.handle(message, info)
            finally:
                info.session.end_request()
        except DomainError:
            raise
        except Exception as error:
            error_id = uuid4().hex
            self._report(error_id, error)
            if info.span is not None:
                info.span.set(attributes.ERROR_ID, error_id)
            raise InternalError(error_id) from error

    def _classify(self, error: DomainError) -> tuple[Outcome, str]:
        failed = isinstance(error, InternalError | ResourceUnavailable)
        return ("failed" if failed else "invalid"), str(self._error_code(error))


def _attributes(info: RequestInfo) -> dict[str, AttributeValue]:
    known: dict[str, AttributeValue] = {
        attributes.METHOD: info.operation,
        attributes.PROTOCOL_VERSION: info.protocol_version,
        attributes.SESSION: info.session.id,
        attributes.TRANSPORT: info.transport,
    }
    if info.request_id is not None:
        known[attributes.REQUEST_ID] = str(info.request_id)[:128]
    return known

"""The diagrams' "Tool Execution": parse name → find → validate → span → intent → run → capture → result."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, cast
from uuid import uuid4

from tfo_mcp.application import attributes
from tfo_mcp.application.bus import Bus, RequestInfo
from tfo_mcp.application.commands import CallTool
from tfo_mcp.application.deadlines import DeadlinePassed, Deadlines
from tfo_mcp.application.ports import (
    AuditTrail,
    EventPublisher,
    Intent,
    SchemaCompiler,
    Span,
    Telemetry,
    current_operation,
)
from tfo_mcp.application.results import check_result
from tfo_mcp.domain.errors import (
    AuditUnavailable,
    InternalError,
    InvalidArguments,
    StorageUnavailable,
    ToolFailure,
    ToolTimedOut,
    UnknownTool,
)
from tfo_mcp.domain.events import ToolExecuted
from tfo_mcp.domain.execution import ExecutionTrigger, Outcome, new_execution
from tfo_mcp.domain.tool import Tool, ToolContext, ToolMode, ToolRegistry, ToolResult


class CallAbandoned(BaseException):
    """Raised by `check()` in a worker thread whose call nobody waits for any more.

    As a cancellation, it is no `Exception`: a tool that catches those must not go on working for nobody.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolLimits:
    """What one call may take.

    Attributes:
        timeout: seconds, of a tool that says nothing itself (`mcp.tool_timeout`).
        max_result_size: characters of its result (`mcp.max_result_size`).
    """

    timeout: float
    max_result_size: int


class ToolHandler:
    """Runs tools, for clients and for Claude alike.

    Args:
        limits: what one call may take.
        executor: where tools that may block run.
        report: told of what was unforeseen, with its error id, before it is masked.
    """

    def __init__(
        self,
        tools: ToolRegistry,
        schemas: SchemaCompiler,
        *,
        telemetry: Telemetry,
        publisher: EventPublisher,
        audit: AuditTrail,
        executor: Executor,
        limits: ToolLimits,
        report: Callable[[str, BaseException], None],
    ) -> None:
        self._tools = tools
        self._schemas = schemas
        self._telemetry = telemetry
        self._publisher = publisher
        self._audit = audit
        self._executor = executor
        self._limits = limits
        self._report = report
        self._deadlines = Deadlines()
        self._validators: dict[str, Callable[[object], Sequence[str]]] = {}
        self.bus: Bus | None = None
        """Set by the composition root: tools may use the bus that this handler itself stands on."""

    async def call(self, command: CallTool, info: RequestInfo, offered: ToolRegistry | None = None) -> ToolResult:
        """Run one tool: of those `offered`, where the caller may not have every one.

        Returns:
            Its result; what the tool could not do, a timeout and wrong arguments included, is one with
            `is_error`.

        Raises:
            UnknownTool: no tool has this name.
        """
        execution = new_execution()
        started = time.perf_counter()
        try:
            tool = (offered or self._tools).find(command.name)
        except UnknownTool:
            execution.fire(ExecutionTrigger.UNKNOWN_TOOL)
            span = self._span(attributes.OTHER, command, info)
            self._finish(attributes.OTHER, span, started, "invalid", "unknown_tool", info)
            raise
        if info.span is not None:
            info.span.name = f"{info.operation} {tool.name}"
            info.span.set(attributes.TOOL, tool.name)
            if tool.reads_telemetry:
                info.span.set(attributes.READS_TELEMETRY, value=True)
        execution.fire(ExecutionTrigger.PARSE_REQUEST)
        violations = self._validate(tool, command.arguments)
        execution.fire(ExecutionTrigger.SCHEMA_INVALID if violations else ExecutionTrigger.SCHEMA_VALID)
        span = self._span(tool.name, command, info)
        if tool.reads_telemetry:
            span.set(attributes.READS_TELEMETRY, value=True)
        if violations:
            invalid = InvalidArguments(tool.name, violations)
            refusal = ToolResult(str(invalid), is_error=True)
            _keep_result(span, refusal)
            self._finish(tool.name, span, started, "invalid", invalid.error_type, info)
            return refusal
        execution.fire(ExecutionTrigger.RUN_HANDLER)
        context = _Context(self, span, info)
        trigger, ending, error_type = await self._run(tool, command.arguments, span, context)
        execution.fire(trigger)
        if not isinstance(ending, asyncio.CancelledError):
            _keep_result(span, ending)
        self._finish(tool.name, span, started, _OUTCOMES[trigger], error_type, info)
        if context.intent is not None:
            self._audit.conclude(context.intent, _OUTCOMES[trigger], error_type, time.perf_counter() - started)
        if isinstance(ending, asyncio.CancelledError):
            raise ending  # the same one: its message tells anyio whose cancellation it is
        return ending

    def _validate(self, tool: Tool, arguments: Mapping[str, Any]) -> Sequence[str]:
        validate = self._validators.get(tool.name)
        if validate is None:
            validate = self._validators[tool.name] = self._schemas.compile(tool.input_schema)
        return validate(arguments)

    def _span(self, tool: str, command: CallTool, info: RequestInfo) -> Span:
        by_claude = info.span is None
        parent = info.parent if info.span is None else info.span.context
        span = self._telemetry.span(
            "tool",
            f"execute_tool {tool}" if by_claude else "tools.execute",
            parent=parent,
            attributes={attributes.GEN_AI_OPERATION: "execute_tool", attributes.TOOL: tool},
        )
        if span.captures_content:
            span.set_content(attributes.TOOL_ARGUMENTS, command.arguments)
        return span

    async def _run(
        self, tool: Tool, arguments: Mapping[str, Any], span: Span, context: _Context
    ) -> tuple[ExecutionTrigger, ToolResult | asyncio.CancelledError, str | None]:
        """Returns how it ended, the result or the cancellation, and the error's type."""
        seconds = self._limits.timeout if tool.timeout is None else tool.timeout
        around = current_operation.set(span.context)
        try:
            if tool.mode is ToolMode.INLINE and tool.annotations.read_only:
                result = check_result(tool, tool.run(arguments, context), self._limits.max_result_size)
            else:
                with self._deadlines.within(seconds), span.active():
                    if not tool.annotations.read_only:
                        context.intent = await self._intend(tool, arguments, span, context)
                    result = await self._start(tool, arguments, context)
        except asyncio.CancelledError as error:
            if _is_being_cancelled():
                return ExecutionTrigger.CANCEL, error, None
            # Something inside the tool was cancelled, not the call: its caller still waits for an answer.
            return ExecutionTrigger.HANDLER_ERROR, self._masked(tool, error, span), type(error).__name__
        except DeadlinePassed:
            timed_out = ToolTimedOut(repr(tool.name), seconds)
            return ExecutionTrigger.TIMEOUT, ToolResult(str(timed_out), is_error=True), timed_out.error_type
        except ToolFailure as failure:
            late = isinstance(failure, ToolTimedOut)
            trigger = ExecutionTrigger.TIMEOUT if late else ExecutionTrigger.HANDLER_ERROR
            return trigger, ToolResult(str(failure), is_error=True), failure.error_type
        except (Exception, SystemExit) as error:  # noqa: BLE001  # a tool may be anybody's: its faults stay its own
            return ExecutionTrigger.HANDLER_ERROR, self._masked(tool, error, span), type(error).__name__
        else:
            trigger, error_type = _judged(result)
            return trigger, result, error_type
        finally:
            context.abandon()
            current_operation.reset(around)

    async def _intend(self, tool: Tool, arguments: Mapping[str, Any], span: Span, context: _Context) -> int:
        """Commit what is about to happen (DESIGN decision 8a): without it the tool does not run."""
        intent = Intent(
            principal=context.principal,
            session_id=context.info.session.id,
            request_id=context.info.request_id,
            trace=span.context,
            tool=tool.name,
            argument_names=sorted(arguments),
            arguments={name: arguments[name] for name in tool.audited if name in arguments},
            started_at=time.time(),
        )
        try:
            return await self._audit.intend(intent)
        except StorageUnavailable as error:
            raise AuditUnavailable(tool.name, str(error)) from error

    async def _start(self, tool: Tool, arguments: Mapping[str, Any], context: _Context) -> ToolResult:
        if tool.mode is ToolMode.THREAD:
            here = contextvars.copy_context()
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(
                self._executor, lambda: here.run(_run_in_thread, tool, arguments, context, self._limits.max_result_size)
            )
        outcome: object = tool.run(arguments, context)
        if tool.mode is ToolMode.TASK:
            outcome = await cast("Awaitable[object]", outcome)
        return check_result(tool, outcome, self._limits.max_result_size)

    def _masked(self, tool: Tool, error: BaseException, span: Span) -> ToolResult:
        if isinstance(error, InternalError):
            error_id = error.error_id
        else:
            error_id = uuid4().hex
            self._report(error_id, error)
        span.set(attributes.ERROR_ID, error_id)
        blame = "failed for a reason that is not its caller's"
        return ToolResult(f"{tool.name!r} {blame}; the server's log has it as error {error_id}", is_error=True)

    def _finish(
        self, tool: str, span: Span, started: float, outcome: Outcome, error_type: str | None, info: RequestInfo
    ) -> None:
        span.add_event(outcome if outcome in {"completed", "cancelled"} else "error")
        span.end(outcome, error_type)
        self._publisher.publish(
            (
                ToolExecuted(
                    aggregate_id=info.session.id,
                    principal=info.principal,
                    tool=tool,
                    outcome=outcome,
                    duration=time.perf_counter() - started,
                    error_type=error_type,
                ),
            )
        )


_OUTCOMES: Mapping[ExecutionTrigger, Outcome] = {
    ExecutionTrigger.HANDLER_SUCCESS: "completed",
    ExecutionTrigger.HANDLER_ERROR: "failed",
    ExecutionTrigger.TIMEOUT: "timed_out",
    ExecutionTrigger.CANCEL: "cancelled",
}


def _keep_result(span: Span, result: ToolResult) -> None:
    if span.captures_content:
        span.set_content(attributes.TOOL_RESULT, result.text if result.structured is None else result.structured)


def _judged(result: ToolResult) -> tuple[ExecutionTrigger, str | None]:
    if result.timed_out:
        return ExecutionTrigger.TIMEOUT, ToolTimedOut.error_type
    if result.is_error:
        return ExecutionTrigger.HANDLER_ERROR, "tool_error"
    return ExecutionTrigger.HANDLER_SUCCESS, None


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _run_in_thread(tool: Tool, arguments: Mapping[str, Any], context: ToolContext, max_size: int) -> ToolResult:
    """Run a tool; what a future cannot carry to the event loop, or what would end the loop there, is wrapped."""
    try:
        return check_result(tool, tool.run(arguments, context), max_size)
    except BaseException as error:
        if isinstance(error, Exception) and not isinstance(error, StopIteration):
            raise
        raise RuntimeError(f"{type(error).__name__} in a worker thread") from error


class _Context:
    """The `ToolContext` of one call."""

    __slots__ = ("_abandoned", "_handler", "_span", "info", "intent", "principal")

    def __init__(self, handler: ToolHandler, span: Span, info: RequestInfo) -> None:
        self._handler = handler
        self._span = span
        self.info = info
        self.intent: int | None = None
        """The audit's id of this call, once what it is about to do is committed."""
        self._abandoned = False  # read by the tool's thread, which sees a change at its next look
        self.principal = info.principal

    def abandon(self) -> None:
        self._abandoned = True

    def check(self) -> None:
        if self._abandoned:
            raise CallAbandoned

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        if self.info.progress_token is not None and not self._abandoned:
            await self.info.client.progress(self.info.progress_token, progress, total, message)

    async def dispatch(self, message: object) -> Any:  # noqa: ANN401  # each message has a result type of its own
        bus = self._handler.bus
        if bus is None:
            msg = "the tool handler stands on no bus"
            raise RuntimeError(msg)
        return await bus.dispatch(message, self.info.inside(self._span))

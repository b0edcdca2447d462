"""The diagrams' "Tool Execution": parse name → find → validate → span → run → capture → result."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, cast
from uuid import uuid4

from tfo_mcp.application.bus import Bus, RequestInfo
from tfo_mcp.application.commands import CallTool
from tfo_mcp.application.deadlines import DeadlinePassed, Deadlines
from tfo_mcp.application.ports import EventPublisher, SchemaCompiler, Span, Telemetry
from tfo_mcp.domain.errors import InternalError, InvalidArguments, ToolFailure, ToolTimedOut, UnknownTool
from tfo_mcp.domain.events import ToolExecuted
from tfo_mcp.domain.execution import ExecutionTrigger, Outcome, new_execution
from tfo_mcp.domain.tool import Tool, ToolContext, ToolMode, ToolRegistry, ToolResult

_UNKNOWN = "_OTHER"
"""What a tool is called in telemetry whose name a client invented (OpenTelemetry's word for it)."""


class CallAbandoned(BaseException):
    """Raised by `check()` in a worker thread whose call nobody waits for any more.

    As a cancellation, it is no `Exception`: a tool that catches those must not go on working for nobody.
    """


class ToolHandler:
    """Runs tools, for clients and for Claude alike.

    Args:
        timeout: seconds a tool may take that says nothing itself (`mcp.tool_timeout`).
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
        executor: Executor,
        timeout: float,
        report: Callable[[str, BaseException], None],
    ) -> None:
        self._tools = tools
        self._schemas = schemas
        self._telemetry = telemetry
        self._publisher = publisher
        self._executor = executor
        self._timeout = timeout
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
            self._finish(_UNKNOWN, self._span(_UNKNOWN, info), started, "invalid", "unknown_tool", info)
            raise
        if info.span is not None:
            info.span.name = f"{info.operation} {tool.name}"
            info.span.set("gen_ai.tool.name", tool.name)
        execution.fire(ExecutionTrigger.PARSE_REQUEST)
        violations = self._validate(tool, command.arguments)
        execution.fire(ExecutionTrigger.SCHEMA_INVALID if violations else ExecutionTrigger.SCHEMA_VALID)
        span = self._span(tool.name, info)
        if violations:
            invalid = InvalidArguments(tool.name, violations)
            self._finish(tool.name, span, started, "invalid", invalid.error_type, info)
            return ToolResult(str(invalid), is_error=True)
        execution.fire(ExecutionTrigger.RUN_HANDLER)
        trigger, ending, error_type = await self._run(tool, command.arguments, span, info)
        execution.fire(trigger)
        self._finish(tool.name, span, started, _OUTCOMES[trigger], error_type, info)
        if isinstance(ending, asyncio.CancelledError):
            raise ending  # the same one: its message tells anyio whose cancellation it is
        return ending

    def _validate(self, tool: Tool, arguments: Mapping[str, Any]) -> Sequence[str]:
        validate = self._validators.get(tool.name)
        if validate is None:
            validate = self._validators[tool.name] = self._schemas.compile(tool.input_schema)
        return validate(arguments)

    def _span(self, tool: str, info: RequestInfo) -> Span:
        by_claude = info.span is None
        parent = info.parent if info.span is None else info.span.context
        return self._telemetry.span(
            "tool",
            f"execute_tool {tool}" if by_claude else "tools.execute",
            parent=parent,
            attributes={"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": tool},
        )

    async def _run(
        self, tool: Tool, arguments: Mapping[str, Any], span: Span, info: RequestInfo
    ) -> tuple[ExecutionTrigger, ToolResult | asyncio.CancelledError, str | None]:
        """Returns how it ended, the result or the cancellation, and the error's type."""
        context = _Context(self, span, info)
        seconds = self._timeout if tool.timeout is None else tool.timeout
        try:
            if tool.mode is ToolMode.INLINE:
                outcome = tool.run(arguments, context)
            else:
                with self._deadlines.within(seconds), span.active():
                    outcome = await self._start(tool, arguments, context)
            result = _checked(tool, outcome)
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
            failed = result.is_error
            trigger = ExecutionTrigger.HANDLER_ERROR if failed else ExecutionTrigger.HANDLER_SUCCESS
            return trigger, result, "tool_error" if failed else None
        finally:
            context.abandon()

    def _start(self, tool: Tool, arguments: Mapping[str, Any], context: _Context) -> Awaitable[ToolResult]:
        if tool.mode is ToolMode.TASK:
            return cast("Awaitable[ToolResult]", tool.run(arguments, context))
        here = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._executor, lambda: here.run(_run_in_thread, tool, arguments, context))

    def _masked(self, tool: Tool, error: BaseException, span: Span) -> ToolResult:
        if isinstance(error, InternalError):
            error_id = error.error_id
        else:
            error_id = uuid4().hex
            self._report(error_id, error)
        span.set("tfo.error.id", error_id)
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


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _run_in_thread(tool: Tool, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
    """Run a tool; what a future cannot carry to the event loop, or what would end the loop there, is wrapped."""
    try:
        return cast("ToolResult", tool.run(arguments, context))
    except BaseException as error:
        if isinstance(error, Exception) and not isinstance(error, StopIteration):
            raise
        raise RuntimeError(f"{type(error).__name__} in a worker thread") from error


def _checked(tool: Tool, outcome: object) -> ToolResult:
    if not isinstance(outcome, ToolResult):
        if inspect.iscoroutine(outcome):
            outcome.close()
        msg = f"tool {tool.name!r} gave {type(outcome).__name__}, not a ToolResult"
        raise TypeError(msg)
    return outcome


class _Context:
    """The `ToolContext` of one call."""

    __slots__ = ("_abandoned", "_handler", "_info", "_span", "principal")

    def __init__(self, handler: ToolHandler, span: Span, info: RequestInfo) -> None:
        self._handler = handler
        self._span = span
        self._info = info
        self._abandoned = False  # read by the tool's thread, which sees a change at its next look
        self.principal = info.principal

    def abandon(self) -> None:
        self._abandoned = True

    def check(self) -> None:
        if self._abandoned:
            raise CallAbandoned

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        if self._info.progress_token is not None and not self._abandoned:
            await self._info.client.progress(self._info.progress_token, progress, total, message)

    async def dispatch(self, message: object) -> Any:  # noqa: ANN401  # each message has a result type of its own
        bus = self._handler.bus
        if bus is None:
            msg = "the tool handler stands on no bus"
            raise RuntimeError(msg)
        return await bus.dispatch(message, self._info.inside(self._span))

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NoReturn, cast

import anyio
import pytest

from support.telemetry import current_span
from support.tool_calls import ToolBench
from tfo_mcp.application.bus import Bus, Endpoint, RequestInfo
from tfo_mcp.application.commands import CallTool
from tfo_mcp.application.ports import TraceContext, current_operation
from tfo_mcp.application.queries import Ping
from tfo_mcp.domain.errors import ConversationBusy, TurnTimedOut, UnknownTool
from tfo_mcp.domain.tool import Tool, ToolContext, ToolFunction, ToolMode, ToolRegistry, ToolResult

SOON = 0.03
PATIENCE = 10.0

EVERY_MODE = pytest.mark.parametrize("mode", list(ToolMode))


def tool(name: str, run: Callable[..., Any], mode: ToolMode = ToolMode.TASK, timeout: float | None = None) -> Tool:
    """A tool that takes a `number` at most."""
    return Tool(
        name=name,
        title=name,
        description=name,
        input_schema={
            "type": "object",
            "properties": {"number": {"type": "integer"}},
            "additionalProperties": False,
        },
        run=cast("ToolFunction", run),
        mode=mode,
        timeout=timeout,
    )


def in_mode(name: str, run: Callable[[ToolContext], object], mode: ToolMode) -> Tool:
    """`run` as a tool of the given mode."""

    def plain(arguments: Mapping[str, Any], context: ToolContext) -> object:
        return run(context)

    async def coroutine(arguments: Mapping[str, Any], context: ToolContext) -> object:
        return run(context)

    return tool(name, coroutine if mode is ToolMode.TASK else plain, mode)


async def forever(arguments: Mapping[str, Any], context: ToolContext) -> NoReturn:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.behaviour("execution.completed", "telemetry.tool.span", "telemetry.tool.event")
@EVERY_MODE
def test_a_call_is_answered_and_recorded_once(mode: ToolMode) -> None:
    bench = ToolBench([in_mode("good", lambda _: ToolResult("done"), mode)])

    assert bench.run("good").text == "done"

    request, run = bench.telemetry.spans
    assert (request.name, request.attributes) == ("tools/call good", {"gen_ai.tool.name": "good"})
    assert (run.kind, run.name, run.parent) == ("tool", "tools.execute", request.context)
    assert run.attributes == {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "good"}
    assert (run.events, run.ended) == (["completed"], ("completed", None))
    assert bench.executed == [("good", "completed", None)]


@pytest.mark.behaviour("execution.mode")
def test_a_tool_runs_where_its_mode_says() -> None:
    ran: dict[ToolMode, int] = {}

    def where(mode: ToolMode) -> Tool:
        def run(context: ToolContext) -> ToolResult:
            ran[mode] = threading.get_ident()
            return ToolResult("")

        return in_mode(mode.value, run, mode)

    bench = ToolBench([where(mode) for mode in ToolMode])
    for mode in ToolMode:
        bench.run(mode.value)

    here = threading.get_ident()
    assert {mode: ident == here for mode, ident in ran.items()} == {
        ToolMode.INLINE: True,
        ToolMode.TASK: True,
        ToolMode.THREAD: False,
    }


@pytest.mark.behaviour("execution.context")
@pytest.mark.parametrize("mode", [ToolMode.TASK, ToolMode.THREAD])
def test_libraries_inside_a_tool_see_its_span_as_the_current_one(mode: ToolMode) -> None:
    seen: list[object] = []

    def run(context: ToolContext) -> ToolResult:
        seen.append(current_span.get())
        return ToolResult("")

    bench = ToolBench([in_mode("traced", run, mode)])
    bench.run("traced")

    assert seen == [bench.telemetry.spans[1]]
    assert current_span.get() is None


@pytest.mark.parametrize("mode", ToolMode)
def test_a_tool_works_under_its_own_operation_and_leaves_its_request_s_as_it_was(mode: ToolMode) -> None:
    seen: list[object] = []

    def run(context: ToolContext) -> ToolResult:
        seen.append(current_operation.get())
        raise RuntimeError

    async def request() -> None:
        current_operation.set(TraceContext(7, 8))
        await bench.call("logs")
        seen.append(current_operation.get())

    bench = ToolBench([in_mode("logs", run, mode)])
    asyncio.run(request())
    assert seen == [bench.telemetry.spans[1].context, TraceContext(7, 8)]


def test_a_call_by_claude_is_a_span_of_its_own_kind_below_the_one_around_it() -> None:
    bench = ToolBench([in_mode("good", lambda _: ToolResult(""), ToolMode.INLINE)])
    outer = bench.telemetry.span("claude", "claude.request")
    info = bench.info(measured=False)
    info.parent = outer.context

    asyncio.run(bench.call("good", info))

    assert [(span.name, span.parent) for span in bench.telemetry.spans[1:]] == [("execute_tool good", outer.context)]


@pytest.mark.behaviour("execution.invalid")
def test_wrong_arguments_are_a_result_that_says_which_field_and_why() -> None:
    bench = ToolBench([tool("good", forever)])

    result = bench.run("good", number="ten", more=1)

    assert result.is_error
    assert '/number: "ten" is not of type "integer"' in result.text
    assert "/more: no such field exists" in result.text
    assert bench.telemetry.spans[1].ended == ("invalid", "invalid_arguments")
    assert bench.executed == [("good", "invalid", "invalid_arguments")]


@pytest.mark.behaviour("execution.unknown")
def test_an_unknown_tool_raises_and_its_invented_name_is_recorded_nowhere() -> None:
    bench = ToolBench([])

    with pytest.raises(UnknownTool, match="invented"):
        asyncio.run(bench.handler.call(CallTool("invented", {}), bench.info()))

    assert "invented" not in str([(span.name, span.attributes) for span in bench.telemetry.spans])
    assert bench.telemetry.spans[1].ended == ("invalid", "unknown_tool")
    assert bench.executed == [("_OTHER", "invalid", "unknown_tool")]


def test_a_tool_that_is_not_offered_is_as_unknown_as_one_that_is_not_there() -> None:
    ran: list[bool] = []

    def run(context: ToolContext) -> ToolResult:
        ran.append(True)
        return ToolResult("")

    bench = ToolBench([in_mode("other", run, ToolMode.INLINE)])

    with pytest.raises(UnknownTool, match="other"):
        asyncio.run(bench.handler.call(CallTool("other", {}), bench.info(), ToolRegistry()))

    assert bench.executed == [("_OTHER", "invalid", "unknown_tool")]
    assert ran == []


@pytest.mark.behaviour("execution.timed-out", "telemetry.tool.event")
def test_a_task_that_takes_too_long_is_stopped_and_answered() -> None:
    stopped: list[bool] = []

    async def slow(arguments: Mapping[str, Any], context: ToolContext) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(True)

    bench = ToolBench([tool("slow", slow)], timeout=SOON)
    result = bench.run("slow")

    assert (result.is_error, result.text) == (True, "'slow' did not finish within 0.03 s and was stopped")
    assert stopped == [True]
    assert bench.executed == [("slow", "timed_out", "timeout")]
    assert bench.telemetry.spans[1].events == ["error"]


def test_a_tools_own_timeout_goes_before_the_servers() -> None:
    bench = ToolBench([tool("slow", forever, timeout=SOON)], timeout=PATIENCE)
    assert "0.03 s" in bench.run("slow").text


def busy(freed: threading.Event) -> Callable[[ToolContext], NoReturn]:
    """Works on and on as a careless tool does, but asks `check()`; `freed` once it has let its thread go."""

    def run(context: ToolContext) -> NoReturn:
        try:
            while True:
                with suppress(Exception):
                    context.check()
        finally:
            freed.set()

    return run


@pytest.mark.behaviour("execution.timed-out")
def test_a_thread_over_its_deadline_is_answered_at_once_and_freed_at_its_next_check() -> None:
    freed = threading.Event()
    bench = ToolBench([in_mode("busy", busy(freed), ToolMode.THREAD)], timeout=SOON)

    assert "did not finish" in bench.run("busy").text
    assert freed.wait(PATIENCE)
    assert bench.executed == [("busy", "timed_out", "timeout")]


@pytest.mark.behaviour("execution.cancelled")
@pytest.mark.parametrize("mode", [ToolMode.TASK, ToolMode.THREAD])
def test_a_cancelled_call_ends_as_cancelled_and_frees_what_it_held(mode: ToolMode) -> None:
    freed = threading.Event()

    async def until_cancelled(arguments: Mapping[str, Any], context: ToolContext) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            freed.set()

    tools = {
        ToolMode.TASK: tool("work", until_cancelled),
        ToolMode.THREAD: in_mode("work", busy(freed), ToolMode.THREAD),
    }
    bench = ToolBench([tools[mode]])

    async def main() -> None:
        call = asyncio.create_task(bench.call("work"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()

    asyncio.run(main())
    assert freed.wait(PATIENCE)
    assert bench.telemetry.spans[1].ended == ("cancelled", None)
    assert bench.executed == [("work", "cancelled", None)]


def test_a_call_that_a_cancel_scope_cut_takes_nobody_with_it() -> None:
    bench = ToolBench([tool("work", forever)])

    async def main() -> None:
        async with anyio.create_task_group():
            with anyio.CancelScope() as scope:
                asyncio.get_running_loop().call_later(SOON, scope.cancel)
                await bench.call("work")
            await anyio.lowlevel.checkpoint()  # would raise if more than the scope had been cancelled

    asyncio.run(main())
    assert bench.executed == [("work", "cancelled", None)]


def test_a_cancellation_that_comes_with_the_deadline_stays_a_cancellation() -> None:
    async def cleans_up(arguments: Mapping[str, Any], context: ToolContext) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            in_cleanup.set()
            await asyncio.Event().wait()

    bench = ToolBench([tool("work", cleans_up)], timeout=SOON)
    in_cleanup = asyncio.Event()

    async def main() -> None:
        call = asyncio.create_task(bench.call("work"))
        await in_cleanup.wait()
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()

    asyncio.run(main())
    assert bench.executed == [("work", "cancelled", None)]


def test_a_call_that_was_given_up_before_a_thread_was_free_never_runs() -> None:
    freed, ran = threading.Event(), threading.Event()

    def waits(context: ToolContext) -> ToolResult:
        assert freed.wait(PATIENCE)
        return ToolResult("")

    def runs(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        ran.set()
        return ToolResult("")

    late = tool("late", runs, ToolMode.THREAD, timeout=SOON)
    bench = ToolBench([in_mode("first", waits, ToolMode.THREAD), late], threads=1)

    async def main() -> None:
        first = asyncio.create_task(bench.call("first"))
        await asyncio.sleep(0)
        assert "did not finish" in (await bench.call("late")).text
        freed.set()
        assert not (await first).is_error

    asyncio.run(main())
    bench.executor.shutdown()
    assert not ran.is_set()


@pytest.mark.behaviour("execution.failed")
@EVERY_MODE
def test_a_failure_that_the_tool_foresaw_is_its_own_sentence(mode: ToolMode) -> None:
    def fail(context: ToolContext) -> NoReturn:
        raise ConversationBusy("conv_1")

    bench = ToolBench([in_mode("fails", fail, mode)])
    result = bench.run("fails")

    assert (result.is_error, result.text) == (True, str(ConversationBusy("conv_1")))
    assert bench.executed == [("fails", "failed", "conversation_busy")]
    assert bench.reports == []


@pytest.mark.behaviour("execution.timed-out")
def test_what_timed_out_inside_a_tool_is_a_timeout_of_the_tool() -> None:
    def fail(context: ToolContext) -> NoReturn:
        raise TurnTimedOut(600)

    bench = ToolBench([in_mode("late", fail, ToolMode.TASK)])

    assert bench.run("late").text == (
        "the wait for the turns before this message, which was not sent, did not finish within 600 s and was stopped"
    )
    assert bench.executed == [("late", "timed_out", "timeout")]


@EVERY_MODE
def test_a_result_that_says_it_is_an_error_counts_as_one(mode: ToolMode) -> None:
    bench = ToolBench([in_mode("fails", lambda _: ToolResult("no", is_error=True), mode)])
    assert bench.run("fails").text == "no"
    assert bench.executed == [("fails", "failed", "tool_error")]


@pytest.mark.behaviour("execution.failed", "tools.call.fault")
@EVERY_MODE
@pytest.mark.parametrize("fault", [ValueError, StopIteration, SystemExit, asyncio.CancelledError])
def test_a_tools_fault_is_answered_masked_and_reported(mode: ToolMode, fault: type[BaseException]) -> None:
    def fail(context: ToolContext) -> NoReturn:
        raise fault("a secret")

    bench = ToolBench([in_mode("faulty", fail, mode)])
    result = bench.run("faulty")

    [(error_id, error)] = bench.reports
    assert result.is_error
    assert "a secret" not in result.text
    assert error_id in result.text
    assert fault in (type(error), type(error.__cause__))
    run = bench.telemetry.spans[1]
    assert run.attributes["tfo.error.id"] == error_id
    assert run.ended == ("failed", type(error).__name__)
    assert bench.executed == [("faulty", "failed", type(error).__name__)]


def test_the_cancellation_of_something_inside_a_tool_is_not_that_of_the_call() -> None:
    async def waits_for_another(arguments: Mapping[str, Any], context: ToolContext) -> None:
        other = asyncio.create_task(asyncio.Event().wait())
        asyncio.get_running_loop().call_soon(other.cancel)
        await other

    bench = ToolBench([tool("work", waits_for_another)])

    assert bench.run("work").is_error
    assert bench.executed == [("work", "failed", "CancelledError")]


@pytest.mark.behaviour("execution.result-checked")
@EVERY_MODE
@pytest.mark.parametrize("garbage", [None, "text", {"text": "dict"}])
def test_what_is_no_result_is_the_tools_fault(mode: ToolMode, garbage: object) -> None:
    bench = ToolBench([in_mode("odd", lambda _: garbage, mode)])
    assert bench.run("odd").is_error
    assert bench.executed == [("odd", "failed", "TypeError")]


@pytest.mark.parametrize("mode", [ToolMode.INLINE, ToolMode.THREAD])
def test_a_coroutine_from_a_plain_tool_is_its_fault_and_is_closed(mode: ToolMode) -> None:
    bench = ToolBench([tool("odd", forever, mode)])
    assert bench.run("odd").is_error
    assert bench.executed == [("odd", "failed", "TypeError")]


def test_a_task_tool_that_is_no_coroutine_is_at_fault() -> None:
    def plain(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        return ToolResult("")

    bench = ToolBench([tool("odd", plain, ToolMode.TASK)])
    assert bench.run("odd").is_error
    assert bench.executed == [("odd", "failed", "TypeError")]


@pytest.mark.behaviour("progress.unasked", "progress.ends")
def test_progress_reaches_the_client_that_asked_for_it_while_the_call_runs() -> None:
    contexts: list[ToolContext] = []

    async def reports(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        contexts.append(context)
        await context.progress(1, 2, "half")
        return ToolResult("")

    bench = ToolBench([tool("reports", reports)])

    async def main() -> None:
        await bench.call("reports", bench.info())
        assert bench.client.told == []
        await bench.call("reports", bench.info(progress_token="p"))  # noqa: S106  # not that kind of token
        await contexts[-1].progress(2, 2, "too late")

    asyncio.run(main())
    assert bench.client.told == [("p", 1, 2, "half")]


@pytest.mark.behaviour("execution.context")
def test_what_a_tool_dispatches_is_part_of_its_request() -> None:
    seen: list[RequestInfo] = []

    async def answer(message: Ping, info: RequestInfo) -> str:
        seen.append(info)
        return "pong"

    async def asks(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        return ToolResult(await context.dispatch(Ping()))

    bench = ToolBench([tool("asks", asks)])
    bench.handler.bus = Bus(
        {Ping: Endpoint(answer)},
        telemetry=bench.telemetry,
        error_code=lambda _: 0,
        report=lambda error_id, error: bench.reports.append((error_id, error)),
    )

    assert bench.run("asks").text == "pong"
    assert [(info.nested, info.session, info.parent) for info in seen] == [
        (True, bench.session, bench.telemetry.spans[1].context)
    ]
    assert len(bench.telemetry.spans) == 2


def test_calls_run_side_by_side() -> None:
    both = asyncio.Barrier(2)

    async def meets(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        await both.wait()
        return ToolResult("met")

    bench = ToolBench([tool("meets", meets)], timeout=PATIENCE)

    async def main() -> None:
        results = await asyncio.gather(bench.call("meets"), bench.call("meets"))
        assert [result.text for result in results] == ["met", "met"]

    asyncio.run(main())

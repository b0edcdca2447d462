from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from support.tool_calls import ToolBench
from tfo_mcp.domain.tool import Tool, ToolAnnotations, ToolContext, ToolMode, ToolResult

EVERY_MODE = pytest.mark.parametrize("mode", list(ToolMode))


class World:
    """A tool that notes how often it ran, and whether its intent was there when it did."""

    def __init__(self, mode: ToolMode, *, read_only: bool = False, result: ToolResult | None = None) -> None:
        self.ran: list[int] = []
        self.result = result or ToolResult("done")
        tool = Tool(
            name="act",
            title="act",
            description="act",
            input_schema={"type": "object", "properties": {"where": {"type": "string"}, "what": {}}},
            run=self._task if mode is ToolMode.TASK else self._plain,
            mode=mode,
            annotations=ToolAnnotations(read_only=read_only),
            audited=("where",),
        )
        self.bench = ToolBench([tool])

    def _plain(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        self.ran.append(len(self.bench.audit.rows))
        return self.result

    async def _task(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        return self._plain(arguments, context)


@pytest.mark.behaviour("tools.acting.intent")
@EVERY_MODE
def test_what_a_tool_is_about_to_do_is_committed_before_it_runs_and_concluded_after(mode: ToolMode) -> None:
    world = World(mode)

    world.bench.run("act", where="here", what="a secret")

    [row] = world.bench.audit.rows
    tool_span = world.bench.telemetry.spans[1]
    assert world.ran == [1]
    assert (row.intent.tool, row.intent.principal) == ("act", "local")
    assert row.intent.session_id == world.bench.session.id
    assert row.intent.trace == tool_span.context
    assert (row.intent.argument_names, row.intent.arguments) == (["what", "where"], {"where": "here"})
    assert (row.outcome, row.error_type) == ("completed", None)


@pytest.mark.behaviour("tools.acting.intent")
@EVERY_MODE
def test_a_tool_whose_intent_cannot_be_committed_does_not_run(mode: ToolMode) -> None:
    world = World(mode)
    world.bench.audit.problem = "the disk is full"

    result = world.bench.run("act")

    assert (result.is_error, result.text) == (
        True,
        "'act' was not run, because the audit cannot record it: the disk is full",
    )
    assert world.ran == []
    assert world.bench.executed == [("act", "failed", "audit_unavailable")]


@EVERY_MODE
def test_a_tool_that_only_reads_waits_for_no_audit(mode: ToolMode) -> None:
    world = World(mode, read_only=True)
    world.bench.audit.problem = "the disk is full"

    assert world.bench.run("act").text == "done"
    assert world.bench.audit.rows == []


def test_arguments_that_do_not_fit_the_schema_leave_no_intent() -> None:
    world = World(ToolMode.TASK)

    assert world.bench.run("act", where=5).is_error
    assert world.bench.audit.rows == []


@pytest.mark.parametrize(
    ("result", "outcome", "error_type"),
    [
        (ToolResult("no", is_error=True), "failed", "tool_error"),
        (ToolResult("what there was", is_error=True, timed_out=True), "timed_out", "timeout"),
    ],
)
def test_the_outcome_is_that_of_the_call(result: ToolResult, outcome: str, error_type: str) -> None:
    world = World(ToolMode.TASK, result=result)

    world.bench.run("act")

    assert [(row.outcome, row.error_type) for row in world.bench.audit.rows] == [(outcome, error_type)]
    assert world.bench.executed == [("act", outcome, error_type)]


def test_a_cancelled_call_is_concluded_as_cancelled() -> None:
    running = asyncio.Event()

    async def forever(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        running.set()
        await asyncio.Event().wait()
        raise AssertionError

    bench = ToolBench([Tool(name="act", title="", description="", input_schema={}, run=forever, mode=ToolMode.TASK)])

    async def scenario() -> None:
        call = asyncio.create_task(bench.call("act"))
        await running.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(scenario())
    assert [row.outcome for row in bench.audit.rows] == ["cancelled"]

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import pytest

from support.fakes import InMemorySessions
from support.telemetry import FakeSpan, FakeTelemetry
from support.tool_calls import FakeClient, FakePublisher
from tfo_mcp.application.bus import Bus, Endpoint, RequestInfo
from tfo_mcp.application.commands import ConfirmInitialized
from tfo_mcp.application.ports import TraceContext, current_operation
from tfo_mcp.application.session_handler import SessionHandler
from tfo_mcp.domain.errors import (
    DomainError,
    InternalError,
    InvalidTransition,
    SessionClosing,
    SessionNotInitialized,
    UnknownTool,
)
from tfo_mcp.domain.session import Session, SessionState
from tfo_mcp.domain.tool import ToolResult


@dataclass(frozen=True)
class Ask:
    """A message; `Ask("again")` sends another one from within its handler."""

    what: str = ""


@dataclass(frozen=True)
class AskUnguarded:
    """A message that is served in any state."""


class World:
    """A bus with one handler, which does what the test says, behind the guard and beside it."""

    def __init__(self, run: Callable[[Ask, RequestInfo], Awaitable[object]] | None = None) -> None:
        self.telemetry = FakeTelemetry()
        self.reported: list[tuple[str, BaseException]] = []
        self.session = Session()
        self.session.initialize(protocol_version="2025-11-25", client_name="test", client_version="1")
        self.session.collect_events()
        self.sessions = InMemorySessions()
        self.handled: list[tuple[object, RequestInfo]] = []
        self._run = run
        self.bus = Bus(
            {
                Ask: Endpoint(self._handle),
                AskUnguarded: Endpoint(self._handle, guarded=False),
                ConfirmInitialized: Endpoint(
                    SessionHandler(self.sessions, FakePublisher(), self.telemetry).confirm, guarded=False
                ),
            },
            telemetry=self.telemetry,
            error_code=lambda error: -len(type(error).__name__),
            report=lambda error_id, error: self.reported.append((error_id, error)),
        )

    async def _handle(self, message: object, info: RequestInfo) -> object:
        self.handled.append((message, info))
        if self._run is None:
            return None
        return await self._run(message if isinstance(message, Ask) else Ask(), info)

    def info(self, *, nested: bool = False) -> RequestInfo:
        return RequestInfo(
            operation="tools/list",
            session=self.session,
            client=FakeClient(),
            protocol_version="2025-11-25",
            request_id=7,
            nested=nested,
        )

    def dispatch(self, message: object | None = None, info: RequestInfo | None = None) -> object:
        return asyncio.run(self.bus.dispatch(message or Ask(), info or self.info()))

    @property
    def span(self) -> FakeSpan:
        """The one that was recorded."""
        [span] = self.telemetry.spans
        return span


def raising(error: BaseException) -> Callable[[Ask, RequestInfo], Awaitable[object]]:
    async def run(message: Ask, info: RequestInfo) -> object:
        raise error

    return run


def giving(result: object) -> Callable[[Ask, RequestInfo], Awaitable[object]]:
    async def run(message: Ask, info: RequestInfo) -> object:
        return result

    return run


# --- record ---


@pytest.mark.behaviour("telemetry.request.recorded")
def test_a_request_is_recorded_once_with_what_it_was() -> None:
    world = World(giving("done"))
    assert world.dispatch() == "done"
    assert (world.span.kind, world.span.name, world.span.ended) == ("request", "tools/list", ("completed", None))
    assert world.span.attributes == {
        "mcp.method.name": "tools/list",
        "mcp.protocol.version": "2025-11-25",
        "mcp.session.id": world.session.id,
        "network.transport": "pipe",
        "jsonrpc.request.id": "7",
    }


def test_requests_side_by_side_each_work_under_their_own_operation() -> None:
    async def run(message: Ask, info: RequestInfo) -> object:
        await asyncio.sleep(0)
        assert info.span is not None
        return current_operation.get() is info.span.context

    async def both() -> list[object]:
        world = World(run)
        tasks = [asyncio.create_task(world.bus.dispatch(Ask(), world.info())) for _ in range(2)]
        return await asyncio.gather(*tasks)

    assert asyncio.run(both()) == [True, True]
    assert current_operation.get() is None


def test_what_is_said_of_an_answer_behind_the_bus_still_belongs_to_its_operation() -> None:
    async def answer() -> TraceContext | None:
        world = World(raising(ValueError()))
        with suppress(InternalError):
            await world.bus.dispatch(Ask(), world.info())
        assert world.span.context is current_operation.get()
        return current_operation.get()

    assert asyncio.run(answer()) is not None


def test_a_long_request_id_is_cut_before_it_is_recorded() -> None:
    world = World()
    info = world.info()
    info.request_id = "x" * 10_000
    world.dispatch(info=info)
    assert world.span.attributes["jsonrpc.request.id"] == "x" * 128


@pytest.mark.parametrize(
    ("result", "ended"),
    [(ToolResult("no", is_error=True), ("failed", "tool_error")), (ToolResult("yes"), ("completed", None))],
)
def test_a_tool_that_could_not_do_it_is_a_request_that_failed(result: ToolResult, ended: tuple[str, str]) -> None:
    world = World(giving(result))
    assert world.dispatch() is result
    assert world.span.ended == ended


@pytest.mark.behaviour("telemetry.request.recorded")
def test_a_cancelled_request_is_recorded_as_cancelled_and_stays_cancelled() -> None:
    started = asyncio.Event()

    async def run(message: Ask, info: RequestInfo) -> None:
        started.set()
        await asyncio.Event().wait()

    world = World(run)

    async def cancel() -> None:
        task = asyncio.ensure_future(world.bus.dispatch(Ask(), world.info()))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert world.span.ended == ("cancelled", None)
    assert world.session.processing == 0
    assert world.reported == []


@pytest.mark.behaviour("execution.context")
def test_what_a_handler_sends_is_part_of_its_own_request() -> None:
    async def run(message: Ask, info: RequestInfo) -> object:
        if message.what != "again":
            return message.what
        assert info.span is not None
        return await world.bus.dispatch(Ask("inside"), info.inside(info.span))

    world = World(run)
    assert world.dispatch(Ask("again")) == "inside"
    assert world.span.ended == ("completed", None)
    (_, outer), (_, inner) = world.handled
    assert (inner.nested, inner.parent, inner.span) == (True, world.span.context, None)
    assert (inner.session, inner.client, inner.request_id) == (outer.session, outer.client, outer.request_id)


# --- error map ---


@pytest.mark.parametrize("error", [UnknownTool("x"), InvalidTransition("session", "ready", "x")], ids=repr)
def test_a_foreseen_error_passes_and_the_request_was_invalid(error: DomainError) -> None:
    world = World(raising(error))
    with pytest.raises(DomainError) as raised:
        world.dispatch()
    assert raised.value is error
    assert world.span.ended == ("invalid", str(-len(type(error).__name__)))
    assert world.reported == []


@pytest.mark.behaviour("messages.error.internal")
@pytest.mark.parametrize("nested", [False, True])
def test_an_unforeseen_error_becomes_an_internal_one_whose_id_the_log_and_the_trace_have(*, nested: bool) -> None:
    secret = OSError("the password is swordfish")
    world = World(raising(secret))
    info = world.info(nested=nested)
    if nested:
        info.span = world.telemetry.span("request", "tools/list")
    with pytest.raises(InternalError) as raised:
        world.dispatch(info=info)
    assert str(raised.value) == "Internal error"
    assert world.reported == [(raised.value.error_id, secret)]
    assert world.span.attributes["tfo.error.id"] == raised.value.error_id
    assert world.span.ended == (None if nested else ("failed", str(-len("InternalError"))))


def test_an_internal_error_from_further_in_keeps_its_id_and_is_not_reported_again() -> None:
    world = World(raising(InternalError("the first id")))
    with pytest.raises(InternalError) as raised:
        world.dispatch()
    assert raised.value.error_id == "the first id"
    assert world.reported == []
    assert world.span.ended == ("failed", str(-len("InternalError")))


# --- session guard ---


@pytest.mark.behaviour("session.guard")
def test_before_initialize_nothing_is_handled_and_it_is_recorded() -> None:
    world = World()
    world.session = Session()
    with pytest.raises(SessionNotInitialized):
        world.dispatch()
    assert world.handled == []
    assert world.span.ended == ("invalid", str(-len("SessionNotInitialized")))
    assert (world.session.state, world.session.processing) == (SessionState.CREATED, 0)


@pytest.mark.behaviour("session.guard")
@pytest.mark.parametrize("closed", [False, True])
def test_while_it_closes_and_after_nothing_is_handled(*, closed: bool) -> None:
    world = World()
    world.session.begin_closing()
    if closed:
        world.session.close()
    with pytest.raises(SessionClosing):
        world.dispatch()
    assert world.handled == []
    assert world.span.ended == ("invalid", str(-len("SessionClosing")))


@pytest.mark.parametrize("state", ["created", "closing"])
def test_what_stands_beside_the_guard_is_handled_in_any_state_and_moves_no_session(state: str) -> None:
    world = World(giving("pong"))
    if state == "created":
        world.session = Session()
    else:
        world.session.begin_closing()
    assert world.dispatch(AskUnguarded()) == "pong"
    assert (world.session.state.value, world.session.processing) == (state, 0)


def test_the_first_request_makes_the_session_ready_and_that_is_committed_before_it_is_handled() -> None:
    async def handle(ask: Ask, info: RequestInfo) -> list[str]:
        return [event.name for event in world.sessions.events]

    world = World(handle)
    assert world.session.state is SessionState.INITIALIZING
    assert world.dispatch() == ["SessionInitialized"]
    assert world.session.state is SessionState.READY
    assert world.dispatch() == ["SessionInitialized"]


@pytest.mark.behaviour("session.ready.processing")
def test_requests_under_way_are_counted_however_they_end() -> None:
    gates = [asyncio.Event() for _ in range(3)]
    all_started = asyncio.Event()
    counted: list[int] = []

    async def run(message: Ask, info: RequestInfo) -> None:
        counted.append(info.session.processing)
        if len(counted) == len(gates):
            all_started.set()
        await gates[int(message.what)].wait()
        if message.what == "1":
            raise OSError

    world = World(run)

    async def overlap() -> Sequence[int]:
        tasks = [asyncio.ensure_future(world.bus.dispatch(Ask(str(n)), world.info())) for n in range(3)]
        after: list[int] = []
        await all_started.wait()
        for task, gate in zip(tasks, gates, strict=True):
            gate.set()
            await asyncio.wait([task])
            after.append(world.session.processing)
        assert isinstance(tasks[1].exception(), InternalError)
        return after

    assert asyncio.run(overlap()) == [2, 1, 0]
    assert counted == [1, 2, 3]


def test_a_nested_message_is_no_request_of_its_own_for_the_session() -> None:
    world = World()
    world.session = Session()
    world.dispatch(info=world.info(nested=True))
    assert len(world.handled) == 1
    assert (world.session.state, world.session.processing) == (SessionState.CREATED, 0)
    assert world.telemetry.spans == []

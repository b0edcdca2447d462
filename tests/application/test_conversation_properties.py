"""Whatever happens to conversations, in whatever order: what holds in the database after it, and at Claude's side.

Each step of an example is a storm: clients of two processes send, repeat, fork and close at once, Claude answers as
he likes, and at any moment a client cancels, a process dies, the disk fails or time passes. Then all that was begun
comes to its end, and the database is looked at.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from support.measurements import keep
from support.processes import Killed, Moments, Place, Process
from support.storms import ANSWERS, TOOLS, Answer, Api, Line
from support.whole import LOG, Found
from support.world import World, pass_time, runner
from tfo_mcp.application.budget import BudgetLimits
from tfo_mcp.application.commands import CloseConversation
from tfo_mcp.application.conversation_handler import TurnResult
from tfo_mcp.domain.conversation_record import ConversationState
from tfo_mcp.domain.errors import (
    BudgetExceeded,
    ClaudeFailure,
    ConversationBusy,
    ConversationClosed,
    ConversationNotFound,
    DomainError,
    IdempotencyKeyReused,
    MessageNotFound,
    StorageUnavailable,
    ToolFailure,
    TurnTimedOut,
)
from tfo_mcp.domain.identifiers import ConversationId
from tfo_mcp.infrastructure.persistence.storage import Storage

happened: Counter[str] = Counter()
"""What did, for those who ask how much that was."""

PATIENCE = 20.0
"""Seconds, of the loop's time, that a turn and the wait for it may take."""

END = 70.0
"""Seconds, of the same, in which all that was begun has come to its end; a storm can let `PATIENCE` pass twice."""

REFUSALS = (
    BudgetExceeded,
    ClaudeFailure,
    ConversationClosed,
    ConversationNotFound,
    IdempotencyKeyReused,
    StorageUnavailable,
    TurnTimedOut,
)
"""What a sender may be told; not that somebody else was faster: whoever has the lock is alone."""


@dataclass(frozen=True)
class Order:
    """What a client wants. `place` picks the conversation, message or key, of those that there are."""

    kind: str
    process: int
    place: int
    keyed: bool


@dataclass(frozen=True)
class Strike:
    """What happens at a moment, to a client or to the process whose moment it is."""

    kind: str
    place: Place
    moment: int
    client: int


orders = st.builds(
    Order,
    kind=st.sampled_from(("send", "send", "send", "again", "begin", "fork", "close")),
    process=st.integers(0, 1),
    place=st.integers(0, 9),
    keyed=st.booleans(),
)
strikes = st.builds(
    Strike,
    kind=st.sampled_from(("cancel", "kill", "kill", "disk", "time")),
    place=st.sampled_from(("anywhere", "storage", "Claude", "tool")),
    moment=st.one_of(st.integers(1, 8), st.integers(1, 50)),
    client=st.integers(0, 3),
)
answers = st.builds(
    Answer,
    kind=st.sampled_from((*ANSWERS, *["tools"] * 8)),
    tools=st.lists(st.sampled_from((*TOOLS, "strike", "no_such")), min_size=1, max_size=4),
)


@dataclass
class Sent:
    """A message, and what those who sent it were told; they are several where it has a key.

    Attributes:
        disturbed: one of them was told nothing, or the disk failed.
        may_wait: one of them left it behind, for his process died.
    """

    text: str
    key: str | None
    sent_to: str | None
    results: list[TurnResult] = field(default_factory=list[TurnResult])
    failures: list[DomainError] = field(default_factory=list[DomainError])
    disturbed: bool = False
    may_wait: bool = False

    @property
    def is_kept(self) -> bool:
        """Whether one was told that it is."""
        return any(isinstance(failure, ToolFailure) and failure.kept_in for failure in self.failures)


@cache
def empty_database() -> bytes:
    """With the schema and the log; made once."""

    async def make(path: Path) -> None:
        storage = Storage(path)
        await storage.open()
        await storage.close()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tfo-mcp.db"
        asyncio.run(make(path))
        with closing(sqlite3.connect(path)) as database:
            database.executescript(LOG)
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return path.read_bytes()


class Conversations(RuleBasedStateMachine):
    """Two processes, their clients and Claude."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.database = self.folder / "tfo-mcp.db"
        self.database.write_bytes(empty_database())
        self.runner = runner()
        self.runner.get_loop().set_exception_handler(self._nobody_asked)
        self.unasked: list[object] = []
        self.api = Api()
        self.moments = Moments()
        self.processes: list[Process] = []
        self.sent: list[Sent] = []
        self.closed: dict[str, Sequence[object]] = {}
        self.disk_failed = False
        self.max_steps = 0
        self.budget = BudgetLimits()

    @initialize(max_steps=st.sampled_from((3, 20)), budget=st.sampled_from((None, None, 3_000)))
    def begin(self, max_steps: int, budget: int | None) -> None:
        self.max_steps = max_steps
        self.budget = BudgetLimits(conversation=budget)
        self.runner.run(self._start())
        self.runner.run(self._start())

    async def _start(self) -> None:
        self.processes.append(Process(self.folder, self.moments, self._world))

    def _world(self, process: Process) -> World:
        tools = self.api.tools(process)
        return World(
            claude=Line(self.api, process),
            tools=tools,
            allowed=tools,
            storage=process.repository,
            file_locks=process.locks,
            timeout=PATIENCE,
            patience=PATIENCE,
            max_steps=self.max_steps,
            budget=self.budget,
        )

    def _nobody_asked(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), Killed):
            self.unasked.append(context)

    def teardown(self) -> None:
        async def bury() -> None:
            for process in self.processes:
                await process.bury()

        self.runner.run(bury())
        self.runner.close()
        shutil.rmtree(self.folder)

    # --- what happens --------------------------------------------------------------------------------

    @rule(
        orders=st.lists(orders, min_size=1, max_size=4),
        answers=st.lists(answers, max_size=5),
        strikes=st.lists(strikes, max_size=2),
        then=st.sampled_from(("the next", "go on", "restart")),
    )
    def storm(self, orders: Sequence[Order], answers: Sequence[Answer], strikes: Sequence[Strike], then: str) -> None:
        happened["storms"] += 1
        self.api.answers = list(answers)
        self.disk_failed = any(strike.kind == "disk" for strike in strikes)
        self.runner.run(self._storm(orders, strikes))
        self.api.answers = []
        self.disk_failed = False
        self.all_is_whole()
        if then == "restart":
            self._restart()
        if then != "the next":
            self._go_on()

    def _restart(self) -> None:
        """The older process ends, and another one begins, which has nothing in memory."""
        happened["restarts"] += 1
        self.runner.run(self.processes.pop(0).bury())
        self.runner.run(self._start())

    def _go_on(self) -> None:
        """In every conversation that is open, whatever happened to it before."""
        for conversation in self._found().conversations:
            if conversation["state"] != ConversationState.CLOSED.value:
                sent = self._new(conversation["id"])
                self.runner.run(asyncio.wait_for(self._send(self.processes[-1], sent), END))
                self._check_went_on(sent)

    def _check_went_on(self, sent: Sent) -> None:
        if not sent.results:
            assert [type(failure) for failure in sent.failures] == [BudgetExceeded]
            return
        assert sent.results[0].stop_reason in {"end_turn", "budget"}
        found = self._found()
        (now,) = (row for row in found.conversations if row["id"] == sent.sent_to)
        assert (now["state"], now["open_request"], now["failures"]) == (ConversationState.ACTIVE.value, None, 0)
        assert not found.of("pending_sends", now["id"])
        assert all(turn["state"] != "running" for turn in found.of("turns", now["id"]))

    async def _storm(self, orders: Sequence[Order], strikes: Sequence[Strike]) -> None:
        there = [row["id"] for row in self._found().conversations]
        before = asyncio.all_tasks()
        tasks = [self.processes[order.process].start(self._do(order, there)) for order in orders]
        for strike in strikes:
            self.moments.at(strike.place, strike.moment, partial(self._strike, strike, tasks))
        async with asyncio.timeout(END):
            while left := asyncio.all_tasks() - before:
                await asyncio.wait(left)
        self.moments.due.clear()
        for process in tuple(self.processes):
            process.disk.failing = 0
            if process.is_dead:
                self.processes.remove(process)
                await process.bury()
                await self._start()
        for task in tasks:
            if not task.cancelled() and not isinstance(task.exception(), Killed):
                task.result()

    def _strike(self, strike: Strike, tasks: Sequence[asyncio.Task[None]], process: Process) -> None:
        happened[f"{strike.kind} at {strike.place}"] += 1
        match strike.kind:
            case "cancel":
                tasks[strike.client % len(tasks)].cancel()
            case "kill":
                process.kill()
            case "disk":
                process.disk.failing = 1 + strike.moment % 4
            case _:
                pass_time(PATIENCE + 1)

    # --- what clients do -----------------------------------------------------------------------------

    async def _do(self, order: Order, there: Sequence[str]) -> None:
        process = self.processes[order.process]
        keyed = [sent for sent in self.sent if sent.key is not None]
        conversation_id = there[order.place % len(there)] if there else None
        happened[order.kind] += 1
        match order.kind:
            case "again" if keyed:
                await self._send(process, keyed[order.place % len(keyed)])
            case "fork" if conversation_id is not None:
                await self._fork(process, conversation_id, order.place)
            case "close" if conversation_id is not None:
                await self._close(process, conversation_id)
            case "begin":
                await self._send(process, self._new(None, keyed=order.keyed))
            case _:
                await self._send(process, self._new(conversation_id, keyed=order.keyed))

    def _new(self, conversation_id: str | None, *, keyed: bool = False) -> Sent:
        number = len(self.sent) + 1
        self.sent.append(Sent(f"message {number}", f"key {number}" if keyed else None, conversation_id))
        return self.sent[-1]

    async def _send(self, process: Process, sent: Sent) -> None:
        before = len(sent.failures)
        try:
            sent.results.append(await process.world.send(sent.text, sent.sent_to, key=sent.key))
        except REFUSALS as refusal:
            sent.failures.append(refusal)
        except (Killed, asyncio.CancelledError):
            sent.disturbed = True
            raise
        finally:
            sent.disturbed |= self.disk_failed
            sent.may_wait |= process.is_dead
        if not self.disk_failed:
            assert not any(isinstance(failure, StorageUnavailable) for failure in sent.failures[before:])

    async def _fork(self, process: Process, conversation_id: str, place: int) -> None:
        try:
            fork = await process.forks.fork(ConversationId(conversation_id), "local", None, lambda _: None)
            await process.forks.fork(fork.id, "local", place % fork.messages, lambda _: None)
        except (ConversationNotFound, MessageNotFound, StorageUnavailable):
            return

    async def _close(self, process: Process, conversation_id: str) -> None:
        info = process.world.info(measured=False)
        try:
            closed = await process.world.conversations.close(CloseConversation(conversation_id), info)
        except (ConversationBusy, ConversationNotFound, StorageUnavailable):
            return
        assert closed.state is ConversationState.CLOSED

    # --- what always holds ---------------------------------------------------------------------------

    def _found(self) -> Found:
        return Found(self.database, self.max_steps)

    @invariant()
    def all_is_whole(self) -> None:
        assert not self.unasked
        found = self._found()
        found.check()
        assert found.requests() >= self.api.asked
        assert all(self.api.ran[call] <= 1 for call in self.api.once)
        assert not any(self.api.ran[call] for call in self.api.never)
        closed = [row for row in found.conversations if row["state"] == ConversationState.CLOSED.value]
        for conversation in closed:
            now = found.all_of(conversation)
            assert self.closed.setdefault(conversation["id"], now) == now
        assert self.closed.keys() <= {conversation["id"] for conversation in closed}
        for sent in self.sent:
            self._check_told(sent, found)

    def _check_told(self, sent: Sent, found: Found) -> None:
        """Each message is in its conversation, waits, or was given up; and those who sent it know."""
        delivered, holder = found.delivered.get(sent.text), found.waiting.get(sent.text)
        assert delivered is None or holder is None
        if holder is not None:
            assert sent.may_wait
        if sent.results:
            assert {result.conversation_id for result in sent.results} == {delivered}
            assert len({result.turn for result in sent.results}) == 1
        if sent.is_kept:
            assert delivered is not None
        if delivered is None and holder is None:
            assert sent.disturbed or sent.failures
        if delivered is not None and not (sent.results or sent.is_kept or sent.disturbed):
            assert delivered in self.closed


def hold(examples: int, steps: int, *, the_same: bool = False) -> None:
    """In so many examples of so many steps; a failing one is made smaller where that helps: not with threads in it."""
    run_state_machine_as_test(
        Conversations,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=the_same,
            phases=(Phase.explicit, Phase.reuse, Phase.generate),
            suppress_health_check=[],
        ),
    )


@pytest.mark.behaviour("conversation.survives.anywhere")
def test_whatever_happens_conversations_stay_whole() -> None:
    hold(22, 8, the_same=True)


@pytest.mark.ci
@pytest.mark.behaviour("conversation.survives.anywhere")
def test_whatever_else_happens_conversations_stay_whole() -> None:
    hold(40, 12, the_same=True)


@pytest.mark.soak
@pytest.mark.behaviour("conversation.survives.anywhere")
def test_whatever_happens_for_a_long_time_conversations_stay_whole() -> None:
    began = time.monotonic()
    happened.clear()
    hold(100, 30)
    keep("conversation-storms", began, {"violations": 0, "happened": dict(happened.most_common())})

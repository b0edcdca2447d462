"""What a client learns of its turn while it waits."""

from __future__ import annotations

import asyncio

import pytest

from support.tool_calls import FakeClient
from support.world import Arriving, Silence, World, pass_time, run, says, tool, until, uses
from tfo_mcp.application.commands import SendMessage
from tfo_mcp.application.conversation_handler import TurnResult
from tfo_mcp.domain.message import OpaqueBlock, ToolUse

TOKEN = "p"  # noqa: S105  # of progress
PACE = 0.2
HEARTBEAT = 5.0
THOUGHT = OpaqueBlock({"type": "thinking", "thinking": "Hm.", "signature": "EqQB"})


def messages(world: World) -> list[str]:
    return [message or "" for _, _, _, message in world.client.told]


async def until_told(world: World, message: str) -> None:
    """Until the newest notification is `message`; each may come as soon as the pace allows it."""
    await until(lambda: bool(world.client.told))
    if messages(world)[-1] != message:
        pass_time(PACE)
        await until(lambda: messages(world)[-1] == message)


async def run_what_is_due() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def begin(world: World, *, conversation_id: str | None = None) -> asyncio.Task[TurnResult]:
    return asyncio.create_task(world.command(SendMessage("Hello", conversation_id), progress_token=TOKEN))


@pytest.mark.behaviour("progress.increases")
def test_a_client_follows_a_turn_by_phase_tool_text_and_tokens() -> None:
    async def scenario() -> None:
        running, ran = asyncio.Event(), asyncio.Event()

        async def look() -> None:
            running.set()
            await ran.wait()

        silence = Silence()
        world = World(uses("look"), Arriving(THOUGHT, end=silence), tools=[tool("look", look)])
        sending = begin(world)
        await running.wait()
        await until_told(world, "running look (18 tokens so far)")
        ran.set()
        await silence.asked.wait()
        await until_told(world, "Claude is thinking (34 tokens so far)")
        silence.over.set()
        await sending
        tokens, values, totals = zip(
            *((token, value, total) for token, value, total, _ in world.client.told), strict=True
        )
        assert set(tokens) == {"p"}
        assert set(totals) == {None}
        assert list(values) == sorted(set(values))

    run(scenario())


def test_text_is_told_as_it_comes_and_a_call_by_its_name() -> None:
    async def scenario() -> None:
        silence, calling = Silence(), Silence()
        world = World(
            Arriving("Once upon ", "a time", end=silence),
            Arriving("Wait.", ToolUse("toolu_look", "look", {}), end=calling),
        )
        first = begin(world)
        await silence.asked.wait()
        await until_told(world, "Claude is writing (16 tokens so far): Once upon a time")
        silence.over.set()
        await first
        second = begin(world)
        await calling.asked.wait()
        await until_told(world, "Claude is calling look (16 tokens so far): Wait.")
        calling.over.set()
        await second

    run(scenario())


def test_of_a_long_text_the_newest_is_told() -> None:
    async def scenario() -> None:
        silence = Silence()
        world = World(Arriving("a" * 5000, "b" * 1999, end=silence))
        sending = begin(world)
        await silence.asked.wait()
        await until_told(world, "Claude is writing (16 tokens so far): a" + "b" * 1999)
        silence.over.set()
        await sending

    run(scenario())


def test_while_nothing_happens_the_client_hears_that_the_turn_is_alive() -> None:
    async def scenario() -> None:
        silence = Silence()
        world = World(silence, timeout=600)
        sending = begin(world)
        await silence.asked.wait()
        await until_told(world, "waiting for Claude (0 tokens so far)")
        assert messages(world) == [f"waiting for {what} (0 tokens so far)" for what in ("its turn", "Claude")]
        for _ in range(3):
            before = len(world.client.told)
            pass_time(PACE)
            await run_what_is_due()
            pass_time(HEARTBEAT - PACE)
            await run_what_is_due()
            assert len(world.client.told) == before + 1
            assert messages(world)[-1] == "waiting for Claude (0 tokens so far)"
        silence.over.set()
        await sending

    run(scenario())


def test_who_waits_for_the_turns_before_his_hears_so() -> None:
    async def scenario() -> None:
        silence = Silence()
        world = World(silence)
        working = asyncio.create_task(world.send())
        await silence.asked.wait()
        queued = begin(world, conversation_id=world.created())
        await world.until_accepted(1)
        await until_told(world, "waiting for its turn (0 tokens so far)")
        silence.over.set()
        await asyncio.gather(working, queued)

    run(scenario())


def test_a_client_that_did_not_ask_hears_nothing() -> None:
    async def scenario() -> None:
        world = World(Arriving("So ", end=says("far.")))
        await world.send()
        assert world.client.told == []

    run(scenario())


def test_after_the_answer_nothing_more_is_told() -> None:
    async def scenario() -> None:
        world = World(Arriving("So ", end=says("far.")))
        await begin(world)
        told = list(world.client.told)
        pass_time(10 * HEARTBEAT)
        await run_what_is_due()
        assert world.client.told == told

    run(scenario())


def test_a_turn_does_not_wait_for_a_client_that_does_not_read() -> None:
    class Deaf(FakeClient):
        async def progress(
            self, token: str | int, progress: float, total: float | None = None, message: str | None = None
        ) -> None:
            await asyncio.Event().wait()

    async def scenario() -> None:
        world = World(uses("look"), says("I looked."), tools=[tool("look")])
        world.client = Deaf()
        turn = await begin(world)
        assert turn.text == "I looked."

    run(scenario())

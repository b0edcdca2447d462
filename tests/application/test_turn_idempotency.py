"""A message that is sent again with its key is not said twice."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from support.world import Arriving, Silence, World, run, says, texts, tool, uses, waiting
from tfo_mcp.application.budget import BudgetLimits
from tfo_mcp.application.commands import SendMessage
from tfo_mcp.domain.errors import (
    BudgetExceeded,
    ClaudeFailure,
    ConversationClosed,
    IdempotencyKeyReused,
    ToolsNotAllowed,
)

FAILURE = ClaudeFailure("overloaded", status=529, counts=True)


def test_the_same_message_with_the_same_key_gets_the_same_answer_without_a_request() -> None:
    async def scenario() -> None:
        world = World(uses("look"), says("One."), says("Two."), tools=[tool("look")])
        first = await world.send("Hello", key="1")
        await world.send("And?", first.conversation_id, key="2")
        stored = texts(await world.stored(first.conversation_id))
        for process in (world, world.died()):
            assert await process.send("Hello", key="1") == first
            assert await process.send("Hello", first.conversation_id, key="1") == first
            assert process.scripted.requests == (world.scripted.requests if process is world else [])
        assert texts(await world.stored(first.conversation_id)) == stored
        assert len(world.scripted.requests) == 3

    run(scenario())


def test_an_answer_is_given_again_of_a_conversation_that_is_closed_but_nothing_new_is_said_in_it() -> None:
    async def scenario() -> None:
        world = World(says("One."), FAILURE, FAILURE, FAILURE)
        first = await world.send("Hello", key="1")
        for number in range(3):
            with pytest.raises(ClaudeFailure):
                await world.send("And?", first.conversation_id, key=f"and {number}")
        assert await world.send("Hello", key="1") == first
        for key in ("and 2", "new"):
            with pytest.raises(ConversationClosed):
                await world.send("And?", first.conversation_id, key=key)
        assert await world.rows("SELECT count(*) FROM pending_sends") == [(0,)]

    run(scenario())


def test_an_answer_is_given_again_though_nothing_new_could_be_asked_any_more() -> None:
    async def scenario() -> None:
        look, asked = tool("look"), SendMessage("Hello", tools=("look",), idempotency_key="1")
        world = World(says("One."), tools=[look])
        first = await world.command(asked)
        stricter = World(storage=world.storage, tools=[look], allowed=[], budget=BudgetLimits(day=1))
        assert await stricter.command(asked) == first
        with pytest.raises(ToolsNotAllowed):
            await stricter.command(replace(asked, idempotency_key="2"))
        with pytest.raises(BudgetExceeded):
            await stricter.send(key="3")
        tables = ("conversations", "turns", "pending_sends")
        assert [await world.rows(f"SELECT count(*) FROM {table}") for table in tables] == [[(1,)], [(1,)], [(0,)]]  # noqa: S608  # names of ours

    run(scenario())


@pytest.mark.parametrize("what", ["message", "conversation", "options"])
def test_a_key_that_comes_with_something_else_is_refused_and_nothing_is_stored_or_sent(what: str) -> None:
    async def scenario() -> None:
        world = World()
        asked = SendMessage("Hello", idempotency_key="1")
        other = (await world.send("Another")).conversation_id
        await world.command(asked)
        before = await world.rows("SELECT id, fence FROM conversations ORDER BY id")
        changed = {
            "message": replace(asked, message="Hello!"),
            "conversation": replace(asked, conversation_id=other),
            "options": replace(asked, max_tokens=7),
        }
        with pytest.raises(IdempotencyKeyReused, match="another message, conversation or options"):
            await world.command(changed[what])
        assert await world.rows("SELECT id, fence FROM conversations ORDER BY id") == before
        assert len(world.scripted.requests) == 2

    run(scenario())


def test_each_principal_has_keys_of_its_own() -> None:
    async def scenario() -> None:
        world = World(says("One."), says("Two."))
        assert (await world.send("Hello", key="1")).text == "One."
        assert (await world.send("Hello", key="1", principal="somebody else")).text == "Two."

    run(scenario())


@pytest.mark.parametrize("mishap", ["failed", "cancelled"])
def test_a_turn_that_was_not_answered_is_continued_and_its_message_not_said_again(mishap: str) -> None:
    async def scenario() -> None:
        silence = Silence()
        end = FAILURE if mishap == "failed" else silence
        world = World(uses("look"), Arriving("So ", end=end), says("far."), tools=[tool("look")])
        sending = asyncio.create_task(world.send("Hello", key="1"))
        if mishap == "cancelled":
            await silence.asked.wait()
            sending.cancel()
        with pytest.raises((ClaudeFailure, asyncio.CancelledError)):
            await sending
        turn = await world.send("Hello", key="1")
        assert (turn.turn, turn.text, turn.stop_reason, turn.tool_calls) == (1, "So far.", "end_turn", 1)
        assert [text for text in texts(await world.stored(turn.conversation_id)) if text == "user: Hello"] == [
            "user: Hello"
        ]
        assert len(world.scripted.requests) == 3
        assert await world.send("Hello", key="1") == turn

    run(scenario())


def test_a_message_that_was_not_answered_is_refused_once_the_conversation_went_on() -> None:
    async def scenario() -> None:
        world = World(FAILURE)
        with pytest.raises(ClaudeFailure):
            await world.send("Hello", key="1")
        conversation_id = world.created()
        await world.send("Are you there?", conversation_id)
        with pytest.raises(IdempotencyKeyReused, match="the conversation went on without it"):
            await world.send("Hello", conversation_id, key="1")
        assert len((await world.stored(conversation_id)).messages) == 3

    run(scenario())


@pytest.mark.parametrize("processes", [1, 2])
def test_two_at_once_are_one_turn_and_both_get_its_answer(processes: int) -> None:
    async def scenario() -> None:
        silence = Silence()
        world = World(silence)
        other = world if processes == 1 else World(storage=world.storage, locks=world.locks)
        first = asyncio.create_task(world.send("Hello", key="1"))
        if other is not world:  # or the other one's Claude might be the one who is asked
            await silence.asked.wait()
        second = asyncio.create_task(other.send("Hello", key="1"))
        await silence.asked.wait()
        assert not second.done()
        silence.over.set()
        assert await first == await second
        assert len(world.scripted.requests) == 1
        assert other is world or other.scripted.requests == []
        assert await world.rows("SELECT count(*) FROM turns") == [(1,)]
        assert await world.rows("SELECT count(*) FROM conversations") == [(1,)]

    run(scenario())


def test_a_message_whose_first_sender_gave_up_waiting_is_said_by_the_second() -> None:
    async def scenario() -> None:
        silence = Silence()
        world = World(silence)
        working, conversation_id = await waiting(world, silence)
        first = asyncio.create_task(world.send("And?", conversation_id, key="1"))
        await world.until_accepted(1)
        second = asyncio.create_task(world.send("And?", conversation_id, key="1"))
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        silence.over.set()
        await working
        assert (await second).turn == 2
        assert texts(await world.stored(conversation_id))[2:] == ["user: And?", "assistant: Done."]

    run(scenario())


def test_a_message_that_waited_in_a_process_that_died_is_taken_over_by_whoever_sends_it_again() -> None:
    async def scenario() -> None:
        silence = Silence()
        dead = World(silence)
        _, conversation_id = await waiting(dead, silence)
        left = asyncio.create_task(dead.send("And?", conversation_id, key="1"))
        await dead.until_accepted(1)
        world = dead.died(says("One."), says("Two."))
        turn = await world.send("And?", conversation_id, key="1")
        assert (turn.turn, turn.text, turn.continued) == (2, "Two.", True)
        assert texts(await world.stored(conversation_id)) == [
            "user: Hello",
            "assistant: One.",
            "user: And?",
            "assistant: Two.",
        ]
        assert await world.send("And?", conversation_id, key="1") == replace(turn, continued=False)
        assert not left.done()

    run(scenario())


def test_a_turn_of_a_process_that_died_is_continued_by_whoever_sends_its_message_again() -> None:
    async def scenario() -> None:
        silence = Silence()
        dead = World(silence)
        asyncio.create_task(dead.send("Hello", key="1"))  # noqa: RUF006  # it is left where it is
        await silence.asked.wait()
        world = dead.died(says("One."))
        turn = await world.send("Hello", key="1")
        assert (turn.text, turn.unknown_requests, turn.conversation_id) == ("One.", 1, dead.created())
        assert texts(await world.stored(turn.conversation_id)) == ["user: Hello", "assistant: One."]

    run(scenario())

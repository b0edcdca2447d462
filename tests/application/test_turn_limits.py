"""What ends a turn before Claude does, and what is not begun at all."""

from __future__ import annotations

import asyncio
import time

import pytest

from support.world import Arriving, Silence, World, pass_time, run, says, texts, tool, uses, waiting
from tfo_mcp.application.budget import BudgetLimits
from tfo_mcp.application.commands import SendMessage
from tfo_mcp.domain.conversation_record import ConversationState
from tfo_mcp.domain.errors import BudgetExceeded, ClaudeFailure, ToolsNotAllowed
from tfo_mcp.domain.message import Text, ToolUse, Usage
from tfo_mcp.domain.turn import TurnState

DAY = 86_400

# --- tokens and steps ----------------------------------------------------------------------------------


def test_a_turn_never_asks_for_more_tokens_than_it_has_left_and_says_which_limit_cut_it() -> None:
    async def scenario() -> None:
        cut = says("and so", stop_reason="max_tokens")
        world = World(uses("look"), uses("look"), cut, tools=[tool("look")], max_turn_tokens=12)
        turn = await world.send()
        assert [asked.max_tokens for asked in world.scripted.requests] == [12, 7, 2]
        assert turn.stop_reason == "max_turn_tokens"

    run(scenario())


def test_an_answer_that_its_own_limit_cut_is_not_the_turns_matter() -> None:
    async def scenario() -> None:
        world = World(says("and so", stop_reason="max_tokens"), max_turn_tokens=100)
        assert (await world.send()).stop_reason == "max_tokens"
        assert world.scripted.requests[0].max_tokens == 100

    run(scenario())


def test_a_turn_ends_with_its_last_token_and_runs_no_more_tools() -> None:
    async def scenario() -> None:
        ran: list[str] = []
        world = World(uses("look"), tools=[tool("look", lambda: ran.append("look"))], max_turn_tokens=5)
        turn = await world.send()
        assert (turn.stop_reason, turn.text, ran, len(world.scripted.requests)) == ("max_turn_tokens", "Wait.", [], 1)
        assert texts(await world.stored(turn.conversation_id))[-1] == (
            "toolu_look: failed: This tool call was not run: the turn had its last token."
        )
        assert (await world.send("Go on", turn.conversation_id)).stop_reason == "end_turn"

    run(scenario())


def test_a_turn_that_failed_with_its_last_token_is_not_continued_beyond_it() -> None:
    async def scenario() -> None:
        broken = Arriving("So", end=ClaudeFailure("broke off", may_have_cost=True), usage=Usage(10, 5, 0, 0))
        world = World(broken, max_turn_tokens=5)
        with pytest.raises(ClaudeFailure):
            await world.send(key="1")
        turn = await world.send(key="1")
        assert (turn.stop_reason, turn.unknown_requests, len(world.scripted.requests)) == ("max_turn_tokens", 1, 1)

    run(scenario())


# --- time ----------------------------------------------------------------------------------------------


@pytest.mark.behaviour("conversation.cancelled")
def test_a_turn_whose_time_is_over_keeps_what_claude_had_written_and_what_it_took() -> None:
    async def scenario() -> None:
        silence = Silence()
        arriving = Arriving("Once upon ", ToolUse("toolu_look", "look", {}), "a time", end=silence)
        world = World(arriving, tools=[tool("look")], timeout=60)
        sending, conversation_id = await waiting(world, silence)
        pass_time(61)
        turn = await sending
        assert (turn.text, turn.stop_reason) == ("Once upon a time", "timeout")
        assert (turn.usage, turn.unknown_requests) == (Usage(10, 3, 2, 1), 1)
        stored = await world.stored(conversation_id)
        assert stored.messages[-1].content == (Text("Once upon a time"),)
        assert (stored.state, stored.usage, stored.turn and stored.turn.state) == (
            ConversationState.ACTIVE,
            Usage(10, 3, 2, 1),
            TurnState.ENDED,
        )

    run(scenario())


def test_a_tool_that_takes_too_long_for_its_turn_is_stopped_and_said_to_be() -> None:
    async def scenario() -> None:
        never, begun = asyncio.Event(), asyncio.Event()

        async def hang() -> None:
            begun.set()
            await never.wait()

        world = World(uses("slow", "fast"), tools=[tool("slow", hang), tool("fast")], timeout=60)
        sending = asyncio.create_task(world.send())
        await begun.wait()
        pass_time(61)
        turn = await sending
        assert turn.stop_reason == "timeout"
        assert (await world.stored(turn.conversation_id)).open_calls() == []
        assert "toolu_slow: failed: This tool call was stopped: the turn's time was over." in texts(
            await world.stored(turn.conversation_id)
        )

    run(scenario())


def test_a_request_that_was_stopped_before_it_was_sent_took_nothing_and_leaves_nothing_waiting() -> None:
    async def scenario() -> None:
        world = World(timeout=60)
        world.storage.slow = Silence()
        sending = asyncio.create_task(world.send())
        await world.storage.slow.asked.wait()
        world.storage.slow = None
        pass_time(61)
        turn = await sending
        assert (turn.stop_reason, turn.unknown_requests, world.scripted.requests) == ("timeout", 0, [])
        stored = await world.stored(turn.conversation_id)
        assert (stored.state, stored.unknown_requests) == (ConversationState.ACTIVE, 0)
        assert await world.rows("SELECT outcome FROM claude_requests") == [("cancelled",)]

    run(scenario())


def test_a_request_that_was_stopped_before_its_first_attempt_took_nothing() -> None:
    async def scenario() -> None:
        silence = Silence(sent=False)
        world = World(silence, timeout=60)
        sending, conversation_id = await waiting(world, silence)
        pass_time(61)
        turn = await sending
        assert (turn.stop_reason, turn.unknown_requests) == ("timeout", 0)
        assert (await world.stored(conversation_id)).unknown_requests == 0

    run(scenario())


def test_an_answer_that_was_there_in_time_is_told_although_its_commit_was_late() -> None:
    async def scenario() -> None:
        silence = Silence()
        world = World(silence, timeout=60)
        sending, conversation_id = await waiting(world, silence)
        await while_it_is_committed(world, silence)
        pass_time(61)
        turn = await sending
        assert (turn.stop_reason, turn.text) == ("end_turn", "Done.")
        stored = await world.stored(conversation_id)
        assert (stored.turn and stored.turn.state, texts(stored)[-1]) == (TurnState.ENDED, "assistant: Done.")

    run(scenario())


def test_an_answer_whose_commit_was_cancelled_is_the_turns_end_and_not_asked_for_again() -> None:
    async def scenario() -> None:
        silence = Silence()
        world = World(silence)
        sending = asyncio.create_task(world.send(key="1"))
        await silence.asked.wait()
        await while_it_is_committed(world, silence)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        turn = await world.send(key="1")
        assert (turn.stop_reason, turn.text, len(world.scripted.requests)) == ("end_turn", "Done.", 1)

    run(scenario())


async def while_it_is_committed(world: World, silence: Silence) -> None:
    """Claude answers, and the answer is being committed."""
    world.storage.slow = slow = Silence()
    silence.over.set()
    await slow.asked.wait()
    world.storage.slow = None


# --- the budget ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("period", ["turn", "conversation", "day"])
def test_what_would_pass_the_budget_is_refused_before_anything_is_stored_or_sent(period: str) -> None:
    async def scenario() -> None:
        world = World(budget=BudgetLimits(**{period: 10}))
        with pytest.raises(BudgetExceeded, match=rf"^claude\.budget\.{period} is 10 tokens, 0 are used, .*not"):
            await world.send("x" * 100)
        assert world.scripted.requests == []
        assert world.publisher.events == []
        assert await stored_rows(world) == [0, 0, 0, 0]

    run(scenario())


@pytest.mark.parametrize("key", [None, "1"])
@pytest.mark.parametrize("period", ["conversation", "day"])
def test_a_budget_that_is_used_up_refuses_the_next_message_and_leaves_the_conversation_as_it_was(
    period: str, key: str | None
) -> None:
    async def scenario() -> None:
        world = World(budget=BudgetLimits(**{period: 40}))
        conversation_id = (await world.send("Hello")).conversation_id
        before = await stored_rows(world)
        with pytest.raises(BudgetExceeded, match=f"{period} is 40 tokens, 18 are used"):
            await world.send("x" * 60, conversation_id, key=key)
        assert (len(world.scripted.requests), await stored_rows(world)) == (1, before)
        assert (await world.stored(conversation_id)).state is ConversationState.ACTIVE

    run(scenario())


def test_the_day_counts_every_conversation_of_the_principal_and_nothing_of_yesterday() -> None:
    async def scenario() -> None:
        world = World(budget=BudgetLimits(day=40))
        await world.send("Hello")
        with pytest.raises(BudgetExceeded):
            await world.send("x" * 60)
        await world.send("x" * 60, principal="somebody else")
        await world.rows("UPDATE claude_requests SET started_at = ?", time.time() // DAY * DAY - 1)
        assert (await world.send("x" * 60)).stop_reason == "end_turn"

    run(scenario())


def test_a_new_system_prompt_counts_before_it_is_taken() -> None:
    async def scenario() -> None:
        world = World(budget=BudgetLimits(turn=100))
        with pytest.raises(BudgetExceeded):
            await world.command(SendMessage("Hello", system_prompt="x" * 600))
        assert await stored_rows(world) == [0, 0, 0, 0]

    run(scenario())


def test_a_turn_ends_with_its_budget_and_every_answer_is_kept_short_enough_for_it() -> None:
    async def scenario() -> None:
        wordy = says("and so", stop_reason="max_tokens")
        world = World(uses("look"), wordy, tools=[tool("look")], budget=BudgetLimits(turn=110))
        turn = await world.send()
        first, second = world.scripted.requests
        assert 5 < second.max_tokens < first.max_tokens < 100
        assert turn.stop_reason == "budget"

    run(scenario())


def test_where_tools_used_up_the_budget_the_turn_ends_without_asking_again() -> None:
    async def scenario() -> None:
        world = World(uses("look"), tools=[tool("look")], budget=BudgetLimits(turn=50))
        turn = await world.send("Hi")
        assert (turn.stop_reason, turn.tool_calls, len(world.scripted.requests)) == ("budget", 1, 1)
        stored = await world.stored(turn.conversation_id)
        assert texts(stored)[-1] == "toolu_look: look ran"
        assert stored.turn is not None
        assert stored.turn.state is TurnState.ENDED

    run(scenario())


def test_what_an_interrupted_turn_took_is_not_taken_from_the_next_ones_budget() -> None:
    async def scenario() -> None:
        silence, budget = Silence(), BudgetLimits(turn=110)
        world = World(uses("look"), silence, tools=[tool("look")], budget=budget)
        _, conversation_id = await waiting(world, silence)
        turn = await world.died(tools=[tool("look")], budget=budget).send("x" * 60, conversation_id)
        assert (turn.continued, turn.stop_reason, turn.usage) == (True, "end_turn", Usage(10, 5, 2, 1))

    run(scenario())


async def stored_rows(world: World) -> list[int]:
    """How many conversations, turns, waiting sends and requests there are."""
    tables = ("conversations", "turns", "pending_sends", "claude_requests")
    return [(await world.rows(f"SELECT count(*) FROM {table}"))[0][0] for table in tables]  # noqa: S608  # names of ours


# --- tools ---------------------------------------------------------------------------------------------


def test_a_send_may_ask_for_fewer_tools_than_are_allowed_and_claude_can_run_no_other() -> None:
    async def scenario() -> None:
        ran: list[str] = []
        tools = [tool("look", lambda: ran.append("look")), tool("list", lambda: ran.append("list"))]
        world = World(uses("look", "list"), tools=tools)
        turn = await world.command(SendMessage("Hello", tools=("look",)))
        assert [[offered.name for offered in asked.tools] for asked in world.scripted.requests] == [["look"]] * 2
        assert ran == ["look"]
        assert "toolu_list: failed: there is no tool 'list' in this conversation" in texts(
            await world.stored(turn.conversation_id)
        )
        await world.command(SendMessage("Hello", tools=()))
        assert world.scripted.requests[-1].tools == []

    run(scenario())


def test_what_the_operator_does_not_allow_cannot_be_asked_for() -> None:
    async def scenario() -> None:
        look, erase = tool("look"), tool("erase", read_only=False)
        world = World(tools=[look, erase], allowed=[look])
        with pytest.raises(ToolsNotAllowed, match=r"^Claude may not use 'erase', 'no_such' here; .* are: look$"):
            await world.command(SendMessage("Hello", tools=("look", "erase", "no_such")))
        assert (world.scripted.requests, world.publisher.events) == ([], [])

    run(scenario())


def test_what_the_operator_allows_may_change_something() -> None:
    async def scenario() -> None:
        erase = tool("erase", read_only=False)
        world = World(uses("erase"), tools=[erase], allowed=[erase])
        turn = await world.send()
        assert "toolu_erase: erase ran" in texts(await world.stored(turn.conversation_id))

    run(scenario())

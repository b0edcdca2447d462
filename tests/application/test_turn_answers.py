"""What is kept of an answer, however it ends; and that ledger, turns and conversation agree on what it took."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from support.world import Arriving, Silence, Step, World, run, says, texts, tool, uses, waiting
from tfo_mcp.application.ports import Attempt
from tfo_mcp.domain.conversation_record import ConversationState
from tfo_mcp.domain.errors import ClaudeFailure
from tfo_mcp.domain.message import OpaqueBlock, Text, ToolUse, Usage

THOUGHT = OpaqueBlock({"type": "thinking", "thinking": "Hm.", "signature": "EqQB"})
CALL = ToolUse("toolu_look", "look", {})
REFUSED = Attempt(number=1, status=529, error_type="529", request_id=None, duration=0.1, may_have_cost=False)
HUNG_UP_ON = replace(REFUSED, status=None, error_type="APIConnectionError", may_have_cost=True)

# --- how an answer ends --------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["end_turn", "stop_sequence", "refusal", "model_context_window_exceeded"])
def test_a_turn_ends_where_claude_ends_it_and_says_how(reason: str) -> None:
    async def scenario() -> None:
        world = World(says("So far.", stop_reason=reason))
        turn = await world.send()
        assert (turn.text, turn.stop_reason, len(world.scripted.requests)) == ("So far.", reason, 1)
        assert (await world.stored(turn.conversation_id)).messages[-1].stop_reason == reason
        assert (await world.send("And?", turn.conversation_id)).text == "Done."

    run(scenario())


def test_a_refusal_that_says_nothing_leaves_a_conversation_that_goes_on() -> None:
    async def scenario() -> None:
        world = World(says(stop_reason="refusal"))
        turn = await world.send()
        assert (turn.text, turn.stop_reason) == ("", "refusal")
        await world.send("Something else", turn.conversation_id)
        (asked,) = world.scripted.requests[-1].transcript.turns
        assert [block["text"] for block in asked["content"]] == ["Hello", "Something else"]

    run(scenario())


@pytest.mark.parametrize("text", [(), ("Let me look.",)])
def test_a_turn_in_which_claude_wants_tools_and_names_none_ends_there(text: Sequence[str]) -> None:
    async def scenario() -> None:
        world = World(says(*text, stop_reason="tool_use"))
        turn = await world.send()
        assert (turn.text, turn.stop_reason, len(world.scripted.requests)) == ("".join(text), "tool_use", 1)
        assert (await world.send("And?", turn.conversation_id)).text == "Done."
        assert world.scripted.requests[-1].transcript.turns[-1]["role"] == "user"

    run(scenario())


def test_a_pause_is_followed_by_a_request_to_go_on_and_the_pieces_make_one_text() -> None:
    async def scenario() -> None:
        world = World(says("One, ", stop_reason="pause_turn"), says("two, ", stop_reason="pause_turn"), says("three."))
        turn = await world.send()
        assert (turn.text, turn.stop_reason, turn.usage) == ("One, two, three.", "end_turn", Usage(30, 15, 6, 3))
        assert [len(asked.transcript.turns) for asked in world.scripted.requests] == [1, 3, 5]
        assert all(asked.transcript.turns[-1]["role"] == "user" for asked in world.scripted.requests)

    run(scenario())


def test_pauses_are_steps_and_come_to_an_end() -> None:
    async def scenario() -> None:
        world = World(*(says("Well, ", stop_reason="pause_turn") for _ in range(5)), max_steps=3)
        turn = await world.send()
        assert (turn.text, turn.stop_reason, len(world.scripted.requests)) == ("Well, " * 3, "max_steps", 3)

    run(scenario())


# --- answers that are cut ------------------------------------------------------------------------------


def test_of_an_answer_that_broke_off_the_text_is_kept_and_neither_thoughts_nor_calls() -> None:
    async def scenario() -> None:
        failure = ClaudeFailure("the answer broke off", request_id="req_7", counts=True, may_have_cost=True)
        world = World(
            Arriving(THOUGHT, "Let me ", "look.", CALL, end=failure), says("Here I am."), tools=[tool("look")]
        )
        with pytest.raises(ClaudeFailure, match="the message is kept") as raised:
            await world.send()
        assert raised.value.arrived == "Let me look."
        stored = await world.stored(world.created())
        assert texts(stored) == ["user: Hello", "assistant: Let me look."]
        cut = stored.messages[-1]
        assert (cut.content, cut.stop_reason, cut.model) == ((Text("Let me look."),), "cut", "claude-test-1")
        assert (stored.state, stored.usage, stored.unknown_requests) == (ConversationState.ERROR, Usage(10, 3, 2, 1), 1)
        assert await ledger(world) == [("cut", "req_7", 10, 3, 1)]
        assert (await world.send("Go on", stored.id)).text == "Here I am."

    run(scenario())


@pytest.mark.parametrize(
    ("arriving", "outcome"),
    [
        (Arriving(THOUGHT, CALL, end=ClaudeFailure("broke off")), "cut"),
        (Arriving(" \n", end=ClaudeFailure("broke off")), "cut"),
        (Arriving(end=ClaudeFailure("broke off")), "cut"),
        (Arriving(end=ClaudeFailure("no answer"), usage=None), "failed"),
    ],
    ids=["no text", "blanks", "nothing", "not begun"],
)
def test_an_answer_without_a_text_leaves_no_message(arriving: Arriving, outcome: str) -> None:
    async def scenario() -> None:
        world = World(arriving)
        with pytest.raises(ClaudeFailure):
            await world.send()
        assert texts(await world.stored(world.created())) == ["user: Hello"]
        ((ended, *_, position),) = await ledger(world)
        assert (ended, position) == (outcome, None)

    run(scenario())


@pytest.mark.behaviour("conversation.cancelled")
def test_a_cancelled_answer_is_kept_as_far_as_it_came() -> None:
    async def scenario() -> None:
        silence = Silence()
        world = World(Arriving("Once upon a time", CALL, end=silence))
        sending, conversation_id = await waiting(world, silence)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        stored = await world.stored(conversation_id)
        assert texts(stored) == ["user: Hello", "assistant: Once upon a time"]
        assert (stored.state, stored.unknown_requests) == (ConversationState.ACTIVE, 1)
        assert await ledger(world) == [("cancelled", "req_1", 10, 3, 1)]
        await world.send("And then?", conversation_id)
        turns = world.scripted.requests[-1].transcript.turns
        assert [asked["role"] for asked in turns] == ["user", "assistant", "user"]

    run(scenario())


@pytest.mark.behaviour("conversation.cancelled")
@pytest.mark.parametrize(("attempts", "unknown"), [((REFUSED, REFUSED), 0), ((HUNG_UP_ON, REFUSED), 1)])
def test_a_request_that_is_cancelled_between_two_attempts_took_what_those_before_it_did(
    attempts: Sequence[Attempt], unknown: int
) -> None:
    async def scenario() -> None:
        silence = Silence(sent=False)
        world = World(Arriving(end=silence, usage=None, attempts=attempts))
        sending, conversation_id = await waiting(world, silence)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        stored = await world.stored(conversation_id)
        assert (stored.state, stored.unknown_requests) == (ConversationState.ACTIVE, unknown)
        assert await ledger(world) == [("cancelled", None, None, None, None)]

    run(scenario())


# --- what it took --------------------------------------------------------------------------------------

SCRIPTS: Sequence[tuple[Sequence[Step], Usage, int]] = [
    ([says("One.")], Usage(10, 5, 2, 1), 0),
    ([uses("look"), says("Two.")], Usage(20, 10, 4, 2), 0),
    ([Arriving("Th", end=ClaudeFailure("broke off", may_have_cost=True)), says("Three.")], Usage(20, 8, 4, 2), 1),
    ([ClaudeFailure("overloaded", status=529), says("Four.")], Usage(10, 5, 2, 1), 0),
    ([ClaudeFailure("no answer", may_have_cost=True), uses("look"), says("Five.")], Usage(20, 10, 4, 2), 1),
]
"""What Claude does in a turn that is continued until it has its end, what the API says of it, and how often not."""


def test_the_ledger_its_turns_and_the_conversation_have_the_same_sums() -> None:
    async def scenario() -> None:
        world = World(*(step for steps, _, _ in SCRIPTS for step in steps), tools=[tool("look")])
        conversation_id: str | None = None
        for number, (_, usage, unknown) in enumerate(SCRIPTS):
            turn = None
            while turn is None:
                try:
                    turn = await world.send("Hello", conversation_id, key=str(number))
                except ClaudeFailure as failure:
                    conversation_id = failure.kept_in or conversation_id
            conversation_id = turn.conversation_id
            assert (turn.turn, turn.usage, turn.unknown_requests) == (number + 1, usage, unknown)
        stored = await world.stored(conversation_id)
        total = Usage()
        for _, usage, _ in SCRIPTS:
            total += usage
        assert (stored.usage, stored.unknown_requests) == (total, 2)
        for table in ("claude_requests", "turns", "conversations"):
            assert await summed(world, table) == total, table
        assert await world.rows("SELECT sum(unknown_requests), sum(steps) FROM turns") == [(2, 7)]
        assert await world.rows("SELECT requests, open_request FROM conversations") == [(10, None)]
        by_turn = "FROM claude_requests GROUP BY turn ORDER BY turn"
        assert await world.rows(f"SELECT turn, sum(output_tokens) {by_turn}") == await world.rows(
            "SELECT number, output_tokens FROM turns ORDER BY number"
        )

    run(scenario())


async def summed(world: World, table: str) -> Usage:
    columns = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
    sums = ", ".join(f"sum({column})" for column in columns)
    (row,) = await world.rows(f"SELECT {sums} FROM {table}")  # noqa: S608  # names of ours
    return Usage(*row)


async def ledger(world: World) -> Sequence[tuple[object, ...]]:
    """Outcome, request id, input and output tokens, and the message's position of each request."""
    return await world.rows(
        "SELECT outcome, request_id, input_tokens, output_tokens, position FROM claude_requests ORDER BY number"
    )

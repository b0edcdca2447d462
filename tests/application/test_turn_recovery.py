"""What becomes of turns and of waiting sends whose process died, and of those that nobody wants any more."""

from __future__ import annotations

import asyncio

import pytest

from support.world import (
    Arriving,
    ScriptedClaude,
    Silence,
    Storage,
    World,
    pass_time,
    run,
    says,
    texts,
    tool,
    until,
    uses,
    waiting,
)
from tfo_mcp.application.commands import CloseConversation
from tfo_mcp.application.conversation_handler import TurnResult
from tfo_mcp.application.ports import AnswerListener, ClaudeRequest, ClaudeResponse
from tfo_mcp.domain.conversation import INTERRUPTED
from tfo_mcp.domain.conversation_record import ConversationState
from tfo_mcp.domain.errors import ClaudeFailure, StorageUnavailable, TurnTimedOut
from tfo_mcp.domain.turn import TurnState

# --- turns that were interrupted -----------------------------------------------------------------------


def test_an_interrupted_turn_is_brought_to_its_end_before_the_next_message_is_said() -> None:
    async def scenario() -> None:
        silence = Silence()
        dead = World(Arriving("So ", end=silence))
        _, conversation_id = await waiting(dead, silence)
        world = dead.died(says("One."), says("Two."))
        turn = await world.send("And?", conversation_id)
        assert (turn.turn, turn.text, turn.continued, turn.unknown_requests) == (2, "Two.", True, 0)
        assert texts(await world.stored(conversation_id)) == [
            "user: Hello",
            "assistant: One.",
            "user: And?",
            "assistant: Two.",
        ]
        assert not (await world.send("And?", conversation_id)).continued

    run(scenario())


def test_a_request_whose_process_died_is_counted_as_one_of_which_nobody_knows_what_it_took() -> None:
    async def scenario() -> None:
        silence = Silence()
        dead = World(uses("look"), silence, tools=[tool("look")])
        _, conversation_id = await waiting(dead, silence)
        await dead.died(says("One.")).send("And?", conversation_id)
        assert await dead.rows("SELECT turn, outcome, output_tokens FROM claude_requests ORDER BY number") == [
            (1, "completed", 5),
            (1, "lost", None),
            (1, "completed", 5),
            (2, "completed", 5),
        ]
        assert await dead.rows("SELECT unknown_requests, output_tokens FROM turns ORDER BY number") == [(1, 10), (0, 5)]
        stored = await dead.stored(conversation_id)
        assert (stored.unknown_requests, stored.usage.output_tokens) == (1, 15)

    run(scenario())


def test_a_tool_that_must_not_run_twice_does_not_and_one_that_only_reads_does() -> None:
    async def scenario() -> None:
        ran: list[str] = []
        never, begun = asyncio.Event(), asyncio.Event()

        async def hang() -> None:
            begun.set()
            await never.wait()

        dead_tools = [tool("erase", hang, read_only=False), tool("look", never.wait), tool("list")]
        dead = World(uses("erase", "look", "list"), tools=dead_tools, allowed=dead_tools)
        left = asyncio.create_task(dead.send())
        await begun.wait()
        await until(lambda: sum(event.name == "MessageAdded" for event in dead.publisher.events) == 3)
        tools = [
            tool("erase", lambda: ran.append("erase"), read_only=False),
            tool("look", lambda: ran.append("look")),
            tool("list", lambda: ran.append("list")),
        ]
        world = dead.died(says("One."), tools=tools, allowed=tools)
        await world.send("And?", dead.created())
        assert ran == ["look"]
        stored = texts(await world.stored(dead.created()))
        assert sorted(stored[5:8]) == [
            f"toolu_erase: failed: {INTERRUPTED}",
            "toolu_list: list ran",
            "toolu_look: look ran",
        ]
        assert stored[8] == "assistant: One."
        assert not left.done()

    run(scenario())


def test_an_interrupted_turn_that_fails_does_not_keep_the_next_message_from_being_said() -> None:
    async def scenario() -> None:
        silence = Silence()
        dead = World(silence)
        _, conversation_id = await waiting(dead, silence)
        world = dead.died(ClaudeFailure("overloaded", status=529, counts=True), says("Here I am."))
        turn = await world.send("And?", conversation_id)
        assert (turn.text, turn.continued) == ("Here I am.", True)
        assert await world.rows("SELECT state FROM turns ORDER BY number") == [("failed",), ("ended",)]

    run(scenario())


def test_who_gives_up_while_another_turn_is_continued_says_nothing_and_leaves_that_turn_to_the_next() -> None:
    async def scenario() -> None:
        silence, again = Silence(), Silence()
        dead = World(silence)
        _, conversation_id = await waiting(dead, silence)
        world = dead.died(again, says("One."), says("Two."))
        giving_up = asyncio.create_task(world.send("Never mind", conversation_id))
        await again.asked.wait()
        giving_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await giving_up
        stored = await world.stored(conversation_id)
        assert (stored.state, stored.turn and stored.turn.state) == (ConversationState.ACTIVE, TurnState.RUNNING)
        assert (await world.send("And?", conversation_id)).continued
        assert texts(await world.stored(conversation_id)) == [
            "user: Hello",
            "assistant: One.",
            "user: And?",
            "assistant: Two.",
        ]

    run(scenario())


def test_an_interrupted_turn_that_takes_all_its_time_ends_with_it_and_holds_up_only_who_waited_for_it() -> None:
    async def scenario() -> None:
        silence, again = Silence(), Silence()
        dead = World(silence)
        _, conversation_id = await waiting(dead, silence)
        world = dead.died(again, says("Two."), timeout=60, patience=60)
        sending = asyncio.create_task(world.send("Never mind", conversation_id))
        await again.asked.wait()
        pass_time(61)
        with pytest.raises(TurnTimedOut):
            await sending
        assert await world.rows("SELECT state, stop_reason FROM turns") == [("ended", "timeout")]
        turn = await world.send("And?", conversation_id)
        assert (turn.turn, turn.text, turn.continued) == (2, "Two.", False)
        assert texts(await world.stored(conversation_id)) == ["user: Hello", "user: And?", "assistant: Two."]

    run(scenario())


def test_who_waits_for_an_interrupted_turn_is_answered_when_that_was_in_time() -> None:
    async def scenario() -> None:
        silence, again, own = Silence(), Silence(), Silence()
        dead = World(silence)
        _, conversation_id = await waiting(dead, silence)
        world = dead.died(again, own, timeout=60, patience=60)
        sending = asyncio.create_task(world.send("And?", conversation_id))
        await again.asked.wait()
        pass_time(50)
        again.over.set()
        await own.asked.wait()
        pass_time(50)
        own.over.set()
        turn = await sending
        assert (turn.turn, turn.stop_reason, turn.continued) == (2, "end_turn", True)

    run(scenario())


def test_a_conversation_that_a_server_without_turns_left_waiting_can_be_closed() -> None:
    async def scenario() -> None:
        before = World()
        conversation_id = (await before.send()).conversation_id
        for table in ("turns", "claude_requests"):
            await before.rows(f"DELETE FROM {table}")  # noqa: S608  # a table's name from above
        await before.rows("UPDATE conversations SET state = 'waiting', turns = 0, requests = 0")
        world = before.died()
        closed = await world.conversations.close(CloseConversation(conversation_id), world.info())
        assert closed.state is ConversationState.CLOSED
        assert (await world.stored(conversation_id)).state is ConversationState.CLOSED

    run(scenario())


def test_a_conversation_that_a_failure_closed_is_closed_only_if_storage_has_it_so() -> None:
    async def scenario() -> None:
        storage = Storage()

        class Failing(ScriptedClaude):
            async def create_message(
                self, request: ClaudeRequest, listener: AnswerListener | None = None
            ) -> ClaudeResponse:
                if len(self.requests) == 2:  # the third one in a row closes it
                    storage.refusals = 1
                return await super().create_message(request, listener)

        failures = [ClaudeFailure("overloaded", status=529, counts=True) for _ in range(3)]
        world = World(claude=Failing(failures), storage=storage)
        conversation_id = None
        for _ in failures:
            with pytest.raises(ClaudeFailure):
                await world.send("Hello", conversation_id)
            conversation_id = world.created()
        turn = await world.send("And?", conversation_id)
        assert (turn.text, turn.continued) == ("Done.", True)

    run(scenario())


# --- sends that wait -----------------------------------------------------------------------------------


def test_what_waited_in_a_process_that_died_is_said_first_and_in_its_order() -> None:
    async def scenario() -> None:
        silence = Silence()
        dead = World(silence)
        _, conversation_id = await waiting(dead, silence)
        left: list[asyncio.Task[TurnResult]] = []
        for number in (1, 2):
            left.append(asyncio.create_task(dead.send(f"waiting {number}", conversation_id)))
            await dead.until_accepted(number)
        world = dead.died()
        turn = await world.send("And?", conversation_id)
        assert (turn.turn, turn.continued) == (4, True)
        assert texts(await world.stored(conversation_id))[::2] == [
            "user: Hello",
            "user: waiting 1",
            "user: waiting 2",
            "user: And?",
        ]
        assert await world.rows("SELECT count(*) FROM pending_sends") == [(0,)]

    run(scenario())


@pytest.mark.behaviour("conversation.turn")
def test_sends_through_two_processes_become_turns_in_the_order_in_which_they_were_accepted() -> None:
    async def scenario() -> None:
        silence = Silence()
        world = World(silence)
        other = World(storage=world.storage, locks=world.locks)
        _, conversation_id = await waiting(world, silence)
        sending: list[asyncio.Task[TurnResult]] = []
        for number, process in enumerate([other, world, world, other, world], 1):
            sending.append(asyncio.create_task(process.send(str(number), conversation_id)))
            await world.until_accepted(number)
        silence.over.set()
        await asyncio.gather(*sending)
        stored = texts(await world.stored(conversation_id))
        assert stored[2::2] == [f"user: {number}" for number in range(1, 6)]
        assert stored[1::2] == ["assistant: Done."] * 6
        assert world.held == []

    run(scenario())


def test_who_waits_longer_than_he_may_is_told_so_and_his_message_is_not_said() -> None:
    async def scenario() -> None:
        silence = Silence()
        world = World(silence, timeout=600, patience=30)
        working, conversation_id = await waiting(world, silence)
        queued = asyncio.create_task(world.send("And?", conversation_id))
        await world.until_accepted(1)
        pass_time(31)
        with pytest.raises(TurnTimedOut, match="which was not sent, did not finish within 30 s"):
            await queued
        assert await world.rows("SELECT count(*) FROM pending_sends") == [(0,)]
        silence.over.set()
        assert (await working).text == "Done."
        assert len((await world.stored(conversation_id)).messages) == 2

    run(scenario())


def test_patience_is_for_the_wait_and_not_for_ones_own_turn() -> None:
    async def scenario() -> None:
        silence = Silence()
        world = World(silence, timeout=600, patience=30)
        working, _ = await waiting(world, silence)
        pass_time(500)
        silence.over.set()
        assert (await working).stop_reason == "end_turn"

    run(scenario())


# --- what is taken back --------------------------------------------------------------------------------


def test_a_message_that_could_not_be_stored_is_not_said_later_and_its_empty_conversation_is_gone() -> None:
    async def scenario() -> None:
        world = World()
        world.storage.refusals = 1
        with pytest.raises(StorageUnavailable, match=r"^the disk was full$") as raised:
            await world.send()
        assert raised.value.kept_in is None
        assert await left_of(world) == (0, 0, 0)

    run(scenario())


def test_a_message_that_could_not_be_stored_leaves_the_conversation_that_was_there() -> None:
    async def scenario() -> None:
        world = World()
        conversation_id = (await world.send()).conversation_id
        world.storage.refusals = 1
        with pytest.raises(StorageUnavailable, match=r"^the disk was full$"):
            await world.send("Lost", conversation_id)
        await world.send("And?", conversation_id)
        assert texts(await world.stored(conversation_id))[2:] == ["user: And?", "assistant: Done."]

    run(scenario())


def test_a_new_conversation_whose_sender_gives_up_at_any_moment_has_his_message_or_is_not_there() -> None:
    async def scenario() -> None:
        storage = Storage()
        passes, conversations = 0, 0
        while not conversations:  # until he gave up so late that his message was stored
            world = World(Silence(), storage=storage)
            sending = asyncio.create_task(world.send())
            for _ in range(passes):
                await asyncio.sleep(0)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            conversations, turns, pending = await left_of(world)
            assert (turns, pending, world.held) == (conversations, 0, [])
            passes += 1 + passes // 8

    run(scenario())


def test_nobody_else_says_a_message_whose_sender_gives_up_at_any_moment() -> None:
    async def scenario() -> None:
        world = World()
        conversation_id = (await world.send()).conversation_id
        for passes in range(0, 300, 6):
            giving_up = asyncio.create_task(world.send("Never mind", conversation_id))
            next_one = asyncio.create_task(world.send("And?", conversation_id))
            for _ in range(passes):
                await asyncio.sleep(0)
            giving_up.cancel()
            turn = await next_one
            assert not turn.continued
            assert (await asyncio.gather(giving_up, return_exceptions=True))[0] is not None
        assert await world.rows("SELECT count(*) FROM turns WHERE state NOT IN ('ended', 'cancelled')") == [(0,)]
        assert await world.rows("SELECT count(*) FROM pending_sends") == [(0,)]

    run(scenario())


async def left_of(world: World) -> tuple[int, int, int]:
    """How many conversations, turns and waiting sends there are."""
    ((conversations, turns, pending),) = await world.rows(
        "SELECT (SELECT count(*) FROM conversations), (SELECT count(*) FROM turns), "
        "(SELECT count(*) FROM pending_sends)"
    )
    return conversations, turns, pending

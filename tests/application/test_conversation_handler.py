from __future__ import annotations

import asyncio

import pytest

from support.claude import fake_claude
from support.world import (
    DEADLINE,
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
from tfo_mcp.application.commands import SendMessage
from tfo_mcp.application.conversation_handler import TurnResult
from tfo_mcp.application.ports import (
    AnswerListener,
    AttributeValue,
    ClaudeRequest,
    ClaudeResponse,
    TraceContext,
    current_operation,
)
from tfo_mcp.domain.conversation_record import ConversationState
from tfo_mcp.domain.errors import (
    ClaudeFailure,
    ClaudeNotConfigured,
    ConversationBusy,
    ConversationClosed,
    ConversationNotFound,
    StorageUnavailable,
)
from tfo_mcp.domain.message import ToolUse, Usage
from tfo_mcp.infrastructure.claude import AnthropicClaude

# --- turns ---------------------------------------------------------------------------------------------


@pytest.mark.behaviour(
    "conversation.created", "conversation.continued", "conversation.system-prompt", "conversation.model"
)
def test_a_first_message_starts_a_conversation_that_the_next_one_continues() -> None:
    async def scenario() -> None:
        world = World(says("Hello, you."), says("Still here."))
        first = await world.command(SendMessage("Hello", system_prompt="Be brief."))
        assert first == TurnResult(
            conversation_id=world.created(),
            turn=1,
            text="Hello, you.",
            model="claude-test-1",
            stop_reason="end_turn",
            usage=Usage(10, 5, 2, 1),
            unknown_requests=0,
            tool_calls=0,
            continued=False,
        )
        await world.command(SendMessage("And now?", first.conversation_id, model="claude-test-2", max_tokens=7))
        stored = await world.stored(first.conversation_id)
        assert stored.state is ConversationState.ACTIVE
        assert texts(stored) == [
            "user: Hello",
            "assistant: Hello, you.",
            "user: And now?",
            "assistant: Still here.",
        ]
        opened, continued = world.scripted.requests
        assert (opened.model, opened.max_tokens, opened.system) == ("claude-test-1", 100, "Be brief.")
        assert (continued.model, continued.max_tokens, continued.system) == ("claude-test-2", 7, "Be brief.")
        assert [event.name for event in world.publisher.events] == ["ConversationCreated"] + ["MessageAdded"] * 4
        assert world.ended == [("claude.request", "completed", None)] * 2

    run(scenario())


@pytest.mark.behaviour("conversation.tools")
def test_claude_runs_the_tools_it_asks_for_and_answers_with_their_results() -> None:
    async def scenario() -> None:
        world = World(uses("look", "list"), says("I looked."), tools=[tool("look"), tool("list")])
        turn = await world.send()
        assert (turn.text, turn.tool_calls, turn.usage) == ("I looked.", 2, Usage(20, 10, 4, 2))
        assert sorted(texts(await world.stored(turn.conversation_id))[4:6]) == [
            "toolu_list: list ran",
            "toolu_look: look ran",
        ]
        assert world.ended[1:3] == [
            ("execute_tool look", "completed", None),
            ("execute_tool list", "completed", None),
        ]

    run(scenario())


@pytest.mark.behaviour("conversation.tools.offered")
def test_claude_is_offered_read_only_tools_only_and_cannot_run_others() -> None:
    async def scenario() -> None:
        ran: list[str] = []
        tools = [
            tool("look"),
            tool("erase", lambda: ran.append("erase"), read_only=False),
            tool("secret", lambda: ran.append("secret"), for_claude=False),
        ]
        world = World(uses("erase", "secret", "no_such"), tools=tools)
        turn = await world.send()
        assert [offered.name for offered in world.scripted.requests[0].tools] == ["look"]
        assert texts(await world.stored(turn.conversation_id))[5:8] == [
            f"toolu_{name}: failed: there is no tool {name!r} in this conversation"
            for name in ("erase", "secret", "no_such")
        ]
        assert ran == []
        assert world.executed == [("_OTHER", "invalid", "unknown_tool")] * 3
        assert world.ended[1:4] == [("execute_tool _OTHER", "invalid", "unknown_tool")] * 3

    run(scenario())


def test_a_tool_call_that_the_token_limit_cut_off_is_not_run_and_does_not_block_the_conversation() -> None:
    async def scenario() -> None:
        ran: list[str] = []
        cut = says("Wait.", ToolUse("toolu_look", "look", {}), stop_reason="max_tokens")
        world = World(cut, tools=[tool("look", lambda: ran.append("look"))])
        turn = await world.send()
        assert (turn.text, turn.stop_reason, turn.tool_calls, ran) == ("Wait.", "max_tokens", 0, [])
        await world.send("Go on", turn.conversation_id)
        assert texts(await world.stored(turn.conversation_id))[1:4] == [
            "assistant: Wait.",
            "user: Go on",
            "assistant: Done.",
        ]

    run(scenario())


def test_a_turn_ends_at_its_last_step_with_every_call_answered() -> None:
    async def scenario() -> None:
        world = World(uses("look"), uses("look"), tools=[tool("look")], max_steps=2)
        turn = await world.send()
        assert (turn.stop_reason, turn.tool_calls, len(world.scripted.requests)) == ("max_steps", 2, 2)
        assert texts(await world.stored(turn.conversation_id))[-1] == (
            "toolu_look: failed: This tool call was not run: the turn had its last step."
        )
        assert (await world.send("Go on", turn.conversation_id)).text == "Done."

    run(scenario())


@pytest.mark.behaviour("conversation.stored")
def test_each_tool_answer_is_stored_when_it_is_there_and_survives_a_cancelled_turn() -> None:
    async def scenario() -> None:
        never = asyncio.Event()
        world = World(uses("slow", "fast"), tools=[tool("slow", never.wait), tool("fast")])
        sending = asyncio.create_task(world.send())
        await until(lambda: sum(event.name == "MessageAdded" for event in world.publisher.events) == 3)
        conversation_id = world.created()
        assert texts(await world.stored(conversation_id))[-1] == "toolu_fast: fast ran"
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert ("execute_tool slow", "cancelled", None) in world.ended
        await world.send("Go on", conversation_id)
        assert texts(await world.stored(conversation_id))[4:7] == [
            "toolu_fast: fast ran",
            "toolu_slow: failed: This tool call was cancelled.",
            "user: Go on",
        ]

    run(scenario())


def test_storage_that_fails_between_tool_answers_is_what_the_client_is_told() -> None:
    async def scenario() -> None:
        never = asyncio.Event()

        def take_storage_away() -> None:
            world.storage.available = False

        world = World(uses("look", "slow"), tools=[tool("look", take_storage_away), tool("slow", never.wait)])
        with pytest.raises(StorageUnavailable, match="the disk is full; the message is kept, "):
            await world.send()
        assert ("execute_tool slow", "cancelled", None) in world.ended

    run(scenario())


# --- failures ------------------------------------------------------------------------------------------


@pytest.mark.behaviour("conversation.error", "conversation.retry", "claude.error.recorded")
def test_a_failure_keeps_the_message_and_names_the_conversation_in_which_to_try_again() -> None:
    async def scenario() -> None:
        world = World(ClaudeFailure("overloaded", status=529, counts=True), says("Here I am."))
        with pytest.raises(ClaudeFailure) as raised:
            await world.send("Hello")
        conversation_id = world.created()
        assert str(raised.value) == (
            f"overloaded; the message is kept, continue with conversation_id {conversation_id!r}"
        )
        stored = await world.stored(conversation_id)
        assert (stored.state, stored.failures, texts(stored)) == (ConversationState.ERROR, 1, ["user: Hello"])
        assert (await world.send("Please?", conversation_id)).text == "Here I am."
        stored = await world.stored(conversation_id)
        assert (stored.state, stored.failures) == (ConversationState.ACTIVE, 0)
        assert world.ended[0] == ("claude.request", "failed", "529")

    run(scenario())


def test_each_failure_of_claude_leaves_one_error_record_in_the_trace_of_its_request() -> None:
    async def scenario() -> None:
        world = World(
            ClaudeFailure("the secret 4711", status=529, request_id="req_7", counts=True),
            ClaudeFailure("no answer", counts=True),
        )
        for conversation_id in (None, ""):
            with pytest.raises(ClaudeFailure):
                await world.send("Hello", conversation_id if conversation_id is None else world.created())
        known: dict[str, AttributeValue] = {
            "exception.type": "tfo_mcp.domain.errors.ClaudeFailure",
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": "claude-test-1",
            "gen_ai.conversation.id": world.created(),
        }
        first, second = (span.context for span in world.telemetry.spans)
        assert world.telemetry.errors == [
            ("529", {**known, "tfo.claude.request.id": "req_7"}, first),
            ("claude_error", known, second),
        ]

    run(scenario())


def test_what_follows_a_request_to_claude_is_no_part_of_it() -> None:
    async def scenario() -> None:
        around = TraceContext(7, 8)
        current_operation.set(around)
        await World(says("Done.")).send("Hello")
        assert current_operation.get() is around

    run(scenario())


def test_a_cancelled_request_to_claude_is_no_error() -> None:
    async def scenario() -> None:
        silence = Silence()
        world = World(silence)
        turn, _ = await waiting(world, silence)
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        assert world.telemetry.errors == []

    run(scenario())


@pytest.mark.behaviour("conversation.max-retries", "conversation.closed")
def test_failures_in_a_row_close_the_conversation_and_it_can_still_be_read() -> None:
    async def scenario() -> None:
        world = World(*[ClaudeFailure("overloaded", status=529, counts=True) for _ in range(3)])
        with pytest.raises(ClaudeFailure):
            await world.send()
        conversation_id = world.created()
        with pytest.raises(ClaudeFailure):
            await world.send("Again", conversation_id)
        with pytest.raises(ClaudeFailure) as raised:
            await world.send("Again", conversation_id)
        closed = f"conversation {conversation_id!r} is closed: fork_conversation continues it in a new one"
        assert str(raised.value) == f"overloaded. After so many failures in a row {closed}"
        with pytest.raises(ConversationClosed):
            await world.send("Again", conversation_id)
        stored = await world.stored(conversation_id)
        assert stored.state is ConversationState.CLOSED
        assert len(stored.messages) == 3
        assert world.publisher.events[-1].name == "ConversationClosed"

    run(scenario())


@pytest.mark.behaviour("conversation.max-retries")
def test_a_rejected_key_closes_nothing_however_often_it_is_tried() -> None:
    async def scenario() -> None:
        world = World(*[ClaudeFailure("the key is rejected", status=401) for _ in range(10)])
        conversation_id: str | None = None
        for _ in range(10):
            with pytest.raises(ClaudeFailure):
                await world.send("Hello", conversation_id)
            conversation_id = world.created()
        assert (await world.send("Hello", conversation_id)).text == "Done."

    run(scenario())


@pytest.mark.behaviour("conversation.model")
def test_a_model_that_the_api_does_not_know_does_not_stay() -> None:
    async def scenario() -> None:
        typo = ClaudeFailure("Claude's API does not know the model", status=404)
        world = World(says("Hello, you."), typo)
        conversation_id = (await world.command(SendMessage("Hello", model="claude-test-2"))).conversation_id
        with pytest.raises(ClaudeFailure):
            await world.command(SendMessage("Again", conversation_id, model="gpt-9"))
        assert (await world.send("Please?", conversation_id)).text == "Done."
        assert [asked.model for asked in world.scripted.requests] == ["claude-test-2", "gpt-9", "claude-test-2"]

    run(scenario())


def test_a_conversation_that_began_with_an_unknown_model_goes_on_with_the_default_one() -> None:
    async def scenario() -> None:
        world = World(ClaudeFailure("Claude's API does not know the model", status=404))
        with pytest.raises(ClaudeFailure):
            await world.command(SendMessage("Hello", model="gpt-9"))
        assert (await world.send("Please?", world.created())).text == "Done."
        assert [asked.model for asked in world.scripted.requests] == ["gpt-9", "claude-test-1"]

    run(scenario())


@pytest.mark.behaviour("conversation.cancelled")
def test_a_turn_that_takes_too_long_ends_so_and_can_be_continued() -> None:
    async def scenario() -> None:
        silence = Silence()
        world = World(silence, timeout=60)
        sending, _ = await waiting(world, silence)
        pass_time(61)
        turn = await sending
        assert (turn.stop_reason, turn.text, turn.unknown_requests) == ("timeout", "", 1)
        stored = await world.stored(turn.conversation_id)
        assert (stored.state, texts(stored)) == (ConversationState.ACTIVE, ["user: Hello"])
        assert world.ended == [("claude.request", "cancelled", None)]
        assert (await world.send("Go on", turn.conversation_id)).text == "Done."

    run(scenario())


def test_storage_that_is_gone_does_not_hide_why_claude_failed() -> None:
    async def scenario() -> None:
        silence = Silence()
        storage = Storage()

        class Failing(ScriptedClaude):
            async def create_message(
                self, request: ClaudeRequest, listener: AnswerListener | None = None
            ) -> ClaudeResponse:
                storage.available = False
                raise ClaudeFailure("overloaded", status=529, counts=True)

        world = World(claude=Failing([silence]), storage=storage)
        with pytest.raises(ClaudeFailure, match="overloaded"):
            await world.send()
        storage.available = True
        # Storage still says Waiting, which the next message recovers.
        again = World(storage=storage)
        assert (await again.send("Go on", world.created())).text == "Done."

    run(scenario())


@pytest.mark.behaviour("claude.no-key")
def test_without_a_key_nothing_is_stored() -> None:
    async def scenario() -> None:
        world = World(claude=ScriptedClaude([], configured=False))
        with pytest.raises(ClaudeNotConfigured):
            await world.send()
        assert world.publisher.events == []

    run(scenario())


def test_without_storage_nothing_is_sent() -> None:
    async def scenario() -> None:
        world = World()
        world.storage.available = False
        with pytest.raises(StorageUnavailable, match=r"^the disk is full$"):
            await world.send()
        assert world.scripted.requests == []

    run(scenario())


@pytest.mark.behaviour("conversation.unknown")
@pytest.mark.parametrize("conversation_id", ["", "conv_1", "../../etc/passwd", f"conv_{0:032x}"])
def test_a_conversation_that_is_not_there_is_said_not_to_be(conversation_id: str) -> None:
    world = World()
    with pytest.raises(ConversationNotFound, match="there is no conversation"):
        run(world.send("Hello", conversation_id))
    assert world.held == []


@pytest.mark.behaviour("conversation.unknown")
def test_another_principals_conversation_is_not_there() -> None:
    async def scenario() -> None:
        world = World()
        turn = await world.send()
        with pytest.raises(ConversationNotFound):
            await world.send("Hello", turn.conversation_id, principal="somebody else")

    run(scenario())


# --- cancellation --------------------------------------------------------------------------------------


@pytest.mark.behaviour("conversation.cancelled")
def test_a_cancelled_turn_keeps_its_message_and_leaves_the_conversation_active() -> None:
    async def scenario() -> None:
        silence = Silence()
        world = World(silence, says("Go ahead."))
        sending, conversation_id = await waiting(world, silence)
        assert (await world.stored(conversation_id)).state is ConversationState.WAITING
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        stored = await world.stored(conversation_id)
        assert (stored.state, texts(stored)) == (ConversationState.ACTIVE, ["user: Hello"])
        assert world.ended == [("claude.request", "cancelled", None)]
        assert (await world.send("Something else", conversation_id)).text == "Go ahead."

    run(scenario())


@pytest.mark.parametrize("mishap", ["storage is gone", "a second cancellation"])
def test_a_cancelled_turn_stays_cancelled_whatever_happens_meanwhile(mishap: str) -> None:
    async def scenario() -> None:
        silence = Silence()
        world = World(silence)
        sending, conversation_id = await waiting(world, silence)
        sending.cancel()
        if mishap == "storage is gone":
            world.storage.available = False
        else:
            await asyncio.sleep(0)  # the turn now stores that it was cancelled
            assert not sending.done()
            sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert sending.cancelled()
        world.storage.available = True
        if mishap == "storage is gone":
            assert (await world.stored(conversation_id)).state is ConversationState.WAITING
        assert (await world.send("Go on", conversation_id)).text == "Done."

    run(scenario())


def test_the_events_of_a_commit_that_went_through_are_published_although_it_was_cancelled() -> None:
    async def scenario() -> None:
        world = World()
        world.storage.slow = Silence()
        sending = asyncio.create_task(world.send())
        await world.storage.slow.asked.wait()
        world.storage.slow = None
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert [event.name for event in world.publisher.events] == ["ConversationCreated", "MessageAdded"]

    run(scenario())


# --- several at once -----------------------------------------------------------------------------------


@pytest.mark.behaviour("conversation.turn")
def test_sends_to_one_conversation_follow_each_other_and_leave_no_lock_behind() -> None:
    async def scenario() -> None:
        world = World()
        conversation_id = (await world.send("0")).conversation_id
        await asyncio.gather(*(world.send(str(number), conversation_id) for number in range(1, 20)))
        stored = await world.stored(conversation_id)
        assert [message.text for message in stored.messages if message.role == "user"] == list(map(str, range(20)))
        assert [message.role for message in stored.messages] == ["user", "assistant"] * 20
        assert world.held == []

    run(scenario())


def test_a_send_that_is_cancelled_while_it_waits_its_turn_does_nothing_and_leaves_no_lock_behind() -> None:
    async def scenario() -> None:
        silence = Silence()
        world = World(says("Hello."), silence)
        conversation_id = (await world.send("first")).conversation_id
        working = asyncio.create_task(world.send("second", conversation_id))
        await silence.asked.wait()
        queued = asyncio.create_task(world.send("third", conversation_id))
        await asyncio.sleep(0)
        queued.cancel()
        with pytest.raises(asyncio.CancelledError):
            await queued
        silence.over.set()
        await working
        assert [message.text for message in (await world.stored(conversation_id)).messages] == [
            "first",
            "Hello.",
            "second",
            "Done.",
        ]
        assert world.held == []

    run(scenario())


def test_a_message_that_storage_did_not_let_be_taken_back_keeps_no_other_process_waiting() -> None:
    async def scenario() -> None:
        silence = Silence()
        here = World(silence)
        working, conversation_id = await waiting(here, silence)
        elsewhere = World(storage=Storage(here.storage.database), locks=here.locks)
        queued = asyncio.create_task(elsewhere.send("Never mind", conversation_id))
        async with asyncio.timeout(DEADLINE):
            while not await here.rows("SELECT 1 FROM pending_sends"):  # noqa: ASYNC110  # the database has no event
                await asyncio.sleep(0)
        elsewhere.storage.available = False
        queued.cancel()
        with pytest.raises(asyncio.CancelledError):
            await queued
        elsewhere.storage.available = True
        silence.over.set()
        await working
        assert (await here.send("And now?", conversation_id)).text == "Done."
        said = [message.text for message in (await here.stored(conversation_id)).messages]
        assert said == ["Hello", "Done.", "And now?", "Done."]

    run(scenario())


def test_conversations_do_not_wait_for_each_other() -> None:
    async def scenario() -> None:
        silence = Silence()
        world = World(says("one"), silence)
        conversation_id = (await world.send()).conversation_id
        blocked = asyncio.create_task(world.send("Hello", conversation_id))
        await silence.asked.wait()
        assert (await world.send("another")).text == "Done."
        silence.over.set()
        await blocked

    run(scenario())


@pytest.mark.behaviour("conversation.fenced")
def test_who_is_overtaken_by_another_process_is_told_so_and_overwrites_nothing() -> None:
    async def scenario() -> None:
        silence = Silence()
        slow = World(silence)
        sending, conversation_id = await waiting(slow, silence)
        fast = World(says("I was first."), storage=slow.storage, locks=slow.storage.folder / "elsewhere")
        await fast.send("Me too", conversation_id)
        silence.over.set()
        with pytest.raises(ConversationBusy, match=f"the message is kept, .*{conversation_id}"):
            await sending
        assert texts(await slow.stored(conversation_id)) == [
            "user: Hello",
            "assistant: I was first.",
            "user: Me too",
            "assistant: Done.",
        ]

    run(scenario())


# --- over the wire -------------------------------------------------------------------------------------


@pytest.mark.behaviour("conversation.tools", "conversation.continued")
def test_the_real_client_gets_the_tools_answers_and_the_history_through() -> None:
    script = """
    replies:
      - {text: Wait., tool_use: [{name: look}, {name: list}]}
      - {text: "{turns} turns, {tool_results}"}
      - {text: "{turns} turns"}
    """

    async def scenario(base_url: str) -> tuple[TurnResult, TurnResult]:
        claude = AnthropicClaude(
            api_key="key",
            base_url=base_url,
            timeout=DEADLINE,
            max_retries=0,
            default_model="claude-test-1",
            model_refresh=3600,
            tracer_provider=lambda: None,
        )
        world = World(claude=claude, tools=[tool("look"), tool("list")])
        first = await world.send("Look around")
        second = await world.send("And?", first.conversation_id)
        await claude.close()
        return first, second

    with fake_claude(script) as api:
        first, second = run(scenario(api.base_url))
        sent = api.requests()
    assert first.text.endswith("3 turns, look ran\nlist ran")
    assert first.tool_calls == 2
    assert second.text.endswith("5 turns")
    assert [one["status"] for one in sent] == [200, 200, 200]
    assert [message["role"] for message in sent[-1]["body"]["messages"]] == [
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ]

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.sends import a_send
from support.talk import reread
from tfo_mcp.domain.conversation import Conversation
from tfo_mcp.domain.conversation_record import CONVERSATION_TRANSITIONS, ConversationState, ConversationTrigger
from tfo_mcp.domain.errors import ClaudeFailure, ConversationClosed, InvalidTransition
from tfo_mcp.domain.message import Message, Text, ToolAnswer, ToolUse, Usage
from tfo_mcp.domain.state_machine import StateMachine

DRAWN = """
created --first message--> active
created --close--> closed
active --add message--> active
active --request sent--> waiting
active --close--> closed
waiting --response received--> active
waiting --api error--> error
waiting --cancelled--> active
waiting --recovered--> active
error --retry success--> active
error --max retries--> closed
error --close--> closed
"""

ANSWER = Message("assistant", (Text("Hello."),), usage=Usage(3, 2), model="claude-test-1", stop_reason="end_turn")
COUNTS = ClaudeFailure("overloaded", status=529, counts=True)
NO_SUCH_MODEL = ClaudeFailure("no such model", status=404)
COUNTS_NOT = ClaudeFailure("the key is rejected", status=401)
MAX_FAILURES = 3


def new() -> Conversation:
    return Conversation.create(principal="local", model="claude-test-1")


def asked(text: str = "Hello") -> Conversation:
    """One that waits for its first answer."""
    conversation = new()
    conversation.begin_turn(a_send(text))
    conversation.request_sent()
    return conversation


def names(conversation: Conversation) -> Sequence[str]:
    return [event.name for event in conversation.uncommitted_events]


# --- the machine ---


@pytest.mark.behaviour("conversation.states")
@pytest.mark.parametrize(("state", "trigger"), list(product(ConversationState, ConversationTrigger)))
def test_the_machine_has_the_edges_that_are_drawn_and_no_others(
    state: ConversationState, trigger: ConversationTrigger
) -> None:
    edges = {edge: to for edge, _, to in (line.partition("--> ") for line in DRAWN.strip().splitlines())}
    machine = StateMachine("conversation", CONVERSATION_TRANSITIONS, state)
    following = edges.get(f"{state.value} --{trigger.value}")
    if following is None:
        with pytest.raises(InvalidTransition):
            machine.fire(trigger)
        assert machine.state is state
    else:
        assert machine.fire(trigger) is ConversationState(following)


FOLLOWING = {
    ("created", "send"): "waiting",
    ("created", "close"): "closed",
    ("active", "send"): "waiting",
    ("active", "close"): "closed",
    ("waiting", "send"): "waiting",
    ("waiting", "answer"): "active",
    ("waiting", "fail"): "error",
    ("waiting", "fail uncounted"): "error",
    ("waiting", "cancel"): "active",
    ("error", "send"): "error",
    ("error", "answer"): "active",
    ("error", "fail"): "error",
    ("error", "fail uncounted"): "error",
    ("error", "cancel"): "error",
    ("error", "close"): "closed",
}
STEPS = sorted({step for _, step in FOLLOWING})


@pytest.mark.behaviour("conversation.states")
@given(st.lists(st.sampled_from(STEPS), max_size=30), st.data())
def test_whatever_happens_in_whatever_order_the_state_is_the_expected_one(
    steps: list[str], data: st.DataObject
) -> None:
    conversation, state, failures = new(), "created", 0
    for step in steps:
        if data.draw(st.booleans(), label="the process dies and another one goes on"):
            conversation = reread(conversation)
        following = FOLLOWING.get((state, step))
        if following is None:
            with pytest.raises((ConversationClosed, InvalidTransition)):
                take(conversation, step)
        else:
            take(conversation, step)
            failures = {"answer": 0, "fail": failures + 1}.get(step, failures)
            state = "closed" if step == "fail" and failures == MAX_FAILURES else following
        assert (conversation.state.value, conversation.failures) == (state, failures)


def take(conversation: Conversation, step: str) -> None:
    match step:
        case "send":
            conversation.begin_turn(a_send("Hello"))
            conversation.request_sent()
        case "answer":
            conversation.response_received(ANSWER)
        case "fail":
            conversation.request_failed(COUNTS, max_failures=MAX_FAILURES)
        case "fail uncounted":
            conversation.request_failed(COUNTS_NOT, max_failures=MAX_FAILURES)
        case "cancel":
            conversation.request_cancelled()
        case _:
            conversation.close()


# --- failures ---


@pytest.mark.behaviour("conversation.max-retries", "conversation.closed")
def test_failures_in_a_row_that_count_close_it_and_say_so() -> None:
    conversation = asked()
    for _ in range(MAX_FAILURES):
        conversation.request_failed(COUNTS, max_failures=MAX_FAILURES)
    assert conversation.state is ConversationState.CLOSED
    assert names(conversation)[2:] == ["ClaudeRequestFailed"] * MAX_FAILURES + ["ConversationClosed"]
    with pytest.raises(ConversationClosed):
        conversation.begin_turn(a_send("Still there?"))


@pytest.mark.behaviour("conversation.max-retries")
def test_an_expired_key_never_closes_it_even_after_the_limit_was_lowered() -> None:
    conversation = asked()
    for failure in [COUNTS, COUNTS] + [COUNTS_NOT] * 10:
        conversation.request_failed(failure, max_failures=MAX_FAILURES)
    assert (conversation.state, conversation.failures) == (ConversationState.ERROR, 2)
    conversation.request_failed(COUNTS_NOT, max_failures=1)
    assert conversation.state is ConversationState.ERROR


@pytest.mark.behaviour("conversation.retry")
def test_an_answer_forgets_the_failures_before_it() -> None:
    conversation = asked()
    conversation.request_failed(COUNTS, max_failures=MAX_FAILURES)
    conversation.begin_turn(a_send("Again"))
    conversation.request_sent()
    conversation.response_received(ANSWER)
    assert (conversation.state, conversation.failures) == (ConversationState.ACTIVE, 0)
    assert [message.text for message in conversation.messages] == ["Hello", "Again", "Hello."]


@pytest.mark.behaviour("conversation.closed")
def test_closing_is_refused_while_an_answer_is_awaited() -> None:
    conversation = asked()
    with pytest.raises(InvalidTransition):
        conversation.close()
    assert conversation.state is ConversationState.WAITING


# --- interrupted turns ---


def interrupted(*answered: str) -> Conversation:
    """Claude asked for the tools a, b and c; the process died when those in `answered` were."""
    conversation = asked()
    calls = tuple(ToolUse(name, "echo", {}) for name in "abc")
    conversation.response_received(Message("assistant", calls, usage=Usage(), stop_reason="tool_use"))
    for name in answered:
        conversation.add_tool_answer(ToolAnswer(name, f"answer {name}"))
    return reread(conversation)


@pytest.mark.parametrize(("answered", "missing"), [("", "abc"), ("b", "ac"), ("cab", "")], ids=["none", "one", "all"])
def test_the_next_message_answers_exactly_the_tool_calls_that_nothing_answered(answered: str, missing: str) -> None:
    conversation = interrupted(*answered)
    conversation.begin_turn(a_send("Go on"))
    *answers, text = conversation.messages[-1].content
    assert text == Text("Go on")
    assert [(block.tool_use_id, block.is_error) for block in answers if isinstance(block, ToolAnswer)] == [
        (name, True) for name in missing
    ]


def test_tool_calls_are_answered_once_however_often_the_turn_fails() -> None:
    conversation = interrupted("b")
    for text in ("Go on", "And again"):
        conversation.begin_turn(a_send(text))
        conversation.request_sent()
        conversation.request_failed(COUNTS_NOT, max_failures=MAX_FAILURES)
    assert [len(message.content) for message in conversation.messages[-2:]] == [3, 1]


def test_a_conversation_whose_process_died_while_waiting_takes_the_next_message() -> None:
    conversation = reread(asked())
    assert conversation.state is ConversationState.WAITING
    conversation.begin_turn(a_send("Are you there?"))
    assert conversation.state is ConversationState.ACTIVE


# --- commits ---


def test_a_commit_takes_what_is_new_and_raises_the_fence() -> None:
    conversation = asked()
    assert (conversation.record().fence, [place for place, _ in conversation.uncommitted]) == (1, [0])
    assert [event.name for event in conversation.uncommitted_events] == ["ConversationCreated", "MessageAdded"]
    conversation.mark_committed()
    assert (conversation.uncommitted, conversation.uncommitted_events) == ((), ())
    conversation.response_received(ANSWER)
    assert (conversation.record().fence, conversation.uncommitted) == (2, ((1, ANSWER),))


def test_its_usage_is_the_sum_over_its_answers() -> None:
    conversation = asked()
    conversation.response_received(ANSWER)
    conversation.begin_turn(a_send("Again"))
    conversation.request_sent()
    conversation.response_received(ANSWER)
    assert conversation.usage == Usage(6, 4)


@pytest.mark.behaviour("conversation.model", "conversation.system-prompt")
def test_a_model_or_system_prompt_that_is_given_stays() -> None:
    conversation = new()
    conversation.begin_turn(a_send(model="claude-test-2", system_prompt="Be brief."))
    conversation.begin_turn(a_send(model=None))
    assert (conversation.model, conversation.system_prompt) == ("claude-test-2", "Be brief.")
    conversation.begin_turn(a_send(system_prompt=""))
    assert conversation.system_prompt == ""


def failed(conversation: Conversation, failure: ClaudeFailure, model: str, system_prompt: str | None = None) -> None:
    conversation.begin_turn(a_send(model=model, system_prompt=system_prompt))
    conversation.request_sent()
    conversation.request_failed(failure, max_failures=MAX_FAILURES)


@pytest.mark.behaviour("conversation.model")
def test_a_model_that_is_not_there_does_not_stay_and_all_else_does() -> None:
    conversation = new()
    failed(conversation, COUNTS_NOT, "claude-test-2")
    assert conversation.model == "claude-test-2"
    conversation = reread(conversation)
    failed(conversation, NO_SUCH_MODEL, "gpt-9", "Be brief.")
    assert (conversation.record().model, conversation.system_prompt) == ("claude-test-2", "Be brief.")


def test_a_model_that_has_answered_in_this_turn_is_the_one_to_go_back_to() -> None:
    conversation = new()
    conversation.begin_turn(a_send(model="claude-test-2"))
    conversation.request_sent()
    conversation.response_received(ANSWER)
    failed(conversation, NO_SUCH_MODEL, "claude-test-2")
    assert conversation.model == "claude-test-2"

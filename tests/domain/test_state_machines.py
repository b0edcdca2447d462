"""The four state machines of the diagrams, each against its table as DESIGN §4 has it, written out once more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.sends import a_send
from tfo_mcp.domain.conversation import Conversation
from tfo_mcp.domain.conversation_record import (
    CONVERSATION_TRANSITIONS,
    ConversationState,
    ConversationTrigger,
)
from tfo_mcp.domain.errors import (
    ClaudeFailure,
    ConversationClosed,
    InvalidTransition,
    SessionAlreadyInitialized,
    SessionClosing,
)
from tfo_mcp.domain.events import (
    DomainEvent,
    MessageAdded,
    SessionClosed,
    SessionCreated,
    SessionFailed,
    SessionInitialized,
)
from tfo_mcp.domain.execution import EXECUTION_TRANSITIONS, ExecutionState, ExecutionTrigger, new_execution
from tfo_mcp.domain.message import Message, Text
from tfo_mcp.domain.session import SESSION_TRANSITIONS, Session, SessionState, SessionTrigger
from tfo_mcp.domain.state_machine import StateMachine
from tfo_mcp.infrastructure.telemetry.client import TELEMETRY_TRANSITIONS, TelemetryState, TelemetryTrigger

Edges = Mapping[tuple[str, str], str]

SESSION: Edges = {
    ("created", "receive initialize"): "initializing",
    ("created", "shutdown"): "closing",
    ("initializing", "initialized"): "ready",
    ("initializing", "initialization failed"): "error",
    ("initializing", "shutdown"): "closing",
    ("ready", "handle request"): "ready",
    ("ready", "shutdown"): "closing",
    ("error", "cleanup"): "closing",
    ("closing", "cleanup complete"): "closed",
}

CONVERSATION: Edges = {
    ("created", "first message"): "active",
    ("created", "close"): "closed",
    ("active", "add message"): "active",
    ("active", "request sent"): "waiting",
    ("active", "close"): "closed",
    ("waiting", "response received"): "active",
    ("waiting", "api error"): "error",
    ("waiting", "cancelled"): "active",
    ("waiting", "recovered"): "active",
    ("error", "retry success"): "active",
    ("error", "max retries"): "closed",
    ("error", "close"): "closed",
}

EXECUTION: Edges = {
    ("received", "parse request"): "validating",
    ("received", "unknown tool"): "failed",
    ("validating", "schema valid"): "validated",
    ("validating", "schema invalid"): "failed",
    ("validated", "run handler"): "executing",
    ("executing", "handler success"): "completed",
    ("executing", "handler error"): "failed",
    ("executing", "timeout"): "timed out",
    ("executing", "cancel"): "cancelled",
}

TELEMETRY: Edges = {
    ("creating", "client created"): "initializing",
    ("initializing", "initialize success"): "ready",
    ("initializing", "initialize failed"): "disabled",
    ("initializing", "shutdown"): "shutting down",
    ("ready", "flush request"): "flushing",
    ("ready", "shutdown"): "shutting down",
    ("flushing", "flush complete"): "ready",
    ("flushing", "shutdown"): "shutting down",
    ("shutting down", "shutdown complete"): "closed",
}

MACHINES: Sequence[tuple[Edges, Mapping[Any, Any], type[Enum], type[Enum], str, set[str]]] = (
    (SESSION, SESSION_TRANSITIONS, SessionState, SessionTrigger, "created", {"closed"}),
    (CONVERSATION, CONVERSATION_TRANSITIONS, ConversationState, ConversationTrigger, "created", {"closed"}),
    (
        EXECUTION,
        EXECUTION_TRANSITIONS,
        ExecutionState,
        ExecutionTrigger,
        "received",
        {"completed", "failed", "timed out", "cancelled"},
    ),
    (TELEMETRY, TELEMETRY_TRANSITIONS, TelemetryState, TelemetryTrigger, "creating", {"disabled", "closed"}),
)
EACH_MACHINE = pytest.mark.parametrize(
    ("edges", "table", "states", "triggers", "initial", "final"),
    MACHINES,
    ids=["session", "conversation", "execution", "telemetry"],
)


# --- the tables ---


@pytest.mark.behaviour("session.states", "conversation.states", "execution.states", "telemetry.client.states")
@EACH_MACHINE
def test_every_edge_that_is_drawn_leads_where_it_is_drawn_and_no_other_exists(
    edges: Edges, table: Mapping[Any, Any], states: type[Enum], triggers: type[Enum], initial: str, final: set[str]
) -> None:
    for state, trigger in product(states, triggers):
        machine = StateMachine("a machine", table, state)
        following = edges.get((state.value, trigger.value))
        assert machine.can(trigger) == (following is not None)
        if following is None:
            with pytest.raises(InvalidTransition) as refused:
                machine.fire(trigger)
            assert (refused.value.state, refused.value.trigger) == (state.value, trigger.value)
            assert machine.state is state
        else:
            assert machine.fire(trigger) is states(following)
            assert machine.state is states(following)


@EACH_MACHINE
def test_every_state_is_reached_and_only_the_final_ones_have_no_way_out(
    edges: Edges, table: Mapping[Any, Any], states: type[Enum], triggers: type[Enum], initial: str, final: set[str]
) -> None:
    assert {start for start, _ in edges} == {state.value for state in states} - final
    reached = {initial}
    while more := {end for (start, _), end in edges.items() if start in reached} - reached:
        reached |= more
    # Telemetry that is not wanted begins at Disabled.
    assert reached | ({"disabled"} & final) == {state.value for state in states}


@pytest.mark.behaviour("session.states", "conversation.states", "execution.states", "telemetry.client.states")
@EACH_MACHINE
@given(data=st.data())
def test_any_sequence_of_triggers_follows_the_table(
    edges: Edges,
    table: Mapping[Any, Any],
    states: type[Enum],
    triggers: type[Enum],
    initial: str,
    final: set[str],
    data: st.DataObject,
) -> None:
    machine, expected = StateMachine("a machine", table, states(initial)), initial
    for trigger in data.draw(st.lists(st.sampled_from(list(triggers)), max_size=40)):
        if (expected, trigger.value) in edges:
            expected = edges[expected, trigger.value]
            machine.fire(trigger)
        else:
            with pytest.raises(InvalidTransition):
                machine.fire(trigger)
        assert machine.state is states(expected)


@pytest.mark.behaviour("execution.received")
def test_a_tool_execution_begins_at_received() -> None:
    assert new_execution().state is ExecutionState.RECEIVED


def likely(table: Mapping[tuple[str, str], object], state: str, steps: Sequence[str]) -> st.SearchStrategy[str]:
    """Any step, and more often one that leads on and not to the end, so that a sequence gets somewhere."""
    leading_on = [step for at, step in table if at == state and step in steps and "clos" not in step]
    return st.sampled_from([*steps, *leading_on * 5])


# --- the session through its own methods ---

BY_SESSION: Edges = {
    ("created", "initialize"): "initializing",
    ("created", "begin_closing"): "closing",
    ("initializing", "become_ready"): "ready",
    ("initializing", "begin_request"): "ready",
    ("initializing", "fail"): "closing",
    ("initializing", "begin_closing"): "closing",
    ("ready", "become_ready"): "ready",
    ("ready", "begin_request"): "ready",
    ("ready", "end_request"): "ready",
    ("ready", "begin_closing"): "closing",
    ("closing", "begin_closing"): "closing",
    ("closing", "close"): "closed",
    ("closed", "begin_closing"): "closed",
}
"""(state, method) to state; any other call raises."""

EVENTS_OF_SESSION: Mapping[tuple[str, str], type[DomainEvent]] = {
    ("created", "initialize"): SessionCreated,
    ("initializing", "become_ready"): SessionInitialized,
    ("initializing", "begin_request"): SessionInitialized,
    ("initializing", "fail"): SessionFailed,
    ("closing", "close"): SessionClosed,
}
STEPS_OF_SESSION = sorted({step for _, step in BY_SESSION} - {"end_request"})


def take(session: Session, step: str) -> None:
    match step:
        case "initialize":
            session.initialize(protocol_version="2025-11-25", client_name="a client", client_version="1")
        case "fail":
            session.fail("OSError")
        case _:
            getattr(session, step)()


@pytest.mark.behaviour("session.states", "session.events")
@given(st.data())
def test_a_session_follows_its_table_and_publishes_at_each_transition_that_is_named(data: st.DataObject) -> None:
    session, state, under_way = Session(), "created", 0
    for _ in range(data.draw(st.integers(5, 20))):
        step = data.draw(likely(BY_SESSION, state, STEPS_OF_SESSION))
        version = session.version
        following = BY_SESSION.get((state, step))
        if following is None:
            with pytest.raises((InvalidTransition, SessionAlreadyInitialized, SessionClosing)):
                take(session, step)
            assert (session.version, session.collect_events()) == (version, ())
        else:
            take(session, step)
            event = EVENTS_OF_SESSION.get((state, step))
            assert [type(published) for published in session.collect_events()] == ([event] if event else [])
            assert (session.version > version) == (following != state)
            under_way += step == "begin_request"
            state = following
        assert (session.state.value, session.processing) == (state, under_way)
        assert session.closing == (state in {"closing", "closed"})


@pytest.mark.behaviour("session.ready.processing")
def test_processing_counts_the_requests_under_way() -> None:
    session = Session()
    take(session, "initialize")
    counts: list[int] = []
    for step in ("begin_request", "begin_request", "end_request", "begin_request", "end_request", "end_request"):
        take(session, step)
        counts.append(session.processing)
    assert counts == [1, 2, 1, 2, 1, 0]
    assert session.state is SessionState.READY


@pytest.mark.behaviour("session.events")
def test_the_events_of_a_session_say_whose_it_is_and_what_the_client_said() -> None:
    session = Session()
    for step in ("initialize", "become_ready", "begin_closing", "close"):
        take(session, step)
    created, initialized, closed = session.collect_events()
    assert {event.aggregate_id for event in (created, initialized, closed)} == {session.id}
    assert isinstance(created, SessionCreated)
    assert (created.protocol_version, created.client_name) == ("2025-11-25", "a client")
    assert isinstance(closed, SessionClosed)
    assert closed.duration >= 0
    assert session.closed_at is not None


@pytest.mark.behaviour("session.failed")
def test_a_failed_initialization_says_why() -> None:
    session = Session()
    for step in ("initialize", "fail"):
        take(session, step)
    assert [event.reason for event in session.collect_events() if isinstance(event, SessionFailed)] == ["OSError"]


def test_a_second_initialize_and_one_after_the_end_are_told_apart() -> None:
    session = Session()
    take(session, "initialize")
    with pytest.raises(SessionAlreadyInitialized):
        take(session, "initialize")
    take(session, "begin_closing")
    with pytest.raises(SessionClosing):
        take(session, "initialize")


# --- the events of a conversation ---

ANSWER = Message("assistant", (Text("Hello."),))
MAX_FAILURES = 2

EVENTS_OF_CONVERSATION: Mapping[tuple[str, str], Sequence[str]] = {
    ("created", "say"): ["MessageAdded"],
    ("active", "say"): ["MessageAdded"],
    ("waiting", "say"): ["MessageAdded"],
    ("error", "say"): ["MessageAdded"],
    ("active", "send"): [],
    ("error", "send"): [],
    ("waiting", "answer"): ["MessageAdded"],
    ("error", "answer"): ["MessageAdded"],
    ("waiting", "fail"): ["ClaudeRequestFailed"],
    ("error", "fail"): ["ClaudeRequestFailed"],
    ("waiting", "cancel"): [],
    ("error", "cancel"): [],
    ("created", "close"): ["ConversationClosed"],
    ("active", "close"): ["ConversationClosed"],
    ("error", "close"): ["ConversationClosed"],
}
"""(state, step) to what is published; any other step raises."""
STEPS_OF_CONVERSATION = sorted({step for _, step in EVENTS_OF_CONVERSATION})


def go(conversation: Conversation, step: str) -> None:
    match step:
        case "say":
            conversation.begin_turn(a_send("Hello"))
        case "send":
            conversation.request_sent()
        case "answer":
            conversation.response_received(ANSWER)
        case "fail":
            failure = ClaudeFailure("overloaded", status=529, counts=True)
            conversation.request_failed(failure, max_failures=MAX_FAILURES)
        case "cancel":
            conversation.request_cancelled()
        case _:
            conversation.close()


@pytest.mark.behaviour("conversation.events")
@given(st.data())
def test_a_conversation_publishes_at_each_transition_that_is_named_and_never_otherwise(data: st.DataObject) -> None:
    conversation = Conversation.create(principal="local", model="claude-test-1")
    assert [event.name for event in conversation.uncommitted_events] == ["ConversationCreated"]
    conversation.mark_committed()
    for _ in range(data.draw(st.integers(5, 20))):
        step = data.draw(likely(EVENTS_OF_CONVERSATION, conversation.state.value, STEPS_OF_CONVERSATION))
        before, said = conversation.state.value, len(conversation.messages)
        published = EVENTS_OF_CONVERSATION.get((before, step))
        if published is None:
            with pytest.raises((InvalidTransition, ConversationClosed)):
                go(conversation, step)
            assert (conversation.state.value, len(conversation.messages)) == (before, said)
            assert conversation.uncommitted_events == ()
            continue
        go(conversation, step)
        events = conversation.uncommitted_events
        conversation.mark_committed()
        is_last_failure = step == "fail" and conversation.failures == MAX_FAILURES
        assert [event.name for event in events] == [*published, *["ConversationClosed"] * is_last_failure]
        assert {event.aggregate_id for event in events} <= {conversation.id}
        positions = [event.position for event in events if isinstance(event, MessageAdded)]
        assert positions == list(range(said, len(conversation.messages)))

from __future__ import annotations

import pytest

from tfo_mcp.domain.events import ConversationCreated, DomainEvent, MessageAdded, ToolExecuted
from tfo_mcp.infrastructure.events import InProcessPublisher

CREATED = ConversationCreated(aggregate_id="conv_1", model="m")
ADDED = MessageAdded(aggregate_id="conv_1", position=0, role="user")
UNWANTED = ToolExecuted(aggregate_id="call_1", tool="echo", outcome="completed", duration=0.1)


@pytest.mark.behaviour("session.subscribers")
def test_events_reach_their_subscribers_in_order() -> None:
    heard: list[tuple[str, DomainEvent]] = []
    publisher = InProcessPublisher(
        {
            ConversationCreated: [lambda event: heard.append(("first", event))],
            MessageAdded: [
                lambda event: heard.append(("first", event)),
                lambda event: heard.append(("second", event)),
            ],
        }
    )
    publisher.publish([CREATED, UNWANTED, ADDED])
    assert heard == [("first", CREATED), ("first", ADDED), ("second", ADDED)]


def test_a_subscriber_that_fails_is_logged_and_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[DomainEvent] = []

    def failing(event: DomainEvent) -> None:
        raise RuntimeError("the subscriber's own fault")

    InProcessPublisher({MessageAdded: [failing, heard.append]}).publish([ADDED, ADDED])
    assert heard == [ADDED, ADDED]
    assert caplog.text.count("a subscriber of MessageAdded failed") == 2

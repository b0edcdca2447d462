from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from support.fakes import InMemorySessions
from support.telemetry import FakeTelemetry
from support.tool_calls import FakeClient, FakePublisher
from tfo_mcp.application.bus import RequestInfo
from tfo_mcp.application.commands import CloseSession, InitializeSession
from tfo_mcp.application.ports import SessionRepository
from tfo_mcp.application.session_handler import SessionHandler
from tfo_mcp.domain.events import DomainEvent
from tfo_mcp.domain.session import Session, SessionState

HELLO = InitializeSession("2025-11-25", "a client", "1")


class World:
    def __init__(self, sessions: SessionRepository | None = None) -> None:
        self.telemetry = FakeTelemetry()
        self.session = Session()
        self.handler = SessionHandler(sessions or InMemorySessions(), FakePublisher(), self.telemetry)
        self.info = RequestInfo(
            operation="initialize", session=self.session, client=FakeClient(), protocol_version="2025-11-25"
        )

    @property
    def told(self) -> list[str]:
        """The session events that telemetry was told of."""
        assert {id(session) for _, session in self.telemetry.session_events} <= {id(self.session)}
        return [event for event, _ in self.telemetry.session_events]


@pytest.mark.behaviour("session.measured")
def test_telemetry_is_told_once_of_the_beginning_and_once_of_the_end() -> None:
    world = World()
    asyncio.run(world.handler.initialize(HELLO, world.info))
    assert world.told == ["initialized"]
    asyncio.run(world.handler.close(CloseSession(), world.info))
    assert world.told == ["initialized", "closed"]
    assert world.session.state is SessionState.CLOSED


def test_a_session_that_never_began_does_not_end_for_telemetry() -> None:
    world = World()
    asyncio.run(world.handler.close(CloseSession(), world.info))
    assert world.told == []


@pytest.mark.behaviour("session.failed")
def test_a_session_whose_initialization_fails_is_over_for_telemetry_too() -> None:
    class Broken:
        def save(self, session: Session, events: Sequence[DomainEvent]) -> None:
            raise OSError("the disk is full")

    world = World(Broken())
    with pytest.raises(OSError, match="the disk is full"):
        asyncio.run(world.handler.initialize(HELLO, world.info))
    assert world.told == ["initialized", "closed"]
    assert world.session.closing

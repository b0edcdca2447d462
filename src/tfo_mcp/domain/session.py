"""3.1 Session Aggregate: one client's connection, from its first message to its end.

The machine is the diagrams' "Session State Machine" with the edges that DESIGN §4 adds.
"""

from __future__ import annotations

import time
from enum import Enum
from typing import Final

from tfo_mcp.domain.errors import SessionAlreadyInitialized, SessionClosing, SessionNotInitialized
from tfo_mcp.domain.events import (
    DomainEvent,
    SessionClosed,
    SessionCreated,
    SessionFailed,
    SessionInitialized,
)
from tfo_mcp.domain.identifiers import LOCAL_PRINCIPAL, SessionId, new_session_id
from tfo_mcp.domain.state_machine import StateMachine


class SessionState(Enum):
    """Where a session is."""

    CREATED = "created"
    INITIALIZING = "initializing"
    READY = "ready"
    ERROR = "error"
    CLOSING = "closing"
    CLOSED = "closed"


class SessionTrigger(Enum):
    """What moves a session."""

    RECEIVE_INITIALIZE = "receive initialize"
    INITIALIZED = "initialized"
    INITIALIZATION_FAILED = "initialization failed"
    HANDLE_REQUEST = "handle request"
    SHUTDOWN = "shutdown"
    CLEANUP = "cleanup"
    CLEANUP_COMPLETE = "cleanup complete"


_MAX_CLIENT: Final = 200
"""Characters that are kept of a client's name and of its version: both are its own words."""

_S, _T = SessionState, SessionTrigger

SESSION_TRANSITIONS = {
    (_S.CREATED, _T.RECEIVE_INITIALIZE): _S.INITIALIZING,
    (_S.CREATED, _T.SHUTDOWN): _S.CLOSING,
    (_S.INITIALIZING, _T.INITIALIZED): _S.READY,
    (_S.INITIALIZING, _T.INITIALIZATION_FAILED): _S.ERROR,
    (_S.INITIALIZING, _T.SHUTDOWN): _S.CLOSING,
    (_S.READY, _T.HANDLE_REQUEST): _S.READY,
    (_S.READY, _T.SHUTDOWN): _S.CLOSING,
    (_S.ERROR, _T.CLEANUP): _S.CLOSING,
    (_S.CLOSING, _T.CLEANUP_COMPLETE): _S.CLOSED,
}


class Session:
    """One client's session.

    Attributes:
        processing: requests under way; Ready is Idle at 0 and Processing above it.
        version: rises with every change; what storage compares to write only what is newer.
    """

    def __init__(self, *, principal: str = LOCAL_PRINCIPAL) -> None:
        self.id: SessionId = new_session_id()
        self.principal = principal
        self.protocol_version: str | None = None
        self.client_name = ""
        self.client_version = ""
        self.created_at = time.time()
        self.closed_at: float | None = None
        self.processing = 0
        self.version = 0
        self._machine = StateMachine("session", SESSION_TRANSITIONS, SessionState.CREATED)
        self._started = time.monotonic()
        self._events: list[DomainEvent] = []

    @property
    def state(self) -> SessionState:
        """Where the session is."""
        return self._machine.state

    @property
    def duration(self) -> float:
        """Seconds since the session was created; a clock that jumps does not change it."""
        return time.monotonic() - self._started

    @property
    def closing(self) -> bool:
        """Whether no further request is taken."""
        return self.state in (SessionState.CLOSING, SessionState.CLOSED)

    def check_may_initialize(self) -> None:
        """Guard of `initialize`.

        Raises:
            SessionClosing: the session is on its way out.
            SessionAlreadyInitialized: there was one already.
        """
        self.check_is_open()
        if not self._machine.can(SessionTrigger.RECEIVE_INITIALIZE):
            raise SessionAlreadyInitialized

    def initialize(self, *, protocol_version: str, client_name: str, client_version: str) -> None:
        """Created → Initializing, with what the client says of itself."""
        self.check_may_initialize()
        self._fire(SessionTrigger.RECEIVE_INITIALIZE)
        self.protocol_version = protocol_version
        self.client_name = client_name[:_MAX_CLIENT]
        self.client_version = client_version[:_MAX_CLIENT]
        self._publish(
            SessionCreated(
                aggregate_id=self.id,
                principal=self.principal,
                protocol_version=protocol_version,
                client_name=self.client_name,
            )
        )

    def become_ready(self) -> None:
        """Initializing → Ready; nothing where it is ready already."""
        if self.state is SessionState.READY:
            return
        self._fire(SessionTrigger.INITIALIZED)
        self._publish(SessionInitialized(aggregate_id=self.id, principal=self.principal))

    def fail(self, reason: str) -> None:
        """Initializing → Error → Closing: the initialization failed."""
        self._fire(SessionTrigger.INITIALIZATION_FAILED)
        self._publish(SessionFailed(aggregate_id=self.id, principal=self.principal, reason=reason))
        self._fire(SessionTrigger.CLEANUP)

    def check_accepts(self, method: str) -> None:
        """Guard of every request that needs an initialized session.

        Raises:
            SessionClosing: the session is on its way out.
            SessionNotInitialized: `initialize` has not been accepted yet.
        """
        self.check_is_open()
        if self.state is SessionState.CREATED:
            raise SessionNotInitialized(method)

    def begin_request(self) -> None:
        """Idle or Processing → Processing. The first request also makes the session ready."""
        self.become_ready()
        self._machine.fire(SessionTrigger.HANDLE_REQUEST)
        self.processing += 1

    def end_request(self) -> None:
        """Processing → Processing or Idle."""
        self.processing -= 1

    def begin_closing(self) -> None:
        """Any open state → Closing; nothing where it closes already."""
        if not self.closing:
            self._fire(SessionTrigger.SHUTDOWN)

    def close(self) -> None:
        """Closing → Closed."""
        self._fire(SessionTrigger.CLEANUP_COMPLETE)
        self.closed_at = time.time()
        self._publish(SessionClosed(aggregate_id=self.id, principal=self.principal, duration=self.duration))

    def collect_events(self) -> tuple[DomainEvent, ...]:
        """What happened since the last call; the caller saves and publishes it."""
        events = tuple(self._events)
        self._events.clear()
        return events

    def check_is_open(self) -> None:
        """Guard of every request.

        Raises:
            SessionClosing: the session is on its way out.
        """
        if self.closing:
            raise SessionClosing

    def _fire(self, trigger: SessionTrigger) -> None:
        self._machine.fire(trigger)
        self.version += 1

    def _publish(self, event: DomainEvent) -> None:
        self._events.append(event)

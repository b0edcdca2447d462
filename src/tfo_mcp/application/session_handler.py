"""Commands on sessions: the diagrams' "Complete MCP Session Flow"."""

from __future__ import annotations

from tfo_mcp.application.bus import RequestInfo
from tfo_mcp.application.commands import CloseSession, ConfirmInitialized, InitializeSession
from tfo_mcp.application.ports import EventPublisher, SessionRepository, Telemetry
from tfo_mcp.domain.session import Session, SessionState


class SessionHandler:
    """Moves a session along its machine; saves and publishes what happened."""

    def __init__(self, sessions: SessionRepository, publisher: EventPublisher, telemetry: Telemetry) -> None:
        self._sessions = sessions
        self._publisher = publisher
        self._telemetry = telemetry

    async def initialize(self, command: InitializeSession, info: RequestInfo) -> None:
        """Created → Initializing; an adapter that fails unforeseen takes it to Error and Closing."""
        session = info.session
        session.initialize(
            protocol_version=command.protocol_version,
            client_name=command.client_name,
            client_version=command.client_version,
        )
        try:
            self._telemetry.record_session_event("initialized", session)
            self._commit(session)
        except Exception as error:
            session.fail(type(error).__name__)
            self._telemetry.record_session_event("closed", session)
            raise

    async def confirm(self, command: ConfirmInitialized, info: RequestInfo) -> None:  # noqa: ARG002  # the type says it all
        """Initializing → Ready."""
        if info.session.state is SessionState.INITIALIZING:
            info.session.become_ready()
            self._commit(info.session)

    async def close(self, command: CloseSession, info: RequestInfo) -> None:  # noqa: ARG002  # the type says it all
        """Any open state → Closing, the other requests' answers, → Closed."""
        session = info.session
        session.check_is_open()
        known = session.protocol_version is not None
        session.begin_closing()
        await info.client.drain()
        session.close()
        if known:
            self._telemetry.record_session_event("closed", session)
            self._telemetry.flush(0)  # begins it; only the end of the process waits for it
            self._commit(session)

    def _commit(self, session: Session) -> None:
        events = session.collect_events()
        self._sessions.save(session, events)
        self._publisher.publish(events)

"""Asks the parts of the server how they are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from tfo_mcp.application.ports import HealthSource
from tfo_mcp.domain.health import ComponentHealth, HealthReport, HealthStatus
from tfo_mcp.domain.session import Session


class Health:
    """Measures at every call; the server's uptime counts from when this was made.

    Args:
        version: the server's.
        sources: a part's name to who knows how it is.
    """

    def __init__(self, version: str, sources: Mapping[str, HealthSource]) -> None:
        self._version = version
        self._sources = sources
        self._started = time.monotonic()

    async def report(self, session: Session) -> HealthReport:
        """How every part is, and the session that asks."""
        found = await asyncio.gather(*(source.health() for source in self._sources.values()))
        return HealthReport(
            version=self._version,
            uptime=round(time.monotonic() - self._started, 3),
            components={**dict(zip(self._sources, found, strict=True)), "session": _of_session(session)},
        )


def _of_session(session: Session) -> ComponentHealth:
    details = {
        "id": session.id,
        "state": session.state.value,
        "protocol_version": session.protocol_version,
        "requests_under_way": session.processing,
        "duration": round(session.duration, 3),
    }
    return ComponentHealth(HealthStatus.HEALTHY, details)

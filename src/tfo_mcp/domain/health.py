"""How the server is: what its parts say of themselves, and what follows for the whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any


class HealthStatus(Enum):
    """From well to ill; what is switched off is no illness."""

    DISABLED = "disabled"
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    """It works, and something should be looked at."""
    UNHEALTHY = "unhealthy"
    """What the server promises cannot be kept now."""


@dataclass(frozen=True, slots=True)
class ComponentHealth:
    """One part. `details` is JSON, and free of secrets and contents."""

    status: HealthStatus
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthReport:
    """All parts at one moment. `uptime` in seconds."""

    version: str
    uptime: float
    components: Mapping[str, ComponentHealth]

    @property
    def status(self) -> HealthStatus:
        """Of the whole: that of the part which is worst."""
        order = list(HealthStatus)
        worst = max((part.status for part in self.components.values()), key=order.index)
        return HealthStatus.HEALTHY if worst is HealthStatus.DISABLED else worst


def moment(seconds: float | None) -> str | None:
    """A time in seconds since the epoch as people read it: ISO 8601, UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")

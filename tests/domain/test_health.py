from __future__ import annotations

import pytest

from tfo_mcp.domain.health import ComponentHealth, HealthReport, HealthStatus, moment


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        (["healthy", "healthy"], "healthy"),
        (["disabled", "disabled"], "healthy"),
        (["disabled", "healthy"], "healthy"),
        (["healthy", "degraded", "disabled"], "degraded"),
        (["degraded", "unhealthy", "healthy"], "unhealthy"),
    ],
)
def test_the_whole_is_as_its_worst_part_and_what_is_off_is_not_ill(parts: list[str], whole: str) -> None:
    components = {str(n): ComponentHealth(HealthStatus(part), {}) for n, part in enumerate(parts)}
    assert HealthReport(version="1", uptime=0.0, components=components).status is HealthStatus(whole)


def test_a_moment_is_told_in_utc() -> None:
    assert moment(0.0015) == "1970-01-01T00:00:00.001+00:00"
    assert moment(None) is None

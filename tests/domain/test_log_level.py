from __future__ import annotations

import pytest

from tfo_mcp.domain.errors import InvalidParams
from tfo_mcp.domain.log_level import LogLevel

LABELS = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]
"""RFC 5424's severities, from 7 to 0."""


def test_a_graver_level_is_the_greater_one() -> None:
    assert [level.label for level in sorted(LogLevel)] == LABELS
    assert [LogLevel.of(label).label for label in LABELS] == LABELS


@pytest.mark.parametrize("label", ["warn", "WARNING", "", "4", "debug "])
def test_an_unknown_level_names_the_known(label: str) -> None:
    with pytest.raises(InvalidParams) as refused:
        LogLevel.of(label)
    assert str(refused.value) == f"unknown log level: {label!r}; there are {', '.join(LABELS)}"

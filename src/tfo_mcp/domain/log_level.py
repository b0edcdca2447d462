"""How grave a log record is: the names of RFC 5424, as MCP has them."""

from __future__ import annotations

from enum import IntEnum

from tfo_mcp.domain.errors import UnknownLogLevel


class LogLevel(IntEnum):
    """A graver level is the greater one."""

    DEBUG = 1
    INFO = 2
    NOTICE = 3
    WARNING = 4
    ERROR = 5
    CRITICAL = 6
    ALERT = 7
    EMERGENCY = 8

    @property
    def label(self) -> str:
        """As clients spell it."""
        return self.name.lower()

    @classmethod
    def of(cls, label: str) -> LogLevel:
        """The level that a client names.

        Raises:
            UnknownLogLevel: none is spelled so.
        """
        for level in cls:
            if level.label == label:
                return level
        raise UnknownLogLevel(label, [level.label for level in cls])

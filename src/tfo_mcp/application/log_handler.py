"""The command on the server's own log: what of it a client wants to see."""

from __future__ import annotations

from tfo_mcp.application.bus import RequestInfo
from tfo_mcp.application.commands import SetLogLevel
from tfo_mcp.application.ports import ClientLog
from tfo_mcp.domain.log_level import LogLevel


class LogHandler:
    """Lets a client follow the log."""

    def __init__(self, log: ClientLog) -> None:
        self._log = log

    async def set_level(self, command: SetLogLevel, info: RequestInfo) -> None:
        """From now on the client gets records of this level and above.

        Raises:
            UnknownLogLevel: there is no such level.
        """
        self._log.follow(info.client, LogLevel.of(command.level))

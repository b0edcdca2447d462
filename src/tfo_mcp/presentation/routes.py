"""1.3 Method Router: the only table from a method to what it means here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tfo_mcp.application.commands import CallTool, CloseSession, ConfirmInitialized, InitializeSession, SetLogLevel
from tfo_mcp.application.queries import ListTools, Ping
from tfo_mcp.presentation import wire


@dataclass(frozen=True, slots=True)
class Route:
    """What a method means.

    Attributes:
        message: makes the command or query from params that fit the method's schema.
        result: makes the method's result from what the handler gave.
    """

    message: Callable[[Mapping[str, Any]], object]
    result: Callable[[Any], dict[str, Any]] = wire.empty


def _initialize(params: Mapping[str, Any]) -> InitializeSession:
    client = params["clientInfo"]
    return InitializeSession(params["protocolVersion"], client["name"], client["version"])


ROUTES: Final[Mapping[str, Route]] = {
    "initialize": Route(_initialize),
    "ping": Route(lambda _: Ping()),
    "server/discover": Route(lambda _: Ping()),  # the SDK says what the server is and can
    "tools/list": Route(lambda p: ListTools(p.get("cursor")), wire.tool_list),
    "tools/call": Route(lambda p: CallTool(p["name"], p.get("arguments") or {}), wire.tool_result),
    "logging/setLevel": Route(lambda p: SetLogLevel(p["level"])),
    "shutdown": Route(lambda _: CloseSession()),
}

NOTIFICATIONS: Final[Mapping[str, Callable[[Mapping[str, Any]], object]]] = {
    "notifications/initialized": lambda _: ConfirmInitialized(),
}

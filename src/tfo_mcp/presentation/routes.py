"""1.3 Method Router: the only table from a method to what it means here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from tfo_mcp.application.commands import (
    CallTool,
    CloseSession,
    ConfirmInitialized,
    InitializeSession,
    Listen,
    SetLogLevel,
    Subscribe,
    Unsubscribe,
)
from tfo_mcp.application.queries import (
    Complete,
    GetPrompt,
    ListPrompts,
    ListResources,
    ListResourceTemplates,
    ListTools,
    Ping,
    ReadResource,
)
from tfo_mcp.presentation import wire

Feature = Literal["tools", "resources", "prompts", "logging", "subscriptions"]
"""What a setting switches off: `mcp.enable_…`, or `mcp.max_subscriptions` at 0."""


@dataclass(frozen=True, slots=True)
class Route:
    """What a method means.

    Attributes:
        message: makes the command or query from params that fit the method's schema.
        result: makes the method's result from what the handler gave.
        features: the method is there as long as one of them is on; none: always.
    """

    message: Callable[[Mapping[str, Any]], object]
    result: Callable[[Any], dict[str, Any]] = wire.empty
    features: tuple[Feature, ...] = ()


def _initialize(params: Mapping[str, Any]) -> InitializeSession:
    client = params["clientInfo"]
    return InitializeSession(params["protocolVersion"], client["name"], client["version"])


def _complete(params: Mapping[str, Any]) -> Complete:
    reference, argument = params["ref"], params["argument"]
    if reference["type"] == "ref/prompt":
        return Complete("prompt", reference["name"], argument["name"], argument["value"])
    return Complete("resource", reference["uri"], argument["name"], argument["value"])


ROUTES: Final[Mapping[str, Route]] = {
    "initialize": Route(_initialize),
    "ping": Route(lambda _: Ping()),
    "server/discover": Route(lambda _: Ping()),  # the SDK says what the server is and can
    "tools/list": Route(lambda p: ListTools(p.get("cursor")), wire.tool_list, ("tools",)),
    "tools/call": Route(lambda p: CallTool(p["name"], p.get("arguments") or {}), wire.tool_result, ("tools",)),
    "resources/list": Route(lambda p: ListResources(p.get("cursor")), wire.resource_list, ("resources",)),
    "resources/templates/list": Route(
        lambda p: ListResourceTemplates(p.get("cursor")), wire.template_list, ("resources",)
    ),
    "resources/read": Route(lambda p: ReadResource(p["uri"]), wire.resource_contents, ("resources",)),
    "resources/subscribe": Route(lambda p: Subscribe(p["uri"]), features=("subscriptions",)),
    "resources/unsubscribe": Route(lambda p: Unsubscribe(p["uri"]), features=("subscriptions",)),
    "subscriptions/listen": Route(
        lambda p: Listen(tuple(p["notifications"].get("resourceSubscriptions") or ())), features=("subscriptions",)
    ),
    "prompts/list": Route(lambda p: ListPrompts(p.get("cursor")), wire.prompt_list, ("prompts",)),
    "prompts/get": Route(lambda p: GetPrompt(p["name"], p.get("arguments") or {}), wire.prompt_result, ("prompts",)),
    "completion/complete": Route(_complete, wire.completion_result, ("resources", "prompts")),
    "logging/setLevel": Route(lambda p: SetLogLevel(p["level"]), features=("logging",)),
    "shutdown": Route(lambda _: CloseSession()),
}


def routes_with(features: Collection[Feature]) -> Mapping[str, Route]:
    """The routes of a server with these features only."""
    return {
        method: route
        for method, route in ROUTES.items()
        if not route.features or any(feature in features for feature in route.features)
    }


NOTIFICATIONS: Final[Mapping[str, Callable[[Mapping[str, Any]], object]]] = {
    "notifications/initialized": lambda _: ConfirmInitialized(),
}

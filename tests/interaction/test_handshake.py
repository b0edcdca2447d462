from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from support.server import HANDSHAKE, REVISIONS, STATELESS, Answer, Server, eventually, serving
from support.sizes import later
from tfo_mcp import __version__

HANDSHAKES = [revision for revision in REVISIONS if revision != STATELESS]

ServerOf = Callable[[str], Server]


@pytest.mark.behaviour("lifecycle.initialize.result", "lifecycle.version.match")
@pytest.mark.parametrize("revision", [*map(later, HANDSHAKES[:-1]), HANDSHAKES[-1]])
def test_the_server_introduces_itself_in_the_revision_that_was_asked_for(tmp_path: Path, revision: str) -> None:
    with serving(tmp_path) as server:
        result = server.initialize(revision)
        assert result["capabilities"].pop("tools") == {"listChanged": False}
        assert result.keys() == {"protocolVersion", "serverInfo", "capabilities", "instructions"}
        assert result["protocolVersion"] == revision
        assert result["serverInfo"] == {"name": "TelemetryFlow-MCP", "version": __version__}
        assert "roots" in result["instructions"]


@pytest.mark.behaviour("lifecycle.version.vocabulary")
@pytest.mark.parametrize("revision", HANDSHAKES)
def test_after_a_handshake_nothing_is_said_in_the_words_of_the_stateless_revision(
    server_of: ServerOf, revision: str
) -> None:
    server = server_of(revision)
    for method, params in {"tools/list": {}, "tools/call": {"name": "system_info"}, "ping": {}}.items():
        result = server.call("x", method, params)["result"]
        assert {"resultType", "ttlMs", "cacheScope", "_meta"}.isdisjoint(result)


METHODS: Mapping[str, Mapping[str, dict[str, Any]]] = {
    "tools": {"tools/list": {}, "tools/call": {"name": "echo", "arguments": {"message": "x"}}},
    "resources": {"resources/list": {}, "resources/templates/list": {}, "resources/read": {"uri": "config://server"}},
    "prompts": {"prompts/list": {}, "prompts/get": {"name": "code_review"}},
    "completions": {
        "completion/complete": {
            "ref": {"type": "ref/prompt", "name": "code_review"},
            "argument": {"name": "language", "value": ""},
        }
    },
    "logging": {"logging/setLevel": {"level": "error"}},
    "tasks": {"tasks/list": {}},
}
"""Capability to the methods that it promises, with params that fit."""


def capabilities(server: Server) -> dict[str, Any]:
    if server.revision == STATELESS:
        return server.call("discover", "server/discover")["result"]["capabilities"]
    return server.received[0]["result"]["capabilities"]


@pytest.mark.behaviour("lifecycle.capabilities.served", "session.ready.any-method")
@pytest.mark.parametrize("revision", REVISIONS)
def test_what_is_announced_is_served_and_nothing_else(server_of: ServerOf, revision: str) -> None:
    server = server_of(revision)
    announced = capabilities(server)
    assert "tools" in announced
    assert announced.keys() <= METHODS.keys()
    for capability, methods in METHODS.items():
        if (capability, revision) == ("logging", STATELESS):
            continue  # announced there, it would mean log messages for a single request
        for method, params in methods.items():
            found = server.call(method, method, params).get("error", {}).get("code") != -32601
            assert found == (capability in announced), method
    # To ask in vain: a stream that is opened has no answer yet.
    method = "subscriptions/listen" if revision == STATELESS else "resources/subscribe"
    subscribing = server.call("subscribe", method, {"uri": 5, "notifications": 5})["error"]["code"]
    assert (subscribing != -32601) == announced.get("resources", {}).get("subscribe", False)


CLIENTS: Mapping[str, dict[str, Any]] = {
    "Claude Code": {
        "capabilities": {"roots": {"listChanged": True}, "sampling": {}, "elicitation": {"form": {}, "url": {}}},
        "clientInfo": {"name": "claude-code", "title": "Claude Code", "version": "2.1.0"},
    },
    "an editor": {
        "capabilities": {"roots": {"listChanged": True}, "experimental": {"x": {}}},
        "clientInfo": {"name": "Visual Studio Code", "version": "1.120", "websiteUrl": "https://example.com"},
    },
    "one of your own": {"capabilities": {}, "clientInfo": {"name": "", "version": ""}},
}


@pytest.mark.behaviour("lifecycle.client.any", "lifecycle.client.not-asked")
def test_every_client_is_served_alike(tmp_path: Path) -> None:
    heard: list[list[Answer]] = []
    for number, introduction in enumerate(CLIENTS.values()):
        with serving(tmp_path / f"{number}") as server:
            server.call(1, "initialize", {**HANDSHAKE, **introduction})
            server.notify("notifications/initialized")
            server.call(2, "tools/list")
            server.call(3, "tools/call", {"name": "echo", "arguments": {"message": "hi"}})
            server.call(4, "no/such")
            assert [sorted(answer) for answer in server.received[:3]] == [["id", "jsonrpc", "result"]] * 3
            server.close_input()
            assert server.rest() == []
            assert not any("method" in message for message in server.received)
            heard.append(server.received)
    assert heard[0] == heard[1] == heard[2]


@pytest.mark.behaviour("lifecycle.initialize.not-cancellable")
def test_an_initialize_that_is_cancelled_is_answered(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.send(
            {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HANDSHAKE},
            {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}},
        )
        assert server.receive()["result"]["protocolVersion"] == "2025-11-25"
        assert server.call(2, "tools/list")["result"]["tools"]


@pytest.mark.behaviour("lifecycle.initialized.makes-ready")
@pytest.mark.parametrize("first", ["notification", later("request")])
def test_a_session_is_ready_with_the_notification_or_else_the_first_request(tmp_path: Path, first: str) -> None:
    with serving(tmp_path, "--log-level", "debug") as server:
        server.call(1, "initialize", HANDSHAKE)
        server.call(2, "ping")
        eventually(lambda: "SessionCreated" in server.log())
        if first == "notification":
            server.notify("notifications/initialized")
            eventually(lambda: "SessionInitialized" in server.log())
        assert server.call(3, "tools/list")["result"]["tools"]
        server.notify("notifications/initialized")
        assert server.call(4, "tools/list")["result"]["tools"]
        server.close_input()
        assert server.wait() == 0
        events = [json.loads(line)["event"] for line in server.log().splitlines()]
        assert [event for event in events if event.startswith("Session")] == [
            "SessionCreated",
            "SessionInitialized",
            "SessionClosed",
        ]

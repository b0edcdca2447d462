from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from support.server import ENVELOPE, STATELESS, Answer, Server
from tfo_mcp import __version__

ServerOf = Callable[[str], Server]

VERSION = "io.modelcontextprotocol/protocolVersion"


def ask(server: Server, meta: Mapping[str, Any]) -> Answer:
    """`tools/list` with this `_meta` and no other."""
    server.send({"jsonrpc": "2.0", "id": "ask", "method": "tools/list", "params": {"_meta": dict(meta)}})
    return server.answer_to("ask")


@pytest.mark.behaviour("stateless.discover")
def test_the_server_says_what_it_is_without_a_handshake(server_of: ServerOf) -> None:
    result = server_of(STATELESS).call("discover", "server/discover")["result"]
    assert result["supportedVersions"] == [STATELESS]
    assert result["capabilities"]["tools"] == {"listChanged": False}
    assert "roots" in result["instructions"]
    assert result["_meta"]["io.modelcontextprotocol/serverInfo"] == {
        "name": "TelemetryFlow-MCP",
        "version": __version__,
    }


@pytest.mark.behaviour("stateless.result.complete")
def test_every_result_is_complete_and_names_the_server(server_of: ServerOf) -> None:
    server = server_of(STATELESS)
    for method, params in {
        "server/discover": {},
        "tools/list": {},
        "tools/call": {"name": "echo", "arguments": {"message": "x"}},
    }.items():
        result = server.call(method, method, params)["result"]
        assert result["resultType"] == "complete"
        assert result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "TelemetryFlow-MCP"


@pytest.mark.behaviour("stateless.result.cache-hints")
@pytest.mark.parametrize("method", ["server/discover", "tools/list"])
def test_what_may_be_kept_says_how_long_and_for_whom(server_of: ServerOf, method: str) -> None:
    result = server_of(STATELESS).call(method, method)["result"]
    assert (result["ttlMs"], result["cacheScope"]) == (0, "private")


@pytest.mark.behaviour("stateless.envelope.client-optional")
def test_a_client_need_not_say_who_it_is(server_of: ServerOf) -> None:
    anonymous = {key: value for key, value in ENVELOPE.items() if not key.endswith("clientInfo")}
    assert anonymous.keys() < ENVELOPE.keys()
    assert ask(server_of(STATELESS), anonymous)["result"]["tools"]


@pytest.mark.behaviour("stateless.envelope.version")
@pytest.mark.parametrize("requested", ["2099-01-01", "2025-11-25", "", "tomorrow"])
def test_a_revision_that_is_not_served_is_told_those_that_are(server_of: ServerOf, requested: str) -> None:
    error = ask(server_of(STATELESS), {**ENVELOPE, VERSION: requested})["error"]
    assert (error["code"], error["data"]) == (-32022, {"supported": [STATELESS], "requested": requested})


@pytest.mark.behaviour("stateless.envelope.required")
@pytest.mark.parametrize("missing", ["protocolVersion", "clientCapabilities"])
def test_an_envelope_that_lacks_something_is_told_what(server_of: ServerOf, missing: str) -> None:
    error = ask(server_of(STATELESS), {key: value for key, value in ENVELOPE.items() if not key.endswith(missing)})
    assert error["error"]["code"] == -32602
    assert missing in error["error"]["message"]

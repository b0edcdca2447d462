from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from interaction.behaviour import ROOT
from support.otlp import receiving
from support.server import ENVELOPE, REVISIONS, STATELESS, Answer, Server, serving

HANDSHAKES = [revision for revision in REVISIONS if revision != STATELESS]

ODD = (sys.executable, str(ROOT / "tests" / "e2e" / "odd_server.py"), "serve")

ServerOf = Callable[[str], Server]


def next_is_alive(server: Server) -> None:
    """Nothing else was on its way."""
    server.ask_whether_alive("alive")
    assert server.receive()["id"] == "alive"


@pytest.mark.behaviour("ping.result")
@pytest.mark.parametrize("revision", HANDSHAKES)
def test_a_ping_is_answered_with_nothing(server_of: ServerOf, revision: str) -> None:
    assert server_of(revision).call("p", "ping") == {"jsonrpc": "2.0", "id": "p", "result": {}}


@pytest.mark.behaviour("messages.meta.ignored", "messages.params.unknown-members")
@pytest.mark.parametrize("revision", REVISIONS)
def test_what_the_server_does_not_know_of_a_request_changes_nothing(server_of: ServerOf, revision: str) -> None:
    server = server_of(revision)
    call = {"name": "echo", "arguments": {"message": "x"}}
    plain = server.call(1, "tools/call", call)
    meta = {**(ENVELOPE if revision == STATELESS else {}), "com.example/trace": {"deep": [1, None]}, "odd": 5}
    assert server.call(1, "tools/call", {**call, "_meta": meta, "volume": 11}) == plain


@pytest.mark.behaviour("cancellation.late")
@pytest.mark.parametrize("revision", REVISIONS)
def test_a_cancellation_that_comes_too_late_is_ignored(server_of: ServerOf, revision: str) -> None:
    server = server_of(revision)
    answer = server.call(1, "tools/call", {"name": "echo", "arguments": {"message": "x"}})
    server.notify("notifications/cancelled", {"requestId": 1})
    next_is_alive(server)
    assert server.call(1, "tools/call", {"name": "echo", "arguments": {"message": "x"}}) == answer


def mistakes(revision: str) -> list[tuple[bytes, int, str]]:
    """Messages with one mistake less each: (line, code, what it is counted under; empty where it is a request)."""
    envelope = b'"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
    envelope += b'"io.modelcontextprotocol/clientCapabilities":{}},'
    meta = envelope if revision == STATELESS else b""
    wrong = b'"params":{' + meta + b'"name":5,"arguments":[]}}'
    return [
        (b'{"jsonrpc":"1.0","id":1,"method":"no/such","params":[', -32700, "parse_error"),
        (b'{"jsonrpc":"1.0","id":1,"method":"no/such",' + wrong, -32600, "not_jsonrpc"),
        (b'{"jsonrpc":"2.0","id":1,"method":"no/such",' + wrong, -32601, "method_not_found"),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call",' + wrong, -32602, "invalid_params"),
        (
            b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{' + meta + b'"name":"x","arguments":{"y":1}}}',
            -32602,
            "",
        ),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{' + meta + b'"name":"no_schema"}}', -32603, ""),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{' + meta + b'"name":"system_info"}}', 0, ""),
    ]


@pytest.mark.behaviour("messages.error.order", "messages.error.serves-on", "telemetry.rejected.counted")
@pytest.mark.parametrize("revision", ["2025-11-25", STATELESS])
def test_of_several_mistakes_the_first_on_the_way_is_told_and_counted(tmp_path: Path, revision: str) -> None:
    with receiving("http") as collector:
        exporting = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
        with serving(tmp_path, env=exporting, command=ODD) as server:
            server.begin(revision)
            codes: list[int] = []
            for line, code, _ in mistakes(revision):
                server.send_raw(line + b"\n")
                answer = server.receive()
                assert answer["id"] == (None if code == -32700 else 1)
                codes.append(code_of(answer))
            server.close_input()
            assert server.wait() == 0
        assert codes == [code for _, code, _ in mistakes(revision)]
        counted = {p["attributes"]["reason"]: p.get("value") for p in collector.metrics()["tfo.mcp.requests.rejected"]}
        assert counted == Counter(reason for _, _, reason in mistakes(revision) if reason)


def code_of(answer: Answer) -> int:
    """0 for a result."""
    return answer["error"]["code"] if "error" in answer else 0


@pytest.mark.behaviour("progress.token", "progress.unasked", "progress.ends")
@pytest.mark.parametrize("revision", ["2025-11-25", STATELESS])
def test_progress_goes_to_who_asked_for_it_under_his_token_until_the_answer(tmp_path: Path, revision: str) -> None:
    envelope = ENVELOPE if revision == STATELESS else {}
    with serving(tmp_path, command=ODD) as server:
        server.begin(revision)
        for number, token in enumerate(("a", 7, None, "")):
            meta = envelope if token is None else {**envelope, "progressToken": token}
            server.request(number, "tools/call", {"name": "wait", "arguments": {"seconds": 0}, "_meta": meta})
            if token is not None:
                assert server.receive() == {
                    "jsonrpc": "2.0",
                    "method": "notifications/progress",
                    "params": {"progressToken": token, "progress": 0, "total": 1, "message": "waiting"},
                }
            assert server.receive()["id"] == number
        next_is_alive(server)

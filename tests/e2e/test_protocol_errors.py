"""DESIGN §5, row by row, in every revision that has the case."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest

from support.claude import FakeClaude, fake_claude
from support.server import ENVELOPE, HANDSHAKE, REVISIONS, STATELESS, Answer, Server, claude_at, eventually, serving

SLOW = "replies: [{when: {contains: slow}, text: late, delay: 60}]"

HANDSHAKES = [revision for revision in REVISIONS if revision != STATELESS]

LIMIT = 4 * 1024 * 1024
"""`mcp.max_message_size`, bytes."""

DEPTH = 200
"""`mcp.max_depth`."""

ServerOf = Callable[[str], Server]


@pytest.fixture(scope="module")
def claude() -> Generator[FakeClaude]:
    with fake_claude(SLOW) as running:
        yield running


@pytest.fixture(scope="module")
def server_of(claude: FakeClaude, tmp_path_factory: pytest.TempPathFactory) -> Generator[ServerOf]:
    """One server for each revision; a new one where a test has killed it."""
    running: dict[str, Server] = {}
    with ExitStack() as servers:

        def of(revision: str) -> Server:
            if revision not in running or running[revision].process.poll() is not None:
                folder = tmp_path_factory.mktemp("server")
                server = running[revision] = servers.enter_context(serving(folder, env=claude_at(claude.base_url)))
                server.begin(revision)
                assert answers(server) == []
            return running[revision]

        yield of


def answers(server: Server) -> list[Answer]:
    """What comes before the answer to a request sent now; the server is alive, or this fails."""
    request_id = f"alive {len(server.received)}"
    server.ask_whether_alive(request_id)
    before: list[Answer] = []
    while (message := server.receive()).get("id") != request_id:
        before.append(message)
    assert "result" in message
    return before


def error(request_id: object, code: int, message: str) -> Answer:
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}


def nested(depth: int) -> bytes:
    """A request whose message has this many levels, three of them around the innermost."""
    inside = b"[" * (depth - 3) + b"]" * (depth - 3)
    return b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"arguments":{"message":' + inside + b"}}}"


# --- what is no message ---

PARSE_ERRORS = {
    "text": b"hello",
    "cut off": b'{"jsonrpc":"2.0","id":1,"method":"ping"',
    "two on one line": b'{"jsonrpc":"2.0","id":1,"method":"ping"}{"jsonrpc":"2.0","id":2,"method":"ping"}',
    "a number that is none": b'{"jsonrpc":"2.0","id":NaN,"method":"ping"}',
    "a byte order mark": b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"ping"}',
    "invalid UTF-8 in a string": b'{"jsonrpc":"2.0","id":1,"method":"p\xffing"}',
    "invalid UTF-8 in a name": b'{"jsonrpc":"2.0","id":1,"method":"ping","p\xe4rams":{}}',
    "half a surrogate pair": b'{"jsonrpc":"2.0","id":1,"method":"\\ud800 "}',
    "an id beyond any number": b'{"jsonrpc":"2.0","id":1e999,"method":"ping"}',
    "an id of 5,000 digits": b'{"jsonrpc":"2.0","id":' + b"9" * 5000 + b',"method":"ping"}',
    "one level too deep": nested(DEPTH + 1),
    "100,000 levels deep": nested(100_000),
    "100,000 levels deep and cut off": b'{"jsonrpc":"2.0","id":1,"method":"ping","params":' + b'{"a":' * 100_000,
    "a batch 100,000 levels deep": b"[" * 100_000 + b"]" * 100_000,
    "a batch that is cut off": b'[{"jsonrpc":"2.0","id":1,"method":"ping"},',
    "a batch with invalid UTF-8": b'["\xff"]',
}


@pytest.mark.behaviour("messages.error.parse", "messages.error.serves-on")
@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("line", PARSE_ERRORS.values(), ids=PARSE_ERRORS)
def test_what_is_not_json_is_a_parse_error_without_an_id(server_of: ServerOf, line: bytes, revision: str) -> None:
    server = server_of(revision)
    server.send_raw(line + b"\n")
    (answer,) = answers(server)
    assert answer["error"].pop("message").startswith("Parse error: ")
    assert answer == {"jsonrpc": "2.0", "id": None, "error": {"code": -32700}}


NO_REQUESTS: Mapping[str, tuple[bytes, object, str]] = {
    "no jsonrpc": (b'{"id":1,"method":"ping"}', 1, "'jsonrpc' must be \"2.0\""),
    "jsonrpc 1.0": (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', 1, "'jsonrpc' must be \"2.0\""),
    "jsonrpc as a number": (b'{"jsonrpc":2.0,"id":"a","method":"ping"}', "a", "'jsonrpc' must be \"2.0\""),
    "a notification without jsonrpc": (b'{"method":"ping"}', None, "'jsonrpc' must be \"2.0\""),
    "an empty object": (b"{}", None, "'jsonrpc' must be \"2.0\""),
    "no method": (b'{"jsonrpc":"2.0","id":1}', 1, "'method' must be a string"),
    "method null": (b'{"jsonrpc":"2.0","id":1,"method":null}', 1, "'method' must be a string"),
    "method a number": (b'{"jsonrpc":"2.0","id":1,"method":5}', 1, "'method' must be a string"),
    "id null": (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', None, "'id' must be a string or an integer"),
    "id a fraction": (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', None, "'id' must be a string or an integer"),
    "id 1.0": (b'{"jsonrpc":"2.0","id":1.0,"method":"ping"}', None, "'id' must be a string or an integer"),
    "id a bool": (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', None, "'id' must be a string or an integer"),
    "id an object": (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', None, "'id' must be a string or an integer"),
    "id a list": (b'{"jsonrpc":"2.0","id":[1],"method":"ping"}', None, "'id' must be a string or an integer"),
    "params a list": (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', 1, "'params' must be an object"),
    "params text": (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":"x"}', 1, "'params' must be an object"),
    "params null": (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":null}', 1, "'params' must be an object"),
    "a notification's params": (b'{"jsonrpc":"2.0","method":"x","params":1}', None, "'params' must be an object"),
    "a number": (b"42", None, "a message is a JSON object"),
    "null": (b"null", None, "a message is a JSON object"),
    "an empty batch": (b"[]", None, "batches are not supported"),
    "a batch": (b' [{"jsonrpc":"2.0","id":1,"method":"ping"}]', None, "batches are not supported"),
    "a batch of a million": (b"[" + b"1," * 999_999 + b"1]", None, "batches are not supported"),
    "a batch of a million objects": (b"[" + b"{}," * 999_999 + b"{}]", None, "batches are not supported"),
    "a line over the limit": (b'"' + b"x" * (LIMIT - 1) + b'"', None, f"message over {LIMIT} bytes"),
    "ten lines over the limit": (b"x" * 10 * LIMIT, None, f"message over {LIMIT} bytes"),
}


@pytest.mark.behaviour("messages.error.invalid-request", "messages.batch.refused", "messages.error.serves-on")
@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize(("line", "request_id", "why"), NO_REQUESTS.values(), ids=NO_REQUESTS)
def test_what_is_no_request_is_refused_with_its_id_where_it_has_one(
    server_of: ServerOf, line: bytes, request_id: object, why: str, revision: str
) -> None:
    server = server_of(revision)
    server.send_raw(line + b"\n")
    assert answers(server) == [error(request_id, -32600, f"Invalid Request: {why}")]


IGNORED = {
    "an empty line": b"",
    "a line of blanks": b" \t\r",
    "an answer to nothing": b'{"jsonrpc":"2.0","id":1,"result":{}}',
    "an error about nothing": b'{"jsonrpc":"2.0","id":null,"error":{"code":-32603,"message":"x"}}',
    "an unknown notification": b'{"jsonrpc":"2.0","method":"notifications/no/such"}',
    "a request's method as a notification": b'{"jsonrpc":"2.0","method":"tools/call","params":{"name":"echo"}}',
    "shutdown as a notification": b'{"jsonrpc":"2.0","method":"shutdown"}',
    "a malformed notification": b'{"jsonrpc":"2.0","method":"notifications/initialized","params":{"_meta":5}}',
    "a second notifications/initialized": b'{"jsonrpc":"2.0","method":"notifications/initialized"}',
    "a cancellation of nothing": b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"x"}}',
    "a cancellation with a bad id": b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":[]}}',
    "a cancellation without params": b'{"jsonrpc":"2.0","method":"notifications/cancelled"}',
}


@pytest.mark.behaviour("messages.notification.unanswered", "messages.response.ignored", "cancellation.ignored")
@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("line", IGNORED.values(), ids=IGNORED)
def test_what_wants_no_answer_gets_none(server_of: ServerOf, line: bytes, revision: str) -> None:
    server = server_of(revision)
    server.send_raw(line + b"\n")
    assert answers(server) == []


@pytest.mark.behaviour("messages.size.bounded")
@pytest.mark.parametrize("revision", REVISIONS)
def test_a_line_of_just_the_limit_and_one_of_just_the_depth_are_served(server_of: ServerOf, revision: str) -> None:
    server = server_of(revision)
    meta = {"_meta": ENVELOPE} if revision == STATELESS else {}
    params = {**meta, "name": "echo", "arguments": {"message": ""}}
    frame = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
    filled = frame.replace(b'"message": ""', b'"message": "' + b"x" * (LIMIT - len(frame)) + b'"')
    assert len(filled) == LIMIT
    server.send_raw(filled + b"\n")
    assert len(server.answer_to(1)["result"]["structuredContent"]["message"]) == LIMIT - len(frame)
    server.send_raw(filled + b" \n")
    assert answers(server) == [error(None, -32600, f"Invalid Request: message over {LIMIT} bytes")]
    server.send_raw(nested(DEPTH) + b"\n")
    (answer,) = answers(server)
    assert answer["error"]["code"] == -32602  # it has no tool's name


@pytest.mark.behaviour("messages.size.bounded")
@pytest.mark.parametrize("revision", ["2025-11-25", STATELESS])
def test_a_line_of_100_mb_is_skipped_in_little_memory(server_of: ServerOf, revision: str) -> None:
    server = server_of(revision)
    before = server.peak_memory()
    block = b'{"jsonrpc": "2.0", "id": 1, ' * 37_000
    for _ in range(100):
        server.send_raw(block)
    server.send_raw(b"\n")
    assert answers(server) == [error(None, -32600, f"Invalid Request: message over {LIMIT} bytes")]
    assert server.peak_memory() - before < 4 * LIMIT


# --- requests that cannot be served ---


@pytest.mark.behaviour("messages.id.kinds")
@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("request_id", [0, -1, 2**53, 2**64, -(2**70), "", "7", "é\u2028\x7f", "x" * 10_000])
def test_every_string_and_every_integer_is_an_id(server_of: ServerOf, request_id: str | int, revision: str) -> None:
    server = server_of(revision)
    server.request(request_id, "tools/call", {"name": "echo", "arguments": {"message": "hi"}})
    (answer,) = answers(server)
    assert answer["id"] == request_id
    assert type(answer["id"]) is type(request_id)
    assert answer["result"]["structuredContent"] == {"message": "hi"}


BAD_PARAMS: Mapping[str, tuple[str, dict[str, Any], str]] = {
    "an unknown tool": ("tools/call", {"name": "no_such"}, "unknown tool: 'no_such'"),
    "no tool": ("tools/call", {}, "Invalid params: params/name: Field required"),
    "a tool's name as a number": ("tools/call", {"name": 5}, "params/name: Input should be a valid string"),
    "arguments as a list": ("tools/call", {"name": "echo", "arguments": []}, "params/arguments: "),
    "arguments as text": ("tools/call", {"name": "echo", "arguments": "x"}, "params/arguments: "),
    "a cursor as a number": ("tools/list", {"cursor": 5}, "params/cursor: Input should be a valid string"),
    "_meta as a number": ("tools/list", {"_meta": 5}, "_meta"),
    "a progress token as a list": ("tools/list", {"_meta": {**ENVELOPE, "progressToken": []}}, "progressToken"),
}


@pytest.mark.behaviour("messages.error.invalid-params", "tools.call.unknown-tool")
@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize(("method", "params", "why"), BAD_PARAMS.values(), ids=BAD_PARAMS)
def test_malformed_params_are_refused_naming_what_is_wrong(
    server_of: ServerOf, method: str, params: dict[str, Any], why: str, revision: str
) -> None:
    server = server_of(revision)
    meta = params.get("_meta")
    if revision != STATELESS and isinstance(meta, dict):
        params = {**params, "_meta": {"progressToken": meta["progressToken"]}}
    server.request(1, method, params)
    (answer,) = answers(server)
    assert (answer["id"], answer["error"]["code"]) == (1, -32602)
    assert why in answer["error"]["message"]


UNKNOWN_METHODS = [
    "no/such",
    "prompts/no_such",
    "rpc.discover",
    "",
    "ping ",
    "notifications/initialized",
    "\u2028" * 99,
]


@pytest.mark.behaviour("messages.error.method-not-found")
@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("method", UNKNOWN_METHODS, ids=ascii)
def test_an_unknown_method_is_not_found(server_of: ServerOf, method: str, revision: str) -> None:
    server = server_of(revision)
    server.request(1, method, {})
    (answer,) = answers(server)
    assert (answer["id"], answer["error"]["code"]) == (1, -32601)


@pytest.mark.behaviour("stateless.era.methods")
def test_methods_of_one_era_are_unknown_in_the_other(server_of: ServerOf) -> None:
    for revision, methods in ({"2025-11-25": ["server/discover"], STATELESS: ["ping", "logging/setLevel"]}).items():
        server = server_of(revision)
        for method in methods:
            server.request(1, method, {"level": "info"})
            (answer,) = answers(server)
            assert answer["error"]["code"] == -32601


@pytest.mark.behaviour("lifecycle.initialize.once")
@pytest.mark.parametrize("revision", HANDSHAKES)
def test_a_second_initialize_is_refused_and_changes_nothing(server_of: ServerOf, revision: str) -> None:
    server = server_of(revision)
    other = next(other for other in HANDSHAKES if other != revision)
    server.request(1, "initialize", {**HANDSHAKE, "protocolVersion": other})
    assert answers(server) == [error(1, -32600, "this session is already initialized")]


@pytest.mark.behaviour("stateless.era.initialize-refused", "stateless.era.kept")
@pytest.mark.parametrize("revision", REVISIONS)
def test_a_request_of_the_other_era_is_refused(server_of: ServerOf, revision: str) -> None:
    server = server_of(revision)
    if revision == STATELESS:
        server.request(1, "initialize", HANDSHAKE)
        (answer,) = answers(server)
        assert answer["error"]["code"] == -32022
        assert answer["error"]["data"] == {"supported": [STATELESS], "requested": "2025-11-25"}
    else:
        server.request(1, "tools/list", {"_meta": ENVELOPE})
        (answer,) = answers(server)
        assert answer["error"]["code"] == -32600


BAD_ENVELOPES: Mapping[str, tuple[Any, int, str]] = {
    "none": (None, -32602, "_meta"),
    "empty": ({}, -32602, "_meta"),
    "without capabilities": (
        {"io.modelcontextprotocol/protocolVersion": STATELESS},
        -32602,
        "io.modelcontextprotocol/clientCapabilities",
    ),
    "of a revision to come": (
        {**ENVELOPE, "io.modelcontextprotocol/protocolVersion": "2099-01-01"},
        -32022,
        "Unsupported protocol version",
    ),
    "of a revision with a handshake": (
        {**ENVELOPE, "io.modelcontextprotocol/protocolVersion": "2025-11-25"},
        -32022,
        "Unsupported protocol version",
    ),
}


@pytest.mark.behaviour("stateless.envelope.required", "stateless.envelope.version")
@pytest.mark.parametrize(("meta", "code", "why"), BAD_ENVELOPES.values(), ids=BAD_ENVELOPES)
def test_a_stateless_request_without_its_envelope_is_refused(
    server_of: ServerOf, meta: object, code: int, why: str
) -> None:
    server = server_of(STATELESS)
    params = {} if meta is None else {"params": {"_meta": meta}}
    server.send({"jsonrpc": "2.0", "id": 1, "method": "tools/list", **params})
    (answer,) = answers(server)
    assert answer["error"]["code"] == code
    assert why in answer["error"]["message"]


# --- what a tool says ---

TOOL_ERRORS: Mapping[str, tuple[str, dict[str, Any], str]] = {
    "a missing field": ("echo", {}, "invalid arguments for 'echo': /message: is required"),
    "a wrong type": ("echo", {"message": 5}, "invalid arguments for 'echo': /message: 5 is not of type \"string\""),
    "a field too many": ("echo", {"message": "", "volume": 11}, "invalid arguments for 'echo': /volume: "),
    "a huge number": ("echo", {"message": 2**80}, "invalid arguments for 'echo': /message: "),
    "an empty message to Claude": ("claude_conversation", {"message": " "}, "invalid arguments"),
    "a file that is not there": ("read_file", {"path": "no-such"}, "there is no 'no-such'"),
    "a file outside the roots": ("read_file", {"path": "/etc/passwd"}, "/etc/passwd"),
    "an unknown conversation": (
        "claude_conversation",
        {"message": "hi", "conversation_id": "no-such"},
        "there is no conversation 'no-such'",
    ),
}


@pytest.mark.behaviour("tools.call.invalid-arguments", "tools.call.failure")
@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize(("tool", "arguments", "why"), TOOL_ERRORS.values(), ids=TOOL_ERRORS)
def test_what_a_tool_cannot_do_is_a_result_that_says_why(
    server_of: ServerOf, tool: str, arguments: dict[str, Any], why: str, revision: str
) -> None:
    server = server_of(revision)
    result = server.call_tool(1, tool, arguments)
    assert result["isError"] is True
    assert why in result["content"][0]["text"]
    assert answers(server) == []


@pytest.mark.behaviour("messages.id.in-flight", "cancellation.no-answer", "cancellation.upstream")
@pytest.mark.parametrize("revision", REVISIONS)
def test_an_id_in_flight_is_refused_and_its_request_goes_on(
    server_of: ServerOf, claude: FakeClaude, revision: str
) -> None:
    server = server_of(revision)
    asked = len(claude.requests())
    call = {"name": "claude_conversation", "arguments": {"message": "slow"}}
    server.request(1, "tools/call", call)
    eventually(lambda: len(claude.requests()) > asked)
    for _ in range(2):
        server.request(1, "tools/call", call)
        assert answers(server) == [error(1, -32600, "a request with id 1 is already in flight")]
    server.request("1", "no/such")
    (answer,) = answers(server)
    assert (answer["id"], answer["error"]["code"]) == ("1", -32601)
    server.notify("notifications/cancelled", {"requestId": 1})
    eventually(lambda: claude.requests()[asked]["disconnected"])
    assert len(claude.requests()) == asked + 1
    assert answers(server) == []

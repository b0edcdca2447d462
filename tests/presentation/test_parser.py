from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfo_mcp.presentation.transport.parser import Notification, Rejection, Request, Response, parse

DEPTH = 20

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)
member_names = st.sampled_from(["jsonrpc", "id", "method", "params", "result", "error", "x"])
envelopes = st.dictionaries(member_names, json_values | st.sampled_from(["2.0", "ping", 1, "1"]), max_size=7)
pieces = st.sampled_from(
    [b"{", b"}", b"[", b"]", b'"', b":", b",", b"\\u", b"\\", b"1e9", b"9" * 5000, b"nul", b"\xff"]
)


@given(st.one_of(st.binary(), st.lists(pieces).map(b"".join), st.text().map(str.encode)))
def test_any_bytes_are_a_message_or_a_reason(line: bytes) -> None:
    outcome = parse(line, DEPTH)
    assert isinstance(outcome, Request | Notification | Response | Rejection)
    if isinstance(outcome, Rejection):
        assert outcome.code in {-32700, -32600}
        assert outcome.message


@pytest.mark.behaviour("messages.error.invalid-request")
@given(envelopes)
def test_any_object_is_taken_for_what_it_is(members: dict[str, Any]) -> None:
    outcome = parse(json.dumps(members).encode(), 100)
    identifier = members.get("id")
    has_id = isinstance(identifier, str | int) and not isinstance(identifier, bool)
    match outcome:
        case Request():
            assert (members["jsonrpc"], outcome.id, outcome.method) == ("2.0", identifier, members["method"])
            assert has_id
            assert outcome.params == members.get("params")
        case Notification():
            assert members["jsonrpc"] == "2.0"
            assert "id" not in members
            assert (outcome.method, outcome.params) == (members["method"], members.get("params"))
        case Response():
            assert "method" not in members
            assert "result" in members or "error" in members
        case Rejection():
            assert (outcome.code, outcome.id) == (-32600, identifier if has_id else None)


@given(st.one_of(st.integers(), st.text()), st.text(), st.dictionaries(st.text(), json_values, max_size=4))
def test_every_proper_request_is_taken_unchanged(identifier: str | int, method: str, params: dict[str, Any]) -> None:
    line = json.dumps({"jsonrpc": "2.0", "id": identifier, "method": method, "params": params}).encode()
    assert parse(line, 100) == Request(identifier, method, params)


@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_nesting_is_counted_exactly(brackets: str) -> None:
    def nested(levels: int) -> bytes:
        """An object around an object around `levels` - 2 more."""
        inside = brackets[0] + '"":' * (brackets == "{}")
        deep = inside * (levels - 3) + brackets + brackets[1] * (levels - 3)
        return b'{"jsonrpc":"2.0","method":"m","params":{"x":%b}}' % deep.encode()

    assert isinstance(parse(nested(DEPTH), DEPTH), Notification)
    assert parse(nested(DEPTH + 1), DEPTH) == Rejection(
        -32700, f"Parse error: nested deeper than {DEPTH} levels", "too_deep"
    )


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
def test_nesting_that_no_stack_holds_is_refused(opening: bytes) -> None:
    outcome = parse(opening * 200_000, DEPTH)
    assert isinstance(outcome, Rejection)
    assert (outcome.code, outcome.id) == (-32700, None)


def test_brackets_within_strings_are_no_nesting() -> None:
    line = json.dumps({"jsonrpc": "2.0", "method": "m", "params": {"x": "[{" * 1000}}).encode()
    assert isinstance(parse(line, DEPTH), Notification)


@pytest.mark.behaviour("messages.error.parse", "messages.error.invalid-request")
@pytest.mark.parametrize(
    ("line", "code", "identifier", "reason"),
    [
        (b"{", -32700, None, "parse_error"),
        (b'{"jsonrpc":"2.0","id":1,"method":"m\xff"}', -32700, None, "parse_error"),
        (b'{"jsonrpc":"2.0","id":1,"method":NaN}', -32700, None, "parse_error"),
        (b"[" * 300 + b"]" * 300, -32600, None, "batch"),
        (b' [{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600, None, "batch"),
        (b"[1,", -32700, None, "parse_error"),
        (b"1", -32600, None, "not_an_object"),
        (b'{"id":7,"method":"ping"}', -32600, 7, "not_jsonrpc"),
        (b'{"jsonrpc":2.0,"id":"a","method":"ping"}', -32600, "a", "not_jsonrpc"),
        (b'{"jsonrpc":"2.0","id":7}', -32600, 7, "bad_method"),
        (b'{"jsonrpc":"2.0","id":7,"method":null}', -32600, 7, "bad_method"),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600, None, "bad_id"),
        (b'{"jsonrpc":"2.0","id":1.0,"method":"ping"}', -32600, None, "bad_id"),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600, None, "bad_id"),
        (b'{"jsonrpc":"2.0","id":7,"method":"ping","params":[]}', -32600, 7, "bad_params"),
        (b'{"jsonrpc":"2.0","id":7,"method":"ping","params":null}', -32600, 7, "bad_params"),
    ],
)
def test_what_is_no_message_is_refused_with_its_reason(
    line: bytes, code: int, identifier: int | None, reason: str
) -> None:
    outcome = parse(line, DEPTH)
    assert isinstance(outcome, Rejection)
    assert (outcome.code, outcome.id, outcome.reason) == (code, identifier, reason)

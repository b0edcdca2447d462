"""Where our server must answer otherwise than the bare SDK: one rule each, with its row of DESIGN §5."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn, cast

from differential.messages import LISTS, MAX_LINE, Members

MAX_DEPTH = 200
"""`mcp.max_depth`."""

_SERVER_TOOLS: Final = {"echo": {"message"}, "read_file": {"path"}}
"""Tools that the scripts call, with the arguments that they require."""

_SERVER_RESOURCE: Final = "config://server"
_SERVER_PROMPT: Final = "code_review"
"""What the scripts read and fill."""

_NOT_SERVED: Final = {"logging/setLevel", "resources/subscribe", "resources/unsubscribe", "subscriptions/listen"}
"""Methods that MCP has and the servers compared have not."""


class Sent:
    """One line as the rules see it, read without a line of the code under test.

    `broken` says why it is no JSON. `id` is None where it is absent or not a string or an integer.
    """

    def __init__(self, line: bytes) -> None:
        self.line = line
        self.broken = ""
        self.value: object = None
        try:
            self.value = cast("object", json.loads(line.decode(), parse_constant=_refuse))
            _check(self.value, 1)
        except (ValueError, RecursionError) as error:
            self.broken = str(error)
        self.blank = not line.strip()
        self.members = _object(self.value)
        self.id: str | int | None = self.members.get("id") if _is_id(self.members.get("id")) else None
        self.method = self.members.get("method")
        self.params = _object(self.members.get("params"))

    @property
    def is_response(self) -> bool:
        return "method" not in self.members and not self.members.keys().isdisjoint({"result", "error"})

    @property
    def is_request(self) -> bool:
        return isinstance(self.method, str) and self.id is not None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _check(value: object, depth: int) -> None:
    """What is JSON by its grammar, and yet no value that another JSON text could say."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number that no float holds")
    if isinstance(value, str):
        value.encode()  # half of a surrogate pair
    if isinstance(value, dict):
        members = cast("Members", value)
        inner: list[object] = [*members, *members.values()]
    elif isinstance(value, list):
        inner = cast("list[object]", value)
    else:
        return
    if depth > MAX_DEPTH:
        raise ValueError("nested too deep")
    for item in inner:
        _check(item, depth + 1)


def _object(value: object) -> Members:
    return cast("Members", value) if isinstance(value, dict) else {}


def _is_id(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


@dataclass
class State:
    """What a client knows of its connection: from what it sent and what it was answered."""

    initialized: bool = False
    stateless: bool = False
    closing: bool = False
    place: int = 0
    """Of the line in its burst."""
    duplicates: set[int] = field(default_factory=set[int])
    """Places of requests whose id is in flight already."""
    cancelled: set[int] = field(default_factory=set[int])
    """Places of requests that a later line of the burst cancels."""

    def begin(self, burst: Sequence[Sent]) -> None:
        """See which ids are in flight at which line: all of a burst is there before any of it is answered."""
        self.duplicates, self.cancelled = set(), set()
        flying: dict[str | int, int] = {}
        for place, sent in enumerate(burst):
            if len(sent.line) > MAX_LINE or sent.broken or _not_json_rpc(sent):
                continue
            if sent.id is not None:
                if sent.is_request and flying.setdefault(sent.id, place) != place:
                    self.duplicates.add(place)
            elif sent.method == "notifications/cancelled" and _is_id(sent.params.get("requestId")):
                target = cast("str | int", sent.params["requestId"])
                holder = flying.get(target, flying.get(_other_spelling(target)))
                if holder is not None and burst[holder].method not in _LIFECYCLE:
                    self.cancelled.add(holder)
                    del flying[cast("str | int", burst[holder].id)]


_LIFECYCLE: Final = {"initialize", "shutdown"}
"""What cannot be cancelled: MCP says so of the first, and half of the second would leave no way out."""


def _other_spelling(request_id: str | int) -> str | int:
    """7 for "7": some peers stringify ids, so the SDK takes one for the other where it looks for what to cancel."""
    if isinstance(request_id, int):
        return str(request_id)
    try:
        return int(request_id)
    except ValueError:
        return request_id


@dataclass(frozen=True)
class Demand:
    """What an answer must be: an error with `code`, or without one a result with `isError`; and what it names."""

    id: str | int | None
    code: int | None = None
    names: tuple[str, ...] = ()
    pattern: str = ""

    def is_met_by(self, answer: Members) -> bool:
        said: object = answer.get("id", "absent")
        if answer.get("jsonrpc") != "2.0" or (type(said), said) != (type(self.id), self.id):
            return False
        if self.code is None:
            text: str = answer.get("result", {}).get("content", [{}])[0].get("text", "")
            is_right = answer.get("result", {}).get("isError") is True
        else:
            text = answer.get("error", {}).get("message", "")
            is_right = answer.get("error", {}).get("code") == self.code
        names_all = all(name in text for name in self.names)
        return is_right and text != "" and names_all and re.search(self.pattern, text) is not None


@dataclass(frozen=True)
class Rule:
    """A deviation. `asked` rules see the SDK's answer first; for the others the SDK does not get the line at all."""

    name: str
    row: str
    applies: Callable[[Sent, State], bool]
    demands: Callable[[Sent], Demand]


@dataclass(frozen=True)
class AskedRule:
    """A deviation in the answer to what the SDK answers too."""

    name: str
    row: str
    applies: Callable[[Sent, State, Members], bool]
    demands: Callable[[Sent], Demand | None]


def _not_json_rpc(sent: Sent) -> bool:
    """No or wrong `jsonrpc`, no method, an id that is none, params that are no object."""
    members = sent.members
    if members.get("jsonrpc") != "2.0":
        return True
    if sent.is_response:
        return False
    bad_id = "id" in members and sent.id is None
    bad_params = "params" in members and not isinstance(members["params"], dict)
    return not isinstance(sent.method, str) or bad_id or bad_params


_PARSE = "not JSON, invalid UTF-8, nested too deep: -32700, id null"
_INVALID = (
    "not JSON-RPC 2.0: no or wrong jsonrpc, a batch, an id that is not string or integer, params not an object: "
    "-32600, the id where it can be read"
)
_SIZE = "a line over mcp.max_message_size: -32600, id null; the rest of the line is skipped, never held"
_NOT_NOW = "an id that is already in flight; a request before initialize; a second initialize: -32600"
_CLOSING = "a request while Closing: -32000"
_UNKNOWN = "an unknown method: -32601, whatever its params"
_PARAMS = (
    "unknown tool, prompt, resource, cursor; missing prompt argument; malformed params: -32602, naming what was wrong"
)
_ARGUMENTS = "tool arguments against their schema: a result with isError: true that says which field and why"
_ONE_ANSWER = "every accepted request gets exactly one answer, unless it was cancelled"

BEFORE: Final = (
    Rule("too large", _SIZE, lambda s, _: len(s.line) > MAX_LINE, lambda _: Demand(None, -32600)),
    Rule("not json", _PARSE, lambda s, _: s.broken != "" and not s.blank, lambda _: Demand(None, -32700)),
    Rule(
        "no object", _INVALID, lambda s, _: not (s.blank or isinstance(s.value, dict)), lambda _: Demand(None, -32600)
    ),
    Rule("not json-rpc", _INVALID, lambda s, _: not s.blank and _not_json_rpc(s), lambda s: Demand(s.id, -32600)),
    Rule(
        "id in flight",
        _NOT_NOW,
        lambda s, state: s.is_request and state.place in state.duplicates,
        lambda s: Demand(s.id, -32600),
    ),
    Rule(
        "second initialize",
        _NOT_NOW,
        lambda s, state: s.is_request and s.method == "initialize" and state.initialized and not state.closing,
        lambda s: Demand(s.id, -32600),
    ),
)


def _is_before_initialize(sent: Sent, state: State, answer: Members) -> bool:
    is_gated = sent.method not in {"initialize", "ping"} and not (state.initialized or state.stateless)
    return is_gated and "result" in answer


def _is_too_late(sent: Sent, state: State, answer: Members) -> bool:
    return state.closing and ("result" in answer or (sent.method == "initialize" and not state.stateless))


def _calls(sent: Sent, answer: Members) -> bool:
    return sent.method == "tools/call" and "result" in answer


def _misses(sent: Sent) -> tuple[str, ...]:
    """Fields of the arguments that are not as the tool's schema has them."""
    required = _SERVER_TOOLS[sent.params["name"]]
    given: Members = sent.params.get("arguments") or {}
    wrong = {name for name in required if not isinstance(given.get(name), str)}
    return tuple(sorted(wrong | (given.keys() - required)))


def _is_answered(sent: Sent, method: str, answer: Members) -> bool:
    return sent.method == method and "result" in answer


def _fills(sent: Sent) -> bool:
    """Whether the arguments of `prompts/get` are as the prompt has them."""
    given: Members = sent.params.get("arguments") or {}
    return given.keys() == {"code"} and given["code"].strip() != ""


def _reference(sent: Sent) -> str:
    reference: Members = sent.params["ref"]
    return reference["name"] if reference["type"] == "ref/prompt" else reference["uri"]


def _completes(sent: Sent) -> bool:
    """Whether there is an argument to complete."""
    known: Members = {_SERVER_PROMPT: {"code", "language", "focus"}}
    return sent.params["ref"]["type"] == "ref/prompt" and sent.params["argument"]["name"] in known.get(
        _reference(sent), ()
    )


def _is_malformed(answer: Members) -> bool:
    return answer.get("error", {}).get("message") == "Invalid request parameters"


ASKED: Final = (
    AskedRule("cancelled", _ONE_ANSWER, lambda _s, state, _: state.place in state.cancelled, lambda _: None),
    AskedRule("closing", _CLOSING, _is_too_late, lambda s: Demand(s.id, -32000)),
    AskedRule(
        "not served",
        _UNKNOWN,
        lambda s, _, answer: s.method in _NOT_SERVED and _is_malformed(answer),
        lambda s: Demand(s.id, -32601),
    ),
    AskedRule(
        "malformed params",
        _PARAMS,
        lambda _s, _state, answer: _is_malformed(answer),
        lambda s: Demand(s.id, -32602, pattern=r"^Invalid params: (params|_meta)[/:].*\w"),
    ),
    AskedRule("before initialize", _NOT_NOW, _is_before_initialize, lambda s: Demand(s.id, -32600)),
    AskedRule(
        "unknown tool",
        _PARAMS,
        lambda s, _, answer: _calls(s, answer) and s.params["name"] not in _SERVER_TOOLS,
        lambda s: Demand(s.id, -32602, (repr(s.params["name"]),)),
    ),
    AskedRule(
        "wrong arguments",
        _ARGUMENTS,
        lambda s, _, answer: _calls(s, answer) and _misses(s) != (),
        lambda s: Demand(s.id, None, _misses(s)),
    ),
    AskedRule(
        "unknown resource",
        _PARAMS,
        lambda s, _, answer: _is_answered(s, "resources/read", answer) and s.params["uri"] != _SERVER_RESOURCE,
        lambda s: Demand(s.id, -32602, (repr(s.params["uri"]),)),
    ),
    AskedRule(
        "unknown prompt",
        _PARAMS,
        lambda s, _, answer: _is_answered(s, "prompts/get", answer) and s.params["name"] != _SERVER_PROMPT,
        lambda s: Demand(s.id, -32602, (repr(s.params["name"]),)),
    ),
    AskedRule(
        "prompt arguments",
        _PARAMS,
        lambda s, _, answer: _is_answered(s, "prompts/get", answer) and not _fills(s),
        lambda s: Demand(s.id, -32602, (repr(s.params["name"]), "argument")),
    ),
    AskedRule(
        "unknown reference",
        _PARAMS,
        lambda s, _, answer: _is_answered(s, "completion/complete", answer) and not _completes(s),
        lambda s: Demand(s.id, -32602, (repr(_reference(s)),)),
    ),
    AskedRule(
        "unknown cursor",
        _PARAMS,
        lambda s, _, answer: s.method in LISTS and "result" in answer and isinstance(s.params.get("cursor"), str),
        lambda s: Demand(s.id, -32602, ("cursor",)),
    ),
)
"""In their order: the first that applies decides."""


def opens_stateless(sent: Sent) -> bool:
    """Whether a connection's first request opens the stateless era."""
    meta = _object(sent.params.get("_meta"))
    return sent.method != "initialize" and "io.modelcontextprotocol/protocolVersion" in meta

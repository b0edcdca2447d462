"""Scripts for one connection each: what clients say, what they should not say, and what no client would.

A script is the same for the same seed on every machine. Nothing here knows what the right answer is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, cast

Script = tuple[tuple[bytes, ...], ...]
"""Bursts of lines without their newline: what stands in one burst is sent at once, before any of it is answered."""

MAX_LINE = 16_384
"""Bytes; what the servers under test have as `mcp.max_message_size`."""

Members = dict[str, Any]

_REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
_ODD_REVISIONS = ("2026-07-28", "2027-01-01", "2024-11-5", "", "1.0", 20251125, None, ["2025-11-25"])
_STATELESS = "2026-07-28"
_PREFIX = "io.modelcontextprotocol/"

_METHODS = {
    "tools/call": 45,
    "tools/list": 12,
    "ping": 10,
    "initialize": 4,
    "server/discover": 6,
    "resources/list": 3,
    "resources/read": 3,
    "resources/subscribe": 2,
    "resources/templates/list": 1,
    "prompts/list": 2,
    "prompts/get": 3,
    "completion/complete": 2,
    "logging/setLevel": 2,
    "subscriptions/listen": 2,
    "sampling/createMessage": 1,
    "tasks/get": 1,
    "notifications/initialized": 1,
    "notifications/cancelled": 1,
    "rpc.discover": 1,
    "TOOLS/LIST": 1,
    "tools/list ": 1,
    "": 1,
    "wörk/stück": 1,
    "x" * 300: 1,
}
_PARAMS: dict[str, Members] = {
    "resources/subscribe": {"uri": "config://server"},
    "logging/setLevel": {"level": "info"},
    "subscriptions/listen": {"notifications": {"toolsListChanged": True}},
    "notifications/progress": {"progressToken": 1, "progress": 0.5},
}
_CHOICES: dict[str, tuple[Members, ...]] = {
    "resources/read": (
        {"uri": "config://server"},
        {"uri": "config://server"},
        {"uri": "CONFIG://server"},
        {"uri": "conversation://none"},
    ),
    "prompts/get": (
        {"name": "code_review", "arguments": {"code": "x"}},
        {"name": "code_review", "arguments": {"code": "y = 1"}},
        {"name": "code_review", "arguments": {"cod": "x"}},
        {"name": "code_review"},
        {"name": "nonsense", "arguments": {"code": "x"}},
    ),
    "completion/complete": (
        {"ref": {"type": "ref/prompt", "name": "code_review"}, "argument": {"name": "language", "value": "Py"}},
        {"ref": {"type": "ref/prompt", "name": "code_review"}, "argument": {"name": "code", "value": "b"}},
        {"ref": {"type": "ref/prompt", "name": "x"}, "argument": {"name": "a", "value": "b"}},
        {"ref": {"type": "ref/resource", "uri": "nonsense://{a}"}, "argument": {"name": "a", "value": "b"}},
    ),
}
"""Params of which one of several is taken."""

LISTS = ("tools/list", "resources/list", "resources/templates/list", "prompts/list")
"""Methods that take a cursor."""

_NOTIFICATIONS = (
    "notifications/initialized",
    *("notifications/cancelled",) * 5,
    "notifications/progress",
    "notifications/roots/list_changed",
    "notifications/message",
    "notifications/nonsense",
    "initialize",
    "tools/call",
    "tools/list",
    "ping",
    "shutdown",
    "",
)


class Raw(str):
    """JSON that is written as it stands."""

    __slots__ = ()


_ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, "", "x", "7", [], {}, [1], {"a": 1}, [[]], "💥", "\0", "2025-11-25",
    Raw("1e2"), Raw("-0"), Raw("1.0"), Raw("12345678901234567890123"), Raw("5E-324"), Raw('"\\u0041\\/"'),
)  # fmt: skip
_ODD_IDS: tuple[Any, ...] = (
    0, -1, "", "null", "é", "i" * 200, Raw("-0"), Raw("9007199254740993"), Raw("1180591620717411303424"),
    Raw('"\\u0069d"'), "0", "-1",
)  # fmt: skip
_BAD_IDS: tuple[Any, ...] = (None, 1.5, True, False, [], {}, [1], Raw("1.0"), Raw("1e2"))
_BAD_PARAMS: tuple[Any, ...] = (None, [], [1, 2], "x", 5, True, [{}])
_BAD_METHODS: tuple[Any, ...] = (None, 5, True, [], {}, ["ping"])
_WRONG_ARGUMENTS: tuple[Members | None, ...] = (
    {}, {"message": 5}, {"message": None}, {"message": "x", "more": 1}, {"paths": 1}, {"Message": "x"}, None,
)  # fmt: skip
_CAPABILITIES: tuple[Members, ...] = ({}, {"roots": {"listChanged": True}}, {"sampling": {}, "x": 1})
_BAD_VERSIONS: tuple[Any, ...] = ("1.0", "2", "", "2.0 ", 2, None, True, ["2.0"], Raw("2.0"))


def _copy(params: Members) -> Members:
    """One that can be changed, down to the second level."""
    return {name: dict(cast("Members", value)) if isinstance(value, dict) else value for name, value in params.items()}


def scripts(seed: int | str, messages: int) -> Iterator[tuple[str, Script]]:
    """Named scripts with `messages` lines in all, or a few more."""
    written = number = 0
    while written < messages:
        name = f"{seed}/{number}"
        script = _Client(Random(name)).script()
        written += sum(map(len, script))
        number += 1
        yield name, script


class _Client:
    """One client's whims."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._ids: list[object] = []
        self._enveloped = 0.0
        """The share of requests with the envelope of the stateless era."""

    def script(self) -> Script:
        lines = self._opening()
        lines += [self._line() for _ in range(self._random.randint(1 if lines else 2, 15) - len(lines))]
        if self._once_in(8):
            end = [self._request("shutdown"), *(self._line() for _ in range(self._random.randint(0, 4)))]
            return (*self._bursts(lines), tuple(end))
        return tuple(self._bursts(lines))

    def _opening(self) -> list[bytes]:
        kind = self._random.choices(("handshake", "stateless", "anything", "late"), (55, 30, 7, 8))[0]
        self._enveloped = {"handshake": 0.06, "stateless": 0.92, "anything": 0.4, "late": 0.02}[kind]
        before: list[bytes] = []
        if kind == "late":
            before = [self._line() for _ in range(self._random.randint(1, 4))]
        elif self._once_in(6):
            before = [self._notification() if self._once_in(2) else self._broken()]
        if kind in {"handshake", "late"}:
            hello = self._members("initialize", self._initialize_params())
            before.append(self._spell(hello))
            if not self._once_in(4):
                before.append(b'{"jsonrpc":"2.0","method":"notifications/initialized"}')
        return before

    def _bursts(self, lines: Sequence[bytes]) -> Iterator[tuple[bytes, ...]]:
        start = 0
        while start < len(lines):
            size = self._random.choice((1, 1, 2, 3, 5, 15))
            yield tuple(lines[start : start + size])
            start += size

    def _once_in(self, times: int) -> bool:
        return self._random.randrange(times) == 0

    # --- one line ---

    def _line(self) -> bytes:
        kinds = (self._request, self._notification, self._broken, self._response)
        kind: Callable[[], bytes] = self._random.choices(kinds, (68, 14, 15, 3))[0]
        line = b" " if self._once_in(80) else kind()
        return line + b"\r" if self._once_in(60) else line

    def _request(self, method: str | None = None) -> bytes:
        name = method or self._random.choices(list(_METHODS), list(_METHODS.values()))[0]
        return self._spell(self._members(name, self._params(name)))

    def _members(self, method: str, params: Members | None) -> Members:
        message: Members = {"jsonrpc": "2.0", "id": self._id(), "method": method}
        if params is not None:
            message["params"] = params
        if self._once_in(30):
            message[self._random.choice(("extra", "result", "error", "Id", "sessionId"))] = self._random.choice(_ODD)
        return message

    def _id(self) -> object:
        chance = self._random.random()
        if chance < 0.08 and self._ids:
            chosen: object = self._random.choice(self._ids)
        elif chance < 0.12 and self._ids:
            chosen = str(self._random.choice(self._ids))
        elif chance < 0.18:
            chosen = self._random.choice(_ODD_IDS)
        else:
            number = len(self._ids) + 1
            chosen = f"request-{number}" if self._once_in(4) else number
        self._ids.append(chosen)
        return chosen

    def _notification(self) -> bytes:
        method = self._random.choice(_NOTIFICATIONS)
        message: Members = {"jsonrpc": "2.0", "method": method}
        if method == "notifications/cancelled":
            target: object = self._random.choice(self._ids or _ODD if not self._once_in(4) else _ODD)
            target = str(target) if isinstance(target, int) and self._once_in(3) else target
            message["params"] = {"requestId": target, "reason": "no longer wanted"}
        elif self._once_in(2):
            message["params"] = self._params(method) or {}
        return self._spell(message)

    def _response(self) -> bytes:
        outcome: Members = self._random.choice(
            ({"result": {}}, {"error": {"code": 1, "message": "x"}}, {"result": 5}, {"error": "x"}, {"result": None})
        )
        return self._spell({"jsonrpc": "2.0", "id": self._random.choice((1, "x", None, 1.5, *self._ids)), **outcome})

    # --- params ---

    def _params(self, method: str) -> Members | None:
        params: Members
        if method == "tools/call":
            params = self._call_params()
        elif method == "initialize":
            params = self._initialize_params()
        elif method in LISTS and self._once_in(5):
            params = {"cursor": self._random.choice(("", "next", None, 5))}
        elif method in _CHOICES:
            params = _copy(self._random.choice(_CHOICES[method]))
        else:
            params = _copy(_PARAMS.get(method, {}))
        if self._random.random() < self._enveloped:
            params["_meta"] = self._envelope()
        elif self._once_in(7):
            params["_meta"] = self._odd_meta()
        if self._once_in(9):
            self._disturb(params)
        return params if params or self._once_in(2) else None

    def _call_params(self) -> Members:
        name = self._random.choices(("echo", "read_file", "nonsense", "Echo", ""), (80, 6, 8, 3, 3))[0]
        if self._once_in(5):
            arguments = self._random.choice(_WRONG_ARGUMENTS)
        elif name == "read_file":
            arguments = {}  # what a file tool gives depends on the machine
        else:
            arguments = {"message": self._text()}
        return {"name": name, "arguments": arguments} if not self._once_in(20) else {"name": name}

    def _initialize_params(self) -> Members:
        odd = self._once_in(6)
        params: Members = {
            "protocolVersion": self._random.choice(_ODD_REVISIONS if odd else _REVISIONS),
            "capabilities": self._random.choice(_CAPABILITIES),
            "clientInfo": {"name": "differential", "version": "1"},
        }
        if self._once_in(8):
            self._disturb(params)
        return params

    def _envelope(self) -> Members:
        meta: Members = {
            _PREFIX + "protocolVersion": _STATELESS,
            _PREFIX + "clientCapabilities": {},
            _PREFIX + "clientInfo": {"name": "differential", "version": "1"},
        }
        if self._once_in(6):
            key = self._random.choice(list(meta))
            if self._once_in(2):
                del meta[key]
            else:
                meta[key] = self._random.choice((*_ODD, *_REVISIONS, "2027-01-01"))
        if self._once_in(8):
            meta["progressToken"] = self._random.choice(_ODD)
        return meta

    def _odd_meta(self) -> object:
        metas: tuple[object, ...] = (
            {"progressToken": self._random.choice(_ODD)},
            {"progressToken": "token", "more": [1]},
            {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01", "tracestate": "x=1"},
            {"traceparent": self._random.choice(_ODD)},
            {_PREFIX + "clientCapabilities": {}},
            {_PREFIX + "protocolVersion": _STATELESS},
            self._random.choice(_ODD),
        )
        return self._random.choice(metas)

    def _disturb(self, params: Members) -> None:
        """Take one member away, or put something odd in its place or beside it."""
        inner = [name for name, value in params.items() if isinstance(value, dict)]
        within = self._random.choice([None, None, *inner])
        target = params
        if within is not None:  # a copy, for what stands there may be one of the constants
            target = params[within] = dict(params[within])
        key = self._random.choice([*target, "extra"])
        if self._once_in(3):
            target.pop(key, None)
        else:
            target[key] = self._random.choice(_ODD)

    # --- what is no message ---

    def _broken(self) -> bytes:
        kinds = (self._not_json, self._not_json_rpc, self._no_object)
        kind: Callable[[], bytes] = self._random.choices(kinds, (35, 50, 15))[0]
        return kind()

    def _not_json(self) -> bytes:
        good = self._request("ping")
        cut = self._random.randint(1, len(good) - 1)
        half = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"message":'
        return self._random.choice(
            (
                good[:cut],
                good + b"}",
                good + good,
                good.replace(b":", b"=", 1),
                b"\xef\xbb\xbf" + good,
                b"{'jsonrpc': '2.0'}",
                b"hello",
                b"{",
                half + b'"\xff\xfe"}}}',
                half + b'"\xed\xa0\x80"}}}',
                half + b'"\\ud800"}}}',
                half + b'"\x01"}}}',
                half + b"NaN}}}",
                half + b"-Infinity}}}",
                half + b"1e999}}}",
                half + b"01}}}",
                half + b"9" * 5000 + b"}}}",
                half + b"[" * 300 + b"]" * 300 + b"}}}",
                half + b'{"a":' * 250 + b"1" + b"}" * 253,
                b"[" * 8000,
                b"x" * (MAX_LINE + self._random.randint(1, 100)),
                half + b'"' + b"x" * MAX_LINE + b'"}}}',
            )
        )

    def _not_json_rpc(self) -> bytes:
        message = self._members("ping", {})
        kind = self._random.randrange(5)
        if kind == 0:
            message["jsonrpc"] = self._random.choice(_BAD_VERSIONS)
        elif kind == 1:
            message["id"] = self._random.choice(_BAD_IDS)
        elif kind == 2:
            message["params"] = self._random.choice(_BAD_PARAMS)
        elif kind == 3:
            message["method"] = self._random.choice(_BAD_METHODS)
        else:
            del message[self._random.choice(("jsonrpc", "method"))]
        if self._once_in(5):
            message.pop("id", None)
        return self._spell(message)

    def _no_object(self) -> bytes:
        batch = b"[" + b",".join(self._request() for _ in range(self._random.randint(0, 3))) + b"]"
        return self._random.choice((batch, batch, b"1", b'"ping"', b"null", b"true", b"[[]]", b" [ ] "))

    # --- spelling ---

    def _text(self) -> str:
        return self._random.choice(
            ("hello", "", "ünïcödé ✓", "💥" * 3, "\u2028\n\t\0", "x" * 500, '"quoted" \\ /', "\u007f\ufeff")
        )

    def _spell(self, value: object) -> bytes:
        return self._spelling(value).encode()

    def _spelling(self, value: object) -> str:
        if isinstance(value, Raw):
            return str(value)
        if isinstance(value, dict):
            return self._object(list(cast("Members", value).items()))
        if isinstance(value, list):
            return "[" + ",".join(map(self._spelling, cast("list[object]", value))) + "]"
        if isinstance(value, str) and self._once_in(8):
            return '"' + "".join(self._escape(character) for character in value) + '"'
        return json.dumps(value, ensure_ascii=self._once_in(2))

    def _object(self, members: list[tuple[str, Any]]) -> str:
        if self._once_in(3):
            self._random.shuffle(members)
        if members and self._once_in(25):  # a key that stands there twice: the last one counts
            members.insert(0, (self._random.choice(members)[0], self._random.choice(_ODD)))
        comma, colon = self._random.choice(((",", ":"), (", ", ": "), (" ,\t", " : ")))
        return "{" + comma.join(self._spelling(key) + colon + self._spelling(item) for key, item in members) + "}"

    def _escape(self, character: str) -> str:
        if self._once_in(2):
            return json.dumps(character, ensure_ascii=False)[1:-1]
        units = character.encode("utf-16-be")
        return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))

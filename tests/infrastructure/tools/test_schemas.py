from __future__ import annotations

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tfo_mcp.infrastructure.schemas import JsonSchemas


def violations(schema: dict[str, Any], instance: object) -> list[str]:
    return list(JsonSchemas().compile(schema)(instance))


WHY = {
    """ {"type": "object"}   [] """: '(the whole value): the list is not of type "object"',
    """ {"required": ["a"]}   {} """: "/a: is required",
    """ {"properties": {"a": {"required": ["b/c~d"]}}}   {"a": {}} """: "/a/b~1c~0d: is required",
    """ {"properties": {}, "additionalProperties": false}   {"x": 1, "y": 2} """: "/x, /y: no such field exists",
    """ {"properties": {"a": {"type": "integer"}}}   {"a": "5"} """: '/a: "5" is not of type "integer"',
    """ {"items": {"items": {"maximum": 3}}}   [[], [1, 9]] """: "/1/1: 9 is greater than the maximum of 3",
    """ {"enum": ["x", null]}   1.5 """: '(the whole value): 1.5 is not one of "x" or null',
    """ {"items": {"anyOf": [{"type": "string"}, {"type": "null"}]}}   [5] """: (
        "/0: 5 is not valid under any of the schemas listed in the 'anyOf' keyword "
        '(5 is not of type "string" or 5 is not of type "null")'
    ),
    """ {"items": {"pattern": "^x"}}   ["line\\nbreak"] """: '/0: "line\\nbreak" does not match "^x"',
}


@pytest.mark.parametrize("case", WHY)
def test_a_violation_names_the_field_and_why(case: str) -> None:
    schema, instance = map(json.loads, case.split("   "))
    assert violations(schema, instance) == [WHY[case]]


def test_every_violation_is_told_up_to_ten() -> None:
    schema = {"items": {"type": "string"}}
    assert violations(schema, [1, 2]) == ['/0: 1 is not of type "string"', '/1: 2 is not of type "string"']
    assert len(violations(schema, list(range(100)))) == 10


def test_what_fits_has_no_violations() -> None:
    assert violations({"type": "object", "properties": {"a": {"type": "string"}}}, {"a": "x"}) == []


def test_values_are_shown_in_excerpts_only() -> None:
    schema = {"properties": {"a": {"type": "integer"}, "b": {"const": 1}}, "additionalProperties": False}
    found = violations(schema, {"a": "v" * 10**6, "b": 10**1000, "k" * 10**6: 1})
    assert len(found) == 3
    assert all(len(sentence) <= 300 for sentence in found)
    assert "v" * 60 in str(found)
    assert "v" * 61 not in str(found)


def test_a_million_violations_take_no_longer_than_one() -> None:
    validate = JsonSchemas().compile({"items": {"type": "string"}})
    started = time.perf_counter()
    assert validate([0] * 10**6) == ['/0: 0 is not of type "string"']
    assert time.perf_counter() - started < 3  # all of them would take some fifteen seconds


@pytest.mark.parametrize("instance", ["half \ud800", json.loads("[" * 500 + "]" * 500), {1, 2}, {3: "a"}])
def test_what_is_no_json_is_a_violation_and_no_fault(instance: object) -> None:
    [sentence] = violations({"type": "number"}, instance)
    assert sentence.startswith("the value is not JSON that can be checked")


def test_format_is_not_asserted() -> None:
    assert violations({"format": "email"}, "no address") == []


def test_a_pattern_that_would_backtrack_for_ever_is_given_up_early() -> None:
    started = time.perf_counter()
    assert len(violations({"pattern": r"^(a+)+(?=b)\1$"}, "a" * 40)) == 1
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "text"},
        {"pattern": "("},
        {"$ref": "#/$defs/missing"},
        {"properties": {"a": {1, 2}}},
        {"$schema": "http://json-schema.org/draft-07/schema#"},
    ],
)
def test_what_is_no_schema_is_refused_in_one_sentence(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        JsonSchemas().compile(schema)


def test_references_inside_the_schema_work() -> None:
    schema = {"$ref": "#/$defs/name", "$defs": {"name": {"type": "string"}}}
    assert violations(schema, 1) == ['(the whole value): 1 is not of type "string"']


class _Asked(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"type": "string"}')
        asked.append(self.path)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's name
        """Silent."""


asked: list[str] = []


@pytest.mark.parametrize(
    "schema",
    [
        """ {"$ref": "URI"} """,
        """ {"$dynamicRef": "URI#x"} """,
        """ {"properties": {"a": {"items": {"$ref": "URI"}}}} """,
        """ {"$id": "URI", "properties": {"a": {"$ref": "beside.json"}}} """,
        """ {"$schema": "URI", "type": "string"} """,
        """ {"$ref": "urn:a", "$defs": {"a": {"$id": "urn:a", "$schema": "URI", "$ref": "URI"}}} """,
    ],
)
def test_no_reference_is_followed_outside_the_schema(tmp_path: Path, schema: str) -> None:
    schema_file = tmp_path / "schema.json"
    for file in (schema_file, tmp_path / "beside.json"):
        file.write_text('{"type": "string"}')
    with HTTPServer(("127.0.0.1", 0), _Asked) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            for uri in (schema_file.as_uri(), f"http://127.0.0.1:{server.server_port}/schema.json"):
                with pytest.raises(ValueError, match=r"cannot be used|is known"):
                    JsonSchemas().compile(json.loads(schema.replace("URI", uri)))
        finally:
            server.shutdown()
    assert asked == []


def test_an_address_that_never_answers_holds_nobody_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        uri = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        with pytest.raises(ValueError, match="cannot be used"):
            JsonSchemas().compile({"$ref": uri})
        listener.setblocking(False)  # noqa: FBT003  # the library's
        with pytest.raises(BlockingIOError):
            listener.accept()

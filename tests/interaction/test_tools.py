from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from support.claude import fake_claude
from support.server import REVISIONS, Answer, Server, claude_at, serving

ServerOf = Callable[[str], Server]

NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")


def tools(server: Server) -> list[Answer]:
    return server.call("list", "tools/list")["result"]["tools"]


@pytest.mark.behaviour("tools.list.shape")
@pytest.mark.parametrize("revision", REVISIONS)
def test_every_tool_has_a_name_a_title_a_description_and_an_object_schema(server_of: ServerOf, revision: str) -> None:
    listed = tools(server_of(revision))
    names = [tool["name"] for tool in listed]
    assert {"echo", "read_file", "list_directory", "search_files", "system_info", "claude_conversation"} <= set(names)
    assert len(set(names)) == len(names)
    for tool in listed:
        assert NAME.fullmatch(tool["name"])
        assert tool["title"]
        assert tool["description"]
        assert tool["inputSchema"]["type"] == "object"
        assert tool["outputSchema"]["type"] == "object"


@pytest.mark.behaviour("tools.list.schemas")
def test_every_schema_is_one(server_of: ServerOf) -> None:
    for tool in tools(server_of("2025-11-25")):
        for schema in (tool["inputSchema"], tool["outputSchema"]):
            assert jsonschema_rs.Draft202012Validator(schema)
            assert jsonschema_rs.meta.is_valid(schema)


@pytest.mark.behaviour("tools.list.annotations")
@pytest.mark.parametrize("revision", REVISIONS)
def test_every_tool_says_what_it_may_do(server_of: ServerOf, revision: str) -> None:
    hints = {tool["name"]: tool["annotations"] for tool in tools(server_of(revision))}
    for promised in hints.values():
        assert promised.keys() == {"readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"}
        assert not (promised["readOnlyHint"] and promised["destructiveHint"])
    assert hints["read_file"]["readOnlyHint"]
    assert not hints["claude_conversation"]["readOnlyHint"]
    assert hints["claude_conversation"]["openWorldHint"]


@pytest.mark.behaviour("tools.list.stable")
@pytest.mark.parametrize("revision", REVISIONS)
def test_the_list_stays_as_it_is(server_of: ServerOf, revision: str) -> None:
    server = server_of(revision)
    assert tools(server) == tools(server) == tools(server)
    assert not any(message.get("method") == "notifications/tools/list_changed" for message in server.received)


@pytest.mark.behaviour("tools.list.cursor")
@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("cursor", ["", "no-such", "MTAw"])
def test_a_cursor_that_was_never_given_out_is_refused(server_of: ServerOf, cursor: str, revision: str) -> None:
    error = server_of(revision).call(1, "tools/list", {"cursor": cursor})["error"]
    assert error["code"] == -32602
    assert "cursor" in error["message"]


@pytest.mark.behaviour("tools.call.result", "stdio.lines.out")
@pytest.mark.parametrize("revision", REVISIONS)
def test_a_call_that_succeeds_gives_text_and_says_so(server_of: ServerOf, revision: str) -> None:
    result = server_of(revision).call_tool(1, "echo", {"message": "Grüße\u2028\n"})
    assert result["content"] == [{"type": "text", "text": "Grüße\u2028\n"}]
    assert result["structuredContent"] == {"message": "Grüße\u2028\n"}
    assert result["isError"] is False


@pytest.mark.behaviour("tools.call.no-arguments")
@pytest.mark.parametrize("revision", REVISIONS)
def test_arguments_may_be_left_out(server_of: ServerOf, revision: str) -> None:
    assert server_of(revision).call(1, "tools/call", {"name": "system_info"})["result"]["isError"] is False


CALLS: Mapping[str, dict[str, Any]] = {
    "echo": {"message": "hi"},
    "read_file": {"path": "note"},
    "list_directory": {},
    "search_files": {"pattern": "no*"},
    "system_info": {},
    "claude_conversation": {"message": "Hello"},
}


@pytest.mark.behaviour("tools.call.structured")
def test_structured_content_fits_the_schema_that_was_listed(tmp_path: Path) -> None:
    with fake_claude() as claude, serving(tmp_path, env=claude_at(claude.base_url)) as server:
        (tmp_path / "work" / "note").write_text("hello")
        server.begin("2025-11-25")
        schemas = {tool["name"]: tool["outputSchema"] for tool in tools(server)}
        for name, arguments in CALLS.items():
            result = server.call_tool(name, name, arguments)
            assert result["isError"] is False
            jsonschema_rs.validate(schemas[name], result["structuredContent"])
            assert [block["type"] for block in result["content"]] == ["text"]
            assert result["content"][0]["text"]

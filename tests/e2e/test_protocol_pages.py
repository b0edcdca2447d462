"""Lists in pages, and features that are switched off, over raw lines."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from support.claude import fake_claude
from support.server import REVISIONS, STATELESS, Server, claude_at, eventually, serving
from support.sizes import later

LISTS = {
    "tools/list": ("tools", "name"),
    "resources/list": ("resources", "uri"),
    "resources/templates/list": ("resourceTemplates", "uriTemplate"),
    "prompts/list": ("prompts", "name"),
}
"""Method to the member that holds the items, and what identifies one."""

NEWEST = [later(revision) for revision in REVISIONS[:-2]] + list(REVISIONS[-2:])


def pages(server: Server, method: str) -> tuple[list[list[str]], list[str]]:
    """The items of every page, and the cursors that led there."""
    member, key = LISTS[method]
    found: list[list[str]] = []
    cursors: list[str] = []
    params: dict[str, str] = {}
    while True:
        result = server.call(f"{method} {len(found)}", method, params)["result"]
        found.append([item[key] for item in result[member]])
        if "nextCursor" not in result:
            return found, cursors
        params = {"cursor": result["nextCursor"]}
        cursors.append(result["nextCursor"])


def whole(server: Server, method: str) -> list[str]:
    ((*items,),), cursors = pages(server, method)
    assert cursors == []
    return items


def sized(size: int) -> dict[str, str]:
    return {"TELEMETRYFLOW_MCP_MCP_PAGE_SIZE": str(size)}


@pytest.mark.behaviour("pagination.pages")
@pytest.mark.parametrize("revision", NEWEST)
@pytest.mark.parametrize("size", [1, later(2), later(3)])
def test_a_pass_over_all_pages_gives_each_item_once_and_in_order(tmp_path: Path, size: int, revision: str) -> None:
    with serving(tmp_path / "whole") as server:
        server.begin(revision)
        expected = {method: whole(server, method) for method in LISTS}
    with serving(tmp_path / "pages", env=sized(size)) as server:
        server.begin(revision)
        for method, items in expected.items():
            found, _ = pages(server, method)
            assert [item for page in found for item in page] == items
            assert {len(page) for page in found[:-1]} <= {size}
            assert 0 < len(found[-1]) <= size


@pytest.mark.behaviour("pagination.cursor")
@pytest.mark.parametrize("revision", NEWEST)
def test_a_cursor_that_was_not_given_out_for_the_list_is_refused(tmp_path: Path, revision: str) -> None:
    with serving(tmp_path, env=sized(1)) as server:
        server.begin(revision)
        given = {method: pages(server, method)[1] for method in LISTS}
        foreign = ["", "x", "0", "1", "null", "=", "é", "💥" * 9, "x" * 100_000, "\0", " " + given["tools/list"][0]]
        forged: tuple[object, ...] = (
            [],
            {},
            5,
            ["tools"],
            ["tools", 1, "no_such"],
            ["tools", -1, ""],
            ["tools", 10**9, ""],
            ["resources", 10**30, "x"],
            ["resources", 6, "file:///x"],
            ["resources", 6, f"conv_{'0' * 32}"],
            ["resources", 25, f"conversation://conv_{'0' * 32}"],
        )
        foreign += [
            base64.urlsafe_b64encode(json.dumps(payload, separators=(",", ":")).encode()).decode() for payload in forged
        ]
        foreign.append(given["tools/list"][0].rstrip("=") + "====")
        foreign.append(base64.urlsafe_b64encode(b"[" * 5000).decode())
        for method in LISTS:
            others = [cursor for other, cursors in given.items() if other != method for cursor in cursors]
            for cursor in (*foreign, *others):
                error = server.call("cursor", method, {"cursor": cursor})["error"]
                assert error == {"code": -32602, "message": f"unknown cursor: {cursor[:200]!r}"}


@pytest.mark.behaviour("pagination.pages", "resources.list")
def test_conversations_are_listed_newest_first_and_in_pages_too(tmp_path: Path) -> None:
    env = {**sized(2), "TELEMETRYFLOW_MCP_TELEMETRY_RECORDER": "false"}
    with fake_claude() as claude, serving(tmp_path, env={**claude_at(claude.base_url), **env}) as server:
        server.begin("2025-11-25")
        ids: list[str] = []

        def talk(number: int) -> None:
            result = server.call_tool(f"talk {number}", "claude_conversation", {"message": f"{number}"})
            ids.append(result["structuredContent"]["conversation_id"])

        for number in range(5):
            talk(number)
        fixed = ["config://server", "status://health"]
        found, cursors = pages(server, "resources/list")
        assert [uri for page in found for uri in page] == [*fixed, *(f"conversation://{key}" for key in reversed(ids))]
        assert [len(page) for page in found] == [2, 2, 2, 1]
        # One that begins meanwhile changes no page behind a cursor.
        talk(5)
        second = server.call(1, "resources/list", {"cursor": cursors[0]})["result"]["resources"]
        third = server.call(2, "resources/list", {"cursor": cursors[1]})["result"]["resources"]
        assert second[0]["uri"] == f"conversation://{ids[5]}"  # it begins behind what is always there
        assert [item["uri"] for item in third] == found[2]


@pytest.mark.behaviour("resources.list")
def test_no_more_conversations_than_twenty_are_listed(tmp_path: Path) -> None:
    with fake_claude() as claude, serving(tmp_path, env=claude_at(claude.base_url)) as server:
        server.begin("2025-11-25")
        for number in range(22):
            server.call_tool(number, "claude_conversation", {"message": "x"})
        assert len(whole(server, "resources/list")) == 5 + 20
    with serving(tmp_path, env=sized(5)) as server:
        server.begin("2025-11-25")
        found, _ = pages(server, "resources/list")
        assert sum(map(len, found)) == 5 + 20


# --- switched off ---

METHODS = {
    "tools": {"tools/list": {}, "tools/call": {"name": "echo", "arguments": {"message": "x"}}},
    "resources": {
        "resources/list": {},
        "resources/templates/list": {},
        "resources/read": {"uri": "config://server"},
    },
    "prompts": {"prompts/list": {}, "prompts/get": {"name": "code_review", "arguments": {"code": "x"}}},
}

COMPLETE_A_PROMPT = {
    "ref": {"type": "ref/prompt", "name": "code_review"},
    "argument": {"name": "language", "value": "go"},
}
COMPLETE_A_PATH = {
    "ref": {"type": "ref/resource", "uri": "file:///{path}"},
    "argument": {"name": "path", "value": ""},
}


def without(*features: str) -> dict[str, str]:
    return {f"TELEMETRYFLOW_MCP_MCP_ENABLE_{feature.upper()}": "false" for feature in features}


def capabilities(server: Server, revision: str) -> set[str]:
    if revision == STATELESS:
        server.begin(revision)
        return set(server.call("capabilities", "server/discover")["result"]["capabilities"])
    result = set(server.initialize(revision)["capabilities"])
    server.revision = revision
    return result


@pytest.mark.behaviour("lifecycle.capabilities.switched-off")
@pytest.mark.parametrize(
    ("off", "revision"),
    [
        *zip(METHODS, (REVISIONS[-2], STATELESS, REVISIONS[-2]), strict=True),
        *[later(off, revision) for off in METHODS for revision in REVISIONS[:-2]],
        *[later(*pair) for pair in zip(METHODS, (STATELESS, REVISIONS[-2], STATELESS), strict=True)],
    ],
)
def test_a_feature_that_is_switched_off_is_neither_promised_nor_there(tmp_path: Path, off: str, revision: str) -> None:
    with serving(tmp_path, env=without(off)) as server:
        assert capabilities(server, revision) == {*METHODS, "completions", "logging"} - {off}
        for feature, methods in METHODS.items():
            for method, params in methods.items():
                answer = server.call(method, method, params)
                assert answer.get("error", {}).get("code") == (-32601 if feature == off else None)
        for needed, params in {"prompts": COMPLETE_A_PROMPT, "resources": COMPLETE_A_PATH}.items():
            answer = server.call("complete", "completion/complete", params)
            assert answer.get("error", {}).get("code") == (-32602 if needed == off else None)


@pytest.mark.behaviour("lifecycle.capabilities.switched-off")
@pytest.mark.parametrize("revision", NEWEST)
def test_a_method_that_is_not_there_is_unknown_whatever_its_params(tmp_path: Path, revision: str) -> None:
    with serving(tmp_path, env=without("tools", "resources", "prompts")) as server:
        server.begin(revision)
        for method in ("tools/call", "resources/read", "resources/subscribe", "prompts/get", "completion/complete"):
            error = server.call(method, method, {})["error"]
            assert error == {"code": -32601, "message": "Method not found", "data": method}


@pytest.mark.behaviour("lifecycle.capabilities.switched-off")
@pytest.mark.parametrize("revision", NEWEST)
def test_with_nothing_to_complete_there_is_no_completion(tmp_path: Path, revision: str) -> None:
    with serving(tmp_path, env=without("prompts", "resources")) as server:
        assert capabilities(server, revision) == {"tools", "logging"}
        assert server.call(1, "completion/complete", COMPLETE_A_PROMPT)["error"]["code"] == -32601


@pytest.mark.behaviour("lifecycle.capabilities.switched-off")
def test_a_file_of_version_1_2_that_switches_tools_off_does_so(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("mcp: {enable_tools: false, protocol_version: '2024-11-05'}\n")
    with serving(tmp_path, "--config", str(file)) as server:
        result = server.initialize()
        assert "tools" not in result["capabilities"]
        assert "instructions" not in result  # they are about tools
        assert server.call(1, "tools/call", {"name": "echo", "arguments": {}})["error"]["code"] == -32601
        eventually(lambda: "mcp.protocol_version" in server.log())

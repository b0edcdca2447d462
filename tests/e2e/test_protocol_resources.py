"""Resources over raw lines, in every revision: what is listed, what can be read, and what never can."""

from __future__ import annotations

import base64
import json
import os
import re
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import cast
from urllib.parse import quote

import pytest

from support.claude import fake_claude
from support.otlp import free_port
from support.server import REVISIONS, STATELESS, Answer, Server, claude_at, eventually, serving
from support.sizes import later
from tfo_mcp.infrastructure.config.settings import SECTIONS, settings_of

SECRETS = ("sk-ant-4711", "tfs_4711", "Bearer-4711", "token-4711")

CONFIGURATION = """
claude: {api_key: sk-ant-4711, base_url: "http://127.0.0.1:9/token-4711"}
telemetry: {api_key_id: tfk_1, api_key_secret: tfs_4711, headers: {authorization: Bearer-4711},
  endpoint: "http://127.0.0.1:9/token-4711/", enabled: false}
"""

NEWEST = [later(revision) for revision in REVISIONS[:-2]] + list(REVISIONS[-2:])


def read(server: Server, uri: str) -> Answer:
    """The one content at this URI; an AssertionError where there is none."""
    answer = server.call(uri, "resources/read", {"uri": uri})
    assert "result" in answer, answer
    (content,) = answer["result"]["contents"]
    assert content["uri"] == uri
    return cast("Answer", content)


def read_json(server: Server, uri: str) -> Answer:
    content = read(server, uri)
    assert content["mimeType"] == "application/json"
    return cast("Answer", json.loads(content["text"]))


def refused(server: Server, uri: str) -> str:
    """The sentence with which reading this URI is refused as unknown."""
    error = server.call("refused", "resources/read", {"uri": uri})["error"]
    assert error["code"] == -32602
    return str(error["message"])


def uri_of(path: Path | str) -> str:
    return f"file://{quote(str(path))}"


@pytest.mark.behaviour("resources.list", "resources.templates.list", "resources.read", "stateless.result.cache-hints")
@pytest.mark.parametrize("revision", NEWEST)
def test_resources_and_templates_are_listed_as_every_revision_wants_it(tmp_path: Path, revision: str) -> None:
    with serving(tmp_path) as server:
        server.begin(revision)
        result = server.call(1, "resources/list")["result"]
        assert [(item["uri"], item["mimeType"]) for item in result["resources"]] == [
            ("config://server", "application/json"),
            ("status://health", "application/json"),
            ("telemetry://tools/summary", "application/json"),
            ("telemetry://errors/recent", "application/json"),
            ("telemetry://health", "application/json"),
        ]
        templates = server.call(2, "resources/templates/list")["result"]
        assert [item["uriTemplate"] for item in templates["resourceTemplates"]] == [
            "file:///{path}",
            "conversation://{id}",
            "telemetry://traces/{trace_id}",
        ]
        for listed in (*result["resources"], *templates["resourceTemplates"]):
            assert listed["name"]
            assert listed["title"]
            assert listed["description"]
        contents = server.call(3, "resources/read", {"uri": "config://server"})["result"]
        for answer in (result, templates, contents):
            assert "nextCursor" not in answer
            hints = {key: answer.get(key) for key in ("ttlMs", "cacheScope", "resultType")}
            kept = {"ttlMs": 0, "cacheScope": "private", "resultType": "complete"}
            assert hints == (kept if revision == STATELESS else dict.fromkeys(kept))


@pytest.mark.behaviour("lifecycle.capabilities.served")
@pytest.mark.parametrize("revision", NEWEST)
def test_only_what_is_kept_is_promised(tmp_path: Path, revision: str) -> None:
    with serving(tmp_path) as server:
        if revision == STATELESS:
            server.begin(revision)
            capabilities = server.call(0, "server/discover")["result"]["capabilities"]
        else:
            capabilities = server.initialize(revision)["capabilities"]
        assert capabilities["resources"] == {"subscribe": True, "listChanged": False}
        assert capabilities["prompts"] == {"listChanged": False}
        assert capabilities["tools"] == {"listChanged": False}
        assert capabilities["completions"] == {}
        gone = "resources/subscribe" if revision == STATELESS else "subscriptions/listen"
        assert server.call(1, gone, {"uri": "config://server", "notifications": {}})["error"]["code"] == -32601


# --- config://server ---


@pytest.mark.behaviour("resources.read.config")
def test_the_configuration_shows_every_setting_and_the_file_and_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(CONFIGURATION)
    with serving(tmp_path, "--config", str(file)) as server:
        server.begin("2025-11-25")
        shown = read_json(server, "config://server")
        assert shown["file"] == str(file)
        for section in SECTIONS:
            part = shown["settings"]
            for name in section.split("."):
                part = part[name]
            assert set(part) >= set(settings_of(section))
        assert shown["settings"]["claude"]["api_key"] == "***"
        assert shown["settings"]["claude"]["base_url"] == "http://127.0.0.1:9/***"
        assert shown["settings"]["telemetry"]["endpoint"] == "http://127.0.0.1:9/***"
        assert shown["settings"]["telemetry"]["headers"] == {"authorization": "***"}
        assert shown["settings"]["storage"]["folder"] == str(tmp_path / "state")
        said = json.dumps(server.received) + server.log()
        assert [secret for secret in SECRETS if secret in said] == []
    with serving(tmp_path / "without") as server:
        server.begin("2025-11-25")
        assert read_json(server, "config://server")["file"] is None


# --- status://health ---


@pytest.mark.behaviour("resources.read.health")
@pytest.mark.parametrize("revision", NEWEST)
def test_a_server_that_lacks_nothing_is_healthy_and_says_what_it_measured(tmp_path: Path, revision: str) -> None:
    with serving(tmp_path) as server:
        server.begin(revision)
        health = read_json(server, "status://health")
        assert (health["status"], health["version"]) == ("healthy", server_version(server))
        assert 0 < health["uptime"] < 60
        parts = health["components"]
        storage = parts["storage"]
        assert (storage["status"], storage["open"], storage["writable"]) == ("healthy", True, True)
        assert (storage["problem"], storage["last_failure"]) == (None, None)
        assert (parts["telemetry"]["status"], parts["telemetry"]["endpoint_set"]) == ("healthy", False)
        assert (parts["claude"]["status"], parts["claude"]["key_present"]) == ("disabled", False)
        session = parts["session"]
        assert (session["state"], session["protocol_version"]) == ("ready", revision)
        assert session["requests_under_way"] == 1
        assert read_json(server, "status://health")["uptime"] > health["uptime"]


def server_version(server: Server) -> str:
    return str(read_json(server, "config://server")["version"])


@pytest.mark.behaviour("resources.read.health")
def test_storage_that_cannot_open_makes_it_unhealthy_and_breaks_no_list(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no folder")
    with serving(tmp_path) as server:
        server.begin("2025-11-25")
        health = read_json(server, "status://health")
        assert health["status"] == "unhealthy"
        storage = health["components"]["storage"]
        assert (storage["status"], storage["open"], storage["writable"]) == ("unhealthy", False, False)
        assert "cannot be" in storage["problem"]
        assert storage["last_failure"] == storage["problem"]
        assert len(server.call(1, "resources/list")["result"]["resources"]) == 5
        uri = f"conversation://conv_{'0' * 32}"
        error = server.call(2, "resources/read", {"uri": uri})["error"]
        assert (error["code"], error["data"]) == (-32603, {"uri": uri})
        assert "cannot be read now: the database" in error["message"]
        reference = {"type": "ref/resource", "uri": "conversation://{id}"}
        params = {"ref": reference, "argument": {"name": "id", "value": ""}}
        assert server.call(3, "completion/complete", params)["error"]["code"] == -32603
        # It comes back by itself once it can.
        (tmp_path / "state").unlink()
        eventually(lambda: read_json(server, "status://health")["status"] == "healthy")


@pytest.mark.behaviour("resources.read.health")
def test_a_database_that_others_keep_locked_is_degraded_at_once(tmp_path: Path) -> None:
    import sqlite3

    with serving(tmp_path) as server:
        server.begin("2025-11-25")
        assert read_json(server, "status://health")["status"] == "healthy"
        database = sqlite3.connect(tmp_path / "state" / "tfo-mcp.db", isolation_level=None)
        try:
            database.execute("BEGIN IMMEDIATE")
            health = read_json(server, "status://health")
            assert (health["status"], health["components"]["storage"]["status"]) == ("degraded", "degraded")
            assert "has not taken a write" in health["components"]["storage"]["problem"]
        finally:
            database.close()
        eventually(lambda: read_json(server, "status://health")["status"] == "healthy")


@pytest.mark.behaviour("resources.read.health")
@pytest.mark.parametrize("name", ["tfo-mcp.db", "audit.db"])
def test_a_database_that_is_moved_away_while_it_is_open_takes_no_writes(tmp_path: Path, name: str) -> None:
    component, tool, arguments = {
        "tfo-mcp.db": ("storage", "claude_conversation", {"message": "hello"}),
        "audit.db": ("audit", "write_file", {"path": "new.txt", "content": "new"}),
    }[name]
    database = tmp_path / "state" / name
    with fake_claude() as claude, serving(tmp_path, env=claude_at(claude.base_url)) as server:
        server.begin("2025-11-25")
        assert read_json(server, "status://health")["components"][component]["status"] == "healthy"
        database.rename(tmp_path / name)
        health = read_json(server, "status://health")
        assert (health["status"], health["components"][component]["status"]) == ("unhealthy", "unhealthy")
        assert "moved, deleted or replaced" in health["components"][component]["problem"]
        refused = server.call_tool(1, tool, arguments)
        assert refused["isError"] is True
        assert "moved, deleted or replaced" in refused["content"][0]["text"]
        assert not (tmp_path / "work" / "new.txt").exists()
        # Put back it is what it was, and so is its log.
        (tmp_path / name).rename(database)
        assert server.call_tool(2, tool, arguments)["isError"] is False
        assert read_json(server, "status://health")["components"][component]["status"] == "healthy"


@pytest.mark.behaviour("resources.read.health")
@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process are Linux's")
def test_a_disk_that_takes_no_more_is_unhealthy_before_anybody_has_lost_a_write(tmp_path: Path) -> None:
    import resource

    with serving(tmp_path) as server:
        server.begin("2025-11-25")
        assert read_json(server, "status://health")["status"] == "healthy"
        logs = [tmp_path / "state" / f"{name}.db-wal" for name in ("tfo-mcp", "audit")]
        limit = min(log.stat().st_size for log in logs)
        before = resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        health = read_json(server, "status://health")
        assert health["status"] == "unhealthy"
        for component in ("storage", "audit"):
            assert health["components"][component]["writable"] is False
            assert "it may be full or broken" in health["components"][component]["problem"]
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, before)
        eventually(lambda: read_json(server, "status://health")["status"] == "healthy")


@pytest.mark.behaviour("resources.read.health")
def test_the_end_of_the_default_model_is_told_without_asking_for_it(tmp_path: Path) -> None:
    model = {"TELEMETRYFLOW_MCP_CLAUDE_DEFAULT_MODEL": "claude-sonnet-4-5"}
    with fake_claude() as claude, serving(tmp_path, env=claude_at(claude.base_url) | model) as server:
        server.begin("2025-11-25")
        eventually(lambda: "2026-11-30; set another one" in server.log())

        for _ in range(3):
            told = cast("Answer", read_json(server, "status://health")["components"]["claude"])
            assert (told["model"], told["model_lifecycle"]) == ("claude-sonnet-4-5", "deprecated")
            assert told["model_retires_at"].startswith("2026-11-30")
        assert len(claude.requests("/v1/models/claude-sonnet-4-5")) == 1
        assert server.log().count("set another one") == 1


@pytest.mark.behaviour("resources.read.health")
def test_how_the_last_requests_to_claude_went_is_told(tmp_path: Path) -> None:
    script = "replies: [{text: fine}, {status: 401, text: refused}, {text: fine again}]"
    with fake_claude(script) as claude, serving(tmp_path, env=claude_at(claude.base_url)) as server:
        server.begin("2025-11-25")

        def told() -> Answer:
            return cast("Answer", read_json(server, "status://health")["components"]["claude"])

        before = told()
        assert before.pop("model_lifecycle") in {None, "active"}  # as far as the look-up behind the start has come
        assert before == {
            "status": "healthy",
            "key_present": True,
            "last_success_at": None,
            "last_failure_at": None,
            "last_failure_status": None,
            "model": "claude-sonnet-5-5",
            "model_retires_at": None,
        }
        server.call_tool(1, "claude_conversation", {"message": "a"})
        first = told()
        assert (first["status"], first["last_failure_at"]) == ("healthy", None)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", first["last_success_at"])
        assert server.call_tool(2, "claude_conversation", {"message": "b"})["isError"]
        failed = told()
        assert (failed["status"], failed["last_failure_status"]) == ("degraded", 401)
        assert read_json(server, "status://health")["status"] == "degraded"
        server.call_tool(3, "claude_conversation", {"message": "c"})
        again = told()
        assert (again["status"], again["last_failure_status"]) == ("healthy", 401)
        assert again["last_success_at"] > failed["last_success_at"]


@pytest.mark.behaviour("resources.read.health")
def test_a_collector_that_takes_nothing_degrades_it(tmp_path: Path) -> None:
    env = {"TELEMETRYFLOW_ENDPOINT": f"http://127.0.0.1:{free_port()}", "TELEMETRYFLOW_PROTOCOL": "http"}
    with serving(tmp_path, env=env) as server:
        server.begin("2025-11-25")
        eventually(lambda: read_json(server, "status://health")["status"] == "degraded")
        telemetry = read_json(server, "status://health")["components"]["telemetry"]
        assert (telemetry["status"], telemetry["state"], telemetry["endpoint_set"]) == ("degraded", "ready", True)
        assert telemetry["export_failures"] > 0
        assert telemetry["spans_exported"] == 0
        assert telemetry["problems"]
        assert telemetry["last_failure"] in telemetry["problems"]
        assert datetime.fromisoformat(telemetry["last_failure_at"]) <= datetime.now(UTC)


@pytest.mark.behaviour("resources.read.health")
def test_telemetry_that_is_off_is_no_illness(tmp_path: Path) -> None:
    with serving(tmp_path, env={"TELEMETRYFLOW_ENABLED": "false"}) as server:
        server.begin("2025-11-25")
        health = read_json(server, "status://health")
        assert health["status"] == "healthy"
        assert health["components"]["telemetry"] == {"status": "disabled", "state": "disabled"}


# --- file:///{path} ---

TEXTS = {
    "note.txt": ("hello\n", "text/plain"),
    "ä ö%20#?.md": ("# ü\u2028", "text/markdown"),
    "data.json": ("{}", "application/json"),
    "list.yml": ("a: 1", "application/yaml"),
    "empty": ("", "text/plain"),
    "film.mp4": ("a list of scenes", "text/plain"),
}

BINARIES = {
    "half.txt": (b"caf\xe9", "application/octet-stream"),
    "nul.bin": (b"a\0b", "application/octet-stream"),
    "dot.png": (b"\x89PNG\r\n\x1a\n\0", "image/png"),
    "all": (bytes(range(256)) * 4, "application/octet-stream"),
}

ServerOf = Callable[[str], tuple[Server, Path]]


@pytest.fixture(scope="module")
def server_of(tmp_path_factory: pytest.TempPathFactory) -> Generator[ServerOf]:
    """A server for each revision, and its one root."""
    running: dict[str, tuple[Server, Path]] = {}
    with ExitStack() as servers:

        def of(revision: str) -> tuple[Server, Path]:
            if revision not in running:
                folder = tmp_path_factory.mktemp("server")
                work = a_root_in(folder)
                env = {"TELEMETRYFLOW_MCP_TOOLS_MAX_READ_BYTES": "1024"}
                server = servers.enter_context(serving(folder, "--root", str(work), env=env, cwd=folder / "cwd"))
                server.begin(revision)
                running[revision] = server, work
            return running[revision]

        yield of


def a_root_in(folder: Path) -> Path:
    work = folder / "work"
    (work / "sub").mkdir(parents=True)
    for name, (text, _) in TEXTS.items():
        (work / name).write_text(text, "utf-8")
    for name, (data, _) in BINARIES.items():
        (work / name).write_bytes(data)
    (work / "most").write_bytes(b"x" * 1024)
    (work / "more").write_bytes(b"x" * 1025)
    os.mkfifo(work / "pipe")
    (folder / "secret").write_text("the secret 4711")
    (work / "link").symlink_to(folder / "secret")
    (work / "inside").symlink_to(work / "note.txt")
    return work


@pytest.mark.behaviour("resources.read")
@pytest.mark.parametrize("revision", NEWEST)
def test_a_file_is_given_whole_as_text_or_as_bytes(server_of: ServerOf, revision: str) -> None:
    server, work = server_of(revision)
    for name, (text, mime_type) in TEXTS.items():
        uri = uri_of(work / name)
        assert read(server, uri) == {"uri": uri, "mimeType": mime_type, "text": text}
    for name, (data, mime_type) in BINARIES.items():
        uri = uri_of(work / name)
        content = read(server, uri)
        assert (content["mimeType"], base64.b64decode(content["blob"], validate=True)) == (mime_type, data)
    assert len(read(server, uri_of(work / "most"))["text"]) == 1024
    assert read(server, uri_of(work / "inside"))["text"] == "hello\n"
    assert read(server, uri_of(work / "sub" / ".." / "note.txt"))["text"] == "hello\n"
    # RFC 6570 has a client that fills `{path}` encode the slashes too.
    assert read(server, "file:///" + quote(str(work / "note.txt")[1:], safe=""))["text"] == "hello\n"


@pytest.mark.behaviour("resources.read.unknown")
@pytest.mark.parametrize("revision", NEWEST)
def test_a_file_that_cannot_be_given_is_refused_saying_why(server_of: ServerOf, revision: str) -> None:
    server, work = server_of(revision)
    assert "has more than 1024 bytes" in refused(server, uri_of(work / "more"))
    assert "is a folder" in refused(server, uri_of(work))
    assert "there is no" in refused(server, uri_of(work / "none"))
    assert "not a file or folder" in refused(server, uri_of(work / "pipe"))
    for wrong in ("?x=1", "#x", "%2", "%zz", "\n"):
        assert "is no file URI: write %, ? and # in a path as %25, %3F and %23" in refused(
            server, uri_of(work / "note.txt") + wrong
        )


ESCAPES = {
    "outside": "file:///etc/passwd",
    "the root of all": "file:///",
    "dots": "file://{work}/../secret",
    "encoded dots": "file://{work}/%2e%2e/secret",
    "half-encoded dots": "file://{work}/.%2E/secret",
    "encoded slashes": "file://{work}/..%2fsecret",
    "everything encoded": "file://{work}%2F%2E%2E%2Fsecret",
    "encoded twice": "file://{work}/%252e%252e/secret",
    "encoded thrice": "file://{work}/%25252e%25252e%25252fsecret",
    "overlong dots": "file://{work}/%c0%ae%c0%ae/secret",
    "fullwidth dots": "file://{work}/%ef%bc%8e%ef%bc%8e/secret",
    "backslashes": "file://{work}/..\\secret",
    "encoded backslashes": "file://{work}/..%5csecret",
    "many dots": "file://{work}/sub/../../secret",
    "from another root": "file:///proc/self/root{folder}/secret",
    "the process": "file:///proc/self/environ",
    "a link": "file://{work}/link",
    "through a link": "file://{work}/sub/../link",
    "an encoded NUL": "file://{work}/note.txt%00.png",
    "a NUL": "file://{work}/note.txt\0",
    "a NUL alone": "file:///%00",
    "a host": "file://localhost{work}/note.txt",
    "another host": "file://attacker.example{work}/note.txt",
    "no slashes": "file:{work}/note.txt",
    "one slash": "file:/{work}/note.txt",
    "nothing": "file://",
    "a scheme in capitals": "FILE://{work}/note.txt",
    "another scheme": "http://{work}/note.txt",
    "a query": "file://{work}/note.txt?x=1",
    "a fragment": "file://{work}/note.txt#x",
    "half an escape": "file://{work}/note.txt%2",
    "no escape": "file://{work}/%zz",
    "a line break": "file://{work}/note.txt\n",
    "home": "file:///~/note.txt",
    "a variable": "file:///$HOME/note.txt",
    "the template": "file:///{path}",
    "very long": "file:///" + "a" * 5000,
    "very deep": "file://{work}" + "/sub/.." * 500 + "/../secret",
    "the server's own": "file://{folder}/state/tfo-mcp.db",
}


@pytest.mark.behaviour("resources.read.file-roots")
@pytest.mark.parametrize("revision", NEWEST)
@pytest.mark.parametrize("uri", ESCAPES.values(), ids=ESCAPES)
def test_no_uri_leads_out_of_the_roots(server_of: ServerOf, uri: str, revision: str) -> None:
    server, work = server_of(revision)
    uri = uri.replace("{work}", str(work)).replace("{folder}", str(work.parent))
    assert refused(server, uri)
    assert "4711" not in json.dumps(server.received)
    assert server.call("still", "resources/list")["result"]


UNKNOWN = (
    "", "x", "config://server/", "config://Server", "config://", "status://health?x", "nope://x", "\u2028\0",
    "conversation://", "conversation://conv_", f"conversation://conv_{'f' * 32}", "conversation://{id}",
)  # fmt: skip


@pytest.mark.behaviour("resources.read.unknown")
@pytest.mark.parametrize("revision", NEWEST)
def test_an_unknown_uri_is_refused_naming_it(server_of: ServerOf, revision: str) -> None:
    server, _ = server_of(revision)
    for uri in UNKNOWN:
        error = server.call("unknown", "resources/read", {"uri": uri})["error"]
        assert error == {"code": -32602, "message": f"unknown resource: {uri!r}", "data": {"uri": uri}}
    for params in ({}, {"uri": 5}, {"uri": None}):
        error = server.call("malformed", "resources/read", params)["error"]
        assert error["code"] == -32602
        assert "uri" in error["message"]


@pytest.mark.behaviour("resources.read.file-roots")
def test_without_roots_no_file_is_given(tmp_path: Path) -> None:
    with serving(tmp_path, cwd=Path("/")) as server:
        server.begin("2025-11-25")
        assert "tools.roots" in refused(server, "file:///etc/hostname")


@pytest.mark.behaviour("tools.access.own-files")
@pytest.mark.parametrize("linked", ["tfo-mcp.db", "log"])
def test_the_servers_own_files_are_never_given_not_even_below_a_root(tmp_path: Path, linked: str) -> None:
    log = tmp_path / "log"
    arguments = ("--root", str(tmp_path))
    with serving(tmp_path, *arguments, env={"TELEMETRYFLOW_MCP_LOG_OUTPUT": str(log)}) as server:
        server.begin("2025-11-25")
        assert read_json(server, "status://health")["status"] == "healthy"
        own = {"tfo-mcp.db": tmp_path / "state" / "tfo-mcp.db", "log": log}[linked]
        (tmp_path / "hard").hardlink_to(own)
        for path in (own, tmp_path / "hard"):
            assert "server's own files" in refused(server, uri_of(path))
        reference = {"type": "ref/resource", "uri": "file:///{path}"}
        params = {"ref": reference, "argument": {"name": "path", "value": f"{tmp_path}/"[1:]}}
        offered = server.call(9, "completion/complete", params)["result"]["completion"]["values"]
        names = {value.removeprefix(f"{tmp_path}/"[1:]) for value in offered}
        assert names == {"home/", "work/", "stderr.log"}


# --- conversation://{id} ---


@pytest.mark.behaviour("resources.read.conversation", "resources.list")
@pytest.mark.parametrize("revision", NEWEST)
def test_a_conversation_is_given_with_its_messages_calls_and_tokens(tmp_path: Path, revision: str) -> None:
    script = """
replies:
  - {tool_use: [{name: read_file, input: {path: note}}]}
  - {text: It says hi.}
"""
    with fake_claude(script) as claude, serving(tmp_path, env=claude_at(claude.base_url)) as server:
        (tmp_path / "work" / "note").write_text("hi")
        server.begin(revision)
        arguments = {"message": "What does it say?", "system_prompt": "Be brief."}
        result = server.call_tool(1, "claude_conversation", arguments)["structuredContent"]
        uri = f"conversation://{result['conversation_id']}"
        shown = read_json(server, uri)
        assert (shown["id"], shown["state"], shown["system_prompt"]) == (
            result["conversation_id"],
            "active",
            "Be brief.",
        )
        assert shown["model"] == "claude-sonnet-5-5"
        assert shown["omitted_messages"] == 0
        roles = [message["role"] for message in shown["messages"]]
        assert roles == ["user", "assistant", "user", "assistant"]
        blocks = [message["content"] for message in shown["messages"]]
        assert blocks[0] == [{"type": "text", "text": "What does it say?"}]
        (call,) = [block for block in blocks[1] if block["type"] == "tool_use"]
        assert (call["name"], call["input"]) == ("read_file", {"path": "note"})
        assert [(block["tool_use_id"], block["content"]) for block in blocks[2]] == [(call["id"], "hi")]
        assert blocks[3] == [{"type": "text", "text": result["text"]}]
        assert shown["messages"][3]["stop_reason"] == "end_turn"
        spent = [message["usage"]["output_tokens"] for message in shown["messages"] if message["role"] == "assistant"]
        assert shown["usage"]["output_tokens"] == sum(spent) > 0
        listed = server.call(2, "resources/list")["result"]["resources"]
        assert [item["uri"] for item in listed[5:]] == [uri]
        reference = {"type": "ref/resource", "uri": "conversation://{id}"}
        params = {"ref": reference, "argument": {"name": "id", "value": "conv_"}}
        completion = server.call(3, "completion/complete", params)["result"]["completion"]
        assert completion == {"values": [result["conversation_id"]], "total": 1, "hasMore": False}


@pytest.mark.behaviour("resources.read.conversation")
def test_of_a_long_conversation_the_newest_messages_that_fit_are_given(tmp_path: Path) -> None:
    env = {"TELEMETRYFLOW_MCP_TOOLS_MAX_READ_BYTES": "2000"}
    with fake_claude() as claude, serving(tmp_path, env={**claude_at(claude.base_url), **env}) as server:
        server.begin("2025-11-25")
        first = server.call_tool(0, "claude_conversation", {"message": "x" * 900})["structuredContent"]
        more = {"message": "x" * 900, "conversation_id": first["conversation_id"]}
        for number in (1, 2):
            server.call_tool(number, "claude_conversation", more)
        shown = read_json(server, f"conversation://{first['conversation_id']}")
        assert 0 < len(shown["messages"]) < 6
        assert len(shown["messages"]) + shown["omitted_messages"] == 6
        assert shown["messages"][-1]["role"] == "assistant"
        assert len(json.dumps(shown["messages"])) < 2000 + 500

"""`execute_command` from outside: what runs, what does not, and what is seen of it."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.bubblewrap import SANDBOXES
from support.commands import commanding, script
from support.otlp import GrpcReceiver
from support.server import DEADLINE, REVISIONS, Server, eventually, serving
from support.sizes import later

KEY = "sk-ant-api03-not-a-real-key-but-looks-like-one"
MIB = 1024 * 1024


def run(server: Server, command: str | Sequence[str], **arguments: object) -> dict[str, Any]:
    return server.call_tool("run", "execute_command", {"command": command, **arguments})


def names(server: Server) -> set[str]:
    return {tool["name"] for tool in server.call("list", "tools/list")["result"]["tools"]}


def intents(folder: Path, columns: str) -> list[Any]:
    with closing(sqlite3.connect(folder / "state" / "audit.db")) as database:
        return database.execute(f"SELECT {columns} FROM intents ORDER BY id").fetchall()  # noqa: S608  # the test's own


@pytest.mark.behaviour("tools.acting.execute-command")
@pytest.mark.parametrize(
    ("sandbox", "revision"),
    [
        ("none", REVISIONS[-2]),
        ("bubblewrap", REVISIONS[-1]),
        later("bubblewrap", REVISIONS[-2]),
        later("none", REVISIONS[-1]),
        *[later(sandbox, revision) for sandbox in ("none", "bubblewrap") for revision in REVISIONS[:-2]],
    ],
)
def test_an_allowed_program_runs(tmp_path: Path, sandbox: str, revision: str) -> None:
    with commanding(tmp_path, "ls", sandbox=sandbox) as server:
        server.begin(revision)
        (tmp_path / "work" / "a file").write_text("")

        result = run(server, "ls -1")

    assert not result.get("isError")
    assert result["content"][0]["text"] == "a file"
    if revision >= "2025-06-18":
        assert result["structuredContent"]["exit_code"] == 0


@pytest.mark.behaviour("tools.acting.execute-command")
def test_without_an_allowed_program_there_is_no_such_tool(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.initialize()

        assert "execute_command" not in names(server)
        assert (
            server.call("x", "tools/call", {"name": "execute_command", "arguments": {"command": "ls"}})["error"]["code"]
            == -32602
        )


@pytest.mark.behaviour("tools.list.annotations")
@pytest.mark.parametrize("sandbox", ["bubblewrap", "none"])
def test_the_tool_says_what_it_may_run_and_what_holds_it_back(tmp_path: Path, sandbox: str) -> None:
    with commanding(tmp_path, "ls", "git", sandbox=sandbox) as server:
        server.initialize()
        [tool] = [t for t in server.call("list", "tools/list")["result"]["tools"] if t["name"] == "execute_command"]
        server.close_input()
        server.wait()

    assert "ls, git" in tool["description"]
    assert ("without a sandbox" in tool["description"]) == (sandbox == "none")
    assert tool["annotations"]["destructiveHint"]
    assert not tool["annotations"]["readOnlyHint"]
    assert ("without a sandbox" in server.log()) == (sandbox == "none")


ESCAPES: Sequence[str | Sequence[str]] = (
    "env",
    "env ls",
    "sh -c ls",
    "bash -c 'touch canary'",
    "sh -c 'touch canary'",
    "./ls",
    "{work}/ls",
    "{fake}/ls",
    "/usr/local/../bin/ls",
    "../fake/ls",
    "LD_PRELOAD={fake}/x.so ls",
    "PATH={fake} ls",
    "\\ls/../ls",
    "ls\x00",
    "ls;touch canary",
    "$(touch canary)",
    "`touch canary`",
    "|touch canary",
    "exec ls",
    "busybox ls",
    ["ls; touch canary"],
    ["sh", "-c", "touch canary"],
    [""],
    "git -c alias.x='!touch canary' x",
    "git -c core.fsmonitor='touch canary' status",
    "git --exec-path={fake} status",
    "git --config-env=alias.x=HOME x",
    "git config alias.x '!touch canary'",
    "git x",
    "git grep -O{fake}/ls .",
    "git diff --ext-diff",
    "GIT_EXTERNAL_DIFF={fake}/ls git diff",
)


@pytest.mark.behaviour("tools.acting.execute-command")
@SANDBOXES
def test_no_escape_runs_anything(tmp_path: Path, sandbox: str) -> None:
    fake, work, canary = tmp_path / "fake", tmp_path / "work", tmp_path / "work" / "canary"
    for folder in (fake, work):
        script(folder / "ls", f"touch {canary}; echo another ls")
    path = {"PATH": f"{fake}:{work}:/usr/bin:/bin", "GIT_EXTERNAL_DIFF": str(fake / "ls"), "GIT_DIR": str(fake)}

    with commanding(tmp_path, "ls", "git", sandbox=sandbox, env=path) as server:
        server.initialize()
        for command in ESCAPES:
            words = command if isinstance(command, list) else str(command).format(work=work, fake=fake)
            assert run(server, words).get("isError"), command
        assert run(server, "ls")["structuredContent"]["stdout"] == "ls\n"
        assert run(server, "git diff")["structuredContent"]["exit_code"] == 129  # no repository
        assert not canary.exists()


@pytest.mark.behaviour("tools.acting.secrets")
@SANDBOXES
def test_the_key_is_in_no_environment_answer_log_or_span(tmp_path: Path, sandbox: str) -> None:
    receiver = GrpcReceiver()
    endpoint = receiver.start()
    env = {"ANTHROPIC_API_KEY": KEY, "TELEMETRYFLOW_MCP_TELEMETRY_ENDPOINT": endpoint}
    try:
        with commanding(tmp_path, "env", "cat", sandbox=sandbox, env=env) as server:
            server.initialize()
            variables = run(server, "env")["structuredContent"]["stdout"]
            assert "ANTHROPIC" not in variables
            run(server, "cat /proc/self/environ /proc/1/environ /proc/2/environ")
            run(server, f"cat /proc/{server.pid}/environ")  # without a sandbox the same user may read it
            assert KEY.encode() not in Path(f"/proc/{server.pid}/environ").read_bytes()
            server.close_input()
            server.rest()
            server.wait()
        assert KEY not in json.dumps(server.received)
        assert KEY not in server.log()
        assert receiver.spans()
        assert KEY not in str(receiver.spans())
        for file in (tmp_path / "state").iterdir():
            assert KEY.encode() not in file.read_bytes(), file
    finally:
        receiver.stop()


@pytest.mark.behaviour("tools.acting.bounded", "messages.answer.side-by-side")
@pytest.mark.parametrize("sandbox", ["bubblewrap", later("none")])
def test_a_flood_stays_bounded_and_hinders_nobody(tmp_path: Path, sandbox: str) -> None:
    with commanding(tmp_path, "head", "true", sandbox=sandbox) as server:
        server.initialize()
        run(server, "true")
        before = server.peak_memory()
        server.request("flood", "tools/call", {
            "name": "execute_command", "arguments": {"command": "head -c 1000000000 /dev/zero"},
        })  # fmt: skip
        pings, slowest = 0, 0.0
        answered: set[str | int] = set()
        while "flood" not in answered:
            started = time.monotonic()
            server.request(f"ping-{pings}", "ping")
            while f"ping-{pings}" not in answered:
                answered.add(server.receive()["id"])
            slowest = max(slowest, time.monotonic() - started)
            pings += 1
        result = next(answer for answer in server.received if answer.get("id") == "flood")["result"]

        assert result["structuredContent"]["truncated"]
        assert len(result["structuredContent"]["stdout"]) < 300_000
        assert f"[{1_000_000_000 - 262_144} bytes are cut out here]" in result["structuredContent"]["stdout"]
        assert pings > 5
        assert slowest < 2
        assert server.peak_memory() - before < 40 * MIB


@pytest.mark.behaviour("stdio.lines.kept")
def test_a_program_that_eats_its_input_gets_none_of_the_clients(tmp_path: Path) -> None:
    with commanding(tmp_path, "cat") as server:
        server.initialize()
        server.request("cat", "tools/call", {"name": "execute_command", "arguments": {"command": "cat"}})
        for number in range(20):
            server.request(number, "ping")

        answered = {server.receive()["id"] for _ in range(21)}

    assert answered == {"cat", *range(20)}


@pytest.mark.behaviour("tools.acting.bounded")
def test_bytes_that_are_no_text_come_back_as_json(tmp_path: Path) -> None:
    with commanding(tmp_path, "head") as server:
        server.initialize()

        result = run(server, "head -c 5000 /dev/urandom")

    assert not result["isError"]
    assert "\ufffd" in result["structuredContent"]["stdout"]


@pytest.mark.behaviour("tools.acting.intent")
def test_a_command_that_kills_the_server_is_in_the_audit(tmp_path: Path) -> None:
    killer = script(tmp_path / "bin" / "killer", "kill -9 $PPID")
    with commanding(tmp_path, killer) as server:
        server.initialize()
        server.request("kill", "tools/call", {"name": "execute_command", "arguments": {"command": [str(killer), "x"]}})

        assert server.rest() == []
        assert server.wait() == -9

    assert intents(tmp_path, "tool, arguments, request_id, outcome") == [
        ("execute_command", json.dumps({"command": [str(killer), "x"]}), "kill", None)
    ]


@pytest.mark.behaviour("tools.acting.intent")
def test_each_call_of_a_tool_that_acts_is_in_the_audit_with_its_outcome_and_without_contents(tmp_path: Path) -> None:
    with commanding(tmp_path, "ls", "sleep") as server:
        server.initialize()
        server.call_tool(1, "write_file", {"path": "a.txt", "content": "the content"})
        run(server, "ls")
        run(server, "sh")
        run(server, "sleep 100", timeout=0.2)
        server.call_tool(2, "read_file", {"path": "a.txt"})
        server.call_tool(3, "write_file", {"path": 5, "content": "the content"})
        server.close_input()
        server.rest()
        server.wait()

    assert intents(tmp_path, "tool, arguments, argument_names, outcome, error_type") == [
        ("write_file", '{"path": "a.txt"}', '["content", "path"]', "completed", None),
        ("execute_command", '{"command": "ls"}', '["command"]', "completed", None),
        ("execute_command", '{"command": "sh"}', '["command"]', "failed", "command_refused"),
        (
            "execute_command",
            '{"command": "sleep 100", "timeout": 0.2}',
            '["command", "timeout"]',
            "timed_out",
            "timeout",
        ),
    ]
    assert all(b"the content" not in file.read_bytes() for file in (tmp_path / "state").iterdir())


@pytest.mark.behaviour("tools.acting.intent")
def test_where_the_audit_cannot_be_written_nothing_that_acts_is_done(tmp_path: Path) -> None:
    (tmp_path / "state" / "audit.db").mkdir(parents=True)
    with commanding(tmp_path, "touch") as server:
        server.initialize()

        refused = [run(server, "touch canary"), server.call_tool(1, "write_file", {"path": "canary", "content": ""})]

        assert [result["isError"] for result in refused] == [True, True]
        assert all("because the audit cannot record it" in result["content"][0]["text"] for result in refused)
        assert not (tmp_path / "work" / "canary").exists()
        assert not server.call_tool(2, "list_directory", {})["isError"]


@pytest.mark.behaviour("tools.acting.intent")
def test_the_outcome_is_written_while_the_server_runs_on(tmp_path: Path) -> None:
    with commanding(tmp_path, "ls") as server:
        server.initialize()
        run(server, "ls")

        eventually(lambda: intents(tmp_path, "outcome") == [("completed",)], DEADLINE)

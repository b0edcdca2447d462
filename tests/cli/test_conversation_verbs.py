"""`tfo-mcp conversations` and `tfo-mcp purge`, on what a real server keeps."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.claude import fake_claude
from support.command_line import run
from support.server import Answer, Server, claude_at, environment, eventually, serving
from support.sizes import later

SCRIPT = """
replies:
  - {when: {contains: slow}, text: late, delay: 60}
  - {when: {contains: look}, text: I look., tool_use: [{name: read_file, input: {path: note}}]}
  - {text: "It says:\\n```\\n\\e[31mhidden", times: 99}
"""
NOTE = "\x1b]0;title\x07 needle\n````\nend"
UNKNOWN = "conv_00000000000000000000000000000000"


@contextmanager
def talking(folder: Path, settings: Mapping[str, str] | None = None) -> Generator[Server]:
    with (
        fake_claude(SCRIPT) as claude,
        serving(folder, env={**claude_at(claude.base_url), **(settings or {})}) as server,
    ):
        (folder / "work" / "note").write_text(NOTE)
        server.initialize()
        yield server


def say(server: Server, message: str, **more: str) -> str:
    """The conversation's id."""
    result = server.call_tool("say", "claude_conversation", {"message": message, **more})
    assert not result["isError"], result
    return result["structuredContent"]["conversation_id"]


def lines(text: str) -> Sequence[Answer]:
    return [json.loads(line) for line in text.splitlines()]


def grow_older(folder: Path, conversation_id: str, days: float) -> None:
    with closing(sqlite3.connect(folder / "state" / "tfo-mcp.db")) as database, database:
        at = time.time() - days * 86_400
        database.execute("UPDATE conversations SET updated_at = ? WHERE id = ?", (at, conversation_id))


def files(folder: Path) -> Sequence[Path]:
    return sorted(folder.rglob("*"))


# --- where there is nothing ---


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["conversations", "list"], 0),
        (["conversations", "list", "--json"], 0),
        (["conversations", "export", "--all"], 0),
        (["purge", "--older-than", "1", "--yes"], 0),
        (["conversations", "show", UNKNOWN], 1),
        later(["conversations", "export", UNKNOWN], 1),
        later(["conversations", "delete", UNKNOWN, "--yes"], 1),
    ],
)
def test_without_a_database_there_is_nothing_and_none_is_made(tmp_path: Path, arguments: list[str], code: int) -> None:
    ended = run(tmp_path, *arguments)

    assert (ended.returncode, ended.stdout) == (code, "")
    place = tmp_path / "state" / "tfo-mcp.db"
    assert ended.stderr == f"tfo-mcp: there are no conversations yet: there is no database {str(place)!r}\n"
    assert files(tmp_path) == [tmp_path / "home"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["conversations", "list"],
        later(["conversations", "show", UNKNOWN]),
        later(["conversations", "export", "--all"]),
        later(["conversations", "delete", UNKNOWN, "--yes"]),
        later(["purge", "--older-than", "1", "--yes"]),
    ],
)
def test_a_database_that_cannot_be_used_is_exit_4_and_one_sentence(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "tfo-mcp.db").write_bytes(b"no database at all" * 100)

    ended = run(tmp_path, *arguments)

    assert (ended.returncode, ended.stdout) == (4, "")
    assert "is not a database" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["conversations", "list", "--search", "!?"], 2, "no word to search for"),
        (["conversations", "export"], 2, "name conversations, or say --all"),
        later(["conversations", "export", "--all", UNKNOWN], 2, "name conversations, or say --all"),
        later(["conversations", "list", "--state", "odd"], 2, "'odd' is not one of"),
        later(["conversations", "list", "--limit", "0"], 2, "0 is not in the range"),
        later(["conversations", "delete"], 2, "Missing argument"),
        later(["purge", "--older-than", "-1"], 2, "-1 is not in the range"),
        (["conversations", "list", "--config", "missing.yaml"], 3, "missing.yaml"),
        later(["purge", "--config", "missing.yaml"], 3, "missing.yaml"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    ended = run(tmp_path, *arguments)

    assert (ended.returncode, ended.stdout) == (code, "")
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


# --- to read ---


def test_conversations_are_listed_and_searched_while_a_server_runs(tmp_path: Path) -> None:
    with talking(tmp_path) as server:
        ids = [say(server, text) for text in ("Tell me about needles", "\x1b[2Jh\u00e4y \u202e", "cows")]
        listed = run(tmp_path, "conversations", "list")
        assert listed.returncode == 0, listed.stderr
        head, *rows = listed.stdout.splitlines()
        assert head.split() == ["CONVERSATION", "CHANGED", "STATE", "MESSAGES", "TITLE"]
        assert [row.split()[0] for row in rows] == ids[::-1]
        assert [row.split(maxsplit=5)[3:] for row in rows] == [
            ["active", "2", "cows"],
            ["active", "2", "\\x1b[2Jh\u00e4y \\u202e"],
            ["active", "2", "Tell me about needles"],
        ]

        found = lines(run(tmp_path, "conversations", "list", "--json", "--search", "hay NEEDL").stdout)
        assert found == []
        found = lines(run(tmp_path, "conversations", "list", "--json", "--search", "about NEEDL").stdout)
        asked = server.call_tool("list", "list_conversations", {"query": "needles"})["structuredContent"]
        assert found == asked["conversations"]

        server.call_tool("close", "close_conversation", {"conversation_id": ids[0]})
        closed = run(tmp_path, "conversations", "list", "--state", "closed", "--limit", "1").stdout
        assert [row.split()[0] for row in closed.splitlines()[1:]] == [ids[0]]
        assert len(run(tmp_path, "conversations", "list", "--limit", "2", "--json").stdout.splitlines()) == 2


@pytest.mark.ci
def test_a_list_goes_on_over_its_pages(tmp_path: Path) -> None:
    with talking(tmp_path) as server:
        first = say(server, "the first")
    with closing(sqlite3.connect(tmp_path / "state" / "tfo-mcp.db")) as database, database:
        database.row_factory = sqlite3.Row
        row = dict(database.execute("SELECT * FROM conversations").fetchone())
        names = ", ".join(f":{name}" for name in row)
        copies = [{**row, "id": f"conv_{number:032x}", "updated_at": number // 2} for number in range(250)]
        database.executemany(f"INSERT INTO conversations VALUES ({names})", copies)  # noqa: S608  # its own columns

    listed = lines(run(tmp_path, "conversations", "list", "--json", "--limit", "220").stdout)

    expected = [first, *(f"conv_{number:032x}" for number in reversed(range(250)))]
    assert [each["conversation_id"] for each in listed] == expected[:220]


def test_a_conversation_is_shown_in_parts_and_without_its_escapes(tmp_path: Path) -> None:
    with talking(tmp_path) as server:
        conversation_id = say(server, "look \x1b[2J here", system_prompt="Be brief.")
        whole = run(tmp_path, "conversations", "show", conversation_id)
        last = run(tmp_path, "conversations", "show", conversation_id, "--from", "-1")
        middle = run(tmp_path, "conversations", "show", conversation_id, "--from", "1", "--limit", "2")
        beyond = run(tmp_path, "conversations", "show", conversation_id, "--from", "4")
        unknown = run(tmp_path, "conversations", "show", "conv_1")

    assert whole.returncode == 0, whole.stderr
    shown = whole.stdout.splitlines()
    assert shown[0] == "look \\x1b[2J here"
    assert shown[1].startswith(f"{conversation_id}, active, claude-sonnet-5-5, 4 messages, changed 20")
    assert shown[2:4] == ["system prompt:", "    Be brief."]
    heads = [line for line in shown if line.startswith("[")]
    assert [head.partition(",")[0] for head in heads] == ["[0] User", "[1] Claude", "[2] User", "[3] Claude"]
    assert '    -> read_file {"path": "note"}' in shown
    assert "    <- \\x1b]0;title\\x07 needle" in shown
    assert "    \\x1b[31mhidden" in shown
    assert not set(whole.stdout) & set("\x1b\x07")
    assert [line for line in last.stdout.splitlines() if line.startswith("[")] == heads[3:]
    assert [line for line in middle.stdout.splitlines() if line.startswith("[")] == heads[1:3]
    assert middle.stdout.splitlines()[-1] == "1 more message: --from 3"
    assert (beyond.returncode, beyond.stdout) == (1, "")
    assert beyond.stderr == f"tfo-mcp: conversation {conversation_id} has no message 4: its messages are 0 to 3\n"
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr == (
        "tfo-mcp: there is no conversation 'conv_1': `tfo-mcp conversations list` tells which there are\n"
    )


def test_all_that_is_kept_of_a_conversation_is_in_its_lines(tmp_path: Path) -> None:
    with talking(tmp_path) as server:
        first = say(server, "look here", system_prompt="Be brief.")
        fork = server.call_tool("fork", "fork_conversation", {"conversation_id": first})["structuredContent"]
        exported = run(tmp_path, "conversations", "export", "--all", "--format", "jsonl")
        twice = run(tmp_path, "conversations", "export", first, first, "--format", "jsonl")

    read = lines(exported.stdout)
    assert [line["conversation_id"] for line in read if line["type"] == "conversation"] == [
        first,
        fork["conversation_id"],
    ]
    assert (read[0]["system_prompt"], read[0]["format"], read[0]["messages"]) == ("Be brief.", 1, 4)
    with closing(sqlite3.connect(tmp_path / "state" / "tfo-mcp.db")) as database:
        kept = database.execute(
            "SELECT m.conversation_id, position, role, content, m.model FROM messages m JOIN conversations c "
            "ON c.id = m.conversation_id ORDER BY c.created_at, position"
        ).fetchall()
    assert [
        (line["conversation_id"], line["position"], line["role"], line["content"], line.get("model"))
        for line in read
        if line["type"] == "message"
    ] == [(*before, json.loads(content), model) for *before, content, model in kept]
    assert twice.stdout.splitlines() == exported.stdout.splitlines()[:5]


def test_markdown_is_exported_to_a_file_that_only_its_owner_reads_and_none_is_lost(tmp_path: Path) -> None:
    with talking(tmp_path) as server:
        say(server, "look here")
        say(server, "And more")
        to_stdout = run(tmp_path, "conversations", "export", "--all")
        to_file = run(tmp_path, "conversations", "export", "--all", "-o", "deep/all.md")
        file = tmp_path / "deep" / "all.md"
        again = run(tmp_path, "conversations", "export", "--all", "-o", "deep/all.md")
        assert (to_file.returncode, to_file.stdout, to_file.stderr) == (0, "", "")
        assert file.read_text() == to_stdout.stdout
        assert file.stat().st_mode & 0o777 == 0o600
        assert again.returncode == 1
        assert again.stderr == f"tfo-mcp: {file} is there already; --force replaces it\n"
        file.write_text("old")
        assert run(tmp_path, "conversations", "export", UNKNOWN, "-f", "-o", str(file)).returncode == 1
        assert file.read_text() == "old"
        assert run(tmp_path, "conversations", "export", "--all", "-f", "-o", str(file)).returncode == 0
        assert file.read_text() == to_stdout.stdout
        assert files(file.parent) == [file]
        refused = run(tmp_path, "conversations", "export", "--all", "-o", "/dev/null/x")
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)

    text = to_stdout.stdout
    assert text.startswith("# look here\n\n- conversation: conv_")
    assert "\n---\n\n# And more\n" in text
    assert "Tool result:\n\n`````\n\\x1b]0;title\\x07 needle\n````\nend\n`````\n" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    "arguments", [["conversations", "export", "--all"], later(["conversations", "show"]), ["conversations", "list"]]
)
def test_a_reader_that_leaves_is_no_reason_to_complain(tmp_path: Path, arguments: list[str]) -> None:
    with talking(tmp_path) as server:
        conversation_id = say(server, "x" * 1_000_000)
    if arguments[-1] == "show":
        arguments = [*arguments, conversation_id]
    reading, writing = os.pipe()
    os.close(reading)

    ended = subprocess.run(
        [sys.executable, "-m", "tfo_mcp", *arguments],
        env=environment(tmp_path),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(writing)

    assert ended.stderr == b""
    assert ended.returncode == 1


@pytest.mark.ci
def test_an_output_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no such device")
    with talking(tmp_path) as server:
        conversation_id = say(server, "hello")
    tfo_mcp = f'"{sys.executable}" -m tfo_mcp'

    full, closed = ">/dev/full", ">&-"
    for verb, target, why in (
        ("conversations export --all", full, "No space left on device"),
        ("conversations export --all", closed, "Bad file descriptor"),
        ("conversations list", full, "No space left on device"),
        (f"conversations show {conversation_id}", full, "No space left on device"),
        (f"conversations delete --yes {conversation_id}", full, "No space left on device"),
        ("purge --older-than 0 --yes", full, "No space left on device"),
    ):
        ended = subprocess.run(
            ["/bin/sh", "-c", f"{tfo_mcp} {verb} {target}"],
            env=environment(tmp_path),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (ended.returncode, ended.stderr) == (1, f"tfo-mcp: stdout cannot be written: {why}\n")
    with closing(sqlite3.connect(tmp_path / "state" / "tfo-mcp.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.ci
def test_a_terminal_of_another_encoding_gets_what_it_can_show(tmp_path: Path) -> None:
    with talking(tmp_path) as server:
        say(server, "\u4e2d")

    listed = run(tmp_path, "conversations", "list", PYTHONIOENCODING="latin-1")

    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.splitlines()[1].endswith("2  \\u4e2d")


# --- to delete ---


def deleted(folder: Path) -> Sequence[Any]:
    return lines(run(folder, "conversations", "list", "--json").stdout)


def test_nothing_is_deleted_that_was_not_confirmed(tmp_path: Path) -> None:
    with talking(tmp_path) as server:
        conversation_id = say(server, "hello")
        dry = run(tmp_path, "conversations", "delete", conversation_id, "--dry-run")
        unasked = run(tmp_path, "conversations", "delete", conversation_id)
        unknown = run(tmp_path, "conversations", "delete", conversation_id, UNKNOWN, "--yes")
        assert (dry.returncode, dry.stdout) == (0, f"{conversation_id}  2 messages  hello\n")
        assert unasked.returncode == 1
        assert "Delete 1 conversation for good? [y/N]" in unasked.stderr
        assert (unknown.returncode, unknown.stdout) == (1, "")
        assert UNKNOWN in unknown.stderr
        assert [each["conversation_id"] for each in deleted(tmp_path)] == [conversation_id]
        assert say(server, "still there", conversation_id=conversation_id) == conversation_id

        answered = subprocess.run(
            [sys.executable, "-m", "tfo_mcp", "conversations", "delete", conversation_id],
            env=environment(tmp_path),
            cwd=tmp_path,
            input="y\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert answered.returncode == 0, answered.stderr
        assert answered.stdout.splitlines()[-1] == "deleted 1 conversation with 4 messages"
        assert deleted(tmp_path) == []


def test_a_deleted_conversation_is_gone_for_the_server_that_has_it_in_memory(tmp_path: Path) -> None:
    with talking(tmp_path) as server:
        conversation_id, kept = say(server, "look for xylographs"), say(server, "hello")
        ended = run(tmp_path, "conversations", "delete", conversation_id, "--yes")
        assert (ended.returncode, ended.stderr) == (0, "")
        result = server.call_tool("more", "claude_conversation", {"message": "m", "conversation_id": conversation_id})
        assert result["isError"]
        assert "there is no conversation" in result["content"][0]["text"]
        found = server.call_tool("list", "list_conversations", {"query": "xylographs"})["structuredContent"]
        assert found["conversations"] == []
        assert say(server, "and more", conversation_id=kept) == kept
        on_disk = b"".join(path.read_bytes() for path in (tmp_path / "state").glob("tfo-mcp.db*"))
        assert conversation_id.encode() not in on_disk
        assert b"xylograph" not in on_disk


def test_a_conversation_whose_turn_is_under_way_stays(tmp_path: Path) -> None:
    with talking(tmp_path) as server:
        busy, idle = say(server, "hello"), say(server, "hello again")
        arguments = {"message": "slow", "conversation_id": busy}
        server.request("slow", "tools/call", {"name": "claude_conversation", "arguments": arguments})
        eventually(lambda: "waiting" in [each["state"] for each in deleted(tmp_path)])

        ended = run(tmp_path, "conversations", "delete", busy, idle, "--yes")
        purged = run(tmp_path, "purge", "--older-than", "0", "--yes")

        assert ended.returncode == 1
        assert ended.stderr == f"tfo-mcp: {busy} stays: a server works on it; try again when it is done\n"
        assert ended.stdout.splitlines()[-1] == "deleted 1 conversation with 2 messages"
        assert purged.returncode == 0
        assert "tfo-mcp: 1 conversation stayed: a server works on it\n" in purged.stderr
        assert [each["conversation_id"] for each in deleted(tmp_path)] == [busy]


# --- by age ---


def test_what_is_too_old_is_purged_and_nothing_else(tmp_path: Path) -> None:
    with talking(tmp_path) as server:
        old, younger, new = (say(server, text) for text in ("old", "younger", "new"))
        grow_older(tmp_path, old, 91)
        grow_older(tmp_path, younger, 31)
        unset = run(tmp_path, "purge", "--yes")
        assert unset.returncode == 2
        assert "say --older-than DAYS, or set storage.retention_days" in unset.stderr
        dry = run(tmp_path, "purge", "--older-than", "30", "--dry-run")
        assert dry.stdout == "would delete 2 conversations with 4 messages, and 0 sessions\n"
        assert run(tmp_path, "purge", "--older-than", "30").returncode == 1
        assert len(deleted(tmp_path)) == 3
        by_setting = run(tmp_path, "purge", "--yes", TELEMETRYFLOW_MCP_STORAGE_RETENTION_DAYS="90")
        assert by_setting.stdout == "deleted 1 conversation with 2 messages, and 0 sessions\n"
        by_option = run(tmp_path, "purge", "--older-than", "30", "--yes", TELEMETRYFLOW_MCP_STORAGE_RETENTION_DAYS="90")
        assert by_option.stdout == "deleted 1 conversation with 2 messages, and 0 sessions\n"
        assert [each["conversation_id"] for each in deleted(tmp_path)] == [new]


@pytest.mark.ci
def test_a_purge_makes_the_database_smaller_where_it_is_told_to(tmp_path: Path) -> None:
    database = tmp_path / "state" / "tfo-mcp.db"
    with talking(tmp_path) as server:
        say(server, "xy " * 300_000)
        run(tmp_path, "purge", "--older-than", "30", "--yes")
        large = database.stat().st_size
        assert run(tmp_path, "purge", "--older-than", "0", "--yes").returncode == 0
        assert database.stat().st_size >= large
        ended = run(tmp_path, "purge", "--older-than", "0", "--yes", "--vacuum")
        assert (ended.returncode, ended.stderr) == (0, "")
        assert database.stat().st_size < large / 3
        say(server, "it goes on")

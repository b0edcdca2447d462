"""The page about backups is right: its commands are run here as they stand there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from support.claude import fake_claude
from support.command_line import run
from support.server import Server, claude_at, environment, eventually, serving

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "back-up-and-restore.md").read_text("utf-8")

SHELL_OF_SQLITE = """\
import sqlite3, sys
name, command = sys.argv[1:]
database = sqlite3.connect(name)
if command.startswith(".backup "):
    database.backup(sqlite3.connect(command.split("'")[1]))
else:
    for row in database.execute(command):
        print("|".join(map(str, row)))
"""
"""Stands for SQLite's own where that is not installed."""


def commands_of(section: str) -> tuple[Sequence[str], Sequence[str]]:
    """The commands of a section, and the lines that it says they print."""
    text = re.split(r"^## ", PAGE.split(f"## {section}\n")[1], flags=re.MULTILINE)[0]
    shown = [line for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    return [line[2:] for line in shown if line.startswith("$ ")], [line for line in shown if not line.startswith("$ ")]


def program(folder: Path, name: str, arguments: str) -> None:
    folder.mkdir(exist_ok=True)
    script = folder / name
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
    script.chmod(0o700)


def follow(folder: Path, section: str) -> str:
    """Type the commands of a section, each of which must succeed; what they printed."""
    commands, printed = commands_of(section)
    assert commands, section
    programs = folder / "programs"
    program(programs, "tfo-mcp", "-m tfo_mcp")
    if shutil.which("sqlite3") is None:
        (programs / "sqlite3.py").write_text(SHELL_OF_SQLITE)
        program(programs, "sqlite3", str(programs / "sqlite3.py"))
    known = environment(folder, {"STATE": str(folder / "state"), "BACKUPS": str(folder / "backups")})
    ended = subprocess.run(
        ["/bin/sh", "-euc", "\n".join(commands)],
        env={**known, "PATH": f"{programs}{os.pathsep}{known['PATH']}"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert [line for line in ended.stdout.splitlines() if line in printed] == printed
    return ended.stdout


def say(server: Server, message: str, **more: str) -> str:
    result = server.call_tool("say", "claude_conversation", {"message": message, **more})
    assert not result["isError"], result
    return result["structuredContent"]["conversation_id"]


def listed(folder: Path) -> dict[str, int]:
    """Title to how many messages."""
    lines = run(folder, "conversations", "list", "--json").stdout.splitlines()
    return {line["title"]: line["messages"] for line in map(json.loads, lines)}


def test_a_backup_that_was_made_as_the_page_says_while_a_server_ran_is_restored_as_it_says(tmp_path: Path) -> None:
    slow = "replies: [{when: {contains: slow}, text: late, delay: 60}, {text: Hi., times: 99}]"
    with fake_claude(slow) as claude:
        with serving(tmp_path, env=claude_at(claude.base_url)) as server:
            server.initialize()
            kept = say(server, "kept")
            deleted = say(server, "deleted later")
            under_way = say(server, "under way")
            arguments = {"message": "slow", "conversation_id": under_way}
            server.request("slow", "tools/call", {"name": "claude_conversation", "arguments": arguments})
            eventually(lambda: listed(tmp_path)["under way"] == 3)
            before = listed(tmp_path)

            follow(tmp_path, "Back up, also while servers run")
            checked = follow(tmp_path, "Check a backup")
            assert all(conversation_id in checked for conversation_id in (kept, deleted, under_way))

            say(server, "later", conversation_id=kept)
            say(server, "new")
            assert run(tmp_path, "conversations", "delete", deleted, "--yes").returncode == 0
            assert listed(tmp_path) == {"kept": 4, "under way": 3, "new": 2}

        restored = follow(tmp_path, "Restore")
        assert all(conversation_id in restored for conversation_id in (kept, deleted, under_way))
        assert listed(tmp_path) == before == {"kept": 2, "deleted later": 2, "under way": 3}
        for private in (*(tmp_path / "backups").rglob("*.db"), *(tmp_path / "state").glob("*.db")):
            assert private.stat().st_mode & 0o077 == 0, private

        with serving(tmp_path, env=claude_at(claude.base_url)) as server:
            server.initialize()
            say(server, "and on", conversation_id=kept)
            assert listed(tmp_path)["kept"] == 4
        follow(tmp_path, "A single conversation")
        assert (tmp_path / "backups" / "conversations.jsonl").read_text("utf-8").count('"type":"conversation"') == 3


def test_no_command_of_the_page_is_left_out(tmp_path: Path) -> None:
    sections = ["Back up, also while servers run", "Check a backup", "Restore", "A single conversation"]
    followed = [command for section in sections for command in commands_of(section)[0]]
    assert followed == re.findall(r"^\$ (.*)$", PAGE, re.MULTILINE)
    assert len(followed) == 15
    assert {block for block in re.findall(r"^```(.*)$", PAGE, re.MULTILINE) if block} == {"console"}


def test_the_files_are_those_that_the_page_names(tmp_path: Path) -> None:
    nowhere = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    with fake_claude() as claude, serving(tmp_path, env={**claude_at(claude.base_url), **nowhere}) as server:
        server.initialize()
        say(server, "hello")
        eventually((tmp_path / "state" / "spool.db-wal").exists)
        there = {path.name for path in (tmp_path / "state").iterdir()}
    named = set(re.findall(r"`([\w.…/-]+)`", "".join(line for line in PAGE.splitlines() if line.startswith("| `"))))
    patterns = [name.replace("…", "*").removesuffix("/") for name in named]
    assert {name for name in there if not any(Path(name).match(pattern) for pattern in patterns)} == set()
    assert json.loads(run(tmp_path, "info", "--json").stdout)["state_folder"] == str(tmp_path / "state")

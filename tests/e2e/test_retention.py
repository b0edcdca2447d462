"""What a server removes by itself, from outside."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from support.claude import fake_claude
from support.server import STATELESS, Server, claude_at, eventually, serving

newest = pytest.mark.parametrize("revision", ["2025-11-25", STATELESS])


def say(server: Server, message: str) -> str:
    result = server.call_tool("say", "claude_conversation", {"message": message})
    assert not result["isError"], result
    return result["structuredContent"]["conversation_id"]


def grow_older(folder: Path, conversation_id: str, days: float) -> None:
    with closing(sqlite3.connect(folder / "state" / "tfo-mcp.db")) as database, database:
        at = time.time() - days * 86_400
        database.execute("UPDATE conversations SET updated_at = ? WHERE id = ?", (at, conversation_id))


def kept(server: Server) -> list[str]:
    listed = server.call_tool("list", "list_conversations")["structuredContent"]
    return [each["conversation_id"] for each in listed["conversations"]]


@pytest.mark.behaviour("records.retention", "records.retention.off")
@newest
def test_what_is_too_old_goes_behind_the_first_answer_of_a_server_that_is_told_to(
    tmp_path: Path, revision: str
) -> None:
    with fake_claude() as claude:
        with serving(tmp_path, env=claude_at(claude.base_url)) as server:
            server.begin(revision)
            old, older, new = (say(server, text) for text in ("old", "older", "new"))
            grow_older(tmp_path, old, 8)
            grow_older(tmp_path, older, 9_000)
        with serving(tmp_path, env=claude_at(claude.base_url)) as server:
            server.begin(revision)
            assert kept(server) == [new, old, older]
            server.close_input()
            assert server.wait() == 0
            assert "retention_days" not in server.log()
        limited = {**claude_at(claude.base_url), "TELEMETRYFLOW_MCP_STORAGE_RETENTION_DAYS": "7"}
        with serving(tmp_path, env=limited) as server:
            server.begin(revision)
            eventually(lambda: kept(server) == [new])
            told = "removed what is older than storage.retention_days: 2 conversations with 4 messages, 0 sessions"
            eventually(lambda: told in server.log())
            assert server.log().count("retention_days") == 1
            server.close_input()
            assert server.wait() == 0

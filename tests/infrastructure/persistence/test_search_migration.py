"""What was said before there was a search is found by it too."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from tfo_mcp.infrastructure.persistence.catalog import SqlConversationCatalog
from tfo_mcp.infrastructure.persistence.migrations import History
from tfo_mcp.infrastructure.persistence.storage import Storage

BEFORE = History("versions", ("0001", "0002"))

MESSAGES = 450
"""More than two of the migration's batches."""


def written_before(path: Path) -> None:
    """Three conversations in a database that has no search yet: one long, one that says little, one empty."""
    engine = create_engine(f"sqlite:///{path}", connect_args={"isolation_level": None})
    with engine.begin() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        BEFORE.upgrade(connection)
    engine.dispose()
    quiet: list[object] = [
        {"type": "thinking", "thinking": "quietly"},
        {"type": "tool_use", "id": "1", "name": "n", "input": {}},
    ]
    contents: dict[str, list[list[object]]] = {
        "long": [[{"type": "text", "text": f"  Word{number}\nand more"}] for number in range(MESSAGES)],
        "little": [[{"type": "text", "text": "a picture"}, {"type": "image"}], quiet],
        "empty": [],
    }
    with closing(sqlite3.connect(path)) as database, database:
        for name, messages in contents.items():
            database.execute(
                "INSERT INTO conversations (id, principal, model, state, failures, fence, created_at, updated_at)"
                " VALUES (?, 'local', 'm', 'active', 0, 1, 1.0, 2.0)",
                (f"conv_{name}",),
            )
            database.executemany(
                "INSERT INTO messages (conversation_id, position, principal, role, content, created_at)"
                " VALUES (?, ?, 'local', 'user', ?, 1.0)",
                [(f"conv_{name}", position, json.dumps(content)) for position, content in enumerate(messages)],
            )


@pytest.mark.behaviour("records.search.existing")
def test_what_was_said_before_is_found_and_named(tmp_path: Path) -> None:
    async def scenario() -> None:
        storage = Storage(tmp_path / "tfo-mcp.db")
        catalog = SqlConversationCatalog(storage)
        try:
            titles = {summary.id: summary.title for summary in await catalog.find("local", limit=9)}
            assert titles == {"conv_long": "Word0 and more", "conv_little": "a picture", "conv_empty": ""}
            for query in ("word0", f"word{MESSAGES - 1}", f"word{MESSAGES // 2} word1"):
                assert [summary.id for summary in await catalog.find("local", text=query, limit=9)] == ["conv_long"]
            assert [summary.id for summary in await catalog.find("local", text="pict", limit=9)] == ["conv_little"]
            for query in (f"word{MESSAGES}", "quietly"):
                assert list(await catalog.find("local", text=query, limit=9)) == []
        finally:
            await storage.close()

    written_before(tmp_path / "tfo-mcp.db")
    asyncio.run(scenario())
    with closing(sqlite3.connect(tmp_path / "tfo-mcp.db")) as database:
        assert database.execute("SELECT count(*) FROM message_texts").fetchone() == (MESSAGES + 1,)
        database.execute("INSERT INTO messages_fts (messages_fts, rank) VALUES ('integrity-check', 1)")

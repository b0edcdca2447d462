"""What the database has of conversations, and what always holds of it while nobody works on any."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

from support.storms import check_turns
from tfo_mcp.domain.message import Message, block_from_json
from tfo_mcp.domain.transcript import Transcript

Row = Mapping[str, Any]

LOG = """
CREATE TABLE accepted (id INTEGER, conversation_id TEXT, content TEXT);
CREATE TRIGGER log_accepted AFTER INSERT ON pending_sends BEGIN
    INSERT INTO accepted VALUES (new.id, new.conversation_id, new.content);
END;
"""
"""Added to the schema: nothing that was ever accepted is forgotten."""

_TABLES = {
    "conversations": "SELECT * FROM conversations ORDER BY created_at",
    "messages": "SELECT * FROM messages ORDER BY conversation_id, position",
    "turns": "SELECT * FROM turns ORDER BY conversation_id, number",
    "claude_requests": "SELECT * FROM claude_requests ORDER BY conversation_id, number",
    "tool_starts": "SELECT * FROM tool_starts ORDER BY conversation_id, tool_use_id",
    "pending_sends": "SELECT * FROM pending_sends ORDER BY id",
    "accepted": "SELECT * FROM accepted ORDER BY id",
}


class Found:
    """Everything at one moment.

    Attributes:
        conversations: the rows, oldest first.
        accepted: each message that was ever accepted, with the number that it got last.
        waiting: each message that waits, with its process.
        delivered: the conversation of each message that stands in one, where it was sent to.
    """

    def __init__(self, path: Path, max_steps: int) -> None:
        with closing(sqlite3.connect(path)) as database:
            database.row_factory = sqlite3.Row
            database.execute("BEGIN")
            self._rows = {name: [dict(row) for row in database.execute(ask)] for name, ask in _TABLES.items()}
        self._max_steps = max_steps
        self.conversations: Sequence[Row] = self._rows["conversations"]
        self.accepted = {said: row["id"] for row in self._rows["accepted"] for said in _said(row)}
        self.waiting = {said: row["holder"] for row in self._rows["pending_sends"] for said in _said(row)}
        self.delivered: dict[str, str] = {}

    def of(self, table: str, conversation_id: str) -> Sequence[Row]:
        """Its rows."""
        return [row for row in self._rows[table] if row["conversation_id"] == conversation_id]

    def all_of(self, conversation: Row) -> Sequence[object]:
        """What belongs to it but what waits."""
        tables = ("messages", "turns", "claude_requests", "tool_starts")
        return [conversation, *(self.of(table, conversation["id"]) for table in tables)]

    def check(self) -> None:
        """All that holds of each conversation by itself, and of all together."""
        for conversation in self.conversations:
            self._check_messages(conversation)
            self._check_counts(conversation)
            self._check_sums(conversation)
            self._check_fork(conversation)
        counted = [row["input_tokens"] for row in self._rows["claude_requests"] if row["input_tokens"]]
        assert len(counted) == len(set(counted))  # Claude says another number each time

    def requests(self) -> int:
        """How many were committed before they were sent."""
        return len(self._rows["claude_requests"])

    def _check_messages(self, conversation: Row) -> None:
        rows = self.of("messages", conversation["id"])
        assert [row["position"] for row in rows] == list(range(len(rows)))
        messages = [Message(row["role"], [block_from_json(block) for block in _content(row)]) for row in rows]
        turns = Transcript(messages).turns
        is_interrupted = any(turn["state"] == "running" for turn in self.of("turns", conversation["id"])[-1:])
        check_turns(turns[:-1] if is_interrupted else turns)  # the last of its tools may have no answer yet
        taken_over = -1 if conversation["forked_at"] is None else conversation["forked_at"]
        own = [said for row in rows[taken_over + 1 :] if row["role"] == "user" for said in _said(row)]
        assert not any(said in self.delivered for said in own)
        assert len(own) == len(set(own))
        assert [self.accepted[said] for said in own] == sorted(self.accepted[said] for said in own)
        self.delivered.update((said, conversation["id"]) for said in own)

    def _check_counts(self, conversation: Row) -> None:
        turns = self.of("turns", conversation["id"])
        assert [turn["number"] for turn in turns] == list(range(1, conversation["turns"] + 1))
        assert all(turn["steps"] <= self._max_steps for turn in turns)
        assert all(one["first_position"] < other["first_position"] for one, other in pairwise(turns))
        ledger = self.of("claude_requests", conversation["id"])
        assert [row["number"] for row in ledger] == list(range(1, conversation["requests"] + 1))
        without = [row["number"] for row in ledger if row["outcome"] is None]
        assert without == [number for number in [conversation["open_request"]] if number is not None]
        assert conversation["failures"] < 3 or conversation["state"] == "closed"
        assert conversation["state"] != "closed" or all(turn["state"] != "running" for turn in turns)

    def _check_sums(self, conversation: Row) -> None:
        turns, ledger = self.of("turns", conversation["id"]), self.of("claude_requests", conversation["id"])
        assert _sum(ledger) == _sum(turns) == _sum([conversation])
        for turn in turns:
            assert _sum([turn]) == _sum(row for row in ledger if row["turn"] == turn["number"])
        assert conversation["unknown_requests"] == sum(turn["unknown_requests"] for turn in turns)
        answered = {row["position"]: _sum([row]) for row in ledger if row["position"] is not None}
        messages = self.of("messages", conversation["id"])
        assert answered == {row["position"]: _sum([row]) for row in messages if row["input_tokens"] is not None}

    def _check_fork(self, conversation: Row) -> None:
        if conversation["forked_from"] is not None:
            taken_over = conversation["forked_at"] + 1
            origin, fork = (self.of("messages", conversation[of])[:taken_over] for of in ("forked_from", "id"))
            assert len(fork) == taken_over
            assert [(row["role"], row["content"]) for row in fork] == [(row["role"], row["content"]) for row in origin]


def _content(row: Row) -> Sequence[Mapping[str, Any]]:
    return json.loads(row["content"])


def _said(row: Row) -> Sequence[str]:
    """The users' own messages in it."""
    return [block["text"] for block in _content(row) if block.get("text", "").startswith("message ")]


def _sum(rows: Iterable[Row]) -> Sequence[int]:
    names = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
    taken = list(rows)
    return [sum(row[name] or 0 for row in taken) for name in names]

"""What goes with a message and comes with the answer, from outside: the real server, the real SDK, fake-claude."""

from __future__ import annotations

import json
import os
import sqlite3
from base64 import b64encode
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from support import pictures
from support.claude import FakeClaude, fake_claude
from support.server import STATELESS, Answer, Server, claude_at, serving

newest = pytest.mark.parametrize("revision", ["2025-11-25", STATELESS])

SCHEMA: Answer = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name"],
    "additionalProperties": False,
}
PRICES = {"claude-sonnet-5-5": {"input": 3, "output": 15, "cache_read": 0.3, "cache_write": 3.75}}


@contextmanager
def talking(
    folder: Path, revision: str = "2025-11-25", script: str = "", settings: Mapping[str, str] | None = None
) -> Generator[tuple[Server, FakeClaude]]:
    """A server whose only root is `folder/work`, and the Claude that it asks."""
    with (
        fake_claude(script) as claude,
        serving(folder, env={**claude_at(claude.base_url), **(settings or {})}) as server,
    ):
        server.begin(revision)
        yield server, claude


def send(server: Server, message: str = "What is this?", **more: object) -> Answer:
    return server.call_tool("send", "claude_conversation", {"message": message, **more})


def sent(server: Server, message: str = "What is this?", **more: object) -> Answer:
    """The structured result of a turn that went well."""
    result = send(server, message, **more)
    assert not result["isError"], result
    return result["structuredContent"]


def stored(folder: Path) -> Sequence[int]:
    """How many conversations, waiting sends and messages there are."""
    path = folder / "state" / "tfo-mcp.db"
    if not path.exists():
        return [0, 0, 0]
    with closing(sqlite3.connect(path)) as database:
        tables = ("conversations", "pending_sends", "messages")
        return [database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables]  # noqa: S608  # names from above


def last_content(claude: FakeClaude, index: int = -1) -> list[dict[str, Any]]:
    """The blocks of a message of the last request, without marks of the cache."""
    content = claude.requests()[-1]["body"]["messages"][index]["content"]
    return [{name: value for name, value in block.items() if name != "cache_control"} for block in content]


def fill(folder: Path) -> list[dict[str, Any]]:
    """A picture, a PDF and a text in the root; the blocks that they are."""
    work = folder / "work"
    work.mkdir(parents=True)
    picture = pictures.png(1280, 720, padding=300_000)
    (work / "shot.jpg").write_bytes(picture)
    (work / "report.pdf").write_bytes(pictures.PDF)
    (work / "notes.md").write_text("# Grüße\n", "utf-8")
    report = {"type": "base64", "media_type": "application/pdf", "data": b64encode(pictures.PDF).decode()}
    notes = {"type": "text", "media_type": "text/plain", "data": "# Grüße\n"}
    return [
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": b64encode(picture).decode()},
        },
        {"type": "document", "source": report, "title": "report.pdf"},
        {"type": "document", "source": notes, "title": "notes.md"},
    ]


# --- files ---


@pytest.mark.behaviour("send.files", "send.files.kept", "send.files.not-shown")
@newest
def test_files_reach_claude_and_stay_with_the_conversation(tmp_path: Path, revision: str) -> None:
    blocks = fill(tmp_path)
    said = [*blocks, {"type": "text", "text": "What is this?"}]
    with talking(tmp_path, revision) as (server, claude):
        first = sent(server, files=["shot.jpg", str(tmp_path / "work" / "report.pdf"), "notes.md"])
        assert last_content(claude) == said
        counted = first["usage"]["cache_write_tokens"] + first["usage"]["input_tokens"]
        assert 5696 < counted < 9000  # by pixels and pages, not by what base64 has
        conversation_id = first["conversation_id"]

        shown = server.call_tool("get", "get_conversation", {"conversation_id": conversation_id})
        read = server.call("read", "resources/read", {"uri": f"conversation://{conversation_id}"})
        for text in (json.dumps(shown), json.dumps(read)):
            assert blocks[0]["source"]["data"][:60] not in text
            assert "Gr" not in text
        (message, _) = shown["structuredContent"]["messages"]
        assert message["content"] == [{"type": "image"}, {"type": "document"}, {"type": "document"}, said[-1]]

    for path in (tmp_path / "work").iterdir():
        path.unlink()  # what is kept is what was sent
    with talking(tmp_path, revision) as (server, claude):
        sent(server, "And now?", conversation_id=conversation_id)
        assert last_content(claude, 0) == said
        again = sent(server, "And then?", conversation_id=conversation_id)
        assert again["usage"]["cache_read_tokens"] >= counted


@pytest.mark.behaviour("send.files")
def test_a_large_picture_fits_into_a_budget_of_what_it_takes(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "photo.png").write_bytes(pictures.png(1000, 1000, padding=3_900_000))
    with talking(tmp_path, settings={"TELEMETRYFLOW_MCP_CLAUDE_BUDGET_TURN": "20000"}) as (server, _):
        usage = sent(server, files=["photo.png"])["usage"]
        assert 1296 <= usage["cache_write_tokens"] + usage["input_tokens"] < 5000


@pytest.mark.behaviour("send.files.refused")
def test_a_file_that_cannot_go_with_a_message_changes_nothing(tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "folder").mkdir(parents=True)
    (tmp_path / "outside.png").write_bytes(pictures.PNG)
    (work / "good.png").write_bytes(pictures.PNG)
    (work / "leads-out.png").symlink_to("../outside.png")
    (work / "own.db").symlink_to(tmp_path / "state" / "tfo-mcp.db")
    os.mkfifo(work / "fifo")
    (work / "empty").touch()
    (work / "binary").write_bytes(b"\x7fELF\xff")
    (work / "large.txt").write_text("x" * 100_001)
    (work / "wide.png").write_bytes(pictures.png(8001, 1))
    sentences = {
        "../outside.png": "'../outside.png' leads outside the folders that are open to file tools",
        "leads-out.png": "'leads-out.png' leads outside the folders that are open to file tools",
        "own.db": "'own.db' leads outside the folders that are open to file tools",
        "fifo": "'fifo' is a device, pipe or socket, not a file or folder",
        "folder": "'folder' is a folder; list_directory shows which files are in it",
        "missing": "there is no 'missing'",
        "empty": "'empty' is empty",
        "binary": "'binary' is nothing that Claude can see: no PNG, JPEG, GIF or WebP picture, no PDF, and no text in "
        "UTF-8",
        "large.txt": "'large.txt' has more than 100000 bytes, the most that a file for Claude may have "
        "(claude.max_attachment_bytes)",
        "wide.png": "'wide.png' is a picture of 8001 x 1 pixels, and no side may have more than 8000: make it smaller",
    }
    settings = {
        "TELEMETRYFLOW_MCP_CLAUDE_MAX_ATTACHMENT_BYTES": "100000",
        "TELEMETRYFLOW_MCP_CLAUDE_MAX_ATTACHMENTS": "2",
    }
    with talking(tmp_path, settings=settings) as (server, claude):
        for path, sentence in sentences.items():
            result = send(server, files=["good.png", path])
            assert (result["content"][0]["text"], result["isError"]) == (sentence, True)
        result = send(server, files=["good.png"] * 3)
        assert result["content"][0]["text"] == (
            "a message may have at most 2 files (claude.max_attachments), and this one has 3"
        )
        assert claude.requests() == []
        assert stored(tmp_path) == [0, 0, 0]
        assert sent(server, files=["good.png"])["turn"] == 1


# --- structured output ---

ANSWERS = """
replies:
  - {text: '{"name": "Ada", "age": 36}'}
  - {text: '{"age": 36}'}
  - {text: 'I would rather not.', stop_reason: refusal}
  - {text: '{"name": "A', stop_reason: max_tokens}
  - {text: Ada}
"""


@pytest.mark.behaviour("send.output")
@newest
def test_an_answer_is_a_value_by_its_schema_or_a_sentence_says_why_not(tmp_path: Path, revision: str) -> None:
    with talking(tmp_path, revision, ANSWERS) as (server, claude):
        first = sent(server, "Who?", output_schema=SCHEMA, idempotency_key="first")
        assert claude.requests()[-1]["body"]["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}
        assert first["output"] == {"name": "Ada", "age": 36}
        assert first["text"] == '{"name": "Ada", "age": 36}'
        assert "output_problem" not in first
        problems = [
            "the answer does not fit the schema: /name: is required",
            "Claude refused to answer",
            "the answer was cut, because it had as many tokens as it may have (max_tokens)",
            "the answer is not JSON",
        ]
        for problem in problems:
            after = sent(server, "Who?", output_schema=SCHEMA)
            assert (after["output_problem"], "output" in after) == (problem, False)
        plain = sent(server, "Who?")
        assert plain.keys().isdisjoint({"output", "output_problem"})
        again = sent(server, "Who?", output_schema=SCHEMA, idempotency_key="first")
        assert again == first
        assert len(claude.requests()) == 6


@pytest.mark.behaviour("send.output.refused")
def test_a_schema_that_no_answer_can_be_made_to_fit_changes_nothing(tmp_path: Path) -> None:
    wrong: dict[str, Answer] = {
        "its type must be 'object'": {"type": "array"},
        "the schema cannot be used: /properties/name: 5 is not of types": {**SCHEMA, "properties": {"name": 5}},
        "the schema cannot be used: (the whole value): Resource": {
            **SCHEMA,
            "properties": {"name": {"$ref": "file:///etc/passwd"}},
        },
        "Claude's API needs additionalProperties: false in every object": {"type": "object"},
        "/properties/name: Claude's API takes no schema that leads back": {
            **SCHEMA,
            "properties": {"name": {"$ref": "#"}},
        },
        "it has 70": {**SCHEMA, "description": "x" * 70_000},
    }
    with talking(tmp_path) as (server, claude):
        for beginning, schema in wrong.items():
            result = send(server, output_schema=schema)
            assert result["isError"]
            assert result["content"][0]["text"].startswith(f"output_schema: {beginning}")
        assert claude.requests() == []
        assert stored(tmp_path) == [0, 0, 0]


# --- cost ---


@pytest.mark.behaviour("send.cost")
def test_a_turn_costs_what_its_usage_costs_and_nothing_without_a_price(tmp_path: Path) -> None:
    settings = {
        "TELEMETRYFLOW_MCP_CLAUDE_PRICES": json.dumps(PRICES),
        "TELEMETRYFLOW_MCP_CLAUDE_CURRENCY": "EUR",
    }
    with talking(tmp_path, settings=settings) as (server, _):
        first = sent(server, "x" * 6000)
        priced = [first, sent(server, "And?", conversation_id=first["conversation_id"])]
        assert priced[1]["usage"]["cache_read_tokens"] > 1000
        for turn in priced:
            usage = turn["usage"]
            cost = (
                3 * usage["input_tokens"]
                + 15 * usage["output_tokens"]
                + Decimal("0.3") * usage["cache_read_tokens"]
                + Decimal("3.75") * usage["cache_write_tokens"]
            ) / 1_000_000
            assert turn["cost"]["currency"] == "EUR"
            assert Decimal(turn["cost"]["amount"]) == cost
        assert "cost" not in sent(server, model="claude-opus-5-5")


# --- what is left of it ---


@pytest.mark.behaviour("send.files")
def test_the_audit_has_the_paths_of_what_was_sent(tmp_path: Path) -> None:
    fill(tmp_path)
    with talking(tmp_path) as (server, _):
        sent(server, files=["notes.md", "report.pdf"])
    with closing(sqlite3.connect(tmp_path / "state" / "audit.db")) as database:
        ((arguments,),) = database.execute("SELECT arguments FROM intents").fetchall()
    assert json.loads(arguments) == {"files": ["notes.md", "report.pdf"]}

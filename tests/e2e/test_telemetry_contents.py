"""What was said: told to nobody unless it is asked for, and without secrets then."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.claude import fake_claude
from support.otlp import DEADLINE, Receiver, receiving
from support.server import claude_at, serving
from tfo_mcp.infrastructure.otlp_receiver import ReceivedSpan

MARKER = "marker-4711"
CARD = "1234-5678"
TOKEN = "ghp_" + "a1B2" * 9
KEYS = ("the-key-to-claude", "the-key-to-the-collector")
SAID = f"{MARKER} {CARD} {TOKEN} {KEYS[0]} {KEYS[1]}"
CAPTURING = {
    "TELEMETRYFLOW_MCP_TELEMETRY_CAPTURE_CONTENT": "true",
    "TELEMETRYFLOW_MCP_TELEMETRY_REDACT_PATTERNS": json.dumps([r"\d{4}-\d{4}", "(a+)+$"]),
    "TELEMETRYFLOW_MCP_TELEMETRY_CONTENT_LENGTH": "32768",
}


def told_of(folder: Path, receiver: Receiver, env: Mapping[str, str]) -> str:
    """What a server leaves of a talk outside its conversations: at the collector, in spool, recorder and log."""
    with fake_claude(f"replies: [{{text: 'You said {SAID}'}}]") as api:
        own = {
            **claude_at(api.base_url),
            "ANTHROPIC_API_KEY": KEYS[0],
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "TELEMETRYFLOW_API_KEY_SECRET": KEYS[1],
            "TELEMETRYFLOW_MCP_LOGGING_LEVEL": "debug",
        }
        with serving(folder, env={**own, **env}) as server:
            server.initialize()
            server.call_tool(1, "echo", {"message": SAID})
            server.call_tool(2, "echo", {"massage": SAID})
            assert "error" in server.call(3, "tools/call", {"name": MARKER, "arguments": {"x": SAID}})
            conversation: dict[str, Any] = {"message": SAID, "system_prompt": f"Be brief. {SAID}"}
            first = server.call_tool(4, "claude_conversation", conversation)
            again = {"message": "And now?", "conversation_id": first["structuredContent"]["conversation_id"]}
            server.call_tool(5, "claude_conversation", again)
            assert receiver.wait_for(lambda: len(named(receiver, "claude.request")) == 2, DEADLINE)
            files = written(folder)
            server.close_input()
            assert server.wait() == 0
        return repr((receiver.spans(), receiver.logs(), receiver.metrics(), files, written(folder))) + server.log()


def written(folder: Path) -> Mapping[str, bytes]:
    """What stands in spool and recorder."""
    found = {file.name: file.read_bytes() for name in ("spool.db*", "telemetry.db*") for file in folder.rglob(name)}
    assert {"spool.db", "telemetry.db"} <= found.keys()
    return found


def recorded_with(folder: Path, content: str) -> int:
    """Rows of the recorder that have this content."""
    (file,) = folder.rglob("telemetry.db")
    with closing(sqlite3.connect(file)) as database:
        rows = database.execute("SELECT attributes FROM spans WHERE attributes IS NOT NULL")
        return sum(content in json.loads(attributes) for (attributes,) in rows)


def named(receiver: Receiver, name: str) -> list[ReceivedSpan]:
    return sorted((span for span in receiver.spans() if span["name"] == name), key=lambda span: span["start"])


@pytest.mark.behaviour("contents.off")
def test_what_was_said_is_told_to_nobody(tmp_path: Path) -> None:
    with receiving("http") as receiver:
        told = told_of(tmp_path, receiver, {})
    assert MARKER not in told
    assert "gen_ai.tool.call" not in told
    assert "messages" not in str([span["attributes"].keys() for span in receiver.spans()])


@pytest.mark.behaviour("contents.captured", "contents.redacted", "contents.messages")
def test_where_it_is_asked_for_what_was_said_is_told_without_secrets(tmp_path: Path) -> None:
    with receiving("http") as receiver:
        told = told_of(tmp_path, receiver, CAPTURING)
    assert not [secret for secret in (CARD, TOKEN, *KEYS) if secret in told]
    assert recorded_with(tmp_path, "gen_ai.tool.call.arguments") == 5
    assert recorded_with(tmp_path, "gen_ai.input.messages") == 2
    shown = f"{MARKER} *** *** *** ***"
    good, wrong, unknown = (span["attributes"] for span in named(receiver, "tools.execute")[:3])
    assert json.loads(good["gen_ai.tool.call.arguments"]) == {"message": shown}
    assert shown in good["gen_ai.tool.call.result"]
    assert json.loads(wrong["gen_ai.tool.call.arguments"]) == {"massage": shown}
    assert "message" in json.loads(wrong["gen_ai.tool.call.result"])
    assert json.loads(unknown["gen_ai.tool.call.arguments"]) == {"x": shown}
    first, second = (span["attributes"] for span in named(receiver, "claude.request"))
    assert json.loads(first["gen_ai.system_instructions"]) == [{"type": "text", "content": f"Be brief. {shown}"}]
    assert json.loads(first["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": shown}]}
    ]
    assert json.loads(first["gen_ai.output.messages"]) == [
        {
            "role": "assistant",
            "parts": [{"type": "text", "content": f"[simulated] No model was asked. You said {shown}"}],
            "finish_reason": "stop",
        }
    ]
    assert json.loads(second["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "And now?"}]}
    ]


@pytest.mark.behaviour("contents.redacted")
def test_a_pattern_that_would_hold_others_holds_no_call(tmp_path: Path) -> None:
    with receiving("http") as receiver:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
        with serving(tmp_path, env={**env, **CAPTURING}) as server:
            server.initialize()
            for number in range(20):
                server.call_tool(number, "echo", {"message": "a" * 30_000 + "!"})
            assert receiver.wait_for(lambda: len(named(receiver, "tools.execute")) == 20, DEADLINE)
            server.close_input()
            assert server.wait() == 0


@pytest.mark.behaviour("contents.redacted")
def test_what_is_no_pattern_keeps_the_server_from_starting(tmp_path: Path) -> None:
    with serving(tmp_path, env={"TELEMETRYFLOW_MCP_TELEMETRY_REDACT_PATTERNS": '["a(?=b)"]'}) as server:
        assert server.wait() == 3
        (line,) = server.log().splitlines()
    assert "telemetry.redact_patterns: number 1 is no pattern of RE2: invalid perl operator: (?=" in line

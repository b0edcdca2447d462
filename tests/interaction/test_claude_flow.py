"""A turn with Claude from outside: what reaches its API, what is retried, and what is recorded."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.claude import FakeClaude, fake_claude
from support.otlp import Receiver, receiving
from support.server import Server, claude_at, serving

WAIT = 0.8
"""Seconds that the API asks for; what the Claude SDK waits by itself is half a second at most."""


@contextmanager
def speaking(
    folder: Path, script: str, settings: Mapping[str, str] | None = None
) -> Generator[tuple[Server, FakeClaude, Receiver]]:
    """A server between a Claude that follows the script and a collector; leave it before you look at the collector."""
    with receiving("http") as collector, fake_claude(script) as claude:
        exporting = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
        with serving(folder, env={**claude_at(claude.base_url), **exporting, **(settings or {})}) as server:
            server.begin("2025-11-25")
            yield server, claude, collector


def leave(server: Server) -> None:
    server.close_input()
    assert server.wait() == 0


@pytest.mark.behaviour(
    "conversation.created",
    "conversation.continued",
    "conversation.system-prompt",
    "conversation.model",
    "conversation.tools",
    "conversation.result",
    "claude.headers",
    "claude.span",
    "claude.measured",
)
def test_a_conversation_goes_from_the_message_to_the_answer_as_it_is_drawn(tmp_path: Path) -> None:
    script = """
    replies:
      - {text: Wait., tool_use: [{name: echo, input: {message: pong}}]}
      - {text: "It said {tool_results}."}
      - {text: "{turns} turns"}
    """
    with speaking(tmp_path, script) as (server, claude, collector):
        opening = {"message": "Call it", "system_prompt": "Be brief.", "model": "claude-test-1", "max_tokens": 77}
        first = server.call_tool(1, "claude_conversation", opening)["structuredContent"]
        continuing = {"message": "And now?", "conversation_id": first["conversation_id"]}
        second = server.call_tool(2, "claude_conversation", continuing)["structuredContent"]
        asked = claude.requests()
        leave(server)
        spans, metrics = collector.spans(), collector.metrics()

    assert first["text"].endswith("It said pong.")
    assert (first["tool_calls"], first["stop_reason"], first["model"]) == (1, "end_turn", "claude-test-1")
    assert second["conversation_id"] == first["conversation_id"]
    assert [len(request["body"]["messages"]) for request in asked] == [1, 3, 5]
    for request in asked:
        (system,) = request["body"]["system"]
        assert (request["body"]["model"], system["text"]) == ("claude-test-1", "Be brief.")
        assert request["body"]["stream"] is True
        assert request["headers"]["anthropic-version"]
        assert request["headers"]["authorization"]
        assert "traceparent" not in request["headers"]
    assert asked[0]["body"]["max_tokens"] == 77

    by_id = {span["span_id"]: span for span in spans}
    path = [
        ("anthropic.messages.create", "claude.request"),
        ("claude.request", "tools.execute"),
        ("execute_tool echo", "tools.execute"),
        ("tools.execute", "tools/call claude_conversation"),
    ]
    below = [(span["name"], by_id[span["parent_id"]]["name"]) for span in spans if span["parent_id"]]
    assert sorted(below) == sorted([*path[:2] * 3, path[2], *path[3:] * 2])
    chat = {"gen_ai.request.model": "claude-test-1", "gen_ai.response.model": "claude-test-1"}
    (duration,) = metrics["gen_ai.client.operation.duration"]
    assert (duration.get("count"), duration["attributes"]["outcome"]) == (3, "completed")
    assert chat.items() <= duration["attributes"].items()
    tokens = {point["attributes"]["gen_ai.token.type"]: point for point in metrics["gen_ai.client.token.usage"]}
    assert tokens.keys() == {"input", "output"}
    assert all(point.get("sum", 0) > 0 for point in tokens.values())


@pytest.mark.behaviour("claude.measured")
def test_tokens_that_the_cache_had_a_part_in_are_tokens_that_went_in(tmp_path: Path) -> None:
    with speaking(tmp_path, "replies: [{text: Hi., times: 2}]") as (server, _, collector):
        opening = {"message": "Hello", "system_prompt": "You are brief. " * 1000}
        first = server.call_tool(1, "claude_conversation", opening)["structuredContent"]
        continuing = {"message": "Hello", "conversation_id": first["conversation_id"]}
        second = server.call_tool(2, "claude_conversation", continuing)["structuredContent"]
        leave(server)
        spans, metrics = collector.spans(), collector.metrics()

    def told(span: str) -> list[int]:
        return [each["attributes"]["gen_ai.usage.input_tokens"] for each in spans if each["name"] == span]

    usages = [answer["usage"] for answer in (first, second)]
    assert usages[1]["cache_read_tokens"] > 0
    sums = [usage["input_tokens"] + usage["cache_read_tokens"] + usage["cache_write_tokens"] for usage in usages]
    assert told("claude.request") == told("anthropic.messages.create") == sums
    (tokens,) = [
        point for point in metrics["gen_ai.client.token.usage"] if point["attributes"]["gen_ai.token.type"] == "input"
    ]
    assert (tokens.get("count"), tokens.get("sum")) == (2, sum(sums))


@pytest.mark.behaviour("claude.retry.rate-limit", "claude.retry.server-error")
def test_what_may_pass_is_waited_for_and_nobody_sees_it(tmp_path: Path) -> None:
    statuses = (429, 500, 529)
    refusals = "".join(f", {{status: {status}, retry_after: {WAIT}}}, {{text: At last.}}" for status in statuses)
    with speaking(tmp_path, f"replies: [{{text: Hi.}}{refusals}]") as (server, claude, collector):
        server.call_tool("first", "claude_conversation", {"message": "Hello"})  # it is all there now
        for status in statuses:
            asked = time.monotonic()
            result = server.call_tool(status, "claude_conversation", {"message": "Hello"})
            assert time.monotonic() - asked >= WAIT
            assert result["isError"] is False
            assert result["structuredContent"]["text"].endswith("At last.")
            assert [request["status"] for request in claude.requests()][-2:] == [status, 200]
        leave(server)
        outcomes = [span["attributes"]["outcome"] for span in collector.spans() if span["name"] == "claude.request"]
        assert outcomes == ["completed"] * 4


@pytest.mark.behaviour("claude.error.client", "claude.error.recorded", "conversation.error")
def test_what_will_not_pass_is_told_at_once_and_recorded(tmp_path: Path) -> None:
    statuses = (400, 401, 403, 404)
    script = ", ".join(f"{{status: {status}, text: the secret}}" for status in statuses)
    with speaking(tmp_path, f"replies: [{script}]") as (server, claude, collector):
        for status in statuses:
            result = server.call_tool(status, "claude_conversation", {"message": "Hello"})
            assert result["isError"] is True
            assert "conversation_id 'conv_" in result["content"][0]["text"]
        assert [request["status"] for request in claude.requests()] == list(statuses)
        leave(server)
        spans = collector.spans()
    failed = [span for span in spans if span["name"] == "claude.request"]
    assert [span["attributes"]["error.type"] for span in failed] == list(map(str, statuses))
    assert {(span["status"], span["attributes"]["outcome"]) for span in failed} == {("ERROR", "failed")}
    assert "the secret" not in str(spans)

"""How Claude's API can fail, row by row: what is asked again after what wait, and what becomes of the conversation.

Each row stands between two messages that are answered, so that the retry out of Error is a part of it.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from support.claude import fake_claude
from support.otlp import free_port, receiving
from support.server import Answer, Server, claude_at, serving
from support.sizes import later

RETRIES = 2
ASKED_FOR = 0.8
"""Seconds that the API asks to be left alone for; the SDK's own first wait is half a second at most."""
OWN_WAITS = (0.375, 0.75)
"""Seconds of the SDK's own waits, at least: 0.5 and 1, of which it may take a quarter away."""

OVERLOADED = "Claude's API is overloaded or out of order (status {}); try again later"
REFUSED = "Claude's API refused the request (status {}): [simulated] No model was asked. Why not."
CUT = "Claude's answer broke off before its end; try again"


@dataclass(frozen=True)
class Row:
    """One way to fail.

    Attributes:
        replies: what the API says, in the script's words.
        statuses: of all attempts, as the API saw them; None: without an answer.
        waits: seconds between them, at least.
        sentence: what the client is told; None: nothing, it is answered in the end.
        counts: whether the failure is one of those that close a conversation.
        arrived: what the API had said of the answer.
        unknown: whether nobody knows what it cost.
    """

    replies: str
    statuses: Sequence[int | None]
    waits: Sequence[float] = ()
    sentence: str | None = None
    counts: bool = False
    arrived: str = ""
    unknown: bool = False


def passes(reply: str, *statuses: int | None, waits: Sequence[float]) -> Row:
    """Fails for a while, and nobody sees it."""
    return Row(f"{reply}, {{text: Here it is.}}", (*statuses, 200), waits)


def stays(status: int, sentence: str) -> Row:
    """Fails as often as it is asked."""
    reply = f"{{status: {status}, text: Why not., retry_after: {ASKED_FOR}, times: {RETRIES + 1}}}"
    return Row(reply, [status] * (RETRIES + 1), [ASKED_FOR] * RETRIES, sentence, counts=True)


def final(status: int, sentence: str, more: str = "", *, counts: bool = False) -> Row:
    """Fails, and is not asked again."""
    return Row(f"{{status: {status}, text: Why not.{more}}}", [status], (), sentence, counts=counts)


def breaks(how: str, sentence: str) -> Row:
    """Fails when the answer has begun."""
    arrived = "[simulated] No"
    return Row(f"{{text: One two., {how}}}", [200], (), sentence, counts=True, arrived=arrived, unknown=True)


LIMIT = "the spend limit of this Anthropic account is reached: raise it, or wait until it begins anew"

rows = pytest.mark.parametrize(
    "row",
    [
        pytest.param(
            passes(f"{{status: 429, retry_after: {ASKED_FOR}}}", 429, waits=[ASKED_FOR]), id="429 with retry-after"
        ),
        later(passes("{status: 429, times: 2}", 429, 429, waits=OWN_WAITS), id="429 without retry-after"),
        later(passes("{status: 500, times: 2}", 500, 500, waits=OWN_WAITS), id="500"),
        later(passes("{status: 529}", 529, waits=OWN_WAITS[:1]), id="529"),
        later(passes("{status: 529, cut: {bytes: 9}}", 529, waits=OWN_WAITS[:1]), id="529 whose body breaks off"),
        later(passes("{status: 408}", 408, waits=OWN_WAITS[:1]), id="408"),
        later(passes("{status: 409}", 409, waits=OWN_WAITS[:1]), id="409"),
        later(passes("{fault: hang_up}", None, waits=OWN_WAITS[:1]), id="hung up on"),
        later(
            stays(429, "Claude's API limits the requests of this account; try again in 1 s"), id="429 as often as asked"
        ),
        later(stays(500, OVERLOADED.format(500)), id="500 as often as asked"),
        pytest.param(stays(529, OVERLOADED.format(529)), id="529 as often as asked"),
        later(stays(408, REFUSED.format(408)), id="408 as often as asked"),
        later(
            final(
                429,
                "Claude's API limits the requests of this account; try again in 3600 s",
                ", retry_after: 3600",
                counts=True,
            ),
            id="429 for an hour",
        ),
        pytest.param(breaks("cut: {events: 5}", CUT), id="cut after five events"),
        later(breaks("cut: {events: 5, clean: true}", CUT), id="cut after five events, cleanly"),
        later(
            Row("{text: One two., cut: {events: 0}}", [200], (), CUT, counts=True, unknown=True), id="cut before any"
        ),
        later(breaks("stream_error: {after_events: 5}", OVERLOADED.format(529)), id="an error in the stream"),
        later(final(400, REFUSED.format(400)), id="400"),
        later(final(401, "Claude's API rejected the key: check ANTHROPIC_API_KEY"), id="401"),
        later(
            final(401, "Claude's API rejected the key: check ANTHROPIC_API_KEY", ", cut: {bytes: 9}"),
            id="401 whose body breaks off",
        ),
        later(final(404, "Claude's API does not know the model 'claude-test-1'"), id="404"),
        pytest.param(
            final(429, LIMIT, f", retry_after: {ASKED_FOR}, error_code: enforced_spend_limit_reached"),
            id="spend limit",
        ),
    ],
)


def say(server: Server, message: str, conversation_id: str | None = None) -> Answer:
    known = {} if conversation_id is None else {"conversation_id": conversation_id}
    return server.call_tool(message, "claude_conversation", {"message": message, "model": "claude-test-1", **known})


def query(folder: Path, statement: str) -> tuple[Any, ...]:
    """The first row of what storage has."""
    with closing(sqlite3.connect(folder / "state" / "tfo-mcp.db")) as database:
        return database.execute(statement).fetchone()


def stored(folder: Path) -> tuple[Any, ...]:
    """Of the one conversation: state, failures that count, requests of unknown cost."""
    return query(folder, "SELECT state, failures, unknown_requests FROM conversations")


def last_message(folder: Path) -> tuple[Any, ...]:
    """Whose it is, and where it stopped."""
    return query(folder, "SELECT role, stop_reason FROM messages ORDER BY position DESC LIMIT 1")


def told(status: int | None) -> dict[str, Any]:
    """What telemetry says of an attempt that ended so."""
    if status is None:
        return {"error.type": "APIConnectionError"}
    return {"http.response.status_code": status} | ({} if status == 200 else {"error.type": str(status)})


@pytest.mark.behaviour(
    "claude.retry.rate-limit",
    "claude.retry.server-error",
    "claude.retry.bounded",
    "claude.attempts",
    "claude.error.client",
    "claude.error.broken",
    "conversation.error",
    "conversation.retry",
)
@rows
def test_a_failing_api_is_asked_as_often_as_it_helps_and_the_conversation_goes_on(tmp_path: Path, row: Row) -> None:
    script = f"replies: [{{text: Hi.}}, {row.replies}, {{text: At last.}}]"
    with receiving("http") as collector, fake_claude(script) as claude:
        env = {
            **claude_at(claude.base_url),
            "ANTHROPIC_API_KEY": "a-key-that-no-answer-has",
            "TELEMETRYFLOW_MCP_CLAUDE_MAX_RETRIES": str(RETRIES),
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        }
        with serving(tmp_path, env=env) as server:
            server.begin("2025-11-25")
            conversation_id = say(server, "Hello")["structuredContent"]["conversation_id"]
            result = say(server, "What is it?", conversation_id)
            asked = claude.requests()[1:]
            assert [request["status"] for request in asked] == list(row.statuses)
            between = [after["received_at"] - before["received_at"] for before, after in pairwise(asked)]
            assert all(waited >= least for waited, least in zip(between, row.waits, strict=True)), between

            if row.sentence is None:
                assert result["structuredContent"]["text"].endswith("Here it is.")
                assert stored(tmp_path) == ("active", 0, 0)
            else:
                assert result["isError"] is True
                said, _, arrived = result["content"][0]["text"].partition("\n\n")
                assert said.startswith(f"{row.sentence} (request id {asked[-1]['request_id']})")
                assert conversation_id in said
                assert row.arrived in arrived
                assert bool(arrived) == bool(row.arrived)
                assert last_message(tmp_path) == (("assistant", "cut") if row.arrived else ("user", None))
                assert stored(tmp_path) == ("error", int(row.counts), int(row.unknown))

            assert say(server, "And now?", conversation_id)["structuredContent"]["text"].endswith("At last.")
            assert stored(tmp_path) == ("active", 0, int(row.unknown))
            statuses = [request["status"] for request in claude.requests()]
            assert statuses == [200, *row.statuses, 200]
            server.close_input()
            assert server.wait() == 0

        spans = [span for span in collector.spans() if span["name"] == "claude.request"]
        points = collector.metrics()["tfo.claude.attempts"]
    attempts = [
        (event["attributes"].get("http.response.status_code"), event["attributes"].get("http.request.resend_count"))
        for event in spans[1]["events"]
        if event["name"] == "tfo.claude.attempt"
    ]
    assert attempts == [(status, number or None) for number, status in enumerate(row.statuses)]
    first_chunk = spans[1]["attributes"].get("gen_ai.response.time_to_first_chunk")
    if row.sentence is None or row.arrived:
        assert isinstance(first_chunk, float)
        assert sum(row.waits) < first_chunk <= spans[1]["duration"]
    else:
        assert first_chunk is None
    counted = Counter({frozenset(point["attributes"].items()): point.get("value") for point in points})
    assert counted == Counter(frozenset(told(status).items()) for status in statuses)


@pytest.mark.behaviour("claude.retry.bounded", "claude.attempts", "conversation.error")
def test_an_api_that_cannot_be_reached_is_tried_as_often_as_allowed_and_has_cost_nothing(tmp_path: Path) -> None:
    with receiving("http") as collector:
        env = {
            **claude_at(f"http://127.0.0.1:{free_port()}"),
            "TELEMETRYFLOW_MCP_CLAUDE_MAX_RETRIES": "1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        }
        with serving(tmp_path, env=env) as server:
            server.begin("2025-11-25")
            result = say(server, "Hello")
            assert result["isError"] is True
            sentence = "Claude's API could not be reached; check the network and try again; the message is kept"
            assert result["content"][0]["text"].startswith(sentence)
            assert stored(tmp_path) == ("error", 1, 0)
            server.close_input()
            assert server.wait() == 0
        (span,) = [span for span in collector.spans() if span["name"] == "claude.request"]
        assert collector.metrics()["tfo.claude.attempts"] == [{"attributes": told(None), "value": 2}]
    first, second = [event for event in span["events"] if event["name"] == "tfo.claude.attempt"]
    assert second["offset"] - first["offset"] >= OWN_WAITS[0]

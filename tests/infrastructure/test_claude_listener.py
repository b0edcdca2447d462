"""What a listener is told of an answer while it arrives, and what a failure says that it may have cost."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from support.claude import FakeClaude, fake_claude
from support.otlp import free_port
from tfo_mcp.application.ports import AnswerListener, Attempt, ClaudeRequest, ClaudeResponse
from tfo_mcp.domain.errors import ClaudeFailure
from tfo_mcp.domain.message import Message, Text, Usage
from tfo_mcp.domain.tool import Tool, ToolMode, ToolResult
from tfo_mcp.domain.transcript import Transcript
from tfo_mcp.infrastructure.claude import AnthropicClaude

DEADLINE = 20.0

ECHO = Tool(
    name="echo",
    title="Echo",
    description="Gives back what it is given.",
    input_schema={"type": "object", "properties": {"message": {"type": "string"}}},
    run=lambda arguments, context: ToolResult(""),
    mode=ToolMode.INLINE,
)
WHOLE = "thinking: Hm. Well., text: Wait a bit., tool_use: [{name: echo, input: {message: hello}}]"


@dataclass
class Heard(AnswerListener):
    """Keeps all that it is told: attempts apart, the rest as (what, value)."""

    attempts: list[Attempt] = field(default_factory=list[Attempt])
    events: list[tuple[str, object]] = field(default_factory=list[tuple[str, object]])

    def attempted(self, attempt: Attempt) -> None:
        self.attempts.append(attempt)

    def begun(self, model: str, usage: Usage, request_id: str | None) -> None:
        self.events.append(("begun", (model, usage, request_id)))

    def thought(self, text: str) -> None:
        self.events.append(("thought", text))

    def wrote(self, text: str) -> None:
        self.events.append(("wrote", text))

    def calls(self, tool: str) -> None:
        self.events.append(("calls", tool))

    def counted(self, usage: Usage) -> None:
        self.events.append(("counted", usage))

    def of(self, kind: str) -> list[Any]:
        return [value for each, value in self.events if each == kind]


def asked(message: str = "Hello") -> ClaudeRequest:
    return ClaudeRequest(
        model="claude-test-1",
        max_tokens=100,
        system=None,
        transcript=Transcript((Message("user", (Text(message),)),)),
        tools=[ECHO],
    )


def service(base_url: str, *, timeout: float = DEADLINE, retries: int = 0) -> AnthropicClaude:
    return AnthropicClaude(
        api_key="sk-ant-secret",
        base_url=base_url,
        timeout=timeout,
        max_retries=retries,
        default_model="claude-test-1",
        model_refresh=3600,
        tracer_provider=lambda: None,
    )


async def answered(claude: AnthropicClaude, heard: Heard) -> ClaudeResponse:
    try:
        return await claude.create_message(asked(), heard)
    finally:
        await claude.close()


def failed(claude: AnthropicClaude, heard: Heard) -> ClaudeFailure:
    with pytest.raises(ClaudeFailure) as raised:
        asyncio.run(answered(claude, heard))
    return raised.value


@contextmanager
def whole_answer() -> Generator[tuple[FakeClaude, ClaudeResponse, Heard]]:
    with fake_claude(f"replies: [{{{WHOLE}}}]") as api:
        heard = Heard()
        yield api, asyncio.run(answered(service(api.base_url), heard)), heard


# --- what arrives ---


@pytest.mark.behaviour("claude.response")
def test_an_answer_is_told_piece_by_piece_in_its_order() -> None:
    with whole_answer() as (api, answer, heard):
        (sent,) = api.requests()
    assert list(dict.fromkeys(what for what, _ in heard.events)) == ["begun", "thought", "wrote", "calls", "counted"]
    ((model, at_first, request_id),) = heard.of("begun")
    assert (model, request_id) == ("claude-test-1", sent["request_id"])
    assert at_first.prompt_tokens == answer.usage.prompt_tokens > 0
    assert len(heard.of("wrote")) > 1
    assert "".join(heard.of("wrote")) == answer.message.text
    assert "".join(heard.of("thought")).endswith("Hm. Well.")
    assert heard.of("calls") == ["echo"]
    assert heard.of("counted") == [answer.usage]


@pytest.mark.behaviour("claude.error.broken")
@pytest.mark.parametrize("clean", ["true", "false"])
def test_of_an_answer_that_is_cut_is_told_what_arrived_and_nothing_else(clean: str) -> None:
    with whole_answer() as (_, _, heard):
        whole = [(what, value) for what, value in heard.events if what != "begun"]
    seen: set[int] = set()
    for events in range(15):
        heard = Heard()
        with fake_claude(f"replies: [{{{WHOLE}, cut: {{events: {events}, clean: {clean}}}}}]") as api:
            failure = failed(service(api.base_url, retries=5), heard)
            assert len(api.requests()) == 1
        told = [(what, value) for what, value in heard.events if what != "begun"]
        assert told == whole[: len(told)]
        assert len(heard.of("begun")) == (events > 0)
        assert failure.may_have_cost
        seen.add(len(told))
    assert len(seen) > 5


@pytest.mark.behaviour("claude.error.broken")
def test_of_an_answer_that_an_error_ends_is_told_what_arrived() -> None:
    heard = Heard()
    with fake_claude(f"replies: [{{{WHOLE}, stream_error: {{type: overloaded_error}}}}]") as api:
        failure = failed(service(api.base_url, retries=5), heard)
        (sent,) = api.requests()
    assert "".join(heard.of("wrote")).endswith("Wait a bit.")
    assert (heard.of("calls"), heard.of("counted")) == (["echo"], [])
    assert (failure.request_id, failure.may_have_cost) == (sent["request_id"], True)


@pytest.mark.behaviour("claude.error.broken")
def test_of_an_answer_that_falls_silent_is_told_what_arrived() -> None:
    heard = Heard()
    with fake_claude("replies: [{text: One two., delay_between: 60}]") as api:
        failure = failed(service(api.base_url, timeout=2, retries=5), heard)
        (sent,) = api.requests()
    assert "".join(heard.of("wrote")) != ""
    assert str(failure).startswith("Claude's API did not answer in time")
    assert (failure.request_id, failure.may_have_cost) == (sent["request_id"], True)


@pytest.mark.behaviour("claude.cancelled")
def test_a_cancelled_answer_has_been_told_as_far_as_it_came_and_its_connection_is_closed_at_once() -> None:
    class Waiting(Heard):
        async def for_text(self) -> None:
            self.text = asyncio.Event()
            await asyncio.wait_for(self.text.wait(), DEADLINE)

        def wrote(self, text: str) -> None:
            super().wrote(text)
            self.text.set()

    async def scenario(api: FakeClaude) -> Heard:
        heard, claude = Waiting(), service(api.base_url)
        asking = asyncio.create_task(claude.create_message(asked(), heard))
        await heard.for_text()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        deadline = time.monotonic() + DEADLINE
        while not (await asyncio.to_thread(api.requests))[0]["disconnected"]:
            assert time.monotonic() < deadline
        await claude.close()
        return heard

    with fake_claude("replies: [{text: One two., delay_between: 60}]") as api:
        heard = asyncio.run(scenario(api))
    assert [what for what, _ in heard.events] == ["begun", "wrote"]
    assert [attempt.status for attempt in heard.attempts] == [200]


def test_the_pieces_of_a_text_are_its_text_whatever_halves_of_characters_they_end_in() -> None:
    pieces = ["a\ud83d", "\ude00b", "\ud83d", "", "\ude00\ud800", "x\ude00", "\ud83d"]
    begun: dict[str, object] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-test-1",
        "content": [],
    }
    usage = {"input_tokens": 7, "output_tokens": 1}
    deltas: list[dict[str, object]] = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}} for piece in pieces
    ]
    events: list[dict[str, object]] = [
        {"type": "message_start", "message": {**begun, "stop_reason": None, "stop_sequence": None, "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "Half \ud83d"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "\ude00"}},
        *deltas,
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": "\ude00"}},
        {"type": "content_block_stop", "index": 1},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 5},
        },
        {"type": "message_stop"},
    ]
    body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
    heard = Heard()
    with fake_claude(f"replies: [{{raw: {json.dumps(body)}}}]") as api:
        answer = asyncio.run(answered(service(api.base_url), heard))
    told = "".join(heard.of("wrote"))
    assert told == "".join(block.text for block in answer.message.content if isinstance(block, Text))
    assert told == "Half 😀a😀b😀\N{REPLACEMENT CHARACTER}x" + "\N{REPLACEMENT CHARACTER}" * 3


# --- attempts ---


@pytest.mark.behaviour("claude.retry.rate-limit", "claude.retry.server-error")
def test_each_attempt_is_told_with_its_status_and_request_id() -> None:
    heard = Heard()
    refusals = "{status: 429, retry_after: 0.05}, {fault: hang_up}, {status: 500, retry_after: 0.05}"
    with fake_claude(f"replies: [{refusals}, {{text: At last.}}]") as api:
        asyncio.run(answered(service(api.base_url, retries=3), heard))
        ids = [one["request_id"] for one in api.requests()]
    assert [
        (each.number, each.status, each.error_type, each.request_id, each.may_have_cost) for each in heard.attempts
    ] == [
        (1, 429, "429", ids[0], False),
        (2, None, "APIConnectionError", None, True),
        (3, 500, "500", ids[2], False),
        (4, 200, None, ids[3], True),
    ]
    assert all(0 < each.duration < DEADLINE for each in heard.attempts)
    assert len(heard.of("begun")) == 1


@pytest.mark.parametrize(
    ("status", "attempts", "counts", "sentence"),
    [
        (529, 2, True, "Claude's API is overloaded or out of order (status 529); try again later"),
        (429, 2, True, "Claude's API limits the requests of this account; try again in 1 s"),
        (401, 1, False, "Claude's API rejected the key: check ANTHROPIC_API_KEY"),
        (400, 1, False, "Claude's API refused the request (status 400): it gave no reason"),
    ],
)
def test_an_error_whose_body_breaks_off_is_what_its_status_says(
    status: int,
    attempts: int,
    counts: bool,  # noqa: FBT001  # a column of the table
    sentence: str,
) -> None:
    heard = Heard()
    reply = f"{{status: {status}, retry_after: 0.05, cut: {{bytes: 9}}, times: 2}}"
    with fake_claude(f"replies: [{reply}, {{text: Never.}}]") as api:
        failure = failed(service(api.base_url, retries=1), heard)
        ids = [one["request_id"] for one in api.requests()]
    assert [each.status for each in heard.attempts] == [status] * attempts
    assert str(failure) == f"{sentence} (request id {ids[-1]})"
    assert (failure.status, failure.counts, failure.may_have_cost) == (status, counts, False)


def test_an_error_whose_body_breaks_off_is_not_retried_after_a_wait_that_nobody_waits() -> None:
    heard = Heard()
    with fake_claude("replies: [{status: 529, retry_after: 3600, cut: {bytes: 9}}, {text: Never.}]") as api:
        failure = failed(service(api.base_url, retries=1), heard)
    assert (len(heard.attempts), failure.status) == (1, 529)


@pytest.mark.behaviour("claude.cancelled")
def test_an_attempt_that_is_cancelled_before_its_answer_is_told_too() -> None:
    async def scenario(api: FakeClaude) -> Heard:
        heard, claude = Heard(), service(api.base_url)
        asking = asyncio.create_task(claude.create_message(asked(), heard))
        deadline = time.monotonic() + DEADLINE
        while not await asyncio.to_thread(api.requests):
            assert time.monotonic() < deadline
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await claude.close()
        return heard

    with fake_claude("replies: [{fault: silence}]") as api:
        heard = asyncio.run(scenario(api))
    assert [(each.status, each.error_type, each.may_have_cost) for each in heard.attempts] == [
        (None, "CancelledError", True)
    ]
    assert heard.events == []


def test_requests_side_by_side_are_told_to_whom_they_belong() -> None:
    async def scenario(base_url: str) -> list[Heard]:
        claude = service(base_url, retries=2)
        heards = [Heard() for _ in range(4)]
        await asyncio.gather(
            *(claude.create_message(asked(f"ask {number}"), heard) for number, heard in enumerate(heards))
        )
        await claude.close()
        return heards

    script = """
    replies:
      - {when: {contains: ask 1}, status: 529, retry_after: 0.05, times: 1}
      - {when: {contains: ask 3}, status: 529, retry_after: 0.05, times: 2}
      - {when: {contains: ask}, text: 'To {last_user_text}.'}
    """
    with fake_claude(script) as api:
        heards = asyncio.run(scenario(api.base_url))
    assert [[each.status for each in heard.attempts] for heard in heards] == [
        [200],
        [529, 200],
        [200],
        [529, 529, 200],
    ]
    assert ["".join(heard.of("wrote"))[-9:] for heard in heards] == [f"To ask {number}." for number in range(4)]


def test_what_is_asked_after_an_answer_is_no_attempt_of_it() -> None:
    async def scenario(base_url: str) -> Heard:
        heard, claude = Heard(), service(base_url)
        await claude.create_message(asked(), heard)
        assert await claude.count_tokens(asked())
        await claude.close()
        return heard

    with fake_claude() as api:
        heard = asyncio.run(scenario(api.base_url))
        assert len(api.requests("/v1/messages/count_tokens")) == 1
    assert len(heard.attempts) == 1


# --- what a failure may have cost ---


@pytest.mark.parametrize(
    ("script", "may_have_cost"),
    [
        ("{status: 400}", False),
        ("{status: 401}", False),
        ("{status: 429, error_code: enforced_spend_limit_reached}", False),
        ("{status: 429, retry_after: 0.01, times: 2}", False),
        ("{status: 529, retry_after: 0.01, times: 2}", False),
        ("{status: 529, retry_after: 0.01, cut: {bytes: 9}, times: 2}", False),
        ("{raw: <p>Welcome!</p>, content_type: text/html}", False),
        ("{fault: hang_up, times: 2}", True),
        ("{fault: hang_up}, {status: 400}", True),
        ("{fault: silence, times: 2}", True),
        ("{text: Hi., cut: {events: 0}}", True),
        ("{text: Hi., cut: {events: 1, clean: true}}", True),
        ("{fault: garbage}", True),
        ("{text: Hi., stream_error: {type: invalid_request_error, after_events: 1}}", True),
    ],
)
def test_a_failure_may_have_cost_something_unless_the_api_refused_it_before_the_answer_began(
    script: str,
    may_have_cost: bool,  # noqa: FBT001  # a column of the table
) -> None:
    with fake_claude(f"replies: [{script}]") as api:
        silent = "silence" in script
        failure = failed(service(api.base_url, timeout=0.5 if silent else DEADLINE, retries=1), Heard())
    assert failure.may_have_cost is may_have_cost


def test_what_could_not_be_sent_has_cost_nothing() -> None:
    heard = Heard()
    failure = failed(service(f"http://127.0.0.1:{free_port()}", retries=1), heard)
    assert [(each.number, each.status, each.error_type) for each in heard.attempts] == [
        (1, None, "APIConnectionError"),
        (2, None, "APIConnectionError"),
    ]
    assert (failure.may_have_cost, failure.counts, failure.status) == (False, True, None)

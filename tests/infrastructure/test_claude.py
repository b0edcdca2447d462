from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from support.claude import FakeClaude, fake_claude
from tfo_mcp.application.ports import ClaudeRequest, ClaudeResponse
from tfo_mcp.domain.errors import ClaudeFailure, ClaudeNotConfigured
from tfo_mcp.domain.message import Message, Text, ToolAnswer, ToolUse, Usage
from tfo_mcp.domain.tool import Tool, ToolMode, ToolResult
from tfo_mcp.domain.transcript import Transcript
from tfo_mcp.infrastructure.claude import AnthropicClaude

KEY = "sk-ant-secret"
DEADLINE = 20.0

ECHO = Tool(
    name="echo",
    title="Echo",
    description="Gives back what it is given.",
    input_schema={"type": "object", "properties": {"message": {"type": "string"}}},
    run=lambda arguments, context: ToolResult(""),
    mode=ToolMode.INLINE,
)


def service(
    base_url: str,
    *,
    key: str | None = KEY,
    timeout: float = DEADLINE,
    retries: int = 0,
    provider: TracerProvider | None = None,
) -> AnthropicClaude:
    return AnthropicClaude(
        api_key=key,
        base_url=base_url,
        timeout=timeout,
        max_retries=retries,
        default_model="claude-test-1",
        model_refresh=3600,
        tracer_provider=lambda: provider,
    )


def request(
    *messages: Message, system: str | None = None, tools: Sequence[Tool] = (), model: str = "claude-test-1"
) -> ClaudeRequest:
    return ClaudeRequest(
        model=model,
        max_tokens=100,
        system=system,
        transcript=Transcript(messages or (Message("user", (Text("Hello"),)),)),
        tools=tools,
    )


async def ask(claude: AnthropicClaude, asked: ClaudeRequest | None = None) -> ClaudeResponse:
    try:
        return await claude.create_message(asked or request())
    finally:
        await claude.close()


async def failure(claude: AnthropicClaude, asked: ClaudeRequest | None = None) -> ClaudeFailure:
    with pytest.raises(ClaudeFailure) as raised:
        await ask(claude, asked)
    return raised.value


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do."""
    deadline = time.monotonic() + DEADLINE
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


# --- an API that says what the stand-in cannot ---


class RawApi:
    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.requests = 0


@asynccontextmanager
async def raw_api(*answers: bytes, hang_up: bool = True) -> AsyncGenerator[RawApi]:
    """Answer each request with the next of `answers`, the last one again and again, and hang up or fall silent."""
    serving: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        writer.write(answers[min(api.requests, len(answers) - 1)])
        api.requests += 1
        if not hang_up:
            await reader.read()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    api = RawApi(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield api
    finally:
        server.close()
        await asyncio.wait_for(asyncio.gather(*filter(None, serving)), DEADLINE)


def refusal(status: int, body: object, *headers: str) -> bytes:
    encoded = json.dumps(body).encode()
    head = [f"HTTP/1.1 {status} No", "content-type: application/json", f"content-length: {len(encoded)}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + encoded


def events(*data: dict[str, Any], headers: str = "request-id: req_1\r\nconnection: close\r\n") -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{headers}\r\n"
    return head.encode() + b"".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in data)


START: dict[str, Any] = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-test-1",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 7,
            "output_tokens": 1,
            "cache_read_input_tokens": 11,
            "cache_creation_input_tokens": 13,
        },
    },
}
TEXT = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "Half", "citations": None}}
STOP = {"type": "content_block_stop", "index": 0}
END = {
    "type": "message_delta",
    "delta": {"stop_reason": "end_turn", "stop_sequence": None},
    "usage": {"output_tokens": 5},
}
DONE = {"type": "message_stop"}


def tokens(count: int) -> dict[str, Any]:
    """`START`, with so many that went in."""
    return {**START, "message": {**START["message"], "usage": {"input_tokens": count, "output_tokens": 1}}}


def tool_call(**odd: object) -> dict[str, Any]:
    """The beginning of one that has what is `odd`."""
    block: dict[str, Any] = {"type": "tool_use", "id": "toolu_1", "name": "echo", "input": {}, **odd}
    return {"type": "content_block_start", "index": 0, "content_block": block}


# --- answers ---


@pytest.mark.behaviour("claude.response")
def test_a_text_comes_back_with_its_model_stop_reason_and_request_id() -> None:
    with fake_claude("replies: [{text: Good morning.}]") as api:
        answer = asyncio.run(ask(service(api.base_url)))
    assert answer.message.text == "[simulated] No model was asked. Good morning."
    assert (answer.message.role, answer.message.model, answer.message.stop_reason) == (
        "assistant",
        "claude-test-1",
        "end_turn",
    )
    assert answer.message.usage == answer.usage
    assert answer.usage.output_tokens > 0
    assert (answer.request_id or "").startswith("req_")


@pytest.mark.behaviour("claude.response")
def test_tokens_read_from_and_written_to_the_cache_are_counted_apart() -> None:
    async def scenario() -> ClaudeResponse:
        async with raw_api(events(START, TEXT, STOP, END, DONE)) as api:
            return await ask(service(api.base_url))

    answer = asyncio.run(scenario())
    assert answer.usage == Usage(input_tokens=7, output_tokens=5, cache_read_tokens=11, cache_write_tokens=13)
    assert answer.message.content == (Text("Half"),)


def test_a_block_that_nothing_here_acts_on_is_kept_as_the_api_wants_it_back() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
    unheard_of = {"type": "of_tomorrow", "value": {"deep": [1, None]}, "nothing": None}
    started = [
        {"type": "content_block_start", "index": index, "content_block": block}
        for index, block in enumerate((thought, unheard_of))
    ]

    async def scenario() -> ClaudeResponse:
        async with raw_api(events(START, *started, END, DONE)) as api:
            return await ask(service(api.base_url))

    assert [block.to_json() for block in asyncio.run(scenario()).message.content] == [
        thought,
        {"type": "of_tomorrow", "value": {"deep": [1, None]}},
    ]


def test_half_a_surrogate_pair_is_replaced_and_two_halves_are_joined() -> None:
    deltas = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
        for piece in ("\ud800x", "\ud83d", "\ude00")
    ]
    unheard_of = {"type": "of_tomorrow", "value": [{"deep": "\udc00"}]}
    other = {"type": "content_block_start", "index": 1, "content_block": unheard_of}

    async def scenario() -> ClaudeResponse:
        async with raw_api(events(START, TEXT, *deltas, STOP, other, END, DONE)) as api:
            return await ask(service(api.base_url))

    assert [block.to_json() for block in asyncio.run(scenario()).message.content] == [
        {"type": "text", "text": "Half\N{REPLACEMENT CHARACTER}x\N{GRINNING FACE}"},
        {"type": "of_tomorrow", "value": [{"deep": "\N{REPLACEMENT CHARACTER}"}]},
    ]


def test_a_refusal_in_words_that_cannot_be_encoded_is_a_sentence_that_can() -> None:
    async def scenario() -> ClaudeFailure:
        error = {"type": "invalid_request_error", "message": "Not \ud800."}
        async with raw_api(refusal(400, {"type": "error", "error": error})) as api:
            return await failure(service(api.base_url))

    assert "Not \N{REPLACEMENT CHARACTER}." in str(asyncio.run(scenario()))


@pytest.mark.behaviour("claude.error.client")
@pytest.mark.parametrize("odd", [7, ["x"], {"a": 1}, None], ids=["number", "list", "object", "null"])
def test_a_refusal_without_words_is_what_its_status_says(odd: object) -> None:
    error = {"type": odd, "message": odd, "details": {"error_code": odd}}

    async def scenario(*answers: bytes) -> ClaudeFailure:
        async with raw_api(*answers) as api:
            refused = await failure(service(api.base_url, retries=1))
            assert api.requests == len(answers)
            return refused

    wrong = asyncio.run(scenario(refusal(400, {"error": error})))
    assert str(wrong) == "Claude's API refused the request (status 400): it gave no reason"
    busy = refusal(429, {"error": error}, "retry-after: 0.01")
    assert asyncio.run(scenario(busy, busy)).counts
    within = asyncio.run(scenario(events(START, {"type": "error", "error": error})))
    assert (within.status, within.counts, within.may_have_cost) == (500, True, True)


@pytest.mark.behaviour("claude.response")
def test_tool_calls_come_back_with_their_whole_input_nulls_included() -> None:
    script = "replies: [{text: Wait., tool_use: [{name: echo, input: {message: hi, none: null, deep: [{a: null}]}}]}]"
    with fake_claude(script) as api:
        answer = asyncio.run(ask(service(api.base_url), request(tools=[ECHO])))
    (use,) = answer.message.tool_uses
    assert (use.name, use.input) == ("echo", {"message": "hi", "none": None, "deep": [{"a": None}]})
    assert answer.message.stop_reason == "tool_use"


@pytest.mark.behaviour("claude.request")
def test_a_request_carries_the_history_the_tools_and_the_cache_mark_and_no_sampling_parameter() -> None:
    history = (
        Message("user", (Text("Hello"),)),
        Message("assistant", (Text("Wait."), ToolUse("toolu_1", "echo", {"message": "hi"}))),
        Message("user", (ToolAnswer("toolu_1", "hi"),)),
    )
    with fake_claude() as api:
        asyncio.run(ask(service(api.base_url), request(*history, system="Be brief.", tools=[ECHO])))
        (sent,) = api.requests()
    cached = {"type": "ephemeral"}
    assert sent["body"] == {
        "model": "claude-test-1",
        "max_tokens": 100,
        "stream": True,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": cached}],
        "cache_control": cached,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hello", "cache_control": cached}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Wait."},
                    {"type": "tool_use", "id": "toolu_1", "name": "echo", "input": {"message": "hi"}},
                ],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "hi", "is_error": False}],
            },
        ],
        "tools": [
            {
                "name": "echo",
                "description": ECHO.description,
                "input_schema": ECHO.input_schema,
                "cache_control": cached,
            }
        ],
    }


def test_a_turn_of_many_blocks_is_paid_for_alone() -> None:
    said = (Message("user", (Text("word " * 1000),)), Message("assistant", (Text("Well."),)))
    many = Message("user", tuple(Text(f"block {number}") for number in range(30)))

    async def scenario(base_url: str) -> tuple[ClaudeResponse, ClaudeResponse]:
        await ask(service(base_url), request(said[0]))
        before = await ask(service(base_url), request(*said, Message("user", (Text("And?"),))))
        return before, await ask(service(base_url), request(*said, many))

    with fake_claude() as api:
        before, answer = asyncio.run(scenario(api.base_url))
    assert answer.usage.cache_read_tokens == before.usage.cache_read_tokens > 1000
    assert answer.usage.cache_write_tokens < 500


def test_what_stands_before_the_messages_is_shared_by_conversations() -> None:
    tools = [replace(ECHO, description="word " * 1000)]

    async def scenario(base_url: str) -> list[int]:
        prompts = [("A", "Be brief. " * 400), ("B", "Be brief. " * 400), ("C", "Be kind.")]
        asked = [request(Message("user", (Text(text),)), system=system, tools=tools) for text, system in prompts]
        return [(await ask(service(base_url), one)).usage.cache_read_tokens for one in asked]

    with fake_claude() as api:
        first, second, third = asyncio.run(scenario(api.base_url))
    assert first == 0
    assert second > third > 1000


def test_what_the_api_would_refuse_for_saying_nothing_is_left_out_and_neighbours_are_joined() -> None:
    history = (
        Message("user", (Text("Hello"),)),
        Message("assistant", ()),
        Message("user", (Text("Are you there?"),)),
        Message("assistant", (Text(" \n"),)),
        Message("user", (Text(""), Text("Well?"))),
    )
    with fake_claude() as api:
        asyncio.run(ask(service(api.base_url), request(*history)))
        (sent,) = api.requests()
    texts = ["Hello", "Are you there?", "Well?"]
    content = [{"type": "text", "text": text} for text in texts]
    assert sent["body"]["messages"] == [{"role": "user", "content": content}]


def test_thoughts_that_lead_to_nothing_are_left_out_and_the_others_sent_back_as_they_came() -> None:
    async def scenario(claude: AnthropicClaude) -> None:
        first = (await claude.create_message(request())).message
        assert [block.to_json()["type"] for block in first.content] == ["thinking", "text"]
        cut = (await claude.create_message(replace(request(), max_tokens=2))).message
        assert [block.to_json()["type"] for block in cut.content] == ["thinking"]
        blank = Message("assistant", (*cut.content, Text(" ")))
        hello = Message("user", (Text("Hello"),))
        await ask(claude, request(hello, first, hello, cut, hello, blank, hello))

    with fake_claude("replies: [{thinking: Hm., text: Yes.}, {thinking: A long thought., text: Never said.}]") as api:
        asyncio.run(scenario(service(api.base_url)))
        sent = api.requests()[-1]["body"]["messages"]
    assert [[block["type"] for block in message["content"]] for message in sent] == [
        ["text"],
        ["thinking", "text"],
        ["text", "text", "text"],
    ]
    assert sent[1]["content"][0]["thinking"] == "Hm."


def test_usage_comes_from_the_end_of_the_answer_with_what_the_cache_read_and_wrote() -> None:
    async def scenario(claude: AnthropicClaude) -> list[Usage]:
        hello = Message("user", (Text("x" * 3072),))
        first = await claude.create_message(request(hello))
        again = await ask(claude, request(hello, first.message, Message("user", (Text("And?"),))))
        return [first.usage, again.usage]

    with fake_claude("replies: [{text: One., times: 2}]") as api:
        first, again = asyncio.run(scenario(service(api.base_url)))
    assert first == Usage(input_tokens=0, output_tokens=12, cache_read_tokens=0, cache_write_tokens=1033)
    assert again == Usage(input_tokens=0, output_tokens=12, cache_read_tokens=1033, cache_write_tokens=30)


def test_fifty_turns_cost_at_most_a_quarter_of_what_they_would_without_the_cache() -> None:
    async def scenario(claude: AnthropicClaude) -> Usage:
        history: list[Message] = []
        spent = Usage()
        for turn in range(50):
            history.append(Message("user", (Text(f"{turn}".ljust(1475, "x")),)))
            answer = await claude.create_message(replace(request(*history), max_tokens=1000))
            history.append(answer.message)
            spent += answer.usage
        await claude.close()
        return spent

    with fake_claude(f"replies: [{{text: {'y' * 1443}, times: 50}}]") as api:
        spent = asyncio.run(scenario(service(api.base_url)))
        assert [one["status"] for one in api.requests()] == [200] * 50
    without = spent.input_tokens + spent.cache_read_tokens + spent.cache_write_tokens
    paid = spent.input_tokens + 1.25 * spent.cache_write_tokens + 0.1 * spent.cache_read_tokens
    assert paid / without <= 0.25


@pytest.mark.parametrize("reason", ["refusal", "pause_turn", "model_context_window_exceeded", "stop_sequence"])
def test_every_end_comes_back_with_its_reason_with_or_without_a_text(reason: str) -> None:
    async def scenario(claude: AnthropicClaude) -> list[Message]:
        return [(await claude.create_message(request())).message, (await ask(claude)).message]

    with fake_claude(f"replies: [{{text: Half., stop_reason: {reason}}}, {{stop_reason: {reason}}}]") as api:
        half, nothing = asyncio.run(scenario(service(api.base_url)))
    assert [half.stop_reason, nothing.stop_reason] == [reason, reason]
    assert (half.text.endswith("Half."), nothing.content) == (True, ())


def test_a_tool_call_that_max_tokens_cut_comes_back_with_the_reason_and_what_there_is_of_its_input() -> None:
    call = "{name: echo, input: {message: hi, more: abcdefghijklmnop}}"
    with fake_claude(f"replies: [{{tool_use: [{call}]}}]") as api:
        cut = asyncio.run(ask(service(api.base_url), replace(request(tools=[ECHO]), max_tokens=10))).message
    assert (cut.stop_reason, [use.input for use in cut.tool_uses]) == ("max_tokens", [{"message": "hi"}])


# --- failures ---


@pytest.mark.behaviour("claude.retry.rate-limit", "claude.retry.server-error")
def test_a_busy_api_is_asked_again_by_the_sdk_alone() -> None:
    script = "replies: [{status: 429, retry_after: 0.01}, {status: 529, retry_after: 0.01}, {text: At last.}]"
    with fake_claude(script) as api:
        answer = asyncio.run(ask(service(api.base_url, retries=2)))
        assert [one["status"] for one in api.requests()] == [429, 529, 200]
    assert answer.message.text.endswith("At last.")


@pytest.mark.behaviour("claude.error.client", "claude.retry.bounded")
@pytest.mark.parametrize(
    ("status", "sentence", "counts"),
    [
        (400, "Claude's API refused the request (status 400): [simulated] No model was asked. Why not.", False),
        (401, "Claude's API rejected the key: check ANTHROPIC_API_KEY", False),
        (403, "Claude's API does not let this key do that", False),
        (404, "Claude's API does not know the model 'claude-test-1'", False),
        (408, "Claude's API refused the request (status 408): [simulated] No model was asked. Why not.", True),
        (409, "Claude's API refused the request (status 409): [simulated] No model was asked. Why not.", True),
        (413, "the conversation is too large for Claude's API: start a new one", False),
        (429, "Claude's API limits the requests of this account; try again later", True),
        (500, "Claude's API is overloaded or out of order (status 500); try again later", True),
        (529, "Claude's API is overloaded or out of order (status 529); try again later", True),
    ],
)
def test_a_refusal_is_one_clear_sentence_with_the_request_id(status: int, sentence: str, counts: bool) -> None:  # noqa: FBT001  # a column of the table
    with fake_claude(f"replies: [{{status: {status}, text: Why not.}}]") as api:
        refused = asyncio.run(failure(service(api.base_url)))
        assert len(api.requests()) == 1
    assert str(refused) == f"{sentence} (request id {refused.request_id})"
    assert (refused.request_id or "").startswith("req_")
    assert (refused.status, refused.counts) == (status, counts)


def test_a_prompt_that_the_model_cannot_take_is_told_by_what_helps() -> None:
    with fake_claude() as api:
        long = request(Message("user", (Text("x" * 700_000),)), model="claude-haiku-4-5")
        refused = asyncio.run(failure(service(api.base_url), long))
    said = "the conversation is longer than 'claude-haiku-4-5' can take: fork it further up, or start a new one"
    assert str(refused) == f"{said} (request id {refused.request_id})"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (429, "enforced_spend_limit_reached"),
        (429, "contract_spend_limit_reached"),
        (402, "linked_organization_spend_limit_reached"),
    ],
)
def test_a_spend_limit_is_final_at_the_first_attempt_and_does_not_count(status: int, code: str) -> None:
    with fake_claude(f"replies: [{{status: {status}, error_code: {code}, retry_after: 0.01, times: 9}}]") as api:
        refused = asyncio.run(failure(service(api.base_url, retries=5)))
        assert len(api.requests()) == 1
    assert str(refused) == (
        "the spend limit of this Anthropic account is reached: raise it, or wait until it begins anew "
        f"(request id {refused.request_id})"
    )
    assert (refused.status, refused.counts) == (status, False)


def test_a_ramp_limit_passes_and_is_tried_again() -> None:
    with fake_claude("replies: [{status: 429, error_code: ramp_limit_exceeded, retry_after: 0.01}]") as api:
        asyncio.run(ask(service(api.base_url, retries=1)))
        assert [one["status"] for one in api.requests()] == [429, 200]


@pytest.mark.behaviour("claude.retry.bounded")
def test_a_wait_that_no_client_waits_for_is_told_at_once() -> None:
    with fake_claude("replies: [{status: 429, retry_after: 3600}]") as api:
        refused = asyncio.run(failure(service(api.base_url, retries=5)))
        assert len(api.requests()) == 1
    assert str(refused).startswith("Claude's API limits the requests of this account; try again in 3600 s")
    assert refused.counts


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("retry-after-ms: 3600000", "in 3600 s"),
        ("retry-after: Wed, 21 Oct 2099 07:28:00 GMT", "later"),
        ("retry-after: 60.5", "in 61 s"),
        ("retry-after: inf", "later"),
    ],
)
def test_a_wait_that_is_too_long_is_told_at_once_however_it_is_written(header: str, told: str) -> None:
    name, _, value = header.partition(": ")
    with fake_claude(f"replies: [{{status: 429, headers: {{{name}: '{value}'}}, times: 9}}]") as api:
        refused = asyncio.run(failure(service(api.base_url, retries=5)))
        assert len(api.requests()) == 1
    assert f"try again {told} (request id" in str(refused)


@pytest.mark.parametrize(
    "header", ["retry-after-ms: 10", "retry-after: 0.01", "retry-after: Wed, 21 Oct 2015 07:28:00 GMT"]
)
def test_a_wait_that_is_short_is_left_to_the_sdk(header: str) -> None:
    name, _, value = header.partition(": ")
    with fake_claude(f"replies: [{{status: 429, headers: {{{name}: '{value}'}}}}, {{text: At last.}}]") as api:
        assert asyncio.run(ask(service(api.base_url, retries=1))).message.text.endswith("At last.")


def test_an_account_that_cannot_be_billed_is_told_so_and_does_not_count() -> None:
    with fake_claude("replies: [{status: 402, text: secret}]") as api:
        refused = asyncio.run(failure(service(api.base_url, retries=5)))
        assert len(api.requests()) == 1
    assert str(refused).startswith("Anthropic cannot bill this account: check its credit and its payment (request id")
    assert (refused.status, refused.counts) == (402, False)


def test_an_address_without_a_messages_api_is_not_called_an_unknown_model() -> None:
    async def scenario() -> ClaudeFailure:
        async with raw_api(refusal(404, "<html>Not here</html>")) as api:
            return await failure(service(api.base_url))

    assert "check claude.base_url" in str(asyncio.run(scenario()))


@pytest.mark.behaviour("claude.error.client")
def test_the_words_of_the_api_are_bounded_and_never_repeat_the_key() -> None:
    async def scenario() -> ClaudeFailure:
        said = f"bad header 'Bearer {KEY}'\n" + "x" * 10_000
        async with raw_api(refusal(400, {"error": {"type": "invalid_request_error", "message": said}})) as api:
            return await failure(service(api.base_url))

    refused = asyncio.run(scenario())
    assert "bad header 'Bearer ***' xxx" in str(refused)
    assert len(str(refused)) < 600
    # Nor is the SDK's error, which holds the request's headers, to be reached from ours.
    assert refused.__cause__ is refused.__context__ is None


@pytest.mark.behaviour("claude.error.broken")
@pytest.mark.parametrize(
    "answer",
    [
        events(START, TEXT),
        events(START, TEXT, headers="content-length: 100000\r\n"),
        events(START, TEXT, STOP, END),
        events(),
    ],
    ids=["silently", "within the body", "before message_stop", "before message_start"],
)
def test_an_answer_that_breaks_off_is_a_failure_that_counts(answer: bytes) -> None:
    async def scenario() -> ClaudeFailure:
        async with raw_api(answer) as api:
            return await failure(service(api.base_url))

    broken = asyncio.run(scenario())
    assert str(broken).startswith("Claude's answer broke off before its end; try again")
    assert (broken.status, broken.counts) == (None, True)


def test_an_error_within_the_answer_has_the_status_that_it_would_have_had_before() -> None:
    async def scenario() -> ClaudeFailure:
        error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
        async with raw_api(events(START, TEXT, error)) as api:
            return await failure(service(api.base_url))

    broken = asyncio.run(scenario())
    assert (broken.status, broken.counts, broken.request_id) == (529, True, "req_1")


@pytest.mark.behaviour("claude.error.broken")
@pytest.mark.parametrize(
    ("kind", "status", "counts", "sentence"),
    [
        ("invalid_request_error", 400, False, "Claude's API refused the request (status 400): "),
        ("authentication_error", 401, False, "Claude's API rejected the key"),
        ("billing_error", 402, False, "Anthropic cannot bill this account"),
        ("permission_error", 403, False, "Claude's API does not let this key do that"),
        ("not_found_error", 404, False, "Claude's API does not know the model 'claude-test-1'"),
        ("request_too_large", 413, False, "the conversation is too large"),
        ("rate_limit_error", 429, True, "Claude's API limits the requests"),
        ("api_error", 500, True, "Claude's API is overloaded or out of order (status 500)"),
        ("timeout_error", 504, True, "Claude's API is overloaded or out of order (status 504)"),
        ("overloaded_error", 529, True, "Claude's API is overloaded or out of order (status 529)"),
    ],
)
def test_an_error_after_partial_text_is_the_failure_that_its_type_says_and_is_not_retried(
    kind: str,
    status: int,
    counts: bool,  # noqa: FBT001  # a column of the table
    sentence: str,
) -> None:
    with fake_claude(f"replies: [{{text: One two., stream_error: {{type: {kind}, after_events: 4}}}}]") as api:
        broken = asyncio.run(failure(service(api.base_url, retries=5)))
        (sent,) = api.requests()
    assert str(broken).startswith(sentence)
    assert (broken.status, broken.counts, broken.request_id) == (status, counts, sent["request_id"])


def test_a_spend_limit_that_is_reached_within_an_answer_does_not_count() -> None:
    error = "{type: rate_limit_error, error_code: enforced_spend_limit_reached}"
    with fake_claude(f"replies: [{{text: One., stream_error: {error}}}]") as api:
        broken = asyncio.run(failure(service(api.base_url, retries=5)))
    assert str(broken).startswith("the spend limit of this Anthropic account is reached")
    assert (broken.status, broken.counts) == (429, False)


@pytest.mark.parametrize("clean", ["true", "false"])
@pytest.mark.parametrize("events", range(15))
def test_an_answer_cut_after_any_event_is_a_failure_that_counts_and_is_not_retried(events: int, clean: str) -> None:
    said = "thinking: Hm., text: Wait., tool_use: [{name: echo, input: {message: hello}}]"
    with fake_claude(f"replies: [{{{said}, cut: {{events: {events}, clean: {clean}}}}}]") as api:
        broken = asyncio.run(failure(service(api.base_url, retries=5), request(tools=[ECHO])))
        (sent,) = api.requests()
    assert str(broken).startswith("Claude's answer broke off before its end; try again")
    assert (broken.status, broken.counts, broken.request_id) == (None, True, sent["request_id"])


def test_a_connection_closed_without_an_answer_is_tried_again_by_the_sdk() -> None:
    with fake_claude("replies: [{fault: hang_up, times: 2}, {text: At last.}]") as api:
        assert asyncio.run(ask(service(api.base_url, retries=2))).message.text.endswith("At last.")
        assert [one["status"] for one in api.requests()] == [None, None, 200]


def test_an_answer_that_is_garbage_is_a_failure_that_does_not_count() -> None:
    with fake_claude("replies: [{fault: garbage}]") as api:
        odd = asyncio.run(failure(service(api.base_url)))
    assert str(odd) == f"Claude's API gave an answer that cannot be understood (request id {odd.request_id})"
    assert (odd.status, odd.counts) == (None, False)


@pytest.mark.parametrize(
    "answer", ["raw: <p>Welcome!</p>, content_type: text/html", "raw: '{}', content_type: application/json"]
)
def test_an_answer_that_is_no_stream_comes_from_another_address_than_the_apis(answer: str) -> None:
    with fake_claude(f"replies: [{{{answer}}}]") as api:
        odd = asyncio.run(failure(service(api.base_url)))
    assert str(odd).startswith("there is no Messages API at the configured address: check claude.base_url")
    assert not odd.counts


@pytest.mark.behaviour("claude.error.broken")
@pytest.mark.parametrize(
    "answer",
    [
        events({**START, "message": None}, TEXT, STOP, END, DONE),
        events(START, {**TEXT, "index": 0, "content_block": 3}, STOP, END, DONE),
        events(START, STOP, END, DONE),
        events(START, TEXT, STOP, DONE),
        events(DONE),
        events(START)[:-20] + b"\n\n",
        events(tokens(2**63), TEXT, STOP, END, DONE),
        events(tokens(-1), TEXT, STOP, END, DONE),
        events(START, tool_call(id=None), STOP, END, DONE),
        events(START, tool_call(name=None), STOP, END, DONE),
        events(START, tool_call(input=[1]), STOP, END, DONE),
    ],
    ids=[
        *("no message", "no block", "no such block", "no stop reason", "no start", "no JSON"),
        *("too many tokens", "less than no tokens", "a call without id", "without name", "without input"),
    ],
)
def test_an_answer_that_cannot_be_understood_is_a_failure_that_does_not_count(answer: bytes) -> None:
    async def scenario() -> ClaudeFailure:
        async with raw_api(answer) as api:
            return await failure(service(api.base_url))

    odd = asyncio.run(scenario())
    assert str(odd) == "Claude's API gave an answer that cannot be understood (request id req_1)"
    assert (odd.status, odd.counts) == (None, False)


def test_an_api_that_cannot_be_reached_is_a_failure_that_counts() -> None:
    async def scenario() -> ClaudeFailure:
        async with raw_api(b"") as api:
            pass
        return await failure(service(api.base_url))

    unreachable = asyncio.run(scenario())
    assert str(unreachable) == "Claude's API could not be reached; check the network and try again"
    assert (unreachable.status, unreachable.counts) == (None, True)


@pytest.mark.behaviour("claude.error.broken")
@pytest.mark.parametrize(
    "answer", [b"", events(), events(START)], ids=["before the answer", "before it begins", "within it"]
)
def test_an_api_that_falls_silent_is_a_failure_that_counts(answer: bytes) -> None:
    async def scenario() -> ClaudeFailure:
        async with raw_api(answer, hang_up=False) as api:
            return await failure(service(api.base_url, timeout=0.3))

    silent = asyncio.run(scenario())
    assert str(silent).startswith("Claude's API did not answer in time; try again")
    assert (silent.status, silent.counts, silent.may_have_cost) == (None, True, True)


@pytest.mark.behaviour("claude.no-key")
@pytest.mark.parametrize("key", [None, "", "  \n"])
def test_without_a_key_nothing_is_sent_wherever_the_api_is(key: str | None) -> None:
    with fake_claude() as api:
        claude = service(api.base_url, key=key)
        with pytest.raises(ClaudeNotConfigured):
            claude.check_configured()
        assert isinstance(asyncio.run(failure(claude)), ClaudeNotConfigured)
        assert api.requests() == []


def test_a_key_that_cannot_be_one_is_refused_without_being_shown() -> None:
    refused = asyncio.run(failure(service("http://127.0.0.1:9", key="sk-ant-…")))
    assert str(refused) == "the configured Anthropic API key has characters that no key has: check ANTHROPIC_API_KEY"


def test_blanks_around_a_key_do_not_matter() -> None:
    with fake_claude() as api:
        asyncio.run(ask(service(api.base_url, key=f" {KEY}\n")))
        assert [one["status"] for one in api.requests()] == [200]


# --- cancellation, spans, import ---


async def cancelled_midway(claude: AnthropicClaude, api: FakeClaude) -> None:
    asking = asyncio.create_task(claude.create_message(request()))
    await until(lambda: [one["status"] for one in api.requests()] == [200])
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await until(lambda: [one["disconnected"] for one in api.requests()] == [True])
    await claude.close()


@pytest.mark.behaviour("claude.cancelled")
@pytest.mark.parametrize("pause", ["delay: 60", "delay_between: 60"], ids=["before the answer", "within it"])
def test_a_cancelled_request_closes_its_connection(pause: str) -> None:
    with fake_claude(f"replies: [{{text: One two., {pause}}}]") as api:
        asyncio.run(cancelled_midway(service(api.base_url), api))


def traced() -> tuple[TracerProvider, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter


@pytest.mark.behaviour("claude.span", "claude.headers")
def test_the_sdks_own_span_goes_to_the_given_provider_and_no_trace_context_to_the_api() -> None:
    provider, exporter = traced()
    with fake_claude() as api:
        asyncio.run(ask(service(api.base_url, provider=provider)))
        (sent,) = api.requests()
    assert "traceparent" not in sent["headers"]
    (span,) = exporter.get_finished_spans()
    assert (span.name, span.kind, span.status.status_code) == (
        "anthropic.messages.create",
        SpanKind.CLIENT,
        StatusCode.OK,
    )
    attributes = dict(span.attributes or {})
    assert attributes["gen_ai.request.model"] == "claude-test-1"
    assert attributes["gen_ai.usage.output_tokens"]
    assert not [key for key in attributes if "message" in key and "content" in key]


def test_the_sdks_span_ends_when_the_request_is_cancelled() -> None:
    provider, exporter = traced()
    with fake_claude("replies: [{text: One two., delay_between: 60}]") as api:
        asyncio.run(cancelled_midway(service(api.base_url, provider=provider), api))
    (span,) = exporter.get_finished_spans()
    assert (span.name, span.status.status_code) == ("anthropic.messages.create", StatusCode.UNSET)


@pytest.mark.behaviour("claude.error.recorded", "claude.retry.bounded")
def test_the_sdks_span_of_a_failure_has_its_attempts_and_no_exception_text() -> None:
    provider, exporter = traced()
    with fake_claude("replies: [{status: 529, text: secret, times: 2, retry_after: 0.01}]") as api:
        asyncio.run(failure(service(api.base_url, provider=provider, retries=1)))
    (span,) = exporter.get_finished_spans()
    assert (span.status.status_code, span.status.description, list(span.events)) == (StatusCode.ERROR, None, [])
    attributes = dict(span.attributes or {})
    assert attributes["error.type"] == "overloaded_error"
    assert attributes["http.request.resend_count"] == 1


def test_a_provider_that_becomes_ready_later_is_used_from_then_on() -> None:
    provider, exporter = traced()
    providers: list[TracerProvider | None] = [None, provider]

    async def scenario(base_url: str) -> None:
        claude = AnthropicClaude(
            api_key=KEY,
            base_url=base_url,
            timeout=DEADLINE,
            max_retries=0,
            default_model="claude-test-1",
            model_refresh=3600,
            tracer_provider=lambda: providers.pop(0),
        )
        await claude.create_message(request())
        assert exporter.get_finished_spans() == ()
        await claude.create_message(request())
        await claude.close()

    with fake_claude() as api:
        asyncio.run(scenario(api.base_url))
    assert len(exporter.get_finished_spans()) == 1


IMPORTS = """
import asyncio, sys, threading
from tfo_mcp.infrastructure.claude import AnthropicClaude

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "anthropic":
            print("main" if threading.current_thread() is threading.main_thread() else "thread")

sys.meta_path.insert(0, Watch())
claude = AnthropicClaude(api_key="k", base_url=None, timeout=1, max_retries=0, default_model="claude-test-1",
                         model_refresh=3600, tracer_provider=lambda: None)
claude.check_configured()
assert not {"anthropic", "httpx2", "pydantic"} & set(sys.modules)

async def scenario():
    first = asyncio.create_task(claude.warm_up())
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(claude.warm_up()) for _ in range(3)]
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(*waiting)
    await claude.close()

asyncio.run(scenario())
"""


def test_the_sdk_is_imported_once_in_a_thread_and_for_all_who_wait_even_if_the_first_gives_up() -> None:
    child = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=False, timeout=60)
    assert (child.stdout.split(), child.stderr) == (["thread"], "")


def test_closing_before_anything_was_asked_imports_nothing() -> None:
    asyncio.run(service("http://127.0.0.1:9").close())

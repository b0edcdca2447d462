"""Errors, broken answers and ends that a script can ask for, as the real SDK sees them."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast, get_args

import anthropic
import httpx2
import pytest
from anthropic.types.shared import ErrorType

from support.sdk import with_sdk
from tfo_mcp.infrastructure.fake_claude import SIMULATED
from tfo_mcp.infrastructure.fake_claude.errors import ERROR_TYPES, STATUSES, error_type

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anthropic import AsyncAnthropic
    from anthropic.types import Message

    Ask = Callable[[AsyncAnthropic], Awaitable[Message]]

MODEL = "claude-opus-5-5"
BEGIN = 2
"""Events before the first block: message_start and ping."""


def request(**more: object) -> Any:  # noqa: ANN401  # the SDK's parameters
    return {"model": MODEL, "max_tokens": 200, "messages": [{"role": "user", "content": "hi"}], **more}


def untyped(claude: AsyncAnthropic) -> Any:  # noqa: ANN401  # the SDK's overloads do not take a request as a mapping
    return claude.messages


async def whole(claude: AsyncAnthropic, **more: object) -> Message:
    return cast("Message", await claude.messages.create(**request(**more)))


async def streamed(claude: AsyncAnthropic, heard: list[Any] | None = None, **more: object) -> Message:
    async with claude.messages.stream(**request(**more)) as stream:
        async for event in stream:
            if heard is not None:
                heard.append(event)
        return await stream.get_final_message()


async def received(claude: AsyncAnthropic) -> list[dict[str, Any]]:
    async with httpx2.AsyncClient(base_url=str(claude.base_url)) as client:
        return (await client.get("/__requests")).json()


# --- refusals ---


def test_the_types_of_errors_are_those_of_the_sdk() -> None:
    known = {*get_args(ErrorType), "request_too_large"}  # which the API documents, and the SDK does not name
    assert {error_type(status) for status in range(400, 600)} <= known
    assert {*ERROR_TYPES.values(), *STATUSES} <= known
    assert {error_type(status): status for status in STATUSES.values()} == STATUSES


@pytest.mark.parametrize(
    ("status", "kind", "raised", "attempts"),
    [
        (400, "invalid_request_error", anthropic.BadRequestError, 1),
        (401, "authentication_error", anthropic.AuthenticationError, 1),
        (403, "permission_error", anthropic.PermissionDeniedError, 1),
        (404, "not_found_error", anthropic.NotFoundError, 1),
        (408, "timeout_error", anthropic.RequestTimeoutError, 2),
        (409, "conflict_error", anthropic.ConflictError, 2),
        (413, "request_too_large", anthropic.ContentTooLargeError, 1),
        (429, "rate_limit_error", anthropic.RateLimitError, 2),
        (500, "api_error", anthropic.InternalServerError, 2),
        (504, "timeout_error", anthropic.GatewayTimeoutError, 2),
        (529, "overloaded_error", anthropic.OverloadedError, 2),
    ],
)
@pytest.mark.parametrize("ask", [whole, streamed])
def test_each_status_is_the_sdks_error_of_its_name_and_retried_as_the_sdk_does(
    status: int, kind: str, raised: type[anthropic.APIStatusError], attempts: int, ask: Ask
) -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        with pytest.raises(raised) as caught:
            await ask(claude)
        assert type(caught.value) is raised
        assert (caught.value.type, caught.value.error_code) == (kind, None)
        entries = await received(claude)
        assert [one["status"] for one in entries] == [status] * attempts
        assert caught.value.request_id == entries[-1]["request_id"]

    with_sdk(f"replies: [{{status: {status}, retry_after: 0.001, times: 2}}]", talk, retries=1)


def test_the_body_of_an_error_can_break_off() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        async with httpx2.AsyncClient(base_url=str(claude.base_url), headers=claude.auth_headers) as client:
            head = {"anthropic-version": "2026-10-21"}
            async with client.stream("POST", "/v1/messages", json=request(), headers=head) as answer:
                assert answer.status_code == 529
                with pytest.raises(httpx2.RemoteProtocolError):
                    await answer.aread()

    with_sdk("replies: [{status: 529, cut: {bytes: 9}}]", talk)


@pytest.mark.parametrize("code", ["enforced_spend_limit_reached", "contract_spend_limit_reached"])
def test_a_spend_limit_is_an_error_code_in_the_details(code: str) -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        with pytest.raises(anthropic.RateLimitError) as caught:
            await whole(claude)
        assert (caught.value.type, caught.value.error_code) == ("rate_limit_error", code)
        assert caught.value.details is not None
        assert caught.value.details.to_dict() == {"error_code": code}
        assert "".join(part.capitalize() for part in code.split("_")) in type(caught.value).__name__

    with_sdk(f"replies: [{{status: 429, error_code: {code}}}]", talk)


def test_an_error_may_have_any_type_and_headers_of_its_own() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        with pytest.raises(anthropic.OverloadedError) as caught:
            await whole(claude)
        assert caught.value.type == "api_error"
        assert len(await received(claude)) == 1
        assert caught.value.response.headers["anthropic-ratelimit-requests-remaining"] == "3"

    headers = "{x-should-retry: false, anthropic-ratelimit-requests-remaining: 3}"
    with_sdk(f"replies: [{{status: 529, error_type: api_error, headers: {headers}}}]", talk, retries=5)


def test_a_refusal_can_ask_to_be_retried() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        await whole(claude)
        assert [one["status"] for one in await received(claude)] == [400, 200]

    with_sdk("replies: [{status: 400, headers: {x-should-retry: true}, retry_after: 0.001}]", talk, retries=1)


def test_everything_has_a_request_id_and_the_limits_of_the_account() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        answers: list[Any] = [
            (await untyped(claude).with_raw_response.create(**request())).headers,
            (await untyped(claude).with_raw_response.create(**request(stream=True))).headers,
            (await untyped(claude).with_raw_response.count_tokens(model=MODEL, messages=request()["messages"])).headers,
            (await claude.models.with_raw_response.list()).headers,
        ]
        for refused in (whole(claude, model="gpt-4"), whole(claude)):
            with pytest.raises(anthropic.APIStatusError) as caught:
                await refused
            answers.append(cast("Any", caught.value.response.headers))
        ids = [headers["request-id"] for headers in answers]
        assert ids == [one["request_id"] for one in await received(claude)]
        assert len(set(ids)) == len(ids)
        left = [headers["anthropic-ratelimit-requests-remaining"] for headers in answers]
        assert left == ["4000"] * 5 + ["0"]
        for name in ("input-tokens", "output-tokens", "tokens", "requests"):
            for what in ("limit", "remaining", "reset"):
                assert all(headers[f"anthropic-ratelimit-{name}-{what}"] for headers in answers)

    with_sdk("replies: [{text: a}, {text: b}, {status: 429}]", talk)


# --- streams that go wrong ---


@pytest.mark.parametrize(
    ("kind", "after", "text"),
    [
        ("overloaded_error", None, f"{SIMULATED} one two"),
        ("api_error", BEGIN + 3, SIMULATED[:15]),
        ("rate_limit_error", 1, ""),
    ],
)
def test_an_error_event_ends_a_stream_that_has_begun(kind: str, after: int | None, text: str) -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        heard: list[Any] = []
        with pytest.raises(anthropic.APIStatusError) as caught:
            await streamed(claude, heard)
        assert (caught.value.status_code, caught.value.type) == (200, kind)
        assert caught.value.api_message == f"{SIMULATED} Too much."
        assert caught.value.request_id == (await received(claude))[0]["request_id"]
        assert "".join(event.text for event in heard if event.type == "text") == text

    place = "" if after is None else f", after_events: {after}"
    with_sdk(f"replies: [{{text: one two, stream_error: {{type: {kind}, text: Too much.{place}}}}}]", talk, retries=3)


def test_an_error_event_may_carry_a_code() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await streamed(claude)
        assert (caught.value.type, caught.value.error_code) == ("rate_limit_error", "enforced_spend_limit_reached")

    error = "{type: rate_limit_error, error_code: enforced_spend_limit_reached}"
    with_sdk(f"replies: [{{stream_error: {error}}}]", talk)


def test_without_a_stream_the_same_error_has_its_status() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        with pytest.raises(anthropic.OverloadedError):
            await whole(claude)

    with_sdk("replies: [{stream_error: {}}]", talk)


async def bytes_of_stream(claude: AsyncAnthropic) -> tuple[bytes, bool]:
    """What came, and whether the connection broke."""
    read = b""
    async with untyped(claude).with_streaming_response.create(**request(stream=True)) as response:
        try:
            async for chunk in response.iter_bytes():
                read += chunk
        except httpx2.RemoteProtocolError:
            return read, True
    return read, False


@pytest.mark.parametrize("events", range(9))
@pytest.mark.parametrize("clean", [False, True])
def test_a_stream_can_break_off_after_any_number_of_events(events: int, clean: bool) -> None:  # noqa: FBT001  # a column
    async def talk(claude: AsyncAnthropic) -> None:
        read, broken = await bytes_of_stream(claude)
        assert (read.count(b"\n\n"), broken) == (events, not clean)
        assert (await received(claude))[0]["disconnected"] is False

    with_sdk(f"replies: [{{text: one two, cut: {{events: {events}, clean: {str(clean).lower()}}}}}]", talk)


def test_a_stream_can_break_off_after_any_number_of_bytes() -> None:
    lengths = (0, 1, 500, 777)

    async def talk(claude: AsyncAnthropic) -> None:
        for length in lengths:
            read, broken = await bytes_of_stream(claude)
            assert (len(read), broken) == (length, True)

    cuts = ", ".join(f"{{text: one two, cut: {{bytes: {length}}}}}" for length in lengths)
    with_sdk(f"replies: [{cuts}]", talk)


def test_a_stream_can_break_off_within_the_input_of_a_tool_call() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        heard: list[Any] = []
        with pytest.raises(httpx2.RemoteProtocolError):
            await streamed(claude, heard)
        assert [event.partial_json for event in heard if event.type == "input_json"] == ["", '{"message":"']

    call = "tool_use: [{name: echo, input: {message: abcdefghijk}}]"
    with_sdk(f"replies: [{{{call}, cut: {{events: {BEGIN + 3}}}}}]", talk)


def test_a_whole_message_can_break_off_too() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        for _ in range(2):
            with pytest.raises(anthropic.APIConnectionError):
                await whole(claude)

    with_sdk("replies: [{text: a, cut: {bytes: 50}}, {text: a, cut: {events: 3}}]", talk)


# --- no answer, and what is none ---


@pytest.mark.parametrize("ask", [whole, streamed])
def test_a_connection_can_be_closed_without_an_answer(ask: Ask) -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        with pytest.raises(anthropic.APIConnectionError) as caught:
            await ask(claude)
        assert not isinstance(caught.value, anthropic.APITimeoutError)
        assert [(one["status"], one["disconnected"]) for one in await received(claude)] == [(None, False)] * 2

    with_sdk("replies: [{fault: hang_up, times: 2}]", talk, retries=1)


@pytest.mark.parametrize("ask", [whole, streamed])
def test_a_request_can_be_left_without_an_answer(ask: Ask) -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        with pytest.raises(anthropic.APITimeoutError):
            await ask(claude.with_options(timeout=0.2))
        while not (await received(claude))[0]["disconnected"]:
            pass
        assert (await received(claude))[0]["status"] is None

    with_sdk("replies: [{fault: silence}]", talk)


def test_a_client_that_leaves_while_it_sends_is_noted_and_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", claude.base_url.port)
        writer.write(b"POST /v1/messages HTTP/1.1\r\nhost: here\r\ncontent-length: 100\r\n\r\n{")
        await writer.drain()
        while not (await received(claude)):
            pass
        writer.close()
        while not (await received(claude))[0]["disconnected"]:
            pass
        assert (await received(claude))[0]["status"] is None

    with_sdk("", talk)
    assert caplog.messages == []


@pytest.mark.parametrize("ask", [whole, streamed])
def test_an_answer_can_be_garbage(ask: Ask) -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        with pytest.raises((anthropic.APIError, ValueError, AssertionError)):
            await ask(claude)
        assert (await received(claude))[0]["status"] == 200

    with_sdk("replies: [{fault: garbage}]", talk)


def test_an_answer_can_be_any_text_of_any_type_and_status() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await whole(claude)
        assert (caught.value.status_code, caught.value.body) == (502, "<p>Bad gateway</p>")
        assert caught.value.response.headers["content-type"] == "text/html; charset=utf-8"
        answer = await untyped(claude).with_raw_response.create(**request())
        assert answer.http_response.json() == {"odd": True}
        assert answer.headers["content-type"] == "application/json"

    page = "{status: 502, raw: <p>Bad gateway</p>, content_type: text/html}"
    with_sdk(f"replies: [{page}, {{raw: '{{\"odd\": true}}'}}]", talk)


def test_a_stream_can_be_written_by_hand() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        assert await bytes_of_stream(claude) == (b'event: odd\ndata: {"type": "odd"}\n\n', False)

    with_sdk(r'replies: [{raw: "event: odd\ndata: {\"type\": \"odd\"}\n\n"}]', talk)


def test_latency_stands_before_the_first_byte_and_between_the_deltas() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        clock = asyncio.get_running_loop().time
        begun = clock()
        seen: list[float] = []
        async with claude.messages.stream(**request()) as stream:
            async for event in stream:
                if event.type in {"message_start", "content_block_delta"}:
                    seen.append(clock() - begun)  # noqa: PERF401  # when it comes, not when all have come
        gaps = [after - before for before, after in pairwise(seen[1:])]
        assert seen[0] >= 0.2
        assert len(gaps) == 6
        assert min(gaps) >= 0.03

    with_sdk("replies: [{text: one two, delay: 0.2, delay_between: 0.05}]", talk)

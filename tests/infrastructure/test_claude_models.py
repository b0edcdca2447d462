"""What the adapter learns of models, and what follows for its requests."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from support.claude import FakeClaude, fake_claude
from tfo_mcp.application.ports import ClaudeRequest, ModelInfo
from tfo_mcp.domain.health import HealthStatus
from tfo_mcp.domain.message import Message, Text
from tfo_mcp.domain.transcript import Transcript
from tfo_mcp.infrastructure.claude import AnthropicClaude
from tfo_mcp.infrastructure.claude.directory import warning_of

DEADLINE = 20.0
DAY = 86_400.0


def service(
    base_url: str, *, model: str = "claude-opus-5-5", key: str = "key", refresh: float = 3600
) -> AnthropicClaude:
    return AnthropicClaude(
        api_key=key,
        base_url=base_url,
        timeout=DEADLINE,
        max_retries=0,
        default_model=model,
        model_refresh=refresh,
        tracer_provider=lambda: None,
    )


def request(model: str = "claude-opus-5-5", text: str = "Hello", **more: Any) -> ClaudeRequest:  # noqa: ANN401  # its other fields
    said = Transcript((Message("user", (Text(text),)),))
    return ClaudeRequest(model=model, max_tokens=100, system=None, transcript=said, tools=(), **more)


def talk(claude: AnthropicClaude, said: Callable[[AnthropicClaude], Awaitable[None]]) -> None:
    async def run() -> None:
        try:
            await asyncio.wait_for(said(claude), DEADLINE)
        finally:
            await claude.close()

    asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what the stand-in is about to be asked."""
    deadline = time.monotonic() + DEADLINE
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def looked_up(api: FakeClaude, model: str) -> int:
    return len(api.requests(f"/v1/models/{model}"))


@asynccontextmanager
async def answering(answer: bytes | None) -> AsyncGenerator[tuple[str, list[bytes]]]:
    """A server that gives each connection `answer`, or none at all; with it, the heads of what it was asked."""
    asked: list[bytes] = []
    serving: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    finally:
        server.close()
        await asyncio.wait_for(asyncio.gather(*filter(None, serving), return_exceptions=True), DEADLINE)


def reply(status: int, body: object) -> bytes:
    encoded = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} OK\r\ncontent-type: application/json\r\ncontent-length: {len(encoded)}\r\n"
    return f"{head}connection: close\r\n\r\n".encode() + encoded


# --- the directory ---


def test_an_alias_is_described_as_the_model_that_it_stands_for() -> None:
    async def ask(claude: AnthropicClaude) -> None:
        info = await claude.describe("claude-haiku-4-5")
        assert info is not None
        assert (info.id, info.lifecycle, info.retires_at) == ("claude-haiku-4-5-20251001", "active", None)
        assert (info.max_input_tokens, info.max_tokens) == (200_000, 64_000)
        assert (info.efforts, info.thinks, info.compacts) == (frozenset(), False, False)
        current = await claude.describe("claude-opus-4-6")
        assert current is not None
        assert current.efforts == {"low", "medium", "high", "max"}
        assert (current.thinks, current.compacts) == (True, True)

    with fake_claude() as api:
        talk(service(api.base_url), ask)


def test_a_description_is_asked_for_once_for_all_who_want_it() -> None:
    async def ask(claude: AnthropicClaude) -> None:
        found = await asyncio.gather(*(claude.describe("claude-opus-5-5") for _ in range(20)))
        assert len(set(found)) == 1
        assert found[0] is not None
        assert await claude.describe("claude-opus-5-5") == found[0]
        assert looked_up(api, "claude-opus-5-5") == 1

    with fake_claude() as api:
        talk(service(api.base_url), ask)


def test_an_old_description_is_told_at_once_and_asked_for_anew_behind() -> None:
    async def ask(claude: AnthropicClaude) -> None:
        first = await claude.describe("claude-opus-5-5")
        with pytest.raises(StopIteration) as told:  # what does not suspend returns at its first step
            claude.describe("claude-opus-5-5").send(None)
        assert told.value.value == first is not None
        await until(lambda: looked_up(api, "claude-opus-5-5") == 2)

    with fake_claude() as api:
        talk(service(api.base_url, refresh=0), ask)


def test_a_model_that_does_not_exist_has_no_description_and_is_not_asked_for_again() -> None:
    async def ask(claude: AnthropicClaude) -> None:
        assert await claude.describe("claude-none") is None
        assert await claude.describe("claude-none") is None
        await claude.describe("claude-opus-5-5")  # behind which another look-up would have come
        assert looked_up(api, "claude-none") == 1

    with fake_claude() as api:
        talk(service(api.base_url), ask)


def test_a_name_with_slashes_stays_one_name() -> None:
    async def run() -> None:
        async with answering(reply(404, {})) as (url, asked):
            claude = service(url)
            assert await claude.describe("../messages?x") is None
            await claude.close()
            assert asked[0].startswith(b"GET /v1/models/..%2Fmessages%3Fx HTTP/1.1")

    asyncio.run(run())


def test_without_a_key_nothing_is_described_or_counted() -> None:
    async def ask(claude: AnthropicClaude) -> None:
        assert await claude.describe("claude-opus-5-5") is None
        assert await claude.count_tokens(request()) is None
        assert looked_up(api, "claude-opus-5-5") == 0

    with fake_claude() as api:
        talk(service(api.base_url, key=" "), ask)


def test_an_api_that_is_silent_delays_the_first_who_asks_for_two_seconds_and_nobody_else() -> None:
    async def run() -> None:
        async with answering(None) as (url, asked):
            claude = service(url)
            await claude.warm_up()
            began = time.monotonic()
            assert await claude.describe("claude-opus-5-5") is None
            assert time.monotonic() - began < 4
            assert len(asked) == 1
            await claude.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    "answer",
    [reply(500, {}), reply(200, {"data": []}), reply(200, [1]), b"no HTTP\r\n\r\n", reply(200, {"retires_at": "soon"})],
)
def test_an_answer_that_describes_nothing_harms_nobody(answer: bytes) -> None:
    async def run() -> None:
        async with answering(answer) as (url, asked):
            claude = service(url)
            info = await claude.describe("claude-opus-5-5")
            assert info is None or (info.id, info.lifecycle) == ("claude-opus-5-5", "active")
            again = await claude.describe("claude-opus-5-5")
            assert again == info
            assert len(asked) == 1
            assert await claude.count_tokens(request()) is None
            await claude.close()

    asyncio.run(run())


def test_a_gateway_that_leaves_out_what_the_model_can_leaves_it_unknown() -> None:
    async def run() -> None:
        async with answering(reply(200, {"id": "mine", "object": "model", "owned_by": "us"})) as (url, _):
            claude = service(url)
            info = await claude.describe("mine")
            assert info == ModelInfo(
                id="mine", max_input_tokens=None, max_tokens=None, lifecycle="active", retires_at=None
            )
            await claude.close()

    asyncio.run(run())


# --- the default model ---


def lifecycle(stage: Any, retires_at: float | None) -> ModelInfo:  # noqa: ANN401  # of `ModelInfo.lifecycle`
    return ModelInfo(id="claude-x-1", max_input_tokens=1, max_tokens=1, lifecycle=stage, retires_at=retires_at)


@pytest.mark.parametrize(
    ("info", "warning"),
    [
        (lifecycle("active", None), None),
        (lifecycle("active", 100 * DAY), None),
        (lifecycle("active", 59 * DAY), "claude-x-1 is to be retired on 1970-03-01"),
        (lifecycle("deprecated", 300 * DAY), "claude-x-1 is deprecated, to be retired on 1970-10-28"),
        (lifecycle("deprecated", None), "claude-x-1 is deprecated, to be retired on a day that is not known yet"),
        (lifecycle("retired", -DAY), "claude-x-1 was retired on 1969-12-31: requests that name it fail"),
        (lifecycle("retired", None), "claude-x-1 was retired: requests that name it fail"),
    ],
)
def test_a_model_is_warned_of_before_and_after_its_end(info: ModelInfo, warning: str | None) -> None:
    assert warning_of("claude-x-1", info, 0.0) == warning
    assert warning is None or (warning_of("x", info, 0.0) or "").startswith("x (claude-x-1) ")


def test_the_default_model_is_warned_of_once_and_health_tells_its_end(caplog: pytest.LogCaptureFixture) -> None:
    async def ask(claude: AnthropicClaude) -> None:
        before = (await claude.health()).details
        assert (before["model"], before["model_lifecycle"]) == ("claude-sonnet-4-5", None)
        for _ in range(3):
            await claude.look_up_default_model()
        await claude.describe("claude-mythos-preview")
        health = await claude.health()
        assert health.status is HealthStatus.HEALTHY
        assert (health.details["model_lifecycle"], health.details["model_retires_at"]) == (
            "deprecated",
            datetime(2026, 11, 30, tzinfo=UTC).isoformat(timespec="milliseconds"),
        )

    with fake_claude() as api, caplog.at_level(logging.WARNING):
        talk(service(api.base_url, model="claude-sonnet-4-5", refresh=0), ask)
    (message,) = caplog.messages
    assert message == (
        "claude.default_model: claude-sonnet-4-5 (claude-sonnet-4-5-20250929) is deprecated, to be retired on "
        "2026-11-30; set another one"
    )


def test_a_retired_default_model_makes_claude_degraded(caplog: pytest.LogCaptureFixture) -> None:
    async def ask(claude: AnthropicClaude) -> None:
        await claude.look_up_default_model()
        assert (await claude.health()).status is HealthStatus.DEGRADED

    with fake_claude() as api:
        talk(service(api.base_url, model="claude-sonnet-4-20250514"), ask)
    assert "was retired on 2026-06-15" in caplog.text


def test_a_current_default_model_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with fake_claude() as api:
        talk(service(api.base_url), AnthropicClaude.look_up_default_model)
    assert caplog.messages == []


# --- effort, thinking, form ---


def test_effort_thinking_and_form_are_sent_where_nothing_is_known_of_the_model() -> None:
    schema = {"type": "object", "additionalProperties": False}

    async def ask(claude: AnthropicClaude) -> None:
        asked = request(effort="low", thinking=True, output_schema=schema)
        assert (await claude.create_message(asked)).message.text == "{}"
        (sent,) = api.requests()
        assert sent["body"]["output_config"] == {"effort": "low", "format": {"type": "json_schema", "schema": schema}}
        assert sent["body"]["thinking"] == {"type": "adaptive"}

    with fake_claude() as api:
        talk(service(api.base_url), ask)


def test_effort_and_thinking_that_the_model_is_known_not_to_have_are_left_out() -> None:
    async def ask(claude: AnthropicClaude) -> None:
        for model in ("claude-haiku-4-5", "claude-opus-4-6"):
            await claude.create_message(request(model, effort="xhigh", thinking=True))
        old, newer = (sent["body"] for sent in api.requests())
        assert not {"output_config", "thinking"} & old.keys()
        assert "output_config" not in newer
        assert newer["thinking"] == {"type": "adaptive"}

    with fake_claude() as api:
        talk(service(api.base_url), ask)


# --- count_tokens ---


def test_tokens_are_counted_as_the_request_has_them() -> None:
    async def ask(claude: AnthropicClaude) -> None:
        asked = request(text="x" * 300, effort="low", compact_at=60_000)
        answer = await claude.create_message(asked)
        assert await claude.count_tokens(asked) == answer.usage.prompt_tokens > 100

    with fake_claude() as api:
        talk(service(api.base_url), ask)


def test_tokens_that_nobody_counts_are_none() -> None:
    async def run() -> None:
        async with answering(None) as (url, _):
            claude = service(url)
            await claude.warm_up()
            began = time.monotonic()
            assert await claude.count_tokens(request()) is None
            assert time.monotonic() - began < 8
            await claude.close()

    asyncio.run(run())

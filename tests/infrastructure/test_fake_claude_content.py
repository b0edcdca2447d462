"""What the stand-in's answers consist of and where they end, asked by the real SDK, streaming and not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import anthropic
import pytest

from support.sdk import with_sdk
from tfo_mcp.infrastructure.fake_claude import SIMULATED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anthropic import AsyncAnthropic
    from anthropic.types import Message

    Ask = Callable[..., Awaitable[Message]]

Json = dict[str, Any]
HI: Json = {"role": "user", "content": "hi"}
PREFIX = len(SIMULATED) + 1


def request(**more: object) -> Any:  # noqa: ANN401  # the SDK's parameters
    return {"model": "claude-opus-5-5", "max_tokens": 200, "messages": [HI], **more}


async def whole(claude: AsyncAnthropic, **more: object) -> Message:
    return cast("Message", await claude.messages.create(**request(**more)))


async def streamed(claude: AsyncAnthropic, **more: object) -> Message:
    async with claude.messages.stream(**request(**more)) as stream:
        return await stream.get_final_message()


both = pytest.mark.parametrize("ask", [whole, streamed])


def text_of(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


@both
@pytest.mark.parametrize("most", [1, 5, 11, 12, 13, 16])
def test_max_tokens_cuts_the_text_at_three_bytes_a_token(ask: Ask, most: int) -> None:
    said = f"{SIMULATED} äöü ß"

    async def talk(claude: AsyncAnthropic) -> None:
        cut = await ask(claude, max_tokens=most)
        assert text_of(cut) == said.encode()[: most * 3].decode(errors="ignore")
        complete = len(said.encode()) <= most * 3
        assert cut.stop_reason == ("end_turn" if complete else "max_tokens")
        assert cut.usage.output_tokens == -(-len(text_of(cut).encode()) // 3)

    with_sdk("replies: [{text: äöü ß}]", talk)


@both
def test_max_tokens_leaves_out_what_comes_after_the_cut(ask: Ask) -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        cut = await ask(claude, max_tokens=11)
        assert [block.type for block in cut.content] == ["text"]
        assert cut.stop_reason == "max_tokens"

    with_sdk("replies: [{text: one, tool_use: [{name: echo}]}]", talk)


def test_a_tool_call_that_max_tokens_cuts_streams_half_an_input_and_has_none_in_a_whole_message() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        (call,) = (await streamed(claude, max_tokens=8)).content
        assert (call.type, cast("Any", call).input) == ("tool_use", {"a": "b"})
        cut = await whole(claude, max_tokens=8)
        assert [cast("Any", block).input for block in cut.content] == [{}]
        assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 8)

    calls = "{name: echo, input: {a: b, message: abcdefghijklmnop}}, {name: echo}"
    with_sdk(f"replies: [{{tool_use: [{calls}], times: 2}}]", talk)


@both
def test_a_stop_sequence_ends_the_text_before_it_and_is_told(ask: Ask) -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        stopped = await ask(claude, stop_sequences=["never", "THREE", "TWO", "No"])
        assert text_of(stopped) == f"{SIMULATED} one "
        assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "TWO")
        assert [block.type for block in stopped.content] == ["text"]

    with_sdk("replies: [{text: one TWO THREE, tool_use: [{name: echo}]}]", talk)


@both
@pytest.mark.parametrize(
    ("reason", "details"),
    [
        ("refusal", {"type": "refusal", "category": None, "explanation": None}),
        ("pause_turn", None),
        ("model_context_window_exceeded", None),
        ("stop_sequence", None),
        ("max_tokens", None),
    ],
)
def test_any_end_can_be_scripted_with_or_without_a_text(ask: Ask, reason: str, details: Json | None) -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        for text in (f"{SIMULATED} Half.", ""):
            ended = await ask(claude, stop_sequences=["§"])
            assert (ended.stop_reason, text_of(ended)) == (reason, text)
            assert (ended.stop_details and ended.stop_details.to_dict()) == details
            assert ended.stop_sequence == ("§" if reason == "stop_sequence" else None)

    with_sdk(f"replies: [{{text: Half., stop_reason: {reason}}}, {{stop_reason: {reason}}}]", talk)


@both
def test_a_prompt_that_leaves_too_little_of_the_window_ends_the_answer_there(ask: Ask) -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        overhead = len('{"type":"text","text":""}')
        full = {"role": "user", "content": "x" * (199_980 * 3 - overhead)}
        ended = await ask(claude, model="claude-haiku-4-5", messages=[full], max_tokens=8000)
        assert (ended.stop_reason, ended.usage.output_tokens) == ("model_context_window_exceeded", 20)
        too_long = {"role": "user", "content": "x" * (200_001 * 3)}
        with pytest.raises(anthropic.BadRequestError, match="prompt is too long: 200010 tokens > 200000 maximum"):
            await ask(claude, model="claude-haiku-4-5", messages=[too_long])
        counted = await claude.messages.count_tokens(model="claude-haiku-4-5", messages=cast("Any", [too_long]))
        assert counted.input_tokens == 200_010

    with_sdk(f"replies: [{{text: {'a' * 100}}}]", talk)


@both
def test_thinking_comes_first_is_signed_and_counts_as_output(ask: Ask) -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        answer = await ask(claude)
        thought, call = answer.content[0], answer.content[-1]
        assert [block.type for block in answer.content] == ["thinking", "text", "tool_use"]
        assert thought.type == "thinking"
        assert thought.thinking == "You said hi, so I echo."
        assert answer.usage.output_tokens_details is not None
        assert answer.usage.output_tokens_details.thinking_tokens == 8
        assert call.type == "tool_use"
        result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "hi"}]}
        said: list[Json] = [HI, {"role": "assistant", "content": [block.to_dict() for block in answer.content]}, result]
        assert (await ask(claude, messages=said)).stop_reason == "end_turn"
        said[1]["content"][0]["thinking"] = "You said ho."
        with pytest.raises(anthropic.BadRequestError, match="Invalid `signature` in `thinking` block"):
            await ask(claude, messages=said)

    reply = "{thinking: 'You said {last_user_text}, so I echo.', text: Wait., tool_use: [{name: echo}]}"
    with_sdk(f"replies: [{reply}]", talk)


@both
def test_thinking_that_is_not_to_be_shown_comes_as_its_signature_which_is_accepted_back(ask: Ask) -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        answer = await ask(claude, thinking={"type": "adaptive", "display": "omitted"})
        thought = answer.content[0]
        assert thought.type == "thinking"
        assert (thought.thinking, thought.signature != "") == ("", True)
        said = [HI, {"role": "assistant", "content": [block.to_dict() for block in answer.content]}, HI]
        await ask(claude, messages=said)

    with_sdk("replies: [{thinking: 'Long thoughts.', text: Short.}]", talk)


def test_the_events_of_a_stream_are_those_of_the_api_in_its_order() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        stream = await cast("Any", claude.messages).create(**request(stream=True))
        events = [event.to_dict() async for event in stream]
        assert [event["type"] for event in events] == [
            "message_start",
            "content_block_start",
            *["content_block_delta"] * 2,
            "content_block_stop",
            "content_block_start",
            *["content_block_delta"] * 6,
            "content_block_stop",
            "content_block_start",
            *["content_block_delta"] * 3,
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
        assert events[0]["message"] == {
            "id": events[0]["message"]["id"],
            "type": "message",
            "role": "assistant",
            "model": "claude-opus-5-5",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "stop_details": None,
            "usage": {
                "input_tokens": 9,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
                "output_tokens": 1,
                "service_tier": "standard",
            },
        }
        assert [event["content_block"] for event in events if event["type"] == "content_block_start"][:2] == [
            {"type": "thinking", "thinking": "", "signature": ""},
            {"type": "text", "text": ""},
        ]
        assert [event["index"] for event in events if event["type"] == "content_block_stop"] == [0, 1, 2]
        assert [event["delta"]["type"] for event in events[2:4]] == ["thinking_delta", "signature_delta"]
        assert events[-2] == {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None, "stop_details": None},
            "usage": {
                "input_tokens": 9,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": 16,
                "output_tokens_details": {"thinking_tokens": 1},
            },
        }

    with_sdk("replies: [{thinking: Hm., text: Wait., tool_use: [{name: echo}]}]", talk)

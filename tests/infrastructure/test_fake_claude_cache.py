"""The stand-in's prompt cache, asked by the real SDK. A token is three bytes of a block's compact JSON."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import anthropic
import httpx2
import pytest

from support.sdk import with_sdk
from tfo_mcp.infrastructure.fake_claude.cache import LOOKBACK, PromptCache
from tfo_mcp.infrastructure.fake_claude.clock import Clock
from tfo_mcp.infrastructure.fake_claude.models import find_model
from tfo_mcp.infrastructure.fake_claude.prefix import prefix_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anthropic import AsyncAnthropic
    from anthropic.types import Usage

MODEL = "claude-opus-5-5"
MINIMUM = 512
MARK = {"type": "ephemeral"}
LONG = {"type": "ephemeral", "ttl": "1h"}
OVERHEAD = len('{"type":"text","text":""}')

Json = dict[str, Any]


def text(tokens: int, said: str = "a", mark: Json | None = None) -> Json:
    """A text block of exactly so many tokens."""
    block = {"type": "text", "text": said.ljust(tokens * 3 - OVERHEAD, "x")}
    return block if mark is None else {**block, "cache_control": mark}


def user(*blocks: Json) -> Json:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: Json) -> Json:
    return {"role": "assistant", "content": list(blocks)}


def tool(name: str = "echo") -> Json:
    return {"name": name, "input_schema": {"type": "object"}, "description": "d" * 2000}


async def usage(claude: AsyncAnthropic, *messages: Json, **more: Any) -> Usage:  # noqa: ANN401  # the SDK's parameters
    create = cast("Any", claude.messages.create)
    return (await create(**{"model": MODEL, "max_tokens": 100, "messages": list(messages), **more})).usage


async def counts(claude: AsyncAnthropic, *messages: Json, **more: Any) -> tuple[int, int, int]:  # noqa: ANN401  # as above
    """Read, written, after the last breakpoint."""
    used = await usage(claude, *messages, **more)
    return used.cache_read_input_tokens or 0, used.cache_creation_input_tokens or 0, used.input_tokens


async def control(claude: AsyncAnthropic, method: str, path: str, body: Json | None = None) -> httpx2.Response:
    async with httpx2.AsyncClient(base_url=str(claude.base_url)) as client:
        return await client.request(method, path, json=body)


async def advance(claude: AsyncAnthropic, seconds: float) -> None:
    assert (await control(claude, "POST", "/__clock", {"advance": seconds})).status_code == 204


# --- reads and writes ---


def test_without_a_mark_nothing_is_cached() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        for _ in range(2):
            assert await counts(claude, user(text(600))) == (0, 0, 600)

    with_sdk("", talk)


def test_a_growing_conversation_reads_what_it_wrote_before_and_writes_only_what_is_new() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        history = [user(text(600))]
        assert await counts(claude, *history, cache_control=MARK) == (0, 600, 0)
        history += [assistant(text(100)), user(text(50))]
        assert await counts(claude, *history, cache_control=MARK) == (600, 150, 0)
        history += [assistant(text(100)), user(text(50))]
        assert await counts(claude, *history, cache_control=MARK) == (750, 150, 0)
        assert await counts(claude, *history, cache_control=MARK) == (900, 0, 0)

    with_sdk("", talk)


def test_what_comes_after_the_last_mark_is_input_and_the_three_counts_add_up_to_count_tokens() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        system = [text(601, mark=MARK)]
        assert await counts(claude, user(text(57)), system=system) == (0, 601, 57)
        assert await counts(claude, user(text(31, "other")), system=system, tools=[]) == (601, 0, 31)
        counted = await claude.messages.count_tokens(
            model=MODEL, messages=cast("Any", [user(text(31, "other"))]), system=cast("Any", system)
        )
        assert counted.input_tokens == 632

    with_sdk("", talk)


def test_the_stream_tells_the_same_usage_as_the_whole_message() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        request = cast("Any", {"system": [text(600, mark=LONG), text(60, mark=MARK)], "messages": [user(text(20))]})
        for read, long, short in [(0, 600, 60), (660, 0, 0)]:
            async with claude.messages.stream(model=MODEL, max_tokens=100, **request) as events:
                used = (await events.get_final_message()).usage
            assert (used.cache_read_input_tokens, used.cache_creation_input_tokens) == (read, long + short)
            assert (used.input_tokens, used.output_tokens > 1) == (20, True)
            assert used.cache_creation is not None
            assert used.cache_creation.ephemeral_1h_input_tokens == long
            assert used.cache_creation.ephemeral_5m_input_tokens == short

    with_sdk("", talk)


@pytest.mark.parametrize(
    ("model", "minimum"),
    [
        ("claude-opus-5-5", 512),
        ("claude-haiku-5-5", 512),
        ("claude-sonnet-5", 1024),
        ("claude-opus-4-7", 2048),
        ("claude-haiku-4-5", 4096),
    ],
)
def test_a_prefix_below_the_models_least_length_is_not_cached_and_no_error(model: str, minimum: int) -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        short, long = user(text(minimum - 1)), user(text(minimum))
        for _ in range(2):
            assert await counts(claude, short, model=model, cache_control=MARK) == (0, 0, minimum - 1)
        assert await counts(claude, long, model=model, cache_control=MARK) == (0, minimum, 0)
        assert await counts(claude, long, model=model, cache_control=MARK) == (minimum, 0, 0)

    with_sdk("", talk)


def test_the_length_is_that_of_the_whole_prefix_not_of_the_marked_block() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        assert await counts(claude, user(text(20)), system=[text(MINIMUM), text(10, mark=MARK)]) == (0, 522, 20)

    with_sdk("", talk)


# --- what invalidates what ---


def test_a_changed_byte_misses_from_there_on() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        system = [text(600, "a", MARK), text(600, "b", MARK)]
        assert await counts(claude, user(text(20)), system=system) == (0, 1200, 20)
        late = [text(600, "a", MARK), text(600, "c", MARK)]
        assert await counts(claude, user(text(20)), system=late) == (600, 600, 20)
        early = [text(600, "d", MARK), text(600, "b", MARK)]
        assert await counts(claude, user(text(20)), system=early) == (0, 1200, 20)

    with_sdk("", talk)


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({}, "messages"),
        ({"tools": [tool("echo2")]}, "nothing"),
        ({"tools": [tool(), tool("second")]}, "tools"),
        ({"model": "claude-opus-5"}, "nothing"),
        ({"system": [text(600, "other", MARK)]}, "tools"),
        ({"speed": "fast"}, "tools"),
        ({"tool_choice": {"type": "any"}}, "system"),
        ({"thinking": {"type": "adaptive"}}, "system"),
        ({"output_config": {"effort": "high"}}, "system"),
        ({"output_config": {"effort": "medium"}}, "messages"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {}}}}, "messages"),
        ({"metadata": {"user_id": "u"}, "service_tier": "auto", "stop_sequences": ["§"]}, "messages"),
        ({"max_tokens": 7}, "messages"),
    ],
)
def test_a_change_invalidates_its_level_and_those_after_it(change: Json, kept: str) -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        marked = {**tool(), "cache_control": MARK}
        request = {"tools": [marked], "system": [text(600, mark=MARK)], "cache_control": MARK}
        only_tools = cast("Any", {"model": MODEL, "messages": [user(text(9))], "tools": [tool()]})
        tools = (await claude.messages.count_tokens(**only_tools)).input_tokens - 9
        await counts(claude, user(text(90)), **request)
        if "tools" in change:
            change["tools"] = [{**one, "cache_control": MARK} for one in change["tools"]]
        read, _, rest = await counts(claude, user(text(90)), **{**request, **change})
        assert read == {"nothing": 0, "tools": tools, "system": tools + 600, "messages": tools + 690}[kept]
        assert rest == 0

    with_sdk("", talk)


def test_an_image_anywhere_invalidates_the_messages_only() -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://example.com/"}}

    async def talk(claude: AsyncAnthropic) -> None:
        request = {"system": [text(600, mark=MARK)], "cache_control": MARK}
        await counts(claude, user(text(90)), **request)
        read, written, _ = await counts(claude, user(text(90)), assistant(text(20)), user(image), **request)
        assert (read, written > 110) == (600, True)

    with_sdk("", talk)


def test_a_system_message_within_the_conversation_keeps_what_stands_before_it() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        await counts(claude, user(text(600)), cache_control=MARK)
        said = {"role": "system", "content": [text(20)]}
        assert await counts(claude, user(text(600)), said, cache_control=MARK) == (600, 20, 0)

    with_sdk("", talk)


def test_a_string_is_a_text_block_and_neighbours_of_one_role_are_one_message() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        block = text(600)
        await counts(claude, user(block), user(text(30)), cache_control=MARK)
        assert await counts(claude, {"role": "user", "content": block["text"]}, user(text(30)), cache_control=MARK) == (
            630,
            0,
            0,
        )
        assert await counts(claude, user(block, text(30)), cache_control=MARK) == (630, 0, 0)

    with_sdk("", talk)


def test_moving_a_mark_changes_nothing_that_is_compared() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        await counts(claude, user(text(600, mark=MARK), text(30)))
        assert await counts(claude, user(text(600), text(30, mark=MARK))) == (600, 30, 0)
        result = {"type": "tool_result", "tool_use_id": "t", "content": [text(30, mark=MARK)]}
        call = {"type": "tool_use", "id": "t", "name": "echo", "input": {"cache_control": 1}}
        read, written, rest = await counts(claude, user(text(600), text(30)), assistant(call), user(result))
        assert (read, written > 30, rest) == (630, True, 0)

    with_sdk("", talk)


# --- lookback ---


def test_an_entry_nineteen_blocks_before_the_mark_is_found_and_one_twenty_before_is_not() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        def grown(by: int) -> Json:
            return user(text(600), *(text(20) for _ in range(by - 1)), text(20, mark=MARK))

        await counts(claude, user(text(600, mark=MARK)))
        assert await counts(claude, grown(LOOKBACK)) == (0, 1000, 0)
        await control(claude, "DELETE", "/__cache")
        await counts(claude, user(text(600, mark=MARK)))
        assert await counts(claude, grown(LOOKBACK - 1)) == (600, 380, 0)

    with_sdk("", talk)


def test_a_second_mark_begins_a_second_window() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        await counts(claude, user(text(600, mark=MARK)))
        far = user(text(600, mark=MARK), *(text(20) for _ in range(29)), text(20, mark=MARK))
        assert await counts(claude, far) == (600, 600, 0)

    with_sdk("", talk)


def test_many_parallel_tool_calls_are_two_positions() -> None:
    calls: list[Json] = [{"type": "tool_use", "id": f"t{n:02}", "name": "echo", "input": {}} for n in range(15)]
    results = [{"type": "tool_result", "tool_use_id": f"t{n:02}", "content": "done"} for n in range(15)]

    async def talk(claude: AsyncAnthropic) -> None:
        await counts(claude, user(text(600)), cache_control=MARK)
        read, _, rest = await counts(
            claude, user(text(600)), assistant(*calls), user(*results), cache_control=MARK, tools=[]
        )
        assert (read, rest) == (600, 0)

    with_sdk("", talk)


# --- time, accounts, size ---


def test_an_entry_lives_five_minutes_from_the_request_that_last_used_it() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        assert await counts(claude, user(text(600)), cache_control=MARK) == (0, 600, 0)
        for _ in range(3):
            await advance(claude, 290)
            assert await counts(claude, user(text(600)), cache_control=MARK) == (600, 0, 0)
        await advance(claude, 301)
        assert await counts(claude, user(text(600)), cache_control=MARK) == (0, 600, 0)

    with_sdk("", talk)


def test_an_entry_with_ttl_1h_lives_an_hour_and_is_told_apart() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        system = [text(600, mark=LONG), text(70, mark=MARK)]
        used = await usage(claude, user(text(20)), system=system)
        assert used.cache_creation is not None
        assert used.cache_creation.to_dict() == {"ephemeral_1h_input_tokens": 600, "ephemeral_5m_input_tokens": 70}
        await advance(claude, 301)
        used = await usage(claude, user(text(20)), system=system)
        assert used.cache_creation is not None
        assert used.cache_read_input_tokens == 600
        assert used.cache_creation.to_dict() == {"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": 70}
        await advance(claude, 3601)
        assert await counts(claude, user(text(20)), system=system) == (0, 670, 20)

    with_sdk("", talk)


def test_reading_refreshes_the_marked_prefixes_within_what_is_read() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        system = [text(600, mark=MARK)]
        await counts(claude, user(text(20)), system=system, cache_control=MARK)
        await advance(claude, 290)
        await counts(claude, user(text(20)), system=system, cache_control=MARK)
        await advance(claude, 290)
        assert await counts(claude, user(text(21)), system=system, cache_control=MARK) == (600, 21, 0)

    with_sdk("", talk)


def test_accounts_do_not_share_a_cache_and_emptying_it_forgets() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        other = claude.with_options(api_key="another")
        assert await counts(claude, user(text(600)), cache_control=MARK) == (0, 600, 0)
        assert await counts(other, user(text(600)), cache_control=MARK) == (0, 600, 0)
        assert await counts(claude, user(text(600)), cache_control=MARK) == (600, 0, 0)
        assert (await control(claude, "DELETE", "/__cache")).status_code == 204
        assert await counts(claude, user(text(600)), cache_control=MARK) == (0, 600, 0)

    with_sdk("", talk)


def test_the_cache_keeps_the_most_recently_used_entries_up_to_its_bound() -> None:
    model = find_model(MODEL)
    assert model is not None
    cache = PromptCache(Clock(), max_entries=2)

    def reads(said: str) -> bool:
        use = cache.look_up("key", prefix_of({"cache_control": MARK, "messages": [user(text(600, said))]}, model))
        cache.commit(use)
        return use.read > 0

    assert [reads(said) for said in ("a", "b", "a", "c", "a", "b")] == [False, False, True, False, True, False]


def test_an_entry_can_be_read_when_the_first_answer_begins_and_not_before() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        first = asyncio.create_task(usage(claude, user(text(600, "slow")), cache_control=MARK))
        while [one["status"] for one in (await control(claude, "GET", "/__requests")).json()] != [200]:
            pass
        assert await counts(claude, user(text(600, "slow"), text(20)), cache_control=MARK) == (0, 620, 0)
        first.cancel()

    with_sdk("replies: [{text: late, delay: 3600}]", talk)


def test_a_refused_request_writes_nothing() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        with pytest.raises(anthropic.OverloadedError):
            await usage(claude, user(text(600)), cache_control=MARK)
        assert await counts(claude, user(text(600)), cache_control=MARK) == (0, 600, 0)

    with_sdk("replies: [{status: 529}]", talk)


def test_max_tokens_0_fills_the_cache_and_answers_nothing() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        create = cast("Any", claude.messages.create)
        system = [text(600, mark=MARK)]
        warm = await create(model=MODEL, max_tokens=0, system=system, messages=[user(text(9, "warm"))])
        assert (warm.content, warm.stop_reason, warm.usage.output_tokens) == ([], "max_tokens", 0)
        assert warm.usage.cache_creation_input_tokens == 600
        assert await counts(claude, user(text(20)), system=system) == (600, 0, 20)

    with_sdk("", talk)


# --- refused marks ---


@pytest.mark.parametrize(
    ("request_fields", "problem"),
    [
        (
            {"system": [text(9, str(n), MARK) for n in range(5)]},
            "A maximum of 4 blocks with cache_control may be provided. Found 5.",
        ),
        ({"system": [text(9, str(n), MARK) for n in range(4)], "cache_control": MARK}, "Found 5."),
        ({"system": [text(9, mark=MARK)], "cache_control": LONG}, "a ttl='1h' cache_control block must not come after"),
        ({"cache_control": {"type": "lasting"}}, "cache_control.type: Input should be 'ephemeral'"),
        ({"cache_control": {"type": "ephemeral", "ttl": "2h"}}, "cache_control.ttl: Input should be '5m' or '1h'"),
        ({"cache_control": {"type": "ephemeral", "scope": 1}}, "cache_control.scope: Extra inputs are not permitted"),
        ({"tools": [{**tool(), "cache_control": 1}]}, "tools.0.cache_control: Input should be a valid dictionary"),
        (
            {"messages": [user(text(9, mark=LONG))], "cache_control": MARK},
            "the last block has a cache_control with another ttl",
        ),
        ({"stream": True, "max_tokens": 0}, "max_tokens: 0 cannot be combined with stream"),
    ],
)
def test_marks_that_the_api_refuses_are_refused(request_fields: Json, problem: str) -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        with pytest.raises(anthropic.BadRequestError) as refused:
            await usage(claude, *request_fields.pop("messages", [user(text(9))]), **request_fields)
        assert problem in (refused.value.api_message or "")

    with_sdk("", talk)


def test_the_top_levels_mark_on_a_block_that_has_the_same_is_no_fifth() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        marked: Sequence[Json] = [text(600, "a", MARK), text(9, "b", MARK), text(9, "c", MARK)]
        assert await counts(claude, user(text(9, mark=MARK)), system=marked, cache_control=MARK) == (0, 627, 0)

    with_sdk("", talk)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"advance": -1}', b'{"advance": 1, "to": 2}', b'{"advance": "\xff"}'])
def test_the_clock_is_put_forward_by_seconds_only(body: bytes) -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        async with httpx2.AsyncClient(base_url=str(claude.base_url)) as client:
            assert (await client.post("/__clock", content=body)).status_code == 400

    with_sdk("", talk)

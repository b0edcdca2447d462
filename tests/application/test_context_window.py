"""When a long conversation is compacted, with the real SDK against the stand-in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from support.claude import FakeClaude, fake_claude
from tfo_mcp.application.context_window import ContextWindow
from tfo_mcp.application.ports import ClaudeRequest, ClaudeResponse
from tfo_mcp.domain.message import Message, OpaqueBlock, Text, ToolAnswer, ToolUse, block_from_json
from tfo_mcp.domain.transcript import Transcript
from tfo_mcp.infrastructure.claude import AnthropicClaude

DEADLINE = 60.0
SMALL_MODEL = "claude-haiku-4-5"  # 200,000 tokens, no compaction
LARGE_MODEL = "claude-opus-5-5"  # 1,000,000 tokens
COUNT = "/v1/messages/count_tokens"


def said(tokens: int) -> Message:
    return Message("user", (Text("x" * (3 * tokens)),))


def request(*messages: Message, model: str = LARGE_MODEL, **more: Any) -> ClaudeRequest:  # noqa: ANN401  # its other fields
    return ClaudeRequest(model=model, max_tokens=100, system=None, transcript=Transcript(messages), tools=(), **more)


def with_claude(scenario: Callable[[AnthropicClaude, FakeClaude], Awaitable[None]], script: str = "") -> None:
    async def run(api: FakeClaude) -> None:
        claude = AnthropicClaude(
            api_key="key",
            base_url=api.base_url,
            timeout=DEADLINE,
            max_retries=0,
            default_model=LARGE_MODEL,
            model_refresh=3600,
            tracer_provider=lambda: None,
        )
        try:
            await claude.warm_up()  # the import may take longer than what is looked up may
            await asyncio.wait_for(scenario(claude, api), DEADLINE)
        finally:
            await claude.close()

    with fake_claude(script) as api:
        asyncio.run(run(api))


def types_of(response: ClaudeResponse) -> list[str]:
    return [block.to_json()["type"] for block in response.message.content]


# --- the decision ---


def test_a_small_conversation_is_decided_without_asking_anybody() -> None:
    window = ContextWindow(AnthropicClaude(
        api_key="key", base_url="http://127.0.0.1:9", timeout=1, max_retries=0, default_model=LARGE_MODEL,
        model_refresh=3600, tracer_provider=lambda: None,
    ), 0.8)  # fmt: skip
    deciding = window.compact_at(request(said(10)), 24_000)

    with pytest.raises(StopIteration) as decided:  # what does not suspend returns at its first step
        deciding.send(None)
    assert decided.value.value is None


@pytest.mark.parametrize(
    ("known", "tokens", "limit", "counts"),
    [
        (600_000, 10, None, 0),
        (700_000, 10, None, 1),
        (790_000, 10, None, 1),
        (800_000, 10, 800_000, 0),
        (700_000, 800_001, 800_000, 1),
    ],
)
def test_tokens_are_counted_only_where_the_limit_may_be_near(
    known: int, tokens: int, limit: int | None, counts: int
) -> None:
    async def scenario(claude: AnthropicClaude, api: FakeClaude) -> None:
        assert await ContextWindow(claude, 0.8).compact_at(request(said(tokens)), known) == limit
        assert len(api.requests(COUNT)) == counts
        assert len(api.requests(f"/v1/models/{LARGE_MODEL}")) == 1

    with_claude(scenario)


def test_the_limit_is_the_share_of_what_the_model_takes_and_of_200_000_where_that_is_unknown() -> None:
    async def scenario(claude: AnthropicClaude, _: FakeClaude) -> None:
        for model, share, limit in [
            (LARGE_MODEL, 0.5, 500_000),
            ("claude-opus-4-5", 0.5, 100_000),
            ("claude-not-known", 0.8, 160_000),
        ]:
            assert await ContextWindow(claude, share).compact_at(request(said(1), model=model), 900_000) == limit

    with_claude(scenario)


def test_a_conversation_that_was_compacted_stays_so_however_short_it_is() -> None:
    async def scenario(claude: AnthropicClaude, _: FakeClaude) -> None:
        summary = Message("assistant", (OpaqueBlock({"type": "compaction", "content": "So far."}), Text("Yes")))
        asked = request(said(10), summary, said(10))
        assert await ContextWindow(claude, 0.8).compact_at(asked, 30) == 800_000

    with_claude(scenario)


# --- what comes of it ---


def test_a_compacted_conversation_goes_on_with_exact_usage_and_its_whole_history() -> None:
    async def scenario(claude: AnthropicClaude, api: FakeClaude) -> None:
        window = ContextWindow(claude, 0.06)
        history = [Message("user", (Text("The first word is plum."),)), Message("assistant", (Text("Noted"),))]
        history.append(said(61_000))
        asked = request(*history)
        asked = replace(asked, compact_at=await window.compact_at(asked, 61_000))
        whole = await claude.count_tokens(asked)
        compacted = await claude.create_message(asked)
        assert types_of(compacted) == ["compaction", "text"]
        assert whole is not None
        assert whole > 61_000
        left = await claude.count_tokens(request(*history, compacted.message, said(10)))
        assert left is not None
        assert whole < compacted.usage.prompt_tokens < whole + left < whole + 300
        assert compacted.usage.output_tokens > len("[simulated]") // 3
        assert compacted.message.usage == compacted.usage

        # As storage keeps it, and gives it back.
        history += [_stored(compacted.message), said(10)]
        asked = request(*history)
        limit = await window.compact_at(asked, compacted.usage.prompt_tokens)
        assert limit == 60_000
        next_answer = await claude.create_message(replace(asked, compact_at=limit))
        assert types_of(next_answer) == ["text"]
        assert next_answer.usage.prompt_tokens == left
        without_limit = await claude.create_message(asked)
        assert without_limit.usage.prompt_tokens == left
        first = [sent["body"]["messages"][0]["content"][0]["text"] for sent in api.requests()]
        assert first == ["The first word is plum."] * 3

        history += [next_answer.message, said(61_000)]
        again = await claude.create_message(replace(request(*history), compact_at=limit))
        assert types_of(again) == ["compaction", "text"]

    with_claude(scenario)


def _stored(message: Message) -> Message:
    return replace(message, content=tuple(block_from_json(block.to_json()) for block in message.content))


def test_what_a_compaction_takes_is_told_while_it_arrives_too() -> None:
    counted: list[Any] = []

    class Listener:
        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *values: counted.append(values[0]) if name == "counted" else None

    async def scenario(claude: AnthropicClaude, _: FakeClaude) -> None:
        listener: Any = Listener()
        answer = await claude.create_message(request(said(60_000), compact_at=50_000), listener)
        assert counted[-1] == answer.usage

    with_claude(scenario)


def test_a_limit_below_what_the_api_takes_is_raised_to_it() -> None:
    async def scenario(claude: AnthropicClaude, _: FakeClaude) -> None:
        assert types_of(await claude.create_message(request(said(49_000), compact_at=100))) == ["text"]
        assert types_of(await claude.create_message(request(said(51_000), compact_at=100))) == ["compaction", "text"]

    with_claude(scenario)


def test_of_a_model_without_compaction_old_tool_results_are_emptied_again_in_each_request() -> None:
    async def scenario(claude: AnthropicClaude, api: FakeClaude) -> None:
        window = ContextWindow(claude, 0.5)
        history = [Message("user", (Text("go"),))]
        for number in range(8):
            history.append(Message("assistant", (ToolUse(f"t{number}", "look", {}),)))
            history.append(Message("user", (ToolAnswer(f"t{number}", "y" * 45_000),)))
        known = 120_000
        for _ in range(2):
            asked = request(*history, model=SMALL_MODEL)
            limit = await window.compact_at(asked, known)
            assert limit == 100_000
            answer = await claude.create_message(replace(asked, compact_at=limit))
            known = answer.usage.prompt_tokens + answer.usage.output_tokens
            assert known < 50_000
            history += [answer.message, Message("user", (Text("and now?"),))]
        assert await window.compact_at(request(*history, model=SMALL_MODEL), 100) == 100_000
        assert api.requests(COUNT) == []
        edits = [sent["body"]["context_management"]["edits"] for sent in api.requests()]
        assert (
            edits == [[{"type": "clear_tool_uses_20250919", "trigger": {"type": "input_tokens", "value": 100_000}}]] * 2
        )

    with_claude(scenario)


def test_a_conversation_without_summaries_or_limit_uses_no_beta() -> None:
    async def scenario(claude: AnthropicClaude, api: FakeClaude) -> None:
        await claude.create_message(request(said(10)))
        await claude.create_message(request(said(10), compact_at=60_000))
        plain, limited = api.requests()
        assert "anthropic-beta" not in plain["headers"]
        assert "context_management" not in plain["body"]
        assert limited["headers"]["anthropic-beta"] == "compact-2026-01-12"

    with_claude(scenario)

"""Compaction and context editing, as the real SDK's beta messages see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anthropic
import pytest

from support.sdk import with_sdk
from tfo_mcp.infrastructure.fake_claude.editing import CLEARED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anthropic import AsyncAnthropic
    from anthropic.types.beta import BetaMessage

COMPACTION = "compact-2026-01-12"
EDITING = "context-management-2025-06-27"
MODEL = "claude-test-1"
LONG = "x" * 180_000  # 60,000 tokens


def compact(trigger: int = 50_000) -> dict[str, Any]:
    return {"type": "compact_20260112", "trigger": {"type": "input_tokens", "value": trigger}}


def clear(**parameters: Any) -> dict[str, Any]:  # noqa: ANN401  # an edit's parameters
    return {"type": "clear_tool_uses_20250919", **parameters}


def user(content: object) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(*blocks: Any) -> dict[str, Any]:  # noqa: ANN401  # blocks as the SDK gives them, or as JSON
    return {
        "role": "assistant",
        "content": [block if isinstance(block, dict) else block.to_dict(mode="json") for block in blocks],
    }


def called(count: int, result: str) -> list[dict[str, Any]]:
    """A question, then `count` calls of `echo`, each with `result`."""
    messages = [user("go")]
    for number in range(count):
        messages.append(assistant({"type": "tool_use", "id": f"t{number}", "name": "echo", "input": {}}))
        messages.append(user([{"type": "tool_result", "tool_use_id": f"t{number}", "content": result}]))
    return messages


async def ask(
    claude: AsyncAnthropic,
    messages: Sequence[Any],
    *edits: dict[str, Any],
    betas: Sequence[str] = (COMPACTION, EDITING),
    model: str = MODEL,
    **more: Any,  # noqa: ANN401  # the request's other fields
) -> BetaMessage:
    """Stream one answer."""
    untyped: Any = claude.beta.messages
    management = {"context_management": {"edits": list(edits)}} if edits else {}
    request = {"model": model, "max_tokens": 100, "messages": messages, "betas": list(betas), **management, **more}
    async with untyped.stream(**request) as stream:
        return await stream.get_final_message()


async def count(claude: AsyncAnthropic, messages: Sequence[Any], *edits: dict[str, Any]) -> Any:  # noqa: ANN401  # untyped too
    untyped: Any = claude.beta.messages
    management = {"context_management": {"edits": list(edits)}} if edits else {}
    return await untyped.count_tokens(model=MODEL, messages=messages, betas=[COMPACTION, EDITING], **management)


def prompt(usage: Any) -> int:  # noqa: ANN401  # of a message or of an iteration
    return usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens


def test_a_prompt_below_the_trigger_is_not_compacted() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        answer = await ask(claude, [user("short")], compact())
        assert [block.type for block in answer.content] == ["text"]
        assert answer.usage.iterations is None

    with_sdk("", talk)


def test_a_compacted_answer_begins_with_the_summary_and_tells_the_tokens_of_both_samplings() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        answer = await ask(claude, [user(LONG)], compact(), cache_control={"type": "ephemeral"})
        assert [block.type for block in answer.content] == ["compaction", "text"]
        assert answer.content[0].type == "compaction"
        assert answer.content[0].content == "[simulated] No model was asked. The summary of 1 message."
        summing_up, answering = answer.usage.iterations or []
        assert (summing_up.type, answering.type) == ("compaction", "message")
        assert prompt(summing_up) == (await count(claude, [user(LONG)])).input_tokens
        assert prompt(summing_up) > 60_000
        assert prompt(answering) == prompt(answer.usage) < 100
        assert answering.output_tokens == answer.usage.output_tokens
        assert summing_up.output_tokens == -(-len(answer.content[0].content) // 3)

    with_sdk("", talk)


def test_what_stands_before_the_last_summary_counts_no_more() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        first = await ask(claude, [user(LONG)], compact())
        history = [user(LONG), assistant(*first.content), user("and now?")]
        after = await ask(claude, history, compact())
        assert [block.type for block in after.content] == ["text"]
        assert prompt(after.usage) < 200
        assert (await count(claude, history)).input_tokens == prompt(after.usage)
        assert prompt((await ask(claude, history)).usage) == prompt(after.usage)
        again = await ask(claude, [*history, assistant(*after.content), user(LONG)], compact())
        assert [block.type for block in again.content] == ["compaction", "text"]

    with_sdk("", talk)


def test_a_summary_that_failed_hides_nothing() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        failed = assistant({"type": "compaction", "content": None}, {"type": "text", "text": "hm"})
        assert (await count(claude, [user(LONG), failed, user("and now?")])).input_tokens > 60_000

    with_sdk("", talk)


def test_old_tool_results_are_cleared_from_the_trigger_on_and_the_last_ones_kept() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        edit = clear(trigger={"type": "input_tokens", "value": 10_000}, keep={"type": "tool_uses", "value": 1})
        history = called(3, "y" * 12_000)
        whole, cleared = await count(claude, history), await count(claude, history, edit)
        assert whole.context_management is None
        assert cleared.context_management.original_input_tokens == whole.input_tokens > 12_000
        answer = await ask(claude, history, edit)
        assert prompt(answer.usage) == cleared.input_tokens
        assert answer.context_management is not None
        (applied,) = answer.context_management.applied_edits
        assert applied.to_dict() == {
            "type": "clear_tool_uses_20250919",
            "cleared_tool_uses": 2,
            "cleared_input_tokens": whole.input_tokens - cleared.input_tokens,
        }
        assert (await ask(claude, called(2, CLEARED), edit)).context_management is not None

    with_sdk("", talk)


@pytest.mark.parametrize(
    ("calls", "edit"),
    [
        (3, clear()),
        (3, clear(trigger={"type": "tool_uses", "value": 4}, keep={"type": "tool_uses", "value": 0})),
        (4, clear(trigger={"type": "tool_uses", "value": 4}, keep={"type": "tool_uses", "value": 4})),
        (4, clear(trigger={"type": "tool_uses", "value": 4}, exclude_tools=["echo"])),
        (
            4,
            clear(
                trigger={"type": "tool_uses", "value": 4},
                clear_at_least={"type": "input_tokens", "value": 100_000},
            ),
        ),
    ],
)
def test_tool_results_that_are_to_stay_stay(calls: int, edit: dict[str, Any]) -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        answer = await ask(claude, called(calls, "y" * 3000), edit)
        assert answer.context_management is not None
        assert answer.context_management.applied_edits == []

    with_sdk("", talk)


REFUSED: list[tuple[list[Any], list[str], str, str]] = [
    ([compact()], [], MODEL, "context_management: Extra inputs are not permitted"),
    ([compact()], ["some-other-2026-01-01"], MODEL, "context_management: Extra inputs are not permitted"),
    ([compact()], [EDITING], MODEL, "context_management.edits.0: Input tag 'compact_20260112' found"),
    ([clear()], [COMPACTION], MODEL, "context_management.edits.0: Input tag 'clear_tool_uses_20250919' found"),
    ([{"type": "forget"}], [COMPACTION], MODEL, "context_management.edits.0: Input tag 'forget' found"),
    ([compact(49_999)], [COMPACTION], MODEL, "value: Input should be greater than or equal to 50000"),
    ([compact(), compact()], [COMPACTION], MODEL, "only one edit of the type 'compact_20260112'"),
    ([compact()], [COMPACTION], "claude-haiku-4-5", "compaction is not supported by this model"),
    ([{**compact(), "when": 1}], [COMPACTION], MODEL, "compact_20260112.when: Extra inputs are not permitted"),
    ([{**compact(), "trigger": {}}], [COMPACTION], MODEL, "trigger: Input should have a type and a value"),
    ([clear(exclude_tools="echo")], [EDITING], MODEL, "exclude_tools: Input should be a valid list"),
    (
        [{**compact(), "trigger": {"type": "tool_uses", "value": 60_000}}],
        [COMPACTION],
        MODEL,
        "trigger: Input tag found using 'type'",
    ),
    (["compact"], [COMPACTION], MODEL, "edits: Input should be a valid list of dictionaries"),
]


@pytest.mark.parametrize(("edits", "betas", "model", "problem"), REFUSED)
def test_an_edit_that_the_api_refuses_is_refused(edits: list[Any], betas: list[str], model: str, problem: str) -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        with pytest.raises(anthropic.BadRequestError, match=problem):
            await ask(claude, [user("hi")], *edits, betas=betas, model=model)

    with_sdk("", talk)


def test_a_summary_comes_back_unchanged_by_the_assistant_and_with_its_beta() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        first = await ask(claude, [user(LONG)], compact())
        block = first.content[0].to_dict(mode="json")
        refusals = [
            ("Invalid `encrypted_content`", [assistant({**block, "content": "another"})], [COMPACTION]),
            ("at least 1 character", [assistant({**block, "content": ""})], [COMPACTION]),
            ("mine: Extra inputs are not permitted", [assistant({**block, "mine": 1})], [COMPACTION]),
            ("can only be in `assistant` messages", [user([block])], [COMPACTION]),
            ("Input tag 'compaction' found", [assistant(block)], [EDITING]),
        ]
        for problem, messages, betas in refusals:
            with pytest.raises(anthropic.BadRequestError, match=problem):
                await ask(claude, [user("hi"), *messages, user("hi")], betas=betas)

    with_sdk("", talk)


def test_a_prompt_that_is_read_again_after_a_summary_comes_from_the_cache() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        cached: dict[str, Any] = {"cache_control": {"type": "ephemeral"}, "system": "z" * 6000}
        first = await ask(claude, [user(LONG)], compact(), **cached)
        again = await ask(claude, [user(LONG), assistant(*first.content), user("and now?")], compact(), **cached)
        assert again.usage.cache_read_input_tokens == prompt(first.usage) > 2000

    with_sdk("", talk)

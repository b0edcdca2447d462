"""The stand-in's catalogue of models, held against the SDK's own."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, cast, get_args

import anthropic
import httpx2
import pytest
from anthropic.resources.messages.messages import DEPRECATED_MODELS
from anthropic.types import Model, ModelInfo

from support.sdk import with_sdk
from tfo_mcp.infrastructure.fake_claude.models import ALIASES, MODELS

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

RETIRED = "claude-sonnet-4-20250514"


def untyped(claude: AsyncAnthropic) -> Any:  # noqa: ANN401  # the SDK's overloads do not take a request as a mapping
    return claude.messages


def sdk_names() -> set[str]:
    names, _ = get_args(Model)
    return set(get_args(names))


def test_the_catalogue_is_the_sdks_list_of_models_and_one_that_is_retired() -> None:
    current = {model.id for model in MODELS if model.lifecycle != "retired"}
    aliases = {name for name, model_id in ALIASES.items() if model_id in current}
    assert current | aliases == sdk_names()
    assert [model.id for model in MODELS if model.lifecycle == "retired"] == [RETIRED]


def test_what_the_sdk_calls_deprecated_is_and_retires_on_the_day_that_it_says() -> None:
    deprecated = {model.id: model for model in MODELS if model.lifecycle != "active"}
    assert set(deprecated) == {model.id for model in MODELS if model.id in DEPRECATED_MODELS}
    for model in deprecated.values():
        month, day, year = DEPRECATED_MODELS[model.id].replace(",", "").split()
        assert model.retires is not None
        assert model.retires.startswith(f"{year}-")
        assert model.retires.endswith(f"-{day.removesuffix('th'):0>2}")
        assert month in {"June", "November"}


def test_the_list_has_the_current_models_with_every_field_that_the_sdk_names() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        listed = [model async for model in claude.models.list()]
        assert [model.id for model in listed] == [model.id for model in MODELS if model.lifecycle != "retired"]
        assert all(model.to_dict().keys() == ModelInfo.model_fields.keys() for model in listed)
        by_id = {model.id: model for model in listed}
        haiku, old = by_id["claude-haiku-5-5"], by_id["claude-sonnet-4-5-20250929"]
        assert (haiku.display_name, haiku.line, haiku.lifecycle) == ("Claude Haiku 5.5", "haiku", "active")
        assert (haiku.retires_at, haiku.deprecated_at) == (None, None)
        assert (haiku.max_input_tokens, haiku.max_tokens) == (1_000_000, 128_000)
        assert haiku.created_at.isoformat() == "2026-10-07T00:00:00+00:00"
        assert (old.lifecycle, old.max_input_tokens) == ("deprecated", 200_000)
        assert old.retires_at is not None
        assert old.retires_at.isoformat() == "2026-11-30T00:00:00+00:00"
        assert haiku.capabilities is not None
        assert (haiku.capabilities.effort.xhigh, haiku.capabilities.thinking.types.enabled.supported) == (
            haiku.capabilities.pdf_input,
            False,
        )
        assert old.capabilities is not None
        assert (old.capabilities.effort.supported, old.capabilities.thinking.types.enabled.supported) == (False, True)
        assert by_id["claude-mythos-preview"].display_name == "Claude Mythos Preview"

    with_sdk("", talk)


@pytest.mark.parametrize("size", [1, 3, 7, 19, 1000])
def test_pages_of_any_size_add_up_to_the_list_forwards_and_backwards(size: int) -> None:
    everything = [model.id for model in MODELS if model.lifecycle != "retired"]

    async def talk(claude: AsyncAnthropic) -> None:
        forwards = [model.id async for model in claude.models.list(limit=size)]
        assert forwards == everything
        page = await claude.models.list(limit=size, before_id=everything[-1])
        pages = [[model.id for model in page.data]]
        while page.has_next_page():
            page = await page.get_next_page()
            pages.insert(0, [model.id for model in page.data])
        assert [model_id for page_ids in pages for model_id in page_ids] == everything[:-1]
        assert max(map(len, pages)) == min(size, len(everything) - 1)

    with_sdk("", talk)


def test_the_lifecycle_decides_which_models_are_listed() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        assert [model.id async for model in claude.models.list(lifecycle=["retired"])] == [RETIRED]
        both = [model.lifecycle async for model in claude.models.list(lifecycle=["retired", "deprecated"])]
        assert both == ["deprecated", "deprecated", "retired"]

    with_sdk("", talk)


def test_an_alias_and_a_retired_model_can_be_looked_up_and_an_unknown_one_is_404() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        assert (await claude.models.retrieve("claude-opus-4-5")).id == "claude-opus-4-5-20251101"
        assert (await claude.models.retrieve(RETIRED)).lifecycle == "retired"
        assert (await claude.models.retrieve("claude-test-1")).line is None
        with pytest.raises(anthropic.NotFoundError) as unknown:
            await claude.models.retrieve("claude-opus-55")
        assert (unknown.value.type, unknown.value.api_message) == ("not_found_error", "model: claude-opus-55")
        assert unknown.value.request_id is not None

    with_sdk("", talk)


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("limit=0", "limit: Input should be greater than or equal to 1"),
        ("limit=1001", "limit: Input should be less than or equal to 1000"),
        ("limit=many", "limit: Input should be a valid integer"),
        ("after_id=nobody", "after_id: 'nobody' is not in the list"),
        (f"before_id={RETIRED}", f"before_id: '{RETIRED}' is not in the list"),
        ("after_id=claude-opus-5&before_id=claude-opus-5", "cannot both be given"),
        ("lifecycle=young", "lifecycle: Input should be 'active', 'deprecated' or 'retired'"),
    ],
)
def test_a_page_that_cannot_be_is_refused(query: str, problem: str) -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        with pytest.raises(anthropic.BadRequestError) as refused:
            await claude.get(f"/v1/models?{query}", cast_to=httpx2.Response)
        assert problem in (refused.value.api_message or "")

    with_sdk("", talk)


def test_the_list_needs_a_key_as_everything_does() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        async with httpx2.AsyncClient(base_url=str(claude.base_url)) as client:
            for path in ("/v1/models", "/v1/models/claude-opus-5"):
                answer = await client.get(path, headers={"anthropic-version": "2026-10-21"})
                assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authentication_error")

    with_sdk("", talk)


@pytest.mark.parametrize("model", [RETIRED, "claude-sonnet-4-0", "claude-opus-55", "gpt-4"])
def test_a_retired_or_unknown_model_is_404_for_messages_and_counts(model: str) -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        request = cast("Any", {"model": model, "messages": [{"role": "user", "content": "hi"}]})
        for asked in (untyped(claude).create(**request, max_tokens=9), untyped(claude).count_tokens(**request)):
            with pytest.raises(anthropic.NotFoundError) as unknown:
                await asked
            assert (unknown.value.type, unknown.value.api_message) == ("not_found_error", f"model: {model}")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the SDK's own, of models that retire
        with_sdk("", talk)


def test_an_alias_is_answered_by_the_model_that_it_means() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        request = cast("Any", {"model": "claude-haiku-4-5", "messages": [{"role": "user", "content": "hi"}]})
        assert (await untyped(claude).create(**request, max_tokens=99)).model == "claude-haiku-4-5-20251001"

    with_sdk("", talk)


def test_count_tokens_gives_the_input_of_a_message_and_takes_no_field_of_its_answer() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        request = cast(
            "Any",
            {
                "model": "claude-test-1",
                "messages": [{"role": "user", "content": "Grüße"}],
                "system": "Be brief.",
                "tools": [{"name": "echo", "input_schema": {"type": "object"}}],
                "tool_choice": {"type": "auto"},
                "thinking": {"type": "adaptive"},
                "output_config": {"effort": "low"},
                "cache_control": {"type": "ephemeral"},
            },
        )
        counted = await claude.messages.count_tokens(**request)
        answered = await untyped(claude).create(**request, max_tokens=99)
        assert counted.to_dict() == {"input_tokens": answered.usage.input_tokens}
        with pytest.raises(anthropic.BadRequestError, match="max_tokens: Extra inputs are not permitted"):
            await claude.messages.count_tokens(**request, extra_body={"max_tokens": 1})
        with pytest.raises(anthropic.BadRequestError, match="first message must use"):
            await claude.messages.count_tokens(model="claude-test-1", messages=[{"role": "assistant", "content": "hi"}])

    with_sdk("", talk)

"""Structured output: which schemas are taken, and that the answers fit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anthropic
import jsonschema_rs
import pytest

from support.sdk import with_sdk

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from anthropic.types import Message

NODE = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "additionalProperties": False}
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "born": {"type": "string", "format": "date"},
        "kind": {"enum": ["human", "other"]},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "minItems": 1},
        "score": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "both": {
            "allOf": [
                {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
                 "additionalProperties": False},
            ]
        },
        "version": {"const": 3},
        "maybe": {"type": ["string", "null"], "format": "email"},
        "unneeded": {"type": "boolean"},
    },
    "required": ["name", "born", "kind", "tags", "score", "both", "version", "maybe"],
    "additionalProperties": False,
    "$defs": {"tag": {"type": "string", "description": "One word."}},
}  # fmt: skip


async def ask(claude: AsyncAnthropic, schema: Any, said: str = "hi", **more: Any) -> Message:  # noqa: ANN401  # requests are untyped here
    untyped: Any = claude.messages
    form = {"type": "json_schema", "schema": schema}
    messages = [{"role": "user", "content": said}]
    return await untyped.create(
        model="claude-opus-5-5", max_tokens=200, messages=messages, output_config={"format": form}, **more
    )


def text_of(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


@pytest.mark.parametrize(
    "schema",
    [
        PERSON,
        {},
        {"type": "object", "additionalProperties": False},
        {"type": "array", "items": {"type": "string"}},
        {"type": "array", "minItems": 1},
        {"type": "boolean"},
        {"enum": [2, 1]},
        *({"type": "string", "format": name} for name in ("date-time", "duration", "ipv6", "time", "uri", "uuid")),
    ],
)
def test_without_a_script_the_answer_is_the_simplest_json_that_fits(schema: dict[str, Any]) -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        value = json.loads(text_of(await ask(claude, schema)))
        jsonschema_rs.validator_for(schema, validate_formats=True).validate(value)
        assert "unneeded" not in str(value)

    with_sdk("", talk)


def test_a_script_decides_what_the_answer_is_and_nothing_is_put_before_it() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        assert text_of(await ask(claude, PERSON)) == '{"name": "no more"}'

    with_sdk("""replies: [{text: '{"name": "no more"}'}]""", talk)


def test_tools_are_asked_for_before_the_answer_is_written() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        tools = [{"name": "echo", "input_schema": {"type": "object"}}]
        answer = await ask(claude, PERSON, "repeat this", tools=tools)
        assert [block.type for block in answer.content] == ["tool_use"]

    with_sdk("", talk)


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "thing"}, "Invalid schema: 'thing' is not a type"),
        ({"description": "anything"}, "a schema needs 'type'"),
        ({"type": "object"}, "'additionalProperties' must be explicitly set to false"),
        ({"type": "object", "additionalProperties": True}, "'additionalProperties' must be explicitly set to false"),
        ({"type": "object", "properties": [], "additionalProperties": False}, "'properties' is not an object"),
        ({"type": "object", "required": ["a"], "additionalProperties": False}, "'a' is required and not among"),
        ({"type": "object", "required": "a", "additionalProperties": False}, "'required' is not a list"),
        ({"type": "array", "items": 3}, "'3' is not an object"),
        ({"type": "array", "items": {"type": "string", "maxLength": 3}}, "properties maxLength are not supported"),
        ({"type": "array", "minItems": 2}, "'minItems' values other than 0 or 1"),
        ({"type": "integer", "minimum": 1}, "For 'integer' type, properties minimum are not supported"),
        ({"type": "string", "pattern": "a"}, "For 'string' type, properties pattern are not supported"),
        ({"type": "string", "format": "color"}, "the format 'color' is not supported"),
        ({"anyOf": []}, "'anyOf' is empty"),
        ({"anyOf": [{"type": "object"}]}, "'additionalProperties' must be explicitly set to false"),
        ({"enum": [{"a": 1}]}, "Enum values must be"),
        ({"$ref": "https://example.com/schema"}, "External \\$ref"),
        ({"$ref": "#/$defs/none"}, "leads nowhere"),
        ({"$ref": "#/$defs/node", "$defs": {"node": NODE}}, "recursive schemas are not supported"),
    ],
)
def test_a_schema_that_the_api_refuses_is_refused(schema: object, problem: str) -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        with pytest.raises(anthropic.BadRequestError, match=problem):
            await ask(claude, schema)

    with_sdk("", talk)

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import httpx2
import pytest
from anthropic.types import ContentBlockParam, MessageCountTokensParams
from anthropic.types.message_create_params import MessageCreateParamsBase

from tfo_mcp.infrastructure.fake_claude import Script, build_app
from tfo_mcp.infrastructure.fake_claude.parameters import COUNTED_FIELDS, FIELDS
from tfo_mcp.infrastructure.fake_claude.rules import ALLOWED_FIELDS, OTHER_BLOCKS

if TYPE_CHECKING:
    from collections.abc import Callable

HEADERS = {"x-api-key": "x", "anthropic-version": "2026-10-21"}
AT_A_URL = {"type": "url", "url": "https://example.com/"}
ECHO = {"name": "echo", "input_schema": {"type": "object"}}


def post(
    body: dict[str, Any] | bytes,
    *,
    headers: dict[str, str] = HEADERS,
    method: str = "POST",
    path: str = "/v1/messages",
) -> httpx2.Response:
    """Send what the SDK would not send, straight to the application."""

    async def run() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=build_app(Script()))
        async with httpx2.AsyncClient(transport=transport, base_url="http://fake") as client:
            if isinstance(body, bytes):
                return await client.request(method, path, content=body, headers=headers)
            return await client.request(method, path, json=body, headers=headers)

    return asyncio.run(run())


def user(*content: object) -> dict[str, Any]:
    return {"role": "user", "content": content[0] if content and isinstance(content[0], str) else content}


def assistant(*content: object) -> dict[str, Any]:
    return {**user(*content), "role": "assistant"}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def call(ident: str = "a", name: str = "echo") -> dict[str, Any]:
    return {"type": "tool_use", "id": ident, "name": name, "input": {}}


def result(ident: str = "a", content: object = "done") -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": ident, "content": content}


def body(*messages: dict[str, Any], **more: object) -> dict[str, Any]:
    return {"model": "claude-opus-5-5", "max_tokens": 100, "messages": list(messages), **more}


def tools(*definitions: object) -> dict[str, Any]:
    return body(user("hi"), tools=list(definitions))


def thinks(**more: object) -> dict[str, Any]:
    return body(user("hi"), model="claude-opus-4-5", max_tokens=2000, thinking={"type": "enabled", **more})


def thought(signature: str | None = "c2ln") -> dict[str, Any]:
    return {"type": "thinking", "thinking": "Hm.", "signature": signature}


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in body(user("hi")).items() if key != name}


@pytest.mark.parametrize(
    ("request_body", "problem"),
    [
        (body(user("hi"), temperature=1.0), "temperature: Extra inputs are not permitted"),
        (body(user("hi"), top_p=1), "top_p: Extra inputs are not permitted"),
        (body(user("hi"), top_k=0), "top_k: Extra inputs are not permitted"),
        (without("model"), "model: Field required"),
        (without("max_tokens"), "max_tokens: Field required"),
        (without("messages"), "messages: Field required"),
        (body(user("hi"), max_tokens=-1), "max_tokens: Input should be greater than or equal to 0"),
        (body(), "messages: at least one message is required"),
        (body(assistant("hi"), user("hi")), 'messages: first message must use the "user" role'),
        (body(user("hi"), assistant("I")), "does not support assistant message prefill"),
        (body(user("hi"), {"role": "tool", "content": "x"}), 'messages: Unexpected role "tool"'),
        (body({"role": "system", "content": "x"}, user("hi")), 'a "system" message must follow a "user"'),
        (body(user("")), "messages.0: all messages must have non-empty content"),
        (body(user()), "messages.0: all messages must have non-empty content"),
        (body(user(text(""))), "messages: text content blocks must be non-empty"),
        (body(user(text(" \n"))), "messages: text content blocks must contain non-whitespace text"),
        (body(user("hi"), system=[text("")]), "system: text content blocks must be non-empty"),
        (body(user({"type": "text"})), "messages.0.content.0.text.text: Field required"),
        (body(user({"text": "x"})), "messages.0.content.0.type: Field required"),
        (body(user(call())), "`tool_use` blocks can only be in `assistant` messages"),
        (body(user("hi"), assistant(result()), user("hi")), "`tool_result` blocks can only be in `user`"),
        (body(user("hi"), assistant(call()), user("hi")), "messages.1.content.0: `tool_use` ids were found"),
        (body(user("hi"), assistant(call()), user(text("so"), result())), "`tool_use` ids were found"),
        (
            body(user("hi"), assistant(call(), call("b")), user(result())),
            "messages.1.content.1: `tool_use` ids were found",
        ),
        (body(user(result())), "messages.0.content.0: unexpected `tool_use_id` found"),
        (
            body(user("hi"), assistant("yes"), user(result())),
            "messages.2.content.0: unexpected `tool_use_id`",
        ),
        (
            body(user("hi"), assistant(call()), user(result(), result())),
            "each tool_use must have a single result",
        ),
        (body(user("hi"), assistant(call()), user(result(content=[text("")]))), "blocks must be non-empty"),
        (
            body(user("hi"), assistant(call()), user(result(content=5))),
            "messages.2.content.0.tool_result.content: Expected",
        ),
        (body(user("hi"), assistant(call(), call()), user(result())), "`tool_use` ids must be unique"),
        (
            body(user("hi"), assistant(call()), user(result()), assistant(call()), user(result())),
            "messages.3.content.0: `tool_use` ids must be unique",
        ),
        (body(user("hi"), assistant(call("a.b")), user(result("a.b"))), "tool_use.id: String should match"),
        (body(user("hi"), assistant(call(name="a b")), user(result())), "tool_use.name: String should match"),
        (tools(ECHO, ECHO), "tools: Tool names must be unique."),
        (tools({"input_schema": {"type": "object"}}), "tools.0.custom.name: Field required"),
        (tools(ECHO, {"name": "a.b", "input_schema": {"type": "object"}}), "tools.1.custom.name: String"),
        (tools({"name": "a" * 129, "input_schema": {"type": "object"}}), "tools.0.custom.name: String"),
        (tools({"name": "a"}), "tools.0.custom.input_schema: Field required"),
        (tools({"name": "a", "input_schema": {}}), "input_schema.type: Input should be 'object'"),
        (tools({"name": "a", "input_schema": {"type": "object", "anyOf": []}}), "oneOf, allOf and anyOf"),
        (tools({"name": "a", "input_schema": []}), "tools.0.input_schema: Expected `object | null`"),
        (body(user("hi"), foo=1), "foo: Extra inputs are not permitted"),
        (body(user("hi"), betas=["x"]), "betas: Extra inputs are not permitted"),
        (body(user("hi"), max_tokens=128_001), "128001 > 128000, which is the maximum allowed number of output tokens"),
        (body(user("hi"), service_tier="cheap"), "service_tier: Input should be 'auto' or 'standard_only'"),
        (body(user("hi"), speed="slow"), "speed: Input should be 'standard' or 'fast'"),
        (body(user("hi"), metadata={"name": "Ada"}), "metadata.name: Extra inputs are not permitted"),
        (body(user("hi"), metadata={"user_id": 7}), "metadata.user_id: Input should be a valid string"),
        (body(user("hi"), metadata="Ada"), "metadata: Input should be a valid dictionary"),
        (body(user("hi"), stop_sequences=[" \n"]), "stop_sequences: each stop sequence must contain non-whitespace"),
        (body(user("hi"), stop_sequences="x"), "stop_sequences: Expected `array`"),
        (body(user("hi"), thinking={"type": "deep"}), "thinking.type: Input should be 'adaptive'"),
        (body(user("hi"), thinking={"type": "disabled"}), '"thinking.type.disabled" is not supported for this model.'),
        (thinks(), "thinking.enabled.budget_tokens: Field required"),
        (thinks(budget_tokens=1023), "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"),
        (thinks(budget_tokens=2000), "`max_tokens` must be greater than `thinking.budget_tokens`."),
        (body(user("hi"), output_config={"effort": "huge"}), "output_config.effort: Input should be 'low', 'medium'"),
        (body(user("hi"), output_config={"style": 1}), "output_config.style: Extra inputs are not permitted"),
        (body(user("hi"), output_config={"format": {"type": "xml"}}), "output_config.format.type: Input should be"),
        (body(user("hi"), output_config={"format": {"type": "json_schema"}}), "output_config.format.schema: Field"),
        (
            body(user("hi"), model="claude-haiku-4-5", output_config={"effort": "low"}),
            "This model does not support the effort parameter.",
        ),
        (
            body(user("hi"), model="claude-opus-4-6", output_config={"effort": "xhigh"}),
            "output_config.effort: 'xhigh' is not supported by this model.",
        ),
        (body(user("hi"), tool_choice={"type": "auto"}), "tool_choice: may only be specified while providing tools"),
        (body(user("hi"), tools=[ECHO], tool_choice={"type": "maybe"}), "tool_choice.type: Input should be 'auto'"),
        (body(user("hi"), tools=[ECHO], tool_choice={"type": "tool", "name": "a"}), "Tool 'a' not found in provided"),
        (body(user("hi"), tools=[ECHO], tool_choice={"type": "tool", "name": ["echo"]}), "not found in provided tools"),
        (body({**user("hi"), "usage": {}}), "messages.0.usage: Extra inputs are not permitted"),
        (
            body(user({**text("x"), "parsed_output": 1})),
            "messages.0.content.0.text.parsed_output: Extra inputs are not",
        ),
        (body(user({"type": "of_tomorrow"})), "messages.0.content.0: Input tag 'of_tomorrow' found using 'type' does"),
        (body(user("hi"), assistant({**call(), "cut": 1}), user(result())), "tool_use.cut: Extra inputs"),
        (body(user(thought()), user("hi")), "`thinking` blocks can only be in `assistant` messages"),
        (body(user("hi"), assistant(thought(signature=None), text("x")), user("hi")), "signature: Field required"),
        (body(user("hi"), assistant(thought(), text("x")), user("hi")), "content.0: Invalid `signature` in `thinking`"),
        (
            body(user("hi"), assistant(thought()), user("hi")),
            "messages.1: The final block in an assistant message cannot be `thinking`.",
        ),
        (
            body(user("hi"), assistant({"type": "redacted_thinking", "data": "x"}), user("hi")),
            "messages.1: The final block in an assistant message cannot be `redacted_thinking`.",
        ),
        (
            body(user("hi"), assistant({**thought(), "cache_control": {"type": "ephemeral"}}, text("x")), user("hi")),
            "Invalid `signature`",
        ),
        (body(*[user("x")] * 100_001), "messages: at most 100000 messages are allowed"),
        (b'{"model":', "The request body is not a valid JSON object"),
        (b"[]", "The request body is not a valid JSON object"),
    ],
)
def test_what_the_api_refuses_is_refused(request_body: dict[str, Any] | bytes, problem: str) -> None:
    response = post(request_body)
    refusal = response.json()
    assert (response.status_code, refusal["type"]) == (400, "error")
    assert refusal["error"]["type"] == "invalid_request_error"
    assert problem in refusal["error"]["message"]
    assert refusal["request_id"] == response.headers["request-id"]


@pytest.mark.parametrize(
    "accepted",
    [
        body(user("hi"), user("again")),
        body(user("hi"), assistant("one"), assistant("two"), user("so")),
        body(user("hi"), assistant("I look."), assistant(call()), user(result()), user("go on")),
        body(user("hi"), assistant(call(), call("b")), user(result("b", "")), user(result(content=[text("x")]))),
        body(user("hi"), {"role": "system", "content": "Be brief."}),
        body(user("hi"), tools=[{"type": "web_search_20260318", "name": "web_search"}], system="Be brief."),
        body(user("hi"), thinking={"type": "adaptive"}, cache_control={"type": "ephemeral"}),
        thinks(budget_tokens=1024),
        body(user("hi"), metadata={"user_id": None}, service_tier="standard_only", stop_sequences=["x"], speed=None),
        body(user("hi"), output_config={"effort": "max", "format": {"type": "json_schema", "schema": {}}}),
        body(user("hi"), tools=[ECHO], tool_choice={"type": "tool", "name": "echo"}),
        body(user("hi"), tool_choice={"type": "none"}, container=None, inference_geo="us", diagnostics=None),
        body(user({"type": "document", "source": AT_A_URL}, {"type": "image", "source": AT_A_URL}), user("hi")),
        body(user("hi"), assistant({"type": "server_tool_use", "id": "x"}, text("x")), user("hi")),
        body(user("hi"), assistant(text("x"), {"type": "redacted_thinking", "data": "x"}, text("y")), user("hi")),
    ],
)
def test_what_the_api_accepts_is_accepted(accepted: dict[str, Any]) -> None:
    assert post(accepted).status_code == 200


def test_fields_of_betas_pass_with_a_beta_header() -> None:
    asked = body(user("hi"), context_management={"edits": []})
    assert post(asked).status_code == 400
    assert post(asked, headers={**HEADERS, "anthropic-beta": "context-management-2025-06-27"}).status_code == 200


def test_the_fields_that_are_known_are_those_of_the_sdk() -> None:
    headers = {"user_profile_id", "workspace_id"}
    assert {*MessageCreateParamsBase.__annotations__, "stream"} - headers == FIELDS
    assert set(MessageCountTokensParams.__annotations__) - headers == COUNTED_FIELDS


def test_the_blocks_and_their_fields_are_those_of_the_sdk() -> None:
    assert len(get_args(ContentBlockParam)) == len(ALLOWED_FIELDS) + len(OTHER_BLOCKS)
    for block in get_args(ContentBlockParam):
        hints = get_type_hints(block)
        (kind,) = get_args(hints["type"])
        if kind in ALLOWED_FIELDS:
            assert ALLOWED_FIELDS[kind] == set(hints)
        else:
            assert kind in OTHER_BLOCKS


@pytest.mark.parametrize(
    ("headers", "status", "kind"),
    [
        ({"anthropic-version": "1"}, 401, "authentication_error"),
        ({"anthropic-version": "1", "authorization": "Basic eDp4"}, 401, "authentication_error"),
        ({"anthropic-version": "1", "authorization": "Bearer "}, 401, "authentication_error"),
        ({"x-api-key": "x"}, 400, "invalid_request_error"),
    ],
)
def test_missing_headers_are_refused(headers: dict[str, str], status: int, kind: str) -> None:
    response = post(body(user("hi")), headers=headers)
    assert (response.status_code, response.json()["error"]["type"]) == (status, kind)


@pytest.mark.parametrize(
    ("response", "status", "kind"),
    [
        (lambda: post({**body(user("hi")), "model": "gpt-4"}), 404, "not_found_error"),
        (lambda: post({}, path="/v1/complete"), 404, "not_found_error"),
        (lambda: post({}, path="/v1/messages/"), 404, "not_found_error"),
        (lambda: post({}, method="GET"), 405, "invalid_request_error"),
        (lambda: post(b" " * (32 * 1024 * 1024 + 1)), 413, "request_too_large"),
    ],
    ids=["unknown model", "unknown path", "slash at the end", "wrong method", "over 32 MiB"],
)
def test_every_refusal_has_the_shape_of_the_api(
    response: Callable[[], httpx2.Response], status: int, kind: str
) -> None:
    answer = response()
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == kind
    assert answer.json()["request_id"] == answer.headers["request-id"]


def test_the_raw_stream_has_a_ping_and_a_request_id() -> None:
    response = post(body(user("hi"), stream=True))
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["request-id"].startswith("req_")
    assert 'event: ping\ndata: {"type":"ping"}\n\n' in response.text

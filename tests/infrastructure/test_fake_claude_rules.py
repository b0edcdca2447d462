from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from tfo_mcp.infrastructure.fake_claude import Script, build_app

if TYPE_CHECKING:
    from collections.abc import Callable

HEADERS = {"x-api-key": "x", "anthropic-version": "2026-10-21"}
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
    ],
)
def test_what_the_api_accepts_is_accepted(accepted: dict[str, Any]) -> None:
    assert post(accepted).status_code == 200


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

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2
import pytest

from support.sdk import with_sdk
from tfo_mcp.infrastructure.fake_claude import SIMULATED, Script, ScriptError, load_script, serve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anthropic import AsyncAnthropic
    from anthropic.types import Message, MessageParam, ToolParam

MODEL = "claude-opus-5-5"
TOOLS: list[ToolParam] = [
    {"name": name, "input_schema": {"type": "object"}}
    for name in ("list_directory", "read_file", "search_files", "system_info", "echo", "execute_command")
]


async def ask(claude: AsyncAnthropic, *messages: str | MessageParam, tools: Sequence[ToolParam] = ()) -> Message:
    """Send messages, a plain string being the user's."""
    sent: list[MessageParam] = [
        {"role": "user", "content": message} if isinstance(message, str) else message for message in messages
    ]
    return await claude.messages.create(model=MODEL, max_tokens=100, messages=sent, tools=tools)


def text_of(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text").removeprefix(f"{SIMULATED} ")


def calls_in(message: Message) -> list[tuple[str, object]]:
    return [(block.name, block.input) for block in message.content if block.type == "tool_use"]


def results_for(message: Message, *contents: str) -> MessageParam:
    calls = [block for block in message.content if block.type == "tool_use"]
    return {
        "role": "user",
        "content": [
            {
                "type": "tool_result",
                "tool_use_id": call.id,
                "content": content,
                "is_error": content == "broken",
            }
            for call, content in zip(calls, contents, strict=True)
        ],
    }


async def received(claude: AsyncAnthropic) -> list[dict[str, Any]]:
    async with httpx2.AsyncClient(base_url=str(claude.base_url)) as client:
        return (await client.get("/__requests")).json()


def test_an_answer_says_that_it_is_simulated_and_counts_three_bytes_a_token() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        answer = await ask(claude, "Grüße")
        written = f'{SIMULATED} I have seen 1 message so far. The first one was: "Grüße"'
        counted = '{"type":"text","text":"Grüße"}'
        assert [block.to_dict() for block in answer.content] == [{"type": "text", "text": written}]
        assert (answer.stop_reason, answer.model, answer.role) == ("end_turn", MODEL, "assistant")
        assert answer.usage.input_tokens == -(-len(counted.encode()) // 3)
        assert answer.usage.output_tokens == -(-len(written.encode()) // 3)

    with_sdk("", talk)


def test_a_stream_carries_every_event_and_adds_up_to_the_same_message() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        whole = await ask(claude, "hi")
        hello: MessageParam = {"role": "user", "content": "hi"}
        async with claude.messages.stream(model=MODEL, max_tokens=99, messages=[hello], tools=[]) as stream:
            events = [event.type async for event in stream]
            streamed = await stream.get_final_message()
        assert list(dict.fromkeys(events)) == [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "text",
            "content_block_stop",
            "input_json",
            "message_delta",
            "message_stop",
        ]
        assert text_of(streamed) == text_of(whole) == "two  words\n"
        assert calls_in(streamed) == calls_in(whole) == [("echo", {"message": [1, "é"]})]
        assert (streamed.stop_reason, streamed.usage) == ("tool_use", whole.usage)
        assert streamed.usage.output_tokens > 1

    script = r'replies: [{text: "two  words\n", tool_use: [{name: echo, input: {message: [1, é]}}], times: 2}]'
    with_sdk(script, talk)


def test_the_whole_history_is_seen_and_its_first_message_quoted() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        first = await ask(claude, "My name is Ada.")
        answer = await ask(claude, "My name is Ada.", {"role": "assistant", "content": first.content}, "And?")
        assert text_of(answer) == 'I have seen 3 messages so far. The first one was: "My name is Ada."'

    with_sdk("", talk)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Which files are here?", ["list_directory"]),
        ("Read it", ["read_file"]),
        ("What machine is this?", ["system_info"]),
        ("find notes", ["search_files"]),
        ("use echo", ["echo"]),
        ("Describe the system, list the folder, read the README", ["system_info", "list_directory"]),
        ("Delete profiles already", []),
    ],
)
def test_words_decide_which_offered_tools_are_asked_for(said: str, expected: list[str]) -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        answer = await ask(claude, said, tools=TOOLS)
        assert [name for name, _ in calls_in(answer)] == expected
        assert answer.stop_reason == ("tool_use" if expected else "end_turn")
        assert calls_in(await ask(claude, said)) == []

    with_sdk("", talk)


def test_the_tools_asked_for_are_filled_in() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        calls = calls_in(await ask(claude, "list and read", tools=TOOLS))
        calls += calls_in(await ask(claude, "search the system", tools=TOOLS))
        calls += calls_in(await ask(claude, "repeat this", tools=TOOLS))
        assert calls == [
            ("list_directory", {"path": "."}),
            ("read_file", {"path": "README.md"}),
            ("search_files", {"path": ".", "pattern": "*.md"}),
            ("system_info", {}),
            ("echo", {"message": "repeat this"}),
        ]

    with_sdk("", talk)


def test_no_tool_is_asked_for_when_the_client_forbids_it() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        hello: MessageParam = {"role": "user", "content": "list the files"}
        answer = await claude.messages.create(
            model=MODEL, max_tokens=9, messages=[hello], tools=TOOLS, tool_choice={"type": "none"}
        )
        assert calls_in(answer) == []

    with_sdk("", talk)


def test_tool_results_are_counted_and_quoted() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        asked = await ask(claude, "list and read", tools=TOOLS)
        results = results_for(asked, "x" * 100, "broken")
        answer = await ask(claude, "list and read", {"role": "assistant", "content": asked.content}, results)
        assert text_of(answer) == f'I received 2 tool results:\n1. "{"x" * 80}"\n2. failed: "broken"'
        assert answer.stop_reason == "end_turn"

    with_sdk("", talk)


def test_replies_are_taken_in_order_and_then_the_default_answers() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        texts = [text_of(await ask(claude, "hi")) for _ in range(4)]
        assert texts[:3] == ["one", "one", "two"]
        assert texts[3].startswith("I have seen")

    with_sdk("replies: [{text: one, times: 2}, {text: two, stop_reason: max_tokens}]", talk)


def test_conditional_replies_go_first_and_stay_unless_times_is_given() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        said = ["It is cold", "plain", "cold again", "warm", "warm"]
        assert [text_of(await ask(claude, line)) for line in said][:4] == ["brr", "next", "brr", "ah"]
        asked = await ask(claude, "use a tool")
        history: list[str | MessageParam] = ["use a tool", {"role": "assistant", "content": asked.content}]
        assert text_of(await ask(claude, *history, results_for(asked, "cold"))) == "got cold"

    script = """replies:
      - {text: next}
      - {text: later}
      - {when: {contains: cold}, text: brr}
      - {when: {contains: warm}, text: ah, times: 1}
      - {when: {contains: tool, tool_result: false}, tool_use: [{name: anything}]}
      - {when: {tool_result: true}, text: "got {tool_results}"}
    """
    with_sdk(script, talk)


def test_placeholders_are_filled_once_and_other_braces_stay() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        said = await ask(claude, "{turns}", {"role": "assistant", "content": "a"}, "one {turns}", "two")
        assert text_of(said) == "3 turns, {other}: one {turns}\ntwo"

    with_sdk('replies: [{text: "{turns} turns, {other}: {last_user_text}"}]', talk)


def test_the_sdk_retries_a_scripted_refusal_and_takes_the_next_reply() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        assert text_of(await ask(claude, "hi")) == "at last"
        assert [entry["status"] for entry in await received(claude)] == [429, 529, 200]

    refusals = "{status: 429, retry_after: 0.001}, {status: 529, retry_after: 0.001}"
    with_sdk(f"replies: [{refusals}, {{text: at last}}]", talk, retries=2)


def test_a_scripted_refusal_has_type_text_and_retry_after() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        with pytest.raises(anthropic.RateLimitError) as caught:
            await ask(claude, "hi")
        assert (caught.value.type, caught.value.api_message) == ("rate_limit_error", f"{SIMULATED} slow down")
        assert caught.value.response.headers["retry-after"] == "2.5"
        assert caught.value.request_id == (await received(claude))[0]["request_id"]

    with_sdk("replies: [{status: 429, text: slow down, retry_after: 2.5}]", talk)


def test_a_client_that_leaves_in_the_middle_of_a_stream_is_recorded() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        hello: MessageParam = {"role": "user", "content": "hi"}
        async with claude.messages.stream(model=MODEL, max_tokens=9, messages=[hello]) as stream:
            assert [await anext(stream.text_stream)] == ["[simulated] "]
            assert (await received(claude))[0]["disconnected"] is False
        while not (await received(claude))[0]["disconnected"]:
            pass

    with_sdk("replies: [{text: never heard, delay_between: 3600}]", talk)


def test_a_client_that_gives_up_before_the_first_event_is_recorded() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        with pytest.raises(anthropic.APITimeoutError):
            await ask(claude.with_options(timeout=0.2), "hi")
        while not (await received(claude))[0]["disconnected"]:
            pass

    with_sdk("replies: [{text: never heard, delay: 3600}]", talk)


def test_requests_are_kept_without_credentials_up_to_200_and_can_be_cleared() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        for number in range(201):
            await ask(claude, f"message {number}")
        entries = await received(claude)
        assert [len(entries), entries[0]["body"]["messages"]] == [
            200,
            [{"role": "user", "content": "message 1"}],
        ]
        assert entries[0]["headers"]["authorization"] == "***"
        assert entries[0]["headers"]["anthropic-version"] == "2026-10-21"
        assert "very secret" not in str(entries)
        async with httpx2.AsyncClient(base_url=str(claude.base_url)) as client:
            assert (await client.delete("/__requests")).status_code == 204
            await client.post("/v1/messages", content=b"{", headers={"x-api-key": "very secret"})
        (entry,) = await received(claude)
        assert (entry["body"], entry["status"], entry["headers"]["x-api-key"]) == (None, 400, "***")

    with_sdk("", talk)


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("replies: [", "line 1: not YAML: "),
        ("replies:\n  - text: 'a\n", "line 3: not YAML: "),
        ("replies: \x00", "not YAML: "),
        ("- text: a", "line 1: a script is a mapping with the one key `replies`, a list: Expected"),
        ("\nreply: []", "line 2: a script is a mapping with the one key `replies`, a list: Object contains"),
        ("replies:\n  - text: a\n  - txt: b", "line 3: reply 2: Object contains unknown field `txt`"),
        ("replies:\n  - text: 5", "line 2: reply 1: text: Expected `str | null`, got `int`"),
        ("replies: [{text: a, times: 0}]", "line 1: reply 1: times: Expected `int` >= 1"),
        ("replies: [{text: a, delay: -1}]", "reply 1: delay: Expected `float` >= 0.0"),
        ("replies: [{status: 200}]", "reply 1: status: Expected `int` >= 400"),
        ("replies: [{tool_use: [{input: {}}]}]", "reply 1: tool_use.0.name: Field required"),
        (
            "replies: [{delay: 1}]",
            "a reply needs `text`, `thinking`, `tool_use`, `stop_reason`, `stream_error`, `status`",
        ),
        ("replies: [{status: 500, stop_reason: refusal}]", "`status` excludes `thinking`, `tool_use`, `stop_reason`"),
        ("replies: [{text: a, retry_after: 1}]", "`retry_after`, `error_type` and `error_code` need `status`"),
        ("replies: [{text: a, cut: {}}]", "reply 1: cut: `cut` needs either `events` or `bytes`"),
        ("replies: [{text: a, cut: {events: 1, bytes: 1}}]", "reply 1: cut: `cut` needs either"),
        ("replies: [{text: a, cut: {events: 1}, stream_error: {}}]", "`cut` excludes `stream_error`"),
        ("replies: [{text: a, stream_error: {type: odd}}]", "reply 1: stream_error.type: Invalid enum value 'odd'"),
        ("replies: [{fault: silence, text: a}]", "`fault` excludes any answer or refusal"),
        ("replies: [{fault: silence, raw: a}]", "`raw` excludes what would be written otherwise"),
        ("replies: [{text: a, content_type: text/html}]", "`content_type` needs `raw`"),
        ("replies: [{text: a, headers: {Upper: a}}]", "reply 1: Expected `str` matching regex '^[a-z0-9-]+$'"),
        ('replies: [{text: a, headers: {a: "b\\r\\nc"}}]', "reply 1: headers: Expected `str` matching regex"),
        ("replies: [{text: a, when: {}}]", "reply 1: when: `when` needs `contains` or `tool_result`"),
    ],
)
def test_a_bad_script_is_refused_with_its_line(script: str, problem: str) -> None:
    with pytest.raises(ScriptError) as caught:
        load_script(script)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])  # noqa: S104  what is refused
def test_only_the_loopback_is_served(host: str) -> None:
    with pytest.raises(ValueError, match="serves the loopback only"):
        asyncio.run(serve(host, 0, Script(), lambda _url: None))


def test_localhost_means_127_0_0_1() -> None:
    async def talk(claude: AsyncAnthropic) -> None:
        assert claude.base_url.host == "127.0.0.1"
        assert text_of(await ask(claude, "hi"))

    with_sdk("", talk, host="localhost")


def test_a_port_that_is_taken_is_an_error_of_the_caller() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        asyncio.run(serve("127.0.0.1", taken.getsockname()[1], Script(), lambda _url: None))


def test_a_stream_in_progress_does_not_keep_a_cancelled_server_alive() -> None:
    async def talk(claude: AsyncAnthropic, serving: asyncio.Task[None]) -> None:
        hello: MessageParam = {"role": "user", "content": "hi"}
        async with claude.messages.stream(model=MODEL, max_tokens=9, messages=[hello]) as stream:
            await anext(stream.text_stream)
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(serving, 10)

    async def run() -> None:
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        script = load_script("replies: [{text: never heard, delay_between: 3600}]")
        serving = asyncio.create_task(serve("127.0.0.1", 0, script, ready.set_result))
        async with anthropic.AsyncAnthropic(base_url=await ready, api_key="x", max_retries=0) as claude:
            await talk(claude, serving)

    asyncio.run(run())

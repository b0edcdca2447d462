"""The tools for conversations that are there, over a real database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from support.talk import conversation_of
from support.tool_calls import ToolBench
from tfo_mcp.application.bus import Bus, Endpoint
from tfo_mcp.application.conversation_queries import ConversationQueries, GetConversation, ListConversations
from tfo_mcp.domain.conversation import Conversation
from tfo_mcp.domain.message import Block, Message, OpaqueBlock, Text, ToolAnswer, ToolUse, Usage
from tfo_mcp.domain.tool import ToolResult
from tfo_mcp.infrastructure.persistence.catalog import SqlConversationCatalog
from tfo_mcp.infrastructure.persistence.conversations import SqlConversationRepository
from tfo_mcp.infrastructure.persistence.storage import Storage
from tfo_mcp.infrastructure.tools.conversation_records import conversation_record_tools

PAGE = 16_384


@asynccontextmanager
async def offering(folder: Path, *stored: Conversation) -> AsyncGenerator[ToolBench]:
    storage = Storage(folder / "tfo-mcp.db")
    bench = ToolBench(conversation_record_tools(max_page_bytes=PAGE))
    queries = ConversationQueries(SqlConversationCatalog(storage))
    bench.handler.bus = Bus(
        {ListConversations: Endpoint(queries.find), GetConversation: Endpoint(queries.get)},
        telemetry=bench.telemetry,
        error_code=lambda error: -32603,
        report=lambda error_id, error: bench.reports.append((error_id, error)),
    )
    try:
        for conversation in stored:
            await SqlConversationRepository(storage).save(conversation)
        yield bench
    finally:
        await storage.close()
    assert bench.reports == []


def of(*messages: Message | ToolAnswer, system_prompt: str | None = None) -> Conversation:
    return conversation_of("question", *messages, system_prompt=system_prompt)


def times(part: str, count: int) -> str:
    return part * count


def call_with(text: str) -> Block:
    return ToolUse("toolu_1", "write_file", {"content": text})


def thought(text: str) -> Block:
    return OpaqueBlock({"type": "thinking", "thinking": text})


def by_claude(content: Sequence[Block]) -> Message:
    return Message("assistant", content, stop_reason="tool_use")


def bytes_of(result: ToolResult) -> int:
    """Of the page as it goes to the client."""
    page = {"content": [{"type": "text", "text": result.text}], "structuredContent": result.structured}
    return len(json.dumps(page, ensure_ascii=False, separators=(",", ":")).encode())


async def pages_of(bench: ToolBench, conversation_id: str) -> list[Mapping[str, Any]]:
    """Every page, in order; each within its limit."""
    pages: list[Mapping[str, Any]] = []
    start: int | None = 0
    while start is not None:
        result = await bench.call("get_conversation", conversation_id=conversation_id, start=start)
        assert not result.is_error, result.text
        assert result.structured is not None
        assert bytes_of(result) <= PAGE
        pages.append(result.structured)
        start = result.structured["next_start"]
    return pages


@pytest.mark.behaviour("records.get.bounded")
def test_pages_are_small_whatever_is_in_them_and_give_each_message_once(tmp_path: Path) -> None:
    texts = st.builds(
        times, st.sampled_from(["x", "é", "😀", '"', "\\", "\n", "\x01", "{", "a b "]), st.integers(1, 9000)
    )
    blocks = st.one_of(texts.map(Text), texts.map(call_with), texts.map(thought))
    messages = st.lists(st.lists(blocks, min_size=1, max_size=30).map(by_claude), max_size=8)

    def calling(*lengths: int) -> Message:
        return by_claude([call_with('"' * n) for n in lengths])

    @example([calling(990, 990), calling(300)], '"' * 490)  # whose text is twice as long as its structure
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(messages, st.one_of(st.none(), texts))
    def paged(answers: list[Message], system_prompt: str | None) -> None:
        async def scenario() -> None:
            conversation = of(*answers, system_prompt=system_prompt)
            async with offering(tmp_path, conversation) as bench:
                shown = [message for page in await pages_of(bench, conversation.id) for message in page["messages"]]
                assert [message["position"] for message in shown] == list(range(len(answers) + 1))

        asyncio.run(scenario())

    paged()


@pytest.mark.behaviour("records.get")
def test_what_is_long_is_cut_and_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        calls = (Text("I write."), ToolUse("toolu_1", "write_file", {"content": "x" * 5000}))
        conversation = of(
            Message("assistant", calls, usage=Usage(1, 2, 3, 4), stop_reason="tool_use", model="m"),
            ToolAnswer("toolu_1", "y" * 5000, is_error=True),
        )
        async with offering(tmp_path, conversation) as bench:
            result = await bench.call("get_conversation", conversation_id=conversation.id)
            assert result.structured is not None
            _, written, answered = result.structured["messages"]
            text, call = written["content"]
            assert text == {"type": "text", "text": "I write."}
            assert (call["name"], call["truncated"], call["size"]) == ("write_file", True, 5014)
            assert call["input"].startswith('{"content":"xxx')
            (answer,) = answered["content"]
            assert (answer["content"], answer["truncated"], answer["size"]) == ("y" * 1998, True, 5002)
            assert written["usage"] == {
                "input_tokens": 1,
                "output_tokens": 2,
                "cache_read_tokens": 3,
                "cache_write_tokens": 4,
            }
            assert (written["stop_reason"], result.structured["next_start"]) == ("tool_use", None)
            assert "I write." in result.text
            assert "→ write_file" in result.text
            assert f"← error: {'y' * 1998} … [cut: 5002 bytes in all]" in result.text

    asyncio.run(scenario())


@pytest.mark.behaviour("records.get")
def test_a_start_is_counted_from_either_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        conversation = of(*[Message("assistant", (Text(str(number)),)) for number in range(1, 6)])
        async with offering(tmp_path, conversation) as bench:
            wanted = {
                (0, 2): ([0, 1], 2),
                (4, 2): ([4, 5], None),
                (4.0, 1.0): ([4], 5),
                (-1, 9): ([5], None),
                (-99, 1): ([0], 1),
            }
            for (start, limit), (positions, following) in wanted.items():
                result = await bench.call("get_conversation", conversation_id=conversation.id, start=start, limit=limit)
                assert result.structured is not None
                assert [message["position"] for message in result.structured["messages"]] == positions
                assert result.structured["next_start"] == following
                hint = f"continue with start {following}"
                assert (hint in result.text) is (following is not None)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("tool", "arguments", "sentence"),
    [
        ("get_conversation", {"conversation_id": "no-such"}, "there is no conversation 'no-such'"),
        ("get_conversation", {"conversation_id": "conv_" + "0" * 32}, "there is no conversation 'conv_000"),
        ("get_conversation", {"conversation_id": "\ud800"}, "there is no conversation"),
        ("get_conversation", {"start": 1}, "has no message 1: its messages are 0 to 0"),
        ("get_conversation", {"start": 10**30}, "its messages are 0 to 0"),
        ("get_conversation", {"start": "1"}, "start"),
        ("get_conversation", {"limit": 0}, "limit"),
        ("list_conversations", {"query": "- ?"}, "there is no word to search for"),
        ("list_conversations", {"query": " ".join(map(str, range(17)))}, "has 17 words, and 16 are the most"),
        ("list_conversations", {"query": "x" * 501}, "query"),
        ("list_conversations", {"state": "gone"}, "state"),
        ("list_conversations", {"cursor": "abc"}, "the cursor is of no page of this search"),
        ("list_conversations", {"cursor": "\ud800"}, "the cursor is of no page of this search"),
        ("list_conversations", {"limit": 51}, "limit"),
        ("list_conversations", {"verbose": True}, "verbose"),
    ],
)
@pytest.mark.behaviour("records.refused")
def test_what_cannot_be_meant_is_one_sentence(
    tmp_path: Path, tool: str, arguments: dict[str, Any], sentence: str
) -> None:
    async def scenario() -> None:
        conversation = of()
        async with offering(tmp_path, conversation) as bench:
            known = {"conversation_id": conversation.id} if tool == "get_conversation" else {}
            result = await bench.call(tool, **{**known, **arguments})
            assert result.is_error
            assert sentence in result.text
            assert "\n" not in result.text

    asyncio.run(scenario())


@pytest.mark.behaviour("records.list.pages")
def test_a_cursor_is_good_for_its_own_search_only(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with offering(tmp_path, of(), of(), of()) as bench:
            first = await bench.call("list_conversations", query="question", limit=2)
            assert first.structured is not None
            cursor = first.structured["next_cursor"]
            assert f"continue with cursor {cursor!r}" in first.text
            rest = await bench.call("list_conversations", query="question", limit=2, cursor=cursor)
            assert rest.structured is not None
            assert (len(rest.structured["conversations"]), rest.structured["next_cursor"]) == (1, None)
            seen = [found["conversation_id"] for r in (first, rest) for found in (r.structured or {})["conversations"]]
            assert len(set(seen)) == 3
            for other in ({}, {"query": "quest"}, {"query": "question", "state": "active"}):
                result = await bench.call("list_conversations", **other, cursor=cursor)
                assert result.text == "the cursor is of no page of this search: leave it out to begin at the front"
            nothing = await bench.call("list_conversations", query="nowhere")
            assert (nothing.text, nothing.structured) == (
                "No conversations.",
                {"conversations": [], "next_cursor": None},
            )

    asyncio.run(scenario())


def test_the_tools_promise_what_they_keep_and_are_never_offered_to_claude() -> None:
    promises = {tool.name: tool.annotations for tool in conversation_record_tools(max_page_bytes=PAGE)}
    assert {name: (p.read_only, p.destructive, p.idempotent, p.open_world) for name, p in promises.items()} == {
        "list_conversations": (True, False, True, False),
        "get_conversation": (True, False, True, False),
        "fork_conversation": (False, False, False, False),
        "close_conversation": (False, True, True, False),
    }
    assert not any(tool.for_claude for tool in conversation_record_tools(max_page_bytes=PAGE))

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.talk import conversation_of
from support.telemetry import FakeSpan, FakeTelemetry
from support.tool_calls import FakeClient
from tfo_mcp.application.bus import Bus, Endpoint, RequestInfo
from tfo_mcp.application.pages import Page
from tfo_mcp.application.queries import (
    Complete,
    CompletionQueries,
    GetPrompt,
    ListResources,
    PromptQueries,
    ReadContent,
    ReadResource,
    ResourceQueries,
)
from tfo_mcp.domain.completion import Completion
from tfo_mcp.domain.conversation import Conversation
from tfo_mcp.domain.errors import (
    InvalidPromptArgument,
    ResourceUnavailable,
    StorageUnavailable,
    ToolFailure,
    UnknownPrompt,
    UnknownResource,
)
from tfo_mcp.domain.message import Message, OpaqueBlock, Text, ToolAnswer, ToolUse, Usage
from tfo_mcp.domain.prompt import PromptRegistry
from tfo_mcp.domain.resource import Content, Reader, Resource, ResourceRegistry, ResourceTemplate
from tfo_mcp.domain.session import Session
from tfo_mcp.infrastructure.persistence.catalog import SqlConversationCatalog
from tfo_mcp.infrastructure.persistence.conversations import SqlConversationRepository
from tfo_mcp.infrastructure.persistence.storage import Storage
from tfo_mcp.presentation.prompts import SERVER_PROMPTS
from tfo_mcp.presentation.resources import ConversationResources
from tfo_mcp.presentation.wire import error_code, error_of, resource_contents


async def read(uri: str, reader: Reader) -> Content:
    """What the URI says."""
    if uri.endswith("refused"):
        raise ToolFailure("not for you")
    if uri.endswith("gone"):
        raise StorageUnavailable("the disk is full")
    if uri.endswith("never"):
        await asyncio.Event().wait()
    return Content("text/plain", f"{uri} for {reader.principal}")


async def complete(written: str, reader: Reader) -> Completion:
    await read(written, reader)
    return Completion([written], 1, has_more=False)


FIXED = Resource(uri="a://fixed", name="a", title="A", description="A.", mime_type="text/plain", read=read)
TEMPLATE = ResourceTemplate(
    uri_template="b://{what}", name="b", title="B", description="B.", read=read, complete=complete
)


class World:
    """The queries on a real bus, which records."""

    def __init__(self, resources: ResourceRegistry | None = None, *, timeout: float = 20) -> None:
        registry = resources or ResourceRegistry([FIXED], [TEMPLATE])
        prompts = PromptRegistry(SERVER_PROMPTS)
        reads = ResourceQueries(registry, page_size=10, timeout=timeout)
        self.telemetry = FakeTelemetry()
        self.session = Session(principal="alice")
        self.session.initialize(protocol_version="2025-11-25", client_name="test", client_version="1")
        self.session.become_ready()
        self.bus = Bus(
            {
                ListResources: Endpoint(reads.list_resources),
                ReadResource: Endpoint(reads.read),
                GetPrompt: Endpoint(PromptQueries(prompts, page_size=10).get_prompt),
                Complete: Endpoint(CompletionQueries(prompts, registry, timeout=timeout).complete),
            },
            telemetry=self.telemetry,
            error_code=error_code,
            report=lambda error_id, error: pytest.fail(f"unforeseen: {error!r}"),
        )

    async def ask(self, method: str, query: object) -> object:
        info = RequestInfo(
            operation=method,
            session=self.session,
            client=FakeClient(),
            protocol_version="2025-11-25",
            principal="alice",
        )
        return await self.bus.dispatch(query, info)

    @property
    def span(self) -> FakeSpan:
        (span,) = self.telemetry.spans
        return span


COMMON: Mapping[str, object] = {
    "mcp.protocol.version": "2025-11-25",
    "network.transport": "pipe",
}


def shown(span: FakeSpan) -> tuple[str, Mapping[str, object], tuple[str, str | None] | None]:
    """Name, attributes beside the common ones, and how it ended."""
    own = {key: value for key, value in span.attributes.items() if key not in {*COMMON, "mcp.session.id"}}
    assert {key: span.attributes[key] for key in COMMON} == COMMON
    return span.name, own, span.ended


# --- what is recorded ---


def test_a_known_prompt_gives_the_span_its_name_and_an_unknown_one_does_not() -> None:
    known, unfilled, unknown = World(), World(), World()
    asyncio.run(known.ask("prompts/get", GetPrompt("code_review", {"code": "x"})))
    with pytest.raises(InvalidPromptArgument):
        asyncio.run(unfilled.ask("prompts/get", GetPrompt("code_review", {})))
    with pytest.raises(UnknownPrompt):
        asyncio.run(unknown.ask("prompts/get", GetPrompt("the client's own word", {})))

    bare, refused = {"mcp.method.name": "prompts/get"}, {"rpc.response.status_code": "-32602"}
    named = {**bare, "gen_ai.prompt.name": "code_review"}
    assert shown(known.span) == ("prompts/get code_review", named, ("completed", None))
    assert shown(unfilled.span) == ("prompts/get code_review", {**named, **refused}, ("invalid", "-32602"))
    assert shown(unknown.span) == ("prompts/get", {**bare, **refused}, ("invalid", "-32602"))


def test_a_uri_is_recorded_only_where_it_is_the_servers_own_word() -> None:
    fixed, templated, unknown = World(), World(), World()
    asyncio.run(fixed.ask("resources/read", ReadResource("a://fixed")))
    asyncio.run(templated.ask("resources/read", ReadResource("b://the client's own word")))
    with pytest.raises(UnknownResource):
        asyncio.run(unknown.ask("resources/read", ReadResource("c://the client's own word")))

    bare = {"mcp.method.name": "resources/read"}
    assert shown(fixed.span) == ("resources/read", {**bare, "mcp.resource.uri": "a://fixed"}, ("completed", None))
    assert shown(templated.span) == ("resources/read", bare, ("completed", None))
    refused = {**bare, "rpc.response.status_code": "-32602"}
    assert shown(unknown.span) == ("resources/read", refused, ("invalid", "-32602"))


def test_what_cannot_be_read_now_has_failed_and_what_may_not_be_read_is_invalid() -> None:
    gone, refused = World(), World()
    with pytest.raises(ResourceUnavailable) as unavailable:
        asyncio.run(gone.ask("resources/read", ReadResource("b://gone")))
    with pytest.raises(ToolFailure):
        asyncio.run(refused.ask("resources/read", ReadResource("b://refused")))

    assert gone.span.ended == ("failed", "-32603")
    assert refused.span.ended == ("invalid", "-32602")
    sentence = "'b://gone' cannot be read now: the disk is full"
    assert error_of(unavailable.value) == (-32603, sentence, {"uri": "b://gone"})


def test_reading_and_completing_end_at_their_deadline() -> None:
    world = World(timeout=0.05)

    async def scenario() -> None:
        for method, query in {
            "resources/read": ReadResource("b://never"),
            "completion/complete": Complete("resource", "b://{what}", "what", "never"),
        }.items():
            with pytest.raises(ResourceUnavailable, match=r"it took more than 0\.05 s"):
                await world.ask(method, query)

    asyncio.run(scenario())
    assert [span.ended for span in world.telemetry.spans] == [("failed", "-32603")] * 2


def test_who_reads_is_who_asked() -> None:
    result = asyncio.run(World().ask("resources/read", ReadResource("b://x")))
    assert isinstance(result, ReadContent)
    assert resource_contents(result) == {
        "contents": [{"uri": "b://x", "mimeType": "text/plain", "text": "b://x for alice"}]
    }


# --- lists that depend on others ---


def test_a_list_whose_recent_part_cannot_be_had_is_given_without() -> None:
    async def recent(reader: Reader, limit: int, after: str | None) -> list[Resource]:
        raise StorageUnavailable("the disk is full")

    broken = ResourceTemplate(
        uri_template="b://{what}", name="b", title="B", description="B.", read=read, complete=complete, recent=recent
    )
    page = asyncio.run(World(ResourceRegistry([FIXED], [broken])).ask("resources/list", ListResources()))
    assert page == Page([FIXED], None)


# --- conversations ---


def a_conversation(principal: str, text: str) -> Conversation:
    content = (
        OpaqueBlock({"type": "thinking", "thinking": "private", "signature": "x"}),
        Text(text),
        ToolUse("toolu_1", "echo", {"message": text}),
    )
    called = Message("assistant", content, usage=Usage(1, 2), stop_reason="tool_use")
    return conversation_of(text, called, ToolAnswer("toolu_1", text), principal=principal)


@asynccontextmanager
async def conversations(folder: Path, *stored: Conversation, max_bytes: int = 100_000) -> AsyncGenerator[World]:
    storage = Storage(folder / "tfo-mcp.db")
    try:
        for conversation in stored:
            await SqlConversationRepository(storage).save(conversation)
        template = ConversationResources(SqlConversationCatalog(storage), max_bytes=max_bytes).template()
        yield World(ResourceRegistry([], [template]))
    finally:
        await storage.close()


@pytest.mark.behaviour("resources.read.conversation")
def test_a_conversation_of_somebody_else_is_unknown(tmp_path: Path) -> None:
    async def scenario() -> None:
        theirs, ours = a_conversation("bob", "x"), a_conversation("alice", "y")
        async with conversations(tmp_path, theirs, ours) as world:
            with pytest.raises(UnknownResource):
                await world.ask("resources/read", ReadResource(f"conversation://{theirs.id}"))
            page = await world.ask("resources/list", ListResources())
            assert isinstance(page, Page)
            assert [item.uri for item in page.items] == [f"conversation://{ours.id}"]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # a page of what was asked for
            found = await world.ask("completion/complete", Complete("resource", "conversation://{id}", "id", ""))
            assert found == Completion([ours.id], 1, has_more=False)

    asyncio.run(scenario())


@pytest.mark.parametrize("size", [1, 100, 1_000, 50_000])
def test_a_message_that_does_not_fit_is_cut_and_says_so(tmp_path: Path, size: int) -> None:
    async def scenario() -> None:
        conversation = a_conversation("alice", "é" * 40_000)
        async with conversations(tmp_path, conversation, max_bytes=size) as world:
            result = await world.ask("resources/read", ReadResource(f"conversation://{conversation.id}"))
        assert isinstance(result, ReadContent)
        assert isinstance(result.content.data, str)
        given = json.loads(result.content.data)
        assert (len(given["messages"]), given["omitted_messages"]) == (1, 2)
        (block,) = given["messages"][0]["content"]
        assert (block["truncated"], block["size"]) == (True, 80_002)
        assert set(block["content"]) <= {"é"}
        assert size - 150 <= 2 * len(block["content"]) <= size
        assert "private" not in result.content.data

    asyncio.run(scenario())

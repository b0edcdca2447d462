"""Conversations as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tfo_mcp.domain.catalog import ConversationPage, ConversationSummary
from tfo_mcp.domain.conversation_record import ConversationState
from tfo_mcp.domain.identifiers import ConversationId
from tfo_mcp.domain.message import Block, Message, OpaqueBlock, Text, ToolAnswer, ToolUse, Usage, block_from_json
from tfo_mcp.presentation.exports import (
    conversation_heading,
    conversation_line,
    json_line,
    message_line,
    message_section,
    on_one_line,
    plain,
)

ID = "conv_0123456789abcdef0123456789abcdef"

PIECES = (
    *"`~>#-=*_<!/[]()&|\\\"' \t\n\r\v\f\x00\x1b\x07\x7f\x85\x9b\u2028\u2029\u202e\ud800\xe4x1.",
    *(
        "```",
        "\n```\n",
        "\n````",
        "\n~~~\n",
        "\n\n",
        "\n# x\n",
        "\n---\n",
        "<!--",
        "\n<div>\n",
        "\n1. ",
        "&lt;",
        "![x](y)",
    ),
)

hostile = st.lists(st.sampled_from(PIECES), max_size=20).map("".join)

blocks = st.one_of(
    st.builds(Text, hostile),
    st.builds(ToolUse, st.just("toolu_1"), hostile, st.dictionaries(hostile, hostile, max_size=2)),
    st.builds(ToolAnswer, st.just("toolu_1"), hostile, st.booleans()),
    st.builds(OpaqueBlock, st.fixed_dictionaries({"type": hostile.filter(lambda kind: kind != "text")})),
)


def page(title: str = "Hello", model: str = "claude-test-1", system_prompt: str | None = None) -> ConversationPage:
    summary = ConversationSummary(
        id=ConversationId(ID),
        model=model,
        state=ConversationState.ACTIVE,
        created_at=0.0,
        updated_at=1.5,
        title=title,
        messages=2,
        turns=1,
        requests=1,
        unknown_requests=0,
        usage=Usage(1, 2, 3, 4),
        forked_from=None,
        forked_at=None,
    )
    return ConversationPage(summary=summary, system_prompt=system_prompt, start=0, messages=())


def frame_of(markdown: str) -> Sequence[str]:
    """The kinds of the outermost parts, with the headings' levels."""
    return [f"{token.type} {token.tag}" for token in MarkdownIt("commonmark").parse(markdown) if token.level == 0]


def expected_frame(content: Sequence[Block]) -> Sequence[str]:
    frame = ["heading_open h2", "heading_close h2"]
    paragraph = ["paragraph_open p", "paragraph_close p"]
    for block in content:
        match block:
            case Text(text):
                frame += ["blockquote_open blockquote", "blockquote_close blockquote"] if text.strip() else []
            case ToolUse() | ToolAnswer():
                frame += [*paragraph, "fence code"]
            case OpaqueBlock():
                frame += paragraph
    return frame


@given(st.lists(blocks, max_size=4))
def test_no_content_can_break_out_of_the_frame_that_markdown_gives_it(content: list[Block]) -> None:
    section = message_section(3, Message("assistant", content, created_at=0.0))
    assert frame_of(section) == expected_frame(content)


@given(blocks)
def test_what_a_tool_was_asked_and_gave_stands_in_its_fence_to_the_letter(block: Block) -> None:
    tokens = MarkdownIt("commonmark").parse(message_section(0, Message("user", (block,), created_at=0.0)))
    fenced = [token.content for token in tokens if token.type == "fence" and token.level == 0]
    match block:
        case ToolAnswer(content=content):
            assert fenced == [plain(content) + "\n"]
        case ToolUse(name=name, input=arguments):
            assert fenced == [
                plain(json.dumps({"name": name, "input": arguments}, ensure_ascii=False, indent=2)) + "\n"
            ]
        case _:
            assert fenced == []


@given(hostile, hostile, hostile)
def test_no_title_or_prompt_can_break_out_of_the_beginning(title: str, model: str, prompt: str) -> None:
    frame = frame_of(conversation_heading(page(title, model, prompt)))
    head = ["heading_open h1", "heading_close h1", "bullet_list_open ul", "bullet_list_close ul"]
    quoted = ["heading_open h2", "heading_close h2", "blockquote_open blockquote", "blockquote_close blockquote"]
    assert frame == (head + quoted if prompt else head)


@given(hostile)
def test_a_title_reads_as_it_is_whatever_its_characters_mean_in_markdown(title: str) -> None:
    tokens = MarkdownIt("commonmark").parse(conversation_heading(page(title)))
    words = [child.content for child in tokens[1].children or () if child.type in {"text", "text_special"}]
    assert len(words) == len(tokens[1].children or ())
    assert "".join(words).strip() == (on_one_line(title) or "A conversation without a title")


@given(hostile)
def test_nothing_that_people_read_commands_their_terminal(text: str) -> None:
    message = Message("user", (Text(text), ToolUse("toolu_1", text, {text: text}), ToolAnswer("toolu_1", text)))
    for shown in (plain(text), message_section(0, message), conversation_heading(page(text, text, text))):
        assert all(char in "\n\t" or char.isprintable() for char in shown), ascii(shown)
        shown.encode()
    assert "\n" not in on_one_line(text)
    assert "\t" not in on_one_line(text)


def test_what_was_changed_can_be_seen() -> None:
    assert plain("\x1b[2Jä\tb\r\nc\rd\u202e\u200d") == "\\x1b[2Jä\tb\nc\\x0dd\\u202e\u200d"


@given(st.lists(blocks, max_size=3))
def test_a_line_of_json_gives_the_message_back(content: list[Block]) -> None:
    line = message_line(ID, 7, Message("user", content, created_at=0.25))
    assert line.encode().decode().splitlines() == [line[:-1]]
    read: dict[str, Any] = json.loads(line)
    assert [block_from_json(block) for block in read.pop("content")] == content
    assert read == {
        "type": "message",
        "conversation_id": ID,
        "position": 7,
        "role": "user",
        "created_at": "1970-01-01T00:00:00.250+00:00",
    }


def test_what_only_the_api_can_use_is_in_the_lines_too() -> None:
    thought = OpaqueBlock({"type": "thinking", "thinking": "Hm.", "signature": "c2ln"})
    picture = OpaqueBlock({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}})
    message = Message("assistant", (thought, picture), usage=Usage(1, 2, 3, 4), model="m", stop_reason="end_turn")
    read = json.loads(message_line(ID, 0, message))
    assert read["content"] == [thought.data, picture.data]
    assert (read["model"], read["stop_reason"], read["usage"]["cache_write_tokens"]) == ("m", "end_turn", 4)
    assert "Hm." not in message_section(0, message)


def test_a_conversations_first_line_tells_all_but_its_messages() -> None:
    assert json.loads(conversation_line(page(system_prompt="Be brief."))) == {
        "type": "conversation",
        "format": 1,
        "conversation_id": ID,
        "title": "Hello",
        "state": "active",
        "model": "claude-test-1",
        "created_at": "1970-01-01T00:00:00.000+00:00",
        "updated_at": "1970-01-01T00:00:01.500+00:00",
        "messages": 2,
        "turns": 1,
        "requests": 1,
        "unknown_requests": 0,
        "usage": {"input_tokens": 1, "output_tokens": 2, "cache_read_tokens": 3, "cache_write_tokens": 4},
        "forked_from": None,
        "forked_at": None,
        "system_prompt": "Be brief.",
    }


def test_a_line_of_json_is_readable_where_it_can_be() -> None:
    assert json_line({"größe": "\x9b\x7f\ud800"}) == '{"größe":"\\u009b\\u007f\\ud800"}\n'

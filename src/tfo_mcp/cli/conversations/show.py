"""`tfo-mcp conversations show`: a conversation to be read on a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tfo_mcp.cli import EXIT_FAILURE
from tfo_mcp.cli.configuration import config_option, refuse
from tfo_mcp.cli.records import Records, counted, printing, refuse_unknown, with_records

if TYPE_CHECKING:
    from tfo_mcp.domain.catalog import ConversationPage
    from tfo_mcp.domain.message import Block, Message
    from tfo_mcp.infrastructure.config import Loaded

_MOST_OF_A_CALL: Final = 2000
"""Characters of a tool call's input, and of a tool's result, that are shown of each."""


@click.command("show")
@config_option
@click.argument("conversation_id")
@click.option(
    "--from",
    "start",
    default=0,
    show_default=True,
    type=int,
    help="The position of the first message; a negative one is counted from the end.",
)
@click.option("--limit", default=50, show_default=True, type=click.IntRange(min=1), help="How many messages, at most.")
def command(config: Path | None, conversation_id: str, start: int, limit: int) -> None:
    """Show a conversation's messages, oldest first. Of long inputs and results of tools the beginning is shown."""

    async def work(records: Records, _loaded: Loaded) -> bool:
        head = await records.head(conversation_id)
        if head is None:
            refuse_unknown(conversation_id)
        await _show(records, head, start, limit)
        return True

    with printing():
        found = with_records(config, work)
    if found is None:
        raise SystemExit(EXIT_FAILURE)


async def _show(records: Records, head: ConversationPage, start: int, limit: int) -> None:
    count = head.summary.messages
    first = start if start >= 0 else max(0, count + start)
    if first and first >= count:
        known = f"its messages are 0 to {count - 1}" if count else "it has none yet"
        refuse(f"conversation {head.summary.id} has no message {start}: {known}", EXIT_FAILURE)
    end = min(count, first + limit)
    for line in _heading(head):
        click.echo(line)
    async for position, message in records.archive.messages(head.summary.id, start=first, end=end):
        click.echo(f"\n{_section(position, message)}")
    if end < count:
        click.echo(f"\n{counted(count - end, 'more message')}: --from {end}")


def _heading(head: ConversationPage) -> Iterator[str]:
    from tfo_mcp.domain.health import moment
    from tfo_mcp.presentation.exports import on_one_line, plain

    summary = head.summary
    if summary.title:
        yield on_one_line(summary.title)
    yield (
        f"{summary.id}, {summary.state.value}, {on_one_line(summary.model)}, "
        f"{counted(summary.messages, 'message')}, changed {moment(summary.updated_at)}"
    )
    if summary.forked_from is not None:
        yield f"forked from {summary.forked_from}, with its messages up to {summary.forked_at}"
    if head.system_prompt:
        yield f"system prompt:\n{_indented(plain(head.system_prompt))}"


def _section(position: int, message: Message) -> str:
    from tfo_mcp.domain.health import moment

    who = "User" if message.role == "user" else "Claude"
    parts = [_indented(part) for block in message.content if (part := _part(block)).strip()]
    return "\n".join([f"[{position}] {who}, {moment(message.created_at)}", *parts])


def _part(block: Block) -> str:
    from tfo_mcp.domain.message import OpaqueBlock, Text, ToolAnswer, ToolUse
    from tfo_mcp.presentation.exports import on_one_line, plain

    match block:
        case Text(text) | OpaqueBlock({"type": "text", "text": str(text)}):
            return plain(text)
        case ToolUse(name=name, input=arguments):
            return f"-> {on_one_line(name)} {_cut(json.dumps(arguments, ensure_ascii=False))}"
        case ToolAnswer(content=content, is_error=is_error):
            return f"<- {'failed: ' if is_error else ''}{_cut(content)}"
        case OpaqueBlock(data):
            return f"({on_one_line(str(data.get('type')))})"


def _cut(text: str) -> str:
    from tfo_mcp.presentation.exports import plain

    left = len(text) - _MOST_OF_A_CALL
    return plain(text if left <= 0 else f"{text[:_MOST_OF_A_CALL]}… ({counted(left, 'more character')})")


def _indented(text: str) -> str:
    """No line of a text can be taken for the head of a message."""
    return "\n".join(f"    {line}" if line else "" for line in text.split("\n"))

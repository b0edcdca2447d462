"""`tfo-mcp conversations list`: which conversations there are."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tfo_mcp.cli.configuration import config_option
from tfo_mcp.cli.records import Records, printing, with_records

if TYPE_CHECKING:
    from tfo_mcp.domain.catalog import ConversationSummary
    from tfo_mcp.infrastructure.config import Loaded

_STATES: Final = ("created", "active", "waiting", "error", "closed")
_PAGE: Final = 100
_ROW: Final = "{:<37}  {:<16}  {:<7}  {:>8}  {}"


@click.command("list")
@config_option
@click.option("--search", default="", metavar="TEXT", help="Only those in which each of these words was said.")
@click.option("--state", type=click.Choice(_STATES), help="Only those in this state.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(min=1), help="How many, at most.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")
def command(config: Path | None, search: str, state: str | None, limit: int, *, as_json: bool) -> None:
    """List conversations, those changed last first. Times are in UTC."""
    from tfo_mcp.application.conversation_queries import check_words
    from tfo_mcp.domain.errors import InvalidSearch
    from tfo_mcp.presentation.exports import summary_line

    text = search.strip()
    try:
        check_words(text)
    except InvalidSearch as error:
        raise click.BadParameter(str(error), param_hint="--search") from error

    async def work(records: Records, _loaded: Loaded) -> None:
        first = True
        async for summary in _found(records, text, state, limit):
            if as_json:
                click.echo(summary_line(summary), nl=False)
                continue
            if first:
                click.echo(_ROW.format("CONVERSATION", "CHANGED", "STATE", "MESSAGES", "TITLE"))
            first = False
            click.echo(_row(summary))

    with printing():
        with_records(config, work)


async def _found(records: Records, text: str, state: str | None, limit: int) -> AsyncGenerator[ConversationSummary]:
    from tfo_mcp.domain.conversation_record import ConversationState

    wanted = None if state is None else ConversationState(state)
    after = None
    while limit > 0:
        page = await records.catalog.find(
            records.principal, text=text, state=wanted, limit=min(limit, _PAGE), after=after
        )
        for summary in page:
            yield summary
            after = summary.place
        limit -= len(page)
        if len(page) < _PAGE:
            return


def _row(summary: ConversationSummary) -> str:
    from datetime import UTC, datetime

    from tfo_mcp.presentation.exports import on_one_line

    changed = datetime.fromtimestamp(summary.updated_at, UTC).strftime("%Y-%m-%d %H:%M")
    return _ROW.format(summary.id, changed, summary.state.value, summary.messages, on_one_line(summary.title)).rstrip()

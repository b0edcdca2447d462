"""`tfo-mcp conversations delete`: conversations that are to be gone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tfo_mcp.cli import EXIT_FAILURE
from tfo_mcp.cli.configuration import config_option
from tfo_mcp.cli.records import TRACES_LEFT, Records, counted, printing, with_records

if TYPE_CHECKING:
    from tfo_mcp.domain.catalog import ConversationPage
    from tfo_mcp.domain.identifiers import ConversationId
    from tfo_mcp.infrastructure.config import Loaded


@click.command("delete")
@config_option
@click.argument("conversation_ids", nargs=-1, required=True, metavar="CONVERSATION_ID...")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def command(config: Path | None, conversation_ids: tuple[str, ...], *, dry_run: bool, yes: bool) -> None:
    """Delete conversations for good.

    No trace of them is left in the database; forks of them stay. One that a server works on stays too, and the exit
    code is 1.
    """

    async def work(records: Records, _loaded: Loaded) -> bool:
        heads = await records.heads(conversation_ids)
        for head in heads.values():
            click.echo(_row(head))
        if dry_run:
            return True
        if not yes:
            click.confirm(f"Delete {counted(len(heads), 'conversation')} for good?", abort=True, err=True)
        return await _delete(records, list(heads))

    with printing():
        done = with_records(config, work)
    if not done:
        raise SystemExit(EXIT_FAILURE)


async def _delete(records: Records, conversation_ids: list[ConversationId]) -> bool:
    """Whether all of them are gone."""
    from tfo_mcp.domain.errors import ConversationBusy

    deleted = messages = kept = 0
    for conversation_id in conversation_ids:
        try:
            count = await records.archive.delete(conversation_id, records.principal)
        except ConversationBusy:
            kept += 1
            click.echo(f"tfo-mcp: {conversation_id} stays: a server works on it; try again when it is done", err=True)
            continue
        if count is not None:
            deleted += 1
            messages += count
    if deleted and not await records.archive.wipe():
        click.echo(f"tfo-mcp: {TRACES_LEFT}", err=True)
    click.echo(f"deleted {counted(deleted, 'conversation')} with {counted(messages, 'message')}")
    return not kept


def _row(head: ConversationPage) -> str:
    from tfo_mcp.presentation.exports import on_one_line

    summary = head.summary
    return f"{summary.id}  {counted(summary.messages, 'message')}  {on_one_line(summary.title)}".rstrip()

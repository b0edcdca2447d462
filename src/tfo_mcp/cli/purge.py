"""`tfo-mcp purge`: what has become too old goes, now."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tfo_mcp.cli.configuration import config_option
from tfo_mcp.cli.records import TRACES_LEFT, Records, counted, printing, with_records

if TYPE_CHECKING:
    from tfo_mcp.infrastructure.config import Loaded
    from tfo_mcp.infrastructure.persistence.archive import Removed


@click.command("purge")
@config_option
@click.option(
    "--older-than",
    "days",
    metavar="DAYS",
    type=click.IntRange(0, 36_500),
    help="Days since the last change; without it, storage.retention_days.",
)
@click.option("--dry-run", is_flag=True, help="Say how much would be deleted, and delete nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option(
    "--vacuum", is_flag=True, help="Make the database smaller, too. Nothing can be stored while this takes its time."
)
def command(config: Path | None, days: int | None, *, dry_run: bool, yes: bool, vacuum: bool) -> None:
    """Delete everybody's conversations that have not changed for some days, and sessions that ended before that.

    What a server works on stays.
    """

    async def work(records: Records, loaded: Loaded) -> None:
        from tfo_mcp.infrastructure.persistence.retention import DAY

        age = loaded.settings.storage.retention_days if days is None else days
        if age is None:
            raise click.UsageError("say --older-than DAYS, or set storage.retention_days")
        before = time.time() - age * DAY
        outdated = await records.archive.outdated(before)
        if dry_run:
            click.echo(f"would delete {_told(outdated)}")
            return
        if not yes:
            click.confirm(f"Delete {_told(outdated)} for good?", abort=True, err=True)
        removed = await records.archive.purge(before)
        if not await records.archive.wipe(vacuum=vacuum):
            click.echo(f"tfo-mcp: {TRACES_LEFT}", err=True)
        click.echo(f"deleted {_told(removed)}")
        if removed.kept:
            click.echo(f"tfo-mcp: {counted(removed.kept, 'conversation')} stayed: a server works on it", err=True)

    with printing():
        with_records(config, work)


def _told(removed: Removed) -> str:
    conversations, messages = counted(removed.conversations, "conversation"), counted(removed.messages, "message")
    return f"{conversations} with {messages}, and {counted(removed.sessions, 'session')}"

"""`tfo-mcp tail`: calls as servers end them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tfo_mcp.cli.configuration import config_option
from tfo_mcp.cli.recordings import with_recordings

if TYPE_CHECKING:
    from tfo_mcp.domain.recorded import RecordedSpan
    from tfo_mcp.infrastructure.telemetry.reader import RecorderReader

_LOOK_AGAIN: Final = 0.2
"""Seconds."""
_PAGE: Final = 1000


@click.command("tail")
@config_option
@click.option("--lines", "-n", default=10, show_default=True, type=click.IntRange(0), help="Calls to begin with.")
@click.option("--no-follow", is_flag=True, help="End behind them, instead of waiting for those to come.")
@click.option("--failed", is_flag=True, help="Only those that failed.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")
def command(config: Path | None, lines: int, *, no_follow: bool, failed: bool, as_json: bool) -> None:
    """Show the last calls, and follow those to come: of all servers that share the state folder. Times are in UTC."""

    async def work(recordings: RecorderReader, principal: str) -> None:
        last = await recordings.place_of_last(principal, lines)
        while True:
            last, calls = await recordings.calls_after(principal, last, _PAGE)
            for call in calls:
                if call.has_failed or not failed:
                    _tell(call, as_json=as_json)
            if len(calls) < _PAGE:
                if no_follow:
                    return
                await asyncio.sleep(_LOOK_AGAIN)

    with suppress(KeyboardInterrupt):  # that is how it ends
        with_recordings(config, work)


def _tell(call: RecordedSpan, *, as_json: bool) -> None:
    from tfo_mcp.application.telemetry_views import call_view
    from tfo_mcp.presentation.exports import json_line, on_one_line

    view = call_view(call)
    if as_json:
        click.echo(json_line(view), nl=False)
        return
    ended = call.outcome if call.error_type is None else f"{call.outcome} ({call.error_type})"
    told = on_one_line(f"{call.name} {ended}")
    click.echo(f"{view['started_at'][11:23]}  {view['duration_ms']:>10.3f} ms  {call.trace_id}  {told}")

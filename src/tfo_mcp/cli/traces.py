"""`tfo-mcp traces`: one call and all that ran below it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tfo_mcp.cli import EXIT_FAILURE
from tfo_mcp.cli.configuration import config_option, refuse
from tfo_mcp.cli.recordings import with_recordings

if TYPE_CHECKING:
    from tfo_mcp.domain.recorded import RecordedSpan
    from tfo_mcp.infrastructure.telemetry.reader import RecorderReader

_PAGE: Final = 1000


@click.group("traces")
def command() -> None:
    """Show what was recorded of one call."""


@command.command("show")
@config_option
@click.argument("trace_id")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")
def show(config: Path | None, trace_id: str, *, as_json: bool) -> None:
    """Show the operations of a trace as a tree: when each began, how long it took, how it ended."""
    from tfo_mcp.application.telemetry_views import span_view
    from tfo_mcp.infrastructure.tools.telemetry_text import tree_lines
    from tfo_mcp.presentation.exports import json_line, plain

    async def work(recordings: RecorderReader, principal: str) -> None:
        spans: list[RecordedSpan] = []
        while True:
            page = await recordings.trace(principal, trace_id, start=len(spans), limit=_PAGE)
            spans += page.spans
            if len(spans) >= page.total or not page.spans:
                break
        if not spans:
            refuse(f"no trace with the id {trace_id[:64]!r} is kept: `tfo-mcp tail` tells those of calls", EXIT_FAILURE)
        for line in map(json_line, map(span_view, spans)) if as_json else map(_ended, map(plain, tree_lines(spans))):
            click.echo(line, nl=False)

    if not re.fullmatch("[0-9a-fA-F]{32}", trace_id):
        raise click.BadParameter("a trace's id has 32 hexadecimal digits", param_hint="TRACE_ID")
    with_recordings(config, work)


def _ended(line: str) -> str:
    return f"{line}\n"

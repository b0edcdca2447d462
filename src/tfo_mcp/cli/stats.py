"""`tfo-mcp stats`: what servers did in a window of time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tfo_mcp.cli.configuration import config_option
from tfo_mcp.cli.recordings import Window, with_recordings

if TYPE_CHECKING:
    from tfo_mcp.domain.recorded import OperationCount
    from tfo_mcp.infrastructure.telemetry.reader import RecorderReader

_ROW: Final = "{:<8} {:<32} {:>8} {:>7} {:>10} {:>10} {:>10} {:>10}"


@click.command("stats")
@config_option
@click.option("--window", default="1h", show_default=True, type=Window(), help="How far back, such as 15m, 6h or 7d.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")
def command(config: Path | None, window: float, *, as_json: bool) -> None:
    """Count calls and errors per method, tool and model, and tell how long they took, in milliseconds."""

    async def work(recordings: RecorderReader, principal: str) -> None:
        until = time.time()
        counts = await recordings.counts(principal, until - window, until)
        if not as_json:
            click.echo(_ROW.format("KIND", "NAME", "CALLS", "ERRORS", "P50", "P95", "P99", "LONGEST"))
        for count in counts:
            _tell(count, as_json=as_json)

    with_recordings(config, work)


def _tell(count: OperationCount, *, as_json: bool) -> None:
    from tfo_mcp.application.telemetry_views import count_view
    from tfo_mcp.presentation.exports import json_line, on_one_line

    view = count_view(count)
    if as_json:
        click.echo(json_line(view), nl=False)
        return
    times = [f"{view[name]:.2f}" for name in ("p50_ms", "p95_ms", "p99_ms", "longest_ms")]
    click.echo(_ROW.format(count.kind, on_one_line(count.name), count.calls, count.errors, *times))
    for error_type, many in view["errors_by_type"].items():
        click.echo(_ROW.format("", f"  {on_one_line(error_type)}", "", many, *[""] * 4).rstrip())
    for what, many in view.get("tokens", {}).items():
        if many:
            click.echo(_ROW.format("", f"  {what.replace('_', ' ')} tokens", many, *[""] * 5).rstrip())

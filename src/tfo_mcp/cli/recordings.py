"""What the verbs about telemetry share: the recorder of a configuration, and how they end."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tfo_mcp.cli import EXIT_STORAGE
from tfo_mcp.cli.configuration import load, refuse
from tfo_mcp.cli.records import make_fit_for_people, printing

if TYPE_CHECKING:
    from tfo_mcp.infrastructure.telemetry.reader import RecorderReader


class Window(click.ParamType[float]):
    """Minutes, hours or days, such as `15m`, as seconds."""

    name = "window"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401  # click's signature
        """Seconds."""
        from tfo_mcp.application.telemetry_queries import WINDOW, seconds_of

        if re.fullmatch(WINDOW, str(value)) is None:
            self.fail(f"{value!r} is not a number of minutes, hours or days, such as 15m, 6h or 7d", param, ctx)
        return seconds_of(str(value))


def with_recordings(config: Path | None, work: Callable[[RecorderReader, str], Coroutine[Any, Any, None]]) -> None:
    """Let `work` read what was recorded on behalf of whoever uses this machine.

    Exits with 3 where the configuration, with 4 where the recorder cannot be used.
    """
    from tfo_mcp.bootstrap.telemetry import make_reader
    from tfo_mcp.domain.errors import StorageUnavailable
    from tfo_mcp.domain.identifiers import LOCAL_PRINCIPAL

    settings = load(config).settings
    make_fit_for_people()
    if not settings.storage.recorder.exists():
        click.echo(f"tfo-mcp: nothing is recorded yet in {str(settings.storage.recorder)!r}", err=True)
    try:
        with printing():
            asyncio.run(work(make_reader(settings), LOCAL_PRINCIPAL))
    except StorageUnavailable as error:
        refuse(error, EXIT_STORAGE)

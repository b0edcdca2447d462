"""`tfo-mcp export`: what waits for the collector, for whoever runs a server that could not reach it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tfo_mcp.cli import EXIT_FAILURE, EXIT_STORAGE
from tfo_mcp.cli.configuration import config_option, load, refuse
from tfo_mcp.cli.records import counted

if TYPE_CHECKING:
    from tfo_mcp.infrastructure.telemetry.backlog import Backlog
    from tfo_mcp.infrastructure.telemetry.options import TelemetryOptions
    from tfo_mcp.infrastructure.telemetry.spool_file import Contents

_UNITS = {"traces": "span", "logs": "log record", "metrics": "metrics export"}


@click.group("export")
def command() -> None:
    """See, send and repeat what waits for the OTLP collector, also while servers run."""


@command.command("status")
@config_option
def status(config: Path | None) -> None:
    """Say what waits, since when, and what the collector refused."""
    backlog, options = _backlog(config)
    click.echo(f"collector: {options.endpoint or 'none is set, so nothing is sent'}")
    with _storage_said():
        _tell(backlog.contents())


@command.command("flush")
@config_option
@click.option(
    "--timeout",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0.1, 86_400),
    help="Seconds that it may take.",
)
def flush(config: Path | None, timeout: float) -> None:
    """Send what waits, now. Where something is left, the exit code is 1."""
    backlog, options = _backlog(config)
    if options.endpoint is None:
        refuse("no collector is set (telemetry.endpoint), so nothing can be sent", EXIT_FAILURE)
    with _storage_said():
        left, complaints = backlog.send(timeout)
    _tell(left)
    for complaint in complaints:
        click.echo(f"tfo-mcp: the collector did not take {complaint}", err=True)
    if left is not None and left.items:
        raise SystemExit(EXIT_FAILURE)


@command.command("replay")
@config_option
def replay(config: Path | None) -> None:
    """Let what the collector refused for good wait for it once more."""
    backlog, _ = _backlog(config)
    with _storage_said():
        count = backlog.replay()
    click.echo(f"waiting once more: {counted(count, 'export')}")


@contextmanager
def _storage_said() -> Generator[None]:
    from tfo_mcp.domain.errors import StorageUnavailable

    try:
        yield
    except StorageUnavailable as error:
        refuse(error, EXIT_STORAGE)


def _backlog(config: Path | None) -> tuple[Backlog, TelemetryOptions]:
    from tfo_mcp.infrastructure.config import ConfigurationError
    from tfo_mcp.infrastructure.telemetry.backlog import Backlog
    from tfo_mcp.infrastructure.telemetry.options import telemetry_options

    settings = load(config).settings
    try:
        options = telemetry_options(settings)
    except ConfigurationError as error:
        refuse(error)
    return Backlog(settings.storage.spool, options), options


def _tell(contents: Contents | None) -> None:
    from tfo_mcp.domain.health import moment

    if contents is None or not (contents.items or contents.dead):
        click.echo("nothing waits")
        return
    waiting = [counted(contents.items[signal], unit) for signal, unit in _UNITS.items() if signal in contents.items]
    if waiting:
        click.echo(f"waiting: {', '.join(waiting)}; {counted(contents.bytes, 'byte')} since {moment(contents.oldest)}")
    if contents.dead:
        click.echo(f"refused: {contents.dead}; `tfo-mcp export replay` lets them wait once more")

"""What every verb that reads the configuration shares: its options, and how it refuses."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from tfo_mcp.cli import EXIT_CONFIGURATION

if TYPE_CHECKING:
    from tfo_mcp.infrastructure.config import Loaded

_OPTIONS = (
    click.option("--config", "-c", type=click.Path(dir_okay=False, path_type=Path), help="The configuration file."),
    click.option(
        "--root", "roots", multiple=True, type=click.Path(file_okay=False), help="A folder file tools may enter."
    ),
    click.option("--log-level", help="debug, info, warning, error or critical."),
)


def configured(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that `load` takes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def load(config: Path | None, roots: tuple[str, ...], log_level: str | None) -> Loaded:
    """The settings in force; exits with 3 and one sentence where they cannot be."""
    from tfo_mcp.infrastructure.config import ConfigurationError, load_settings

    flags = {"tools.roots": list(roots) or None, "logging.level": log_level}
    try:
        return load_settings(config_path=config, flags=flags, environ=os.environ, cwd=Path.cwd())
    except ConfigurationError as error:
        refuse(error)


def refuse(error: Exception) -> NoReturn:
    """Say one sentence and exit with 3."""
    click.echo(f"tfo-mcp: {error}", err=True)
    raise SystemExit(EXIT_CONFIGURATION) from error

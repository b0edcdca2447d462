"""What every verb that reads the configuration shares: its options, and how it refuses."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from tfo_mcp.cli import EXIT_CONFIGURATION, EXIT_FAILURE

if TYPE_CHECKING:
    from tfo_mcp.infrastructure.config import Loaded

# What is wrong with a path is said by who reads it, for every source in the same words.
config_option = click.option(
    "--config", "-c", type=click.Path(readable=False, path_type=Path), help="The configuration file."
)

_OPTIONS = (
    config_option,
    click.option(
        "--root", "roots", multiple=True, type=click.Path(readable=False), help="A folder file tools may enter."
    ),
    click.option("--log-level", help="debug, info, warning, error or critical."),
)


def configured(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that `load` takes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read(config: Path | None, roots: tuple[str, ...], log_level: str | None) -> Loaded:
    """The settings in force.

    Raises:
        ConfigurationError: one sentence.
    """
    from tfo_mcp.infrastructure.config import load_settings

    flags = {"tools.roots": list(roots) or None, "logging.level": log_level}
    return load_settings(config_path=config, flags=flags, environ=os.environ, cwd=working_directory())


def load(config: Path | None, roots: tuple[str, ...] = (), log_level: str | None = None) -> Loaded:
    """As `read`; exits with 3 and one sentence where they cannot be."""
    from tfo_mcp.infrastructure.config import ConfigurationError

    try:
        return read(config, roots, log_level)
    except ConfigurationError as error:
        refuse(error)


def working_directory() -> Path:
    """Where we are; exits with 1 where that is gone."""
    try:
        return Path.cwd()
    except OSError as error:
        refuse(f"the working directory cannot be used: {error.strerror}", EXIT_FAILURE)


def refuse(why: object, code: int = EXIT_CONFIGURATION) -> NoReturn:
    """Say one sentence and exit."""
    click.echo(f"tfo-mcp: {why}", err=True)
    raise SystemExit(code)

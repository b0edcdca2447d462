"""`tfo-mcp validate`: check the configuration and show what is in force."""

from __future__ import annotations

from pathlib import Path

import click

from tfo_mcp.cli.configuration import configured, load, refuse


@click.command("validate")
@configured
def command(config: Path | None, roots: tuple[str, ...], log_level: str | None) -> None:
    """Check the configuration as `serve` would, and show what is in force; secrets as ***."""
    import yaml

    from tfo_mcp.infrastructure.config import ConfigurationError, masked
    from tfo_mcp.infrastructure.logs import check_logging
    from tfo_mcp.infrastructure.telemetry.options import telemetry_options

    loaded = load(config, roots, log_level)
    try:
        check_logging(loaded.settings)
        telemetry_options(loaded.settings)
    except ConfigurationError as error:
        refuse(error)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"# valid; from {loaded.source or 'defaults and environment only'}")
    click.echo(yaml.safe_dump(masked(loaded.settings), sort_keys=False, allow_unicode=True), nl=False)

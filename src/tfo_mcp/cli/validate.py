"""`tfo-mcp validate`: check the configuration and show what is in force."""

from __future__ import annotations

from pathlib import Path

import click

from tfo_mcp.cli import EXIT_STORAGE
from tfo_mcp.cli.configuration import configured, load, refuse


@click.command("validate")
@configured
def command(config: Path | None, roots: tuple[str, ...], log_level: str | None) -> None:
    """Check the configuration as `serve` would, and the storage; show what is in force, secrets as ***."""
    import yaml

    from tfo_mcp.domain.errors import StorageUnavailable
    from tfo_mcp.infrastructure.config import ConfigurationError, masked
    from tfo_mcp.infrastructure.logs import check_logging
    from tfo_mcp.infrastructure.persistence.migrations import AUDIT
    from tfo_mcp.infrastructure.persistence.storage import check_storage
    from tfo_mcp.infrastructure.telemetry.options import telemetry_options

    loaded = load(config, roots, log_level)
    try:
        for check in (check_logging, telemetry_options):  # whatever `serve` refuses once it has its settings
            check(loaded.settings)
        check_storage(loaded.settings.storage.database)
        check_storage(loaded.settings.storage.audit, AUDIT)
    except ConfigurationError as error:
        refuse(loaded.placed(error))
    except StorageUnavailable as error:
        refuse(error, EXIT_STORAGE)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"# valid; from {loaded.source or 'defaults and environment only'}")
    click.echo(yaml.safe_dump(masked(loaded.settings), sort_keys=False, allow_unicode=True), nl=False)

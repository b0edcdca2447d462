"""`tfo-mcp info`: what a report of a fault needs."""

from __future__ import annotations

import json
import sys
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tfo_mcp import __version__
from tfo_mcp.cli import EXIT_CONFIGURATION
from tfo_mcp.cli.configuration import configured, read, working_directory

if TYPE_CHECKING:
    from tfo_mcp.infrastructure.config import Loaded, Settings

_DISTRIBUTION = "telemetryflow-python-mcp"


@click.command("info")
@configured
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(config: Path | None, roots: tuple[str, ...], log_level: str | None, *, as_json: bool) -> None:
    """Show versions, places and what is offered, to be put into a report of a fault. No secret is shown."""
    import yaml

    from tfo_mcp.infrastructure.config import ConfigurationError

    report = _program()
    problem: ConfigurationError | None = None
    loaded: Loaded | None = None
    try:
        loaded = read(config, roots, log_level)
        report["configuration"] = _configuration(loaded)
        report |= _in_force(loaded, working_directory())
    except ConfigurationError as error:
        problem = loaded.placed(error) if loaded else error
        report["configuration"] = {"error": str(problem)}
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        click.echo(yaml.safe_dump(report, sort_keys=False, allow_unicode=True, width=1000), nl=False)
    if problem is not None:
        raise SystemExit(EXIT_CONFIGURATION)


def _program() -> dict[str, Any]:
    import platform
    import sqlite3

    return {
        "tfo-mcp": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "executable": sys.executable,
        "platform": platform.platform(),
        "sqlite": sqlite3.sqlite_version,
        "packages": _packages(),
    }


def _packages() -> dict[str, str | None]:
    """The packages that the project asks for, with the version that is installed."""
    import re
    from importlib.metadata import PackageNotFoundError, requires, version

    def installed(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    try:
        wanted = requires(_DISTRIBUTION) or []
    except PackageNotFoundError:  # run from a folder of sources
        return {}
    names = [match[0] for requirement in wanted if (match := re.match(r"[\w.-]+", requirement))]
    return {name: installed(name) for name in sorted(names)}


def _configuration(loaded: Loaded) -> dict[str, Any]:
    from tfo_mcp.infrastructure.config.file import default_paths

    return {
        "file": str(loaded.source) if loaded.source else None,
        "looked_for": [] if loaded.source else [str(path) for path in default_paths()],
        "warnings": list(loaded.warnings),
    }


def _in_force(loaded: Loaded, cwd: Path) -> dict[str, Any]:
    from tfo_mcp.bootstrap.tools import offered_tools
    from tfo_mcp.infrastructure.config import Secret
    from tfo_mcp.infrastructure.config.settings import all_names
    from tfo_mcp.infrastructure.tools.roots import roots_in_force

    settings = loaded.settings
    values = {name: attrgetter(name)(settings) for name in all_names()}
    return {
        "state_folder": str(settings.storage.folder),
        "log": settings.logging.output,
        "roots": [str(root) for root in roots_in_force(settings.tools.roots, cwd)],
        "tools": [tool.name for tool in offered_tools(loaded, cwd=cwd)],
        "recording": settings.telemetry.enabled,
        "export": _export(settings),
        "secrets": {name: "set" if value else "not set" for name, value in values.items() if isinstance(value, Secret)},
    }


def _export(settings: Settings) -> str | None:
    """Where telemetry goes; without the path, in which a collector's users may have a token."""
    from tfo_mcp.infrastructure.telemetry.options import telemetry_options

    target = telemetry_options(settings).target()
    if target is None or not settings.telemetry.enabled:
        return None
    return f"{target.authority} ({settings.telemetry.export_protocol}, {'with' if target.tls else 'without'} TLS)"

"""`tfo-mcp serve`: what an MCP client starts."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tfo_mcp.cli import EXIT_FAILURE
from tfo_mcp.cli.configuration import configured, load, refuse

if TYPE_CHECKING:
    from tfo_mcp.bootstrap import Server


@click.command("serve")
@configured
def command(config: Path | None, roots: tuple[str, ...], log_level: str | None) -> None:
    """Serve one MCP client on stdin and stdout, until it closes stdin."""
    loaded = load(config, roots, log_level)

    from tfo_mcp.infrastructure.config import ConfigurationError
    from tfo_mcp.infrastructure.logs import configure_logging

    try:
        configure_logging(loaded.settings)
        from tfo_mcp.bootstrap import Server

        server = Server(loaded, cwd=Path.cwd())
    except ConfigurationError as error:
        refuse(error)

    from tfo_mcp.presentation.transport.stdio import UnusableStream

    try:
        _run(server)
    except UnusableStream as error:
        click.echo(f"tfo-mcp: {error}", err=True)
        raise SystemExit(EXIT_FAILURE) from error
    # Everything is flushed. A tool's thread that still blocks in a system call must not keep the process.
    logging.shutdown()
    os._exit(0)


def _run(server: Server) -> None:
    try:
        import uvloop
    except ImportError:  # Windows
        asyncio.run(server.run())
    else:
        uvloop.run(server.run())

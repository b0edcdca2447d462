"""`tfo-mcp serve`: what an MCP client starts."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from tfo_mcp.cli import EXIT_FAILURE
from tfo_mcp.cli.configuration import configured, load, refuse

if TYPE_CHECKING:
    from tfo_mcp.bootstrap import Server

_INTRODUCTION = """\
tfo-mcp is an MCP server: an MCP client, such as Claude Code, starts it and speaks to it on stdin and stdout.
To install it in Claude Code:     claude mcp add tfo-mcp -- tfo-mcp serve
In a client that is set up by a JSON file:
    {"mcpServers": {"tfo-mcp": {"command": "tfo-mcp", "args": ["serve"]}}}
Here it answers what you type, one JSON-RPC message a line; Ctrl-D ends it."""


@click.command("serve")
@configured
@click.option("--debug/--no-debug", default=False, help="The same as --log-level debug.")
def command(config: Path | None, roots: tuple[str, ...], log_level: str | None, *, debug: bool) -> None:
    """Serve one MCP client on stdin and stdout, until it closes stdin."""
    gc.disable()  # what imports make is there to stay: to look for garbage in it took a tenth of the start
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)  # until the server takes them: nothing has been accepted yet
    _open_standard_streams()
    loaded = load(config, roots, log_level or ("debug" if debug else None))

    from tfo_mcp.infrastructure.config import ConfigurationError
    from tfo_mcp.infrastructure.logs import configure_logging

    try:
        configure_logging(loaded.settings, held=True)  # until the first answer: to write it takes imports
        from tfo_mcp.bootstrap import Server

        server = Server(loaded, cwd=Path.cwd())
    except ConfigurationError as error:
        refuse(loaded.placed(error))
    gc.freeze()
    gc.enable()

    if os.isatty(0):
        _introduce()
    _run(server)


def _open_standard_streams() -> None:
    """What was left closed leads nowhere, and not to the file that happens to be opened next.

    A closed stdout cannot be written to either way: answers that nobody gets are a failure.
    """
    for descriptor, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)  # gets the lowest number that is free


def _introduce() -> None:
    with suppress(OSError):  # nobody reads it: that is no reason not to serve
        click.echo(_INTRODUCTION, err=True)


def _run(server: Server) -> None:
    try:
        import uvloop
    except ImportError:  # Windows
        asyncio.run(_run_and_exit(server))
    else:
        uvloop.run(_run_and_exit(server))


async def _run_and_exit(server: Server) -> None:
    from tfo_mcp.infrastructure.logs import flush_logs

    end = await server.run()
    flush_logs(max(0.0, end.exit_at - asyncio.get_running_loop().time()) / 2)
    # To close the loop would be to wait for tasks that do not end, and for threads that import or block in a call.
    os._exit(EXIT_FAILURE if end.failed else 0)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)

"""The command line. A verb's module is imported when the verb is used, and no other (DESIGN decision 10).

Exit codes: 0 ok, 1 failure, 2 usage, 3 configuration, 4 storage, 5 already running or port taken.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

import click

from tfo_mcp import __version__

EXIT_FAILURE: Final = 1
EXIT_CONFIGURATION: Final = 3
EXIT_STORAGE: Final = 4
EXIT_PORT_TAKEN: Final = 5

_VERBS: Final = {
    "serve": "Serve one MCP client on stdin and stdout.",
    "validate": "Check the configuration and show what is in force.",
    "info": "Show versions, places and what is offered, for a report of a fault.",
    "conversations": "List, show, export and delete conversations.",
    "tail": "Show calls as servers end them.",
    "stats": "Count calls and errors, and tell how long they took.",
    "traces": "Show what was recorded of one call.",
    "export": "See, send and repeat what waits for the OTLP collector.",
    "purge": "Delete conversations and sessions that are too old.",
    "init-config": "Write a configuration file with every setting at its default.",
    "fake-claude": "Stand in for the Messages API on loopback, for demonstrations and tests.",
    "demo": "Start the server as a client would and show what it does.",
}


class _Verbs(click.Group):
    """A group that knows its verbs by name and imports `tfo_mcp.cli.<verb>` on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _VERBS:
            return None
        command: click.Command = import_module(f"tfo_mcp.cli.{cmd_name.replace('-', '_')}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(_VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tfo-mcp")
def main() -> None:
    """TelemetryFlow Python MCP Server: the MCP server that records itself."""

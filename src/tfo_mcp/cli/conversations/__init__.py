"""`tfo-mcp conversations`: what is kept of conversations, for whoever owns this machine."""

from __future__ import annotations

import click

from tfo_mcp.cli.conversations import delete, export, listing, show


@click.group("conversations")
def command() -> None:
    """List, show, export and delete conversations, also while servers work on them."""


for verb in (listing, show, export, delete):
    command.add_command(verb.command)

"""`tfo-mcp init-config`: a configuration file to begin with."""

from __future__ import annotations

import os
from pathlib import Path

import click

from tfo_mcp.cli import EXIT_FAILURE
from tfo_mcp.cli.configuration import refuse, working_directory
from tfo_mcp.cli.files import new_file


@click.command("init-config")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="The file; without it, the one that is read.")
@click.option("--force", "-f", is_flag=True, help="Replace the file where there is one.")
def command(output: Path | None, *, force: bool) -> None:
    """Write a configuration file that names and explains every setting, and sets none."""
    from tfo_mcp.infrastructure.config.file import named_path, user_path
    from tfo_mcp.infrastructure.config.template import template

    named = named_path(None, os.environ, cwd := working_directory())
    usual = named or user_path()
    path = cwd / output if output else usual
    if path is None:
        refuse("you have no home folder: name a file with --output", EXIT_FAILURE)
    try:
        with new_file(path, replace=force) as file:
            file.write(template().encode())
    except FileExistsError:
        refuse(f"{path} is there already" + ("" if force else "; --force replaces it"), EXIT_FAILURE)
    except OSError as error:
        refuse(f"{path} cannot be written: {error.strerror}", EXIT_FAILURE)
    click.echo(f"wrote {path}")
    if path != usual:
        click.echo(f"It is read when it is named: tfo-mcp serve --config {path}")

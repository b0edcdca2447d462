"""`tfo-mcp init-config`: a configuration file to begin with."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click

from tfo_mcp.cli import EXIT_FAILURE
from tfo_mcp.cli.configuration import refuse, working_directory


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
        _write(path, template(), replace=force)
    except FileExistsError:
        refuse(f"{path} is there already" + ("" if force else "; --force replaces it"), EXIT_FAILURE)
    except OSError as error:
        refuse(f"{path} cannot be written: {error.strerror}", EXIT_FAILURE)
    click.echo(f"wrote {path}")
    if path != usual:
        click.echo(f"It is read when it is named: tfo-mcp serve --config {path}")


def _write(path: Path, text: str, *, replace: bool) -> None:
    """Write a file that only its owner may read. An old one stays whole until the new one is.

    Raises:
        FileExistsError: it is there, and is not to be replaced; or it is none that could be.
        OSError: the system refuses.
    """
    target = Path(os.path.realpath(path))
    if os.path.lexists(path) and not (replace and target.is_file()):
        raise FileExistsError
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        if replace:
            Path(draft).replace(target)
        else:
            os.link(draft, target)  # in place of a rename, because it replaces nothing
            Path(draft).unlink()
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise

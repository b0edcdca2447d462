"""`tfo-mcp fake-claude`: a loopback stand-in for the Messages API."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import click

from tfo_mcp.cli import EXIT_CONFIGURATION, EXIT_PORT_TAKEN


@click.command("fake-claude")
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address.")
@click.option("--port", default=0, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option(
    "--script",
    "script_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A YAML file of replies; without it, it answers by itself.",
)
def command(host: str, port: int, script_path: Path | None) -> None:
    """Stand in for the Messages API on loopback. Every answer says that it is simulated."""
    from tfo_mcp.infrastructure.fake_claude import Script, ScriptError, load_script, serve

    try:
        script = load_script(script_path.read_text("utf-8")) if script_path else Script()
    except (ScriptError, UnicodeDecodeError) as error:
        click.echo(f"{script_path}: {error}", err=True)
        raise SystemExit(EXIT_CONFIGURATION) from error
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve(host, port, script, _announce))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--host") from error
    except OSError as error:
        click.echo(f"cannot listen on {host}:{port}: {error.strerror or error}", err=True)
        raise SystemExit(EXIT_PORT_TAKEN) from error


def _announce(base_url: str) -> None:
    click.echo(f"fake-claude answers on {base_url}, simulated. In another shell:")
    click.echo(f"  export ANTHROPIC_BASE_URL={base_url} ANTHROPIC_API_KEY=simulated")

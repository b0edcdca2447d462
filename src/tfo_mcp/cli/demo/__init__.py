"""`tfo-mcp demo`: the main job on real input, seen from both sides.

The server is started as a client starts it, by the official SDK's client over stdio, in the working directory. Its
telemetry goes to an OTLP receiver in this process. Claude is the real API where `ANTHROPIC_API_KEY` is set, else the
loopback stand-in. Nothing is left behind: its state lives in a temporary folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import click

from tfo_mcp.cli import EXIT_FAILURE

_SCRIPT = """
replies:
  - when: {contains: take your time}
    delay: 60
    text: Nobody waits for this.
"""
"""The stand-in answers by itself; only the call that is going to be cancelled must last."""


@click.command("demo")
def command() -> None:
    """Start the server as a client would, use it, and show what it recorded of that."""
    if not asyncio.run(_demo()):
        click.echo("demo: something of the above is not as it should be", err=True)
        raise SystemExit(EXIT_FAILURE)


async def _demo() -> bool:
    from tfo_mcp.cli.demo.report import print_traces
    from tfo_mcp.cli.demo.story import tell
    from tfo_mcp.infrastructure.otlp_receiver import OtlpReceiver

    receiver = OtlpReceiver()
    endpoint = receiver.start()
    try:
        with tempfile.TemporaryDirectory(prefix="tfo-mcp-demo-") as folder:
            async with _claude() as (claude, simulated):
                environment = {
                    **claude,
                    "TELEMETRYFLOW_MCP_STORAGE_FOLDER": folder,
                    "TELEMETRYFLOW_ENDPOINT": endpoint,
                    "TELEMETRYFLOW_MCP_LOGGING_LEVEL": "warning",
                    "TELEMETRYFLOW_MCP_CONFIG": str(_empty_configuration(Path(folder))),
                }
                with (Path(folder) / "server.log").open("w+", encoding="utf-8") as log:
                    try:
                        went_well = await tell(environment, sys.executable, Path.cwd(), log, simulated=simulated)
                    except Exception as error:  # noqa: BLE001  # whatever it is: the server's log below says more than a traceback
                        went_well = False
                        click.echo(f"demo: the client gave up: {_first_cause(error)}", err=True)
                    log.seek(0)
                    if text := log.read():
                        click.echo(f"\nThe server's log:\n{text}")
        # The client has waited for the server's end, and the server for the receiver: everything is here.
        return print_traces(receiver, endpoint) and went_well
    finally:
        receiver.stop()


def _first_cause(error: BaseException) -> BaseException:
    """The client's task groups wrap what happened, often more than once."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error


def _empty_configuration(folder: Path) -> Path:
    """The user's own configuration file has no part in a demonstration."""
    path = folder / "config.yaml"
    path.write_text("{}\n", encoding="utf-8")
    return path


@asynccontextmanager
async def _claude() -> AsyncGenerator[tuple[dict[str, str], bool]]:
    """The environment that leads the server to Claude, and whether he is simulated."""
    if key := os.environ.get("ANTHROPIC_API_KEY"):
        base_url = os.environ.get("ANTHROPIC_BASE_URL")
        yield {"ANTHROPIC_API_KEY": key, **({"ANTHROPIC_BASE_URL": base_url} if base_url else {})}, False
        return

    from tfo_mcp.infrastructure.fake_claude import load_script, serve

    base_url = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve("127.0.0.1", 0, load_script(_SCRIPT), base_url.set_result))
    try:
        yield {"ANTHROPIC_API_KEY": "simulated", "ANTHROPIC_BASE_URL": await base_url}, True
    finally:
        server.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await server

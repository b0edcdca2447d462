"""This project's server, started as its users start it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from harness.peer import Peer

_COMMAND = (str(Path(sys.executable).with_name("tfo-mcp")), "serve")


def peers() -> Sequence[Peer]:
    """With a live collector, and as it is installed: recording, and sending nothing anywhere."""
    packages = {name: version(name) for name in ("telemetryflow-python-mcp", "mcp", "uvloop")}
    return [
        Peer(
            name="tfo-mcp",
            command=_COMMAND,
            tools=frozenset({"echo", "claude_conversation"}),
            collector_variable="TELEMETRYFLOW_ENDPOINT",
            packages=packages,
        ),
        Peer(name="tfo-mcp, no collector", command=_COMMAND, packages=packages),
    ]

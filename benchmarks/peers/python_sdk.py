"""The official SDK's two servers, with nothing but an echo, written and started as its documentation says."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version

from harness.peer import FOLDER, Peer


def peers() -> Sequence[Peer]:
    """`MCPServer` and the low-level `Server`; neither records anything."""
    packages = {"mcp": version("mcp")}
    return [
        Peer(name=name, command=(sys.executable, str(FOLDER / "programs" / program)), packages=packages)
        for name, program in (("mcp MCPServer", "echo_mcpserver.py"), ("mcp low-level", "echo_lowlevel.py"))
    ]

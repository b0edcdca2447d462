"""The real server with `execute_command`, and what its programs leave among the processes of this machine."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from support.bubblewrap import require
from support.server import Server, serving

_ALLOW = "TELEMETRYFLOW_MCP_TOOLS_EXECUTE_COMMAND_ALLOW"
_SANDBOX = "TELEMETRYFLOW_MCP_TOOLS_EXECUTE_COMMAND_SANDBOX"


@contextmanager
def commanding(
    folder: Path, *allow: str | Path, sandbox: str = "none", env: Mapping[str, str] | None = None
) -> Generator[Server]:
    """`tfo-mcp serve` with `folder/work` as its root, where these programs may be run."""
    require(sandbox)
    settings = {_ALLOW: ",".join(map(str, allow)), _SANDBOX: sandbox}
    with serving(folder, env={**settings, **(env or {})}) as server:
        yield server


def script(path: Path, text: str) -> Path:
    """A program that a shell reads from `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def processes(word: str) -> set[int]:
    """The processes of which an argument is `word`; those that have ended and not been waited for have none."""
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:  # gone
                continue
            if word.encode() in arguments:
                found.add(int(entry.name))
    return found

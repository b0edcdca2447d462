"""The command line as a person uses it, to the end of the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.server import environment


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`tfo-mcp` with `arguments` in `folder`, with these variables and none of the test's own; stdin is empty."""
    return subprocess.run(
        [sys.executable, "-m", "tfo_mcp", *arguments],
        env=environment(folder, variables),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )

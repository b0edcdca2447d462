"""Tests that need bubblewrap: where it does not work they are skipped with a line that says so, and fail in CI.

It exists on Linux only, so elsewhere they are skipped in CI too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache

import pytest

SANDBOXES = pytest.mark.parametrize("sandbox", ["bubblewrap", "none"])


def require(sandbox: str) -> None:
    """Go on with the test only where this sandbox works."""
    problem = _problem() if sandbox == "bubblewrap" else None
    if problem is None:
        return
    if os.environ.get("CI") == "true" and sys.platform == "linux":
        pytest.fail(problem)
    pytest.skip(problem)


@cache
def _problem() -> str | None:
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed"
    command = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"]
    tried = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return None if tried.returncode == 0 else f"bubblewrap does not work here: {tried.stderr.strip()}"

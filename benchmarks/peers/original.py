"""The public original, 1.1.2: the last release that still works, with the versions that it was made for.

It cannot share an environment with this project: it needs `mcp` below 2 and `anthropic` below 1, and has the same
package name. It gets one of its own, once, from the package index that pip is set to.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from venv import EnvBuilder

from harness.errors import Unavailable
from harness.peer import FOLDER, Peer

_REQUIREMENTS = Path(__file__).with_suffix(".txt")
_HOME = FOLDER / ".peers" / "original"
_INSTALLED = _HOME / "installed.txt"
"""A copy of the requirements that were installed to the end."""

_PATIENCE = 300.0
"""Seconds for an installation."""


def peers() -> Sequence[Peer]:
    """It. Its own telemetry is off unless its configuration says otherwise.

    Raises:
        Unavailable: it cannot be installed.
    """
    if not _INSTALLED.exists() or _INSTALLED.read_text("utf-8") != _REQUIREMENTS.read_text("utf-8"):
        _install()
    versions = _versions()
    name = "telemetryflow-python-mcp"
    return [
        Peer(
            name=f"original {versions[name]}",
            command=(str(_HOME / "bin" / "tfo-mcp"), "serve"),
            prefix="Echo: ",
            packages={package: versions[package] for package in (name, "mcp")},
        )
    ]


def _install() -> None:
    print("installing the public original into an environment of its own …", file=sys.stderr)
    shutil.rmtree(_HOME, ignore_errors=True)
    pip = (str(_HOME / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    try:
        EnvBuilder(with_pip=True).create(_HOME)
        subprocess.run(
            (*pip, "--no-deps", "--requirement", str(_REQUIREMENTS)), check=True, capture_output=True, timeout=_PATIENCE
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"could not be installed from a package index ({type(error).__name__})") from error
    shutil.copyfile(_REQUIREMENTS, _INSTALLED)


def _versions() -> Mapping[str, str]:
    lines = _REQUIREMENTS.read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)

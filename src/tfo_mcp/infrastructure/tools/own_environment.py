"""This process's own environment, as the system shows it to others.

Every process of the same user can read it, and so could a program of `execute_command` without a sandbox.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

_ENV_START: Final = 47
"""Of the fields of `/proc/self/stat` behind the name: where the environment begins (proc(5), field 50)."""


def hide_from_others(secrets: Iterable[str]) -> None:
    """Overwrite `secrets` in what Linux shows as the environment that this process was started with.

    `os.environ` is a copy, and keeps them. Where there is no such view, there is nothing to hide.
    """
    with suppress(OSError):
        shown = Path("/proc/self/environ").read_bytes()
        start = int(Path("/proc/self/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[_ENV_START])
        with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
            for secret in map(str.encode, secrets):
                at = shown.find(secret)
                while at >= 0:
                    memory.seek(start + at)
                    if memory.read(len(secret)) == secret:
                        memory.seek(start + at)
                        memory.write(b"*" * len(secret))
                    at = shown.find(secret, at + len(secret))

"""What a running process has cost: CPU time and memory. Linux only, and nothing of the process takes part."""

from __future__ import annotations

import time
from pathlib import Path

_TICKS = 100
"""Of `/proc/<pid>/stat` a second; the same on every Linux that Python runs on."""

_QUIET = 0.002
"""Seconds of CPU within …"""
_LOOK = 0.1
"""… so many seconds are no work."""
_LOOKS = 3
"""So often in a row, and the process is idle."""


def cpu_seconds(pid: int) -> float:
    """User and system time so far: of the process, of the children that it has, and of those that it had."""
    try:
        return _clock(pid) + _reaped(pid) + sum(map(cpu_seconds, _children(pid)))
    except (FileNotFoundError, ProcessLookupError):  # it has just ended, and is counted where it was waited for
        return 0.0


def peak_memory(pid: int) -> int:
    """Bytes of resident memory at the highest, of the process without its children."""
    return _status(pid, "VmHWM")


def memory(pid: int) -> int:
    """Bytes of resident memory now, of the process without its children."""
    return _status(pid, "VmRSS")


def wait_until_idle(pid: int, timeout: float) -> None:
    """Wait until the process does nothing any more.

    Raises:
        TimeoutError: it still works after `timeout` seconds.
    """
    until = time.monotonic() + timeout
    quiet, before = 0, cpu_seconds(pid)
    while quiet < _LOOKS:
        if time.monotonic() > until:
            raise TimeoutError(f"still at work after {timeout} s")
        time.sleep(_LOOK)
        now = cpu_seconds(pid)
        quiet = quiet + 1 if now - before < _QUIET else 0
        before = now


def _clock(pid: int) -> float:
    """All threads of the process, ended ones included, to the nanosecond: what clock_getcpuclockid(3) gives."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError as error:
        raise ProcessLookupError(pid) from error


def _reaped(pid: int) -> float:
    """Children that have ended and were waited for."""
    after_name = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace").rpartition(")")[2].split()
    return (int(after_name[13]) + int(after_name[14])) / _TICKS


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text("ascii").split()]


def _status(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text("ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))

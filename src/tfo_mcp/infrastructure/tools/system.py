"""`system_info`: the machine and this process. No environment, no names of the host or of users."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from tfo_mcp import __version__
from tfo_mcp.domain.errors import ToolFailure
from tfo_mcp.domain.tool import Tool, ToolAnnotations, ToolContext, ToolMode, ToolResult
from tfo_mcp.infrastructure.tools.roots import Roots

_MEMORY: Final = Path("/proc/meminfo")
_MEMORY_NAMES: Final = {"MemTotal": "memory_total", "MemAvailable": "memory_available"}
_MEMORY_LINE: Final = re.compile(r"^(MemTotal|MemAvailable):\s+(\d+) kB$", re.MULTILINE)


def system_tools(roots: Roots) -> list[Tool]:
    """`system_info`; the server's uptime counts from this call."""
    return [
        Tool(
            name="system_info",
            title="System information",
            description="Platform, processors, load, memory, disk space and this server's version and uptime.",
            input_schema={"type": "object", "properties": {}, "additionalProperties": False},
            output_schema=_OUTPUT_SCHEMA,
            run=partial(_system_info, roots, time.monotonic()),
            mode=ToolMode.THREAD,
            annotations=ToolAnnotations(read_only=True, destructive=False, idempotent=True, open_world=False),
        )
    ]


_BYTES: Final = {"type": "integer", "description": "Bytes."}

_OUTPUT_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "platform": {"type": "string"},
        "release": {"type": "string"},
        "architecture": {"type": "string"},
        "cpus": {"type": "integer"},
        "load": {"type": "array", "items": {"type": "number"}, "description": "Over 1, 5 and 15 minutes."},
        "memory_total": _BYTES,
        "memory_available": _BYTES,
        "disk_total": {**_BYTES, "description": "Bytes, where the first root is."},
        "disk_available": _BYTES,
        "python": {"type": "string"},
        "server_version": {"type": "string"},
        "pid": {"type": "integer"},
        "uptime": {"type": "number", "description": "Seconds that this server runs."},
    },
    "required": ["platform", "release", "architecture", "python", "server_version", "pid", "uptime"],
    "additionalProperties": False,
}


def _system_info(roots: Roots, started: float, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:  # noqa: ARG001  # takes no arguments, asks nothing
    import platform

    info: dict[str, Any] = {
        "platform": platform.system(),
        "release": platform.release(),
        "architecture": platform.machine(),
        **_processors(),
        **_memory(),
        **_disk(roots),
        "python": platform.python_version(),
        "server_version": __version__,
        "pid": os.getpid(),
        "uptime": round(time.monotonic() - started, 3),
    }
    return ToolResult("\n".join(f"{name}: {value}" for name, value in info.items()), structured=info)


def _processors() -> dict[str, Any]:
    known: dict[str, Any] = {} if (cpus := os.cpu_count()) is None else {"cpus": cpus}
    try:
        return {**known, "load": [round(load, 2) for load in os.getloadavg()]}
    except (AttributeError, OSError):  # not on Windows; not always to be had
        return known


def _memory() -> dict[str, int]:
    try:
        kilobytes = dict(_MEMORY_LINE.findall(_MEMORY.read_text(encoding="ascii")))
    except OSError:  # Linux only
        return {}
    return {_MEMORY_NAMES[name]: int(amount) * 1024 for name, amount in kilobytes.items()}


def _disk(roots: Roots) -> dict[str, int]:
    try:
        with roots.open(".") as root:
            space = os.fstatvfs(root.descriptor)
    except ToolFailure:  # no root, or it is gone
        return {}
    return {"disk_total": space.f_blocks * space.f_frsize, "disk_available": space.f_bavail * space.f_frsize}

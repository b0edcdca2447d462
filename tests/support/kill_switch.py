"""`tfo-mcp` that kills itself with SIGKILL at a chosen step of its work: `python kill_switch.py serve`.

`KILL_AT` is the number of the step at which it dies, counted from 1; 0: never. `KILL_LOG` is the file that gets a
line for each step, before it can be the last one, and a line `strike` for each time that the tool `strike` did what
it does.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tfo_mcp.bootstrap import tools as bootstrap
from tfo_mcp.cli import main
from tfo_mcp.domain.tool import Tool, ToolAnnotations, ToolContext, ToolMode, ToolResult
from tfo_mcp.infrastructure.claude.arrival import Arrival
from tfo_mcp.infrastructure.persistence.migrations import STATE
from tfo_mcp.infrastructure.persistence.storage import Storage
from tfo_mcp.infrastructure.tools.echo import echo_tools

if TYPE_CHECKING:
    from sqlalchemy import Connection

_T = TypeVar("_T")

_KILL_AT = int(os.environ["KILL_AT"])
_LOG = Path(os.environ["KILL_LOG"])
_steps = 0
_stepping = threading.Lock()


def note(line: str) -> None:
    with _LOG.open("a") as log:
        log.write(f"{line}\n")


def step(name: str) -> None:
    """One step; the last one, where it is the chosen one."""
    global _steps  # noqa: PLW0603  # of this process
    with _stepping:  # tools in threads count too
        _steps += 1
        note(f"{_steps} {name}")
        if _steps == _KILL_AT:
            os.kill(os.getpid(), signal.SIGKILL)


def watch_storage() -> None:
    """Each write to the database of conversations is a step before it and one after it."""
    write = Storage.write

    async def watched(
        self: Storage, work: Callable[[Connection], _T], committed: Callable[[_T], object] | None = None
    ) -> _T:
        conversations = self._history is STATE and "conversations" in work.__module__  # pyright: ignore[reportPrivateUsage]
        if not conversations:
            return await write(self, work, committed)
        step(f"before {work.__qualname__}")
        try:
            return await write(self, work, committed)
        finally:
            step(f"after {work.__qualname__}")

    Storage.write = watched  # the server is this process's own


def watch_streams() -> None:
    """The beginning of an answer, its first text, its first piece of a tool's input and its end are a step each."""
    take = Arrival.take
    seen: set[tuple[int, str]] = set()

    def watched(self: Arrival, event: Any, stream: Any) -> None:  # noqa: ANN401  # the SDK's
        place = (id(self), event.type)
        if event.type in {"message_start", "text", "input_json", "message_stop"} and place not in seen:
            seen.add(place)
            step(f"stream {event.type}")
        take(self, event, stream)

    Arrival.take = watched


def a_tool(name: str, *, read_only: bool = False, idempotent: bool = False) -> Tool:
    def run(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        step(f"begin {name}")
        note(name)
        time.sleep(0.01)  # so that the others begin meanwhile
        step(f"end {name}")
        return ToolResult(f"{name} was run")

    return Tool(
        name=name,
        title=name,
        description=name,
        input_schema={"type": "object"},
        run=run,
        mode=ToolMode.THREAD,
        annotations=ToolAnnotations(read_only=read_only, idempotent=idempotent),
    )


if __name__ == "__main__":
    mine = [a_tool("look", read_only=True), a_tool("mark", idempotent=True), a_tool("strike")]
    setattr(bootstrap, "echo_tools", lambda: [*echo_tools(), *mine])  # noqa: B010  # not exported
    watch_storage()
    watch_streams()
    main()

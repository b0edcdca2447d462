"""`tfo-mcp` with tools that no server should have, in a process of its own: `python odd_server.py serve`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from tfo_mcp.bootstrap import tools as bootstrap
from tfo_mcp.cli import main
from tfo_mcp.domain.tool import Tool, ToolAnnotations, ToolContext, ToolFunction, ToolMode, ToolResult
from tfo_mcp.infrastructure.tools.echo import echo_tools

SECRET = "the secret 4711"  # noqa: S105  # nobody's

Arguments = Mapping[str, Any]


async def wait(arguments: Arguments, context: ToolContext) -> ToolResult:
    """Take as many seconds as asked for, and tell progress."""
    await context.progress(0, 1, "waiting")
    await asyncio.sleep(arguments["seconds"])
    return ToolResult(f"waited {arguments['seconds']:g} s")


async def stay(arguments: Arguments, context: ToolContext) -> ToolResult:
    """Never end, whoever asks for it."""
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


def block(arguments: Arguments, context: ToolContext) -> ToolResult:
    """Hold a worker thread for ever."""
    threading.Event().wait()
    return ToolResult("")


def say(arguments: Arguments, context: ToolContext) -> ToolResult:
    """Write to what a program takes for stdout, in every way, now and from now on."""

    def go_on() -> None:
        with contextlib.suppress(OSError, ValueError):
            while True:
                os.write(1, b"noise from a thread\n")
                print("buffered noise", flush=True)  # noqa: T201
                threading.Event().wait(0.001)

    os.write(1, b"noise from a tool\n")
    print("noise that is flushed", flush=True)  # noqa: T201
    print("noise that is not flushed")  # noqa: T201
    assert sys.__stdout__ is not None
    sys.__stdout__.write("noise by another name\n")
    subprocess.run(["sh", "-c", "echo noise from a child; cat"], check=True)  # noqa: S607
    threading.Thread(target=go_on, daemon=True).start()
    return ToolResult("said")


def open_descriptors(arguments: Arguments, context: ToolContext) -> ToolResult:
    """Open, use and close one, in several threads from now on; say when somebody else has closed it."""

    def go_on() -> None:
        while True:
            try:
                descriptor = os.dup(0)
                os.fstat(descriptor)
                os.close(descriptor)
            except OSError as error:
                os.write(2, f"somebody closed it: {error}\n".encode())

    for _ in range(4):
        threading.Thread(target=go_on, daemon=True).start()
    return ToolResult("opening")


def fail(arguments: Arguments, context: ToolContext) -> ToolResult:
    raise RuntimeError(SECRET)


def log(arguments: Arguments, context: ToolContext) -> ToolResult:
    """Log as many records as asked for; the level of each is named in its message."""
    level = arguments.get("level", "info")
    for number in range(arguments.get("count", 1)):
        logging.getLogger("tfo_mcp.odd").log(
            logging.getLevelNamesMapping()[level.upper()],
            "record %d at %s",
            number,
            level,
            extra={"said": arguments.get("said"), "number": number},
        )
    return ToolResult("logged")


def log_and_fail(arguments: Arguments, context: ToolContext) -> ToolResult:
    logging.getLogger("tfo_mcp.odd").warning("about to fail")
    raise RuntimeError(SECRET)


def give_no_text(arguments: Arguments, context: ToolContext) -> ToolResult:
    return ToolResult({"this is": "no text"})  # pyright: ignore[reportArgumentType]


def flood(arguments: Arguments, context: ToolContext) -> ToolResult:
    """Give far more than anybody asked for."""
    lines = ["flood"] * 5_000_000
    return ToolResult("", structured={"lines": lines}) if arguments.get("structured") else ToolResult("\n".join(lines))


def tool(name: str, run: ToolFunction, mode: ToolMode, schema: Arguments | None = None) -> Tool:
    return Tool(
        name=name,
        title=name,
        description=name,
        input_schema=schema or {"type": "object"},
        run=run,
        mode=mode,
        annotations=ToolAnnotations(read_only=True),  # so that they wait for no audit
    )


def jump(arguments: Arguments, context: ToolContext) -> ToolResult:
    """Let the wall clock jump by so many seconds, as if somebody had set it."""
    now, now_ns, seconds = time.time, time.time_ns, arguments["seconds"]
    time.time = lambda: now() + seconds
    time.time_ns = lambda: now_ns() + int(seconds * 1e9)
    return ToolResult("jumped")


def tell_of_garbage(arguments: Arguments, context: ToolContext) -> ToolResult:
    """Whether garbage is collected now, and whether all that was loaded is exempt from it."""
    loaded = "sqlalchemy.engine" in sys.modules
    exempt = loaded and gc.get_freeze_count() > len(gc.get_objects())
    return ToolResult(f"{'collected' if gc.isenabled() else 'kept'}{', but for what was loaded' if exempt else ''}")


TOOLS = [
    tool("wait", wait, ToolMode.TASK),
    tool("stay", stay, ToolMode.TASK),
    tool("block", block, ToolMode.THREAD),
    tool("say", say, ToolMode.THREAD),
    tool("open_descriptors", open_descriptors, ToolMode.THREAD),
    tool("fail", fail, ToolMode.INLINE),
    tool("log", log, ToolMode.INLINE),
    tool("log_in_a_thread", log, ToolMode.THREAD),
    tool("log_and_fail", log_and_fail, ToolMode.INLINE),
    tool("tell_of_garbage", tell_of_garbage, ToolMode.INLINE),
    tool("jump", jump, ToolMode.INLINE),
    tool("flood", flood, ToolMode.THREAD),
    tool("no_text", give_no_text, ToolMode.INLINE),
    tool("no_schema", fail, ToolMode.INLINE, {"type": "object", "properties": {"x": {"type": SECRET}}}),
]


if __name__ == "__main__":
    setattr(bootstrap, "echo_tools", lambda: [*echo_tools(), *TOOLS])  # noqa: B010  # not exported
    main()

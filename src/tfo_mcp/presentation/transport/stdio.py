"""MCP over the process's standard streams, of whatever kind they are: our own transport (DESIGN decision 2).

The event loop's own transports serve pipes and sockets, threads serve the rest: files, terminals, other devices,
and on Windows everything, where this has never been run.

While it serves, descriptor 0 is the null device and descriptor 1 is stderr, so that nothing but protocol
reaches the client, whatever a tool or a child prints, and nobody else eats its input.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from tfo_mcp.presentation.connection import Connection
from tfo_mcp.presentation.transport.pipes import blocking_as_before
from tfo_mcp.presentation.transport.streams import StdioLimits, Streams

_WRITE_SHARE = 0.5
"""Of the time that is left when all answers are written: what a client gets to read them in; the rest is to flush."""


@dataclass(frozen=True, slots=True)
class End:
    """How serving ended.

    Attributes:
        exit_at: the loop's time at which the process should be gone.
        failed: whether a stream broke off, on a full disk for example, and answers may be missing.
    """

    exit_at: float
    failed: bool


async def serve_stdio(connection: Connection, limits: StdioLimits) -> End:
    """Serve one client on stdin and stdout until it, a signal or `shutdown` ends it."""
    loop = asyncio.get_running_loop()
    _on_signals(loop, connection.ended.set)
    with (
        _claimed(0, os.devnull) as source,
        _claimed(1, None) as sink,
        blocking_as_before(source, sink),
    ):
        streams = Streams(connection, limits)
        await streams.open(source, sink)
        await connection.ended.wait()
        exit_at = (connection.ends_since or loop.time()) + limits.shutdown_timeout
        await connection.close()
        await streams.close(_WRITE_SHARE * max(0.0, exit_at - loop.time()))
    return End(exit_at, streams.failed)


def _on_signals(loop: asyncio.AbstractEventLoop, end: Callable[[], None]) -> None:
    if sys.platform == "win32":
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(end))
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # a terminal that is closed; `nohup` has it ignored
        loop.add_signal_handler(signal.SIGHUP, end)


@contextmanager
def _claimed(fd: int, replacement: str | None) -> Generator[int]:
    """A private duplicate of a standard stream, which itself leads to `replacement` or else to stderr from now on."""
    private = os.dup(fd)
    other = os.open(replacement, os.O_RDWR) if replacement else os.dup(2)
    os.dup2(other, fd)
    os.close(other)
    try:
        yield private
    finally:
        os.close(private)

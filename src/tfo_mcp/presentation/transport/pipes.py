"""Pipes and sockets, which the event loop's own transports serve."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import stat
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import IO


def loop_serves(fd: int) -> bool:
    """Whether the event loop can wait for it."""
    return sys.platform != "win32" and (is_socket(fd) or stat.S_ISFIFO(os.fstat(fd).st_mode))


def is_socket(fd: int) -> bool:
    return stat.S_ISSOCK(os.fstat(fd).st_mode)


def is_hung_up(fd: int) -> bool:
    """Whether the other end is closed, seen without reading; a file has none."""
    if sys.platform == "win32":
        return False
    poll = select.poll()
    poll.register(fd, getattr(select, "POLLRDHUP", 0))  # POLLHUP comes unasked, but on a socket for both sides only
    return any(events & ~(select.POLLIN | select.POLLNVAL) for _, events in poll.poll(0))  # macOS polls no devices


async def connect_reader(loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol, fd: int) -> None:
    """Read a duplicate of `fd`, which is left open."""
    if is_socket(fd):
        await loop.connect_accepted_socket(lambda: protocol, socket.socket(fileno=os.dup(fd)))
    else:
        await loop.connect_read_pipe(lambda: protocol, _pipe(fd, "rb"))


async def connect_writer(
    loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol, fd: int
) -> asyncio.WriteTransport:
    """Write to a duplicate of `fd`, which is left open."""
    if is_socket(fd):
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, socket.socket(fileno=os.dup(fd)))
        transport.pause_reading()
        return transport
    write, _ = await loop.connect_write_pipe(lambda: protocol, _pipe(fd, "wb"))
    return write


@contextmanager
def blocking_as_before(*fds: int) -> Generator[None]:
    """Undo what the loop's transports do to the open files, which others may share: they set O_NONBLOCK."""
    before = {fd: os.get_blocking(fd) for fd in fds if loop_serves(fd)}
    try:
        yield
    finally:
        for fd, blocking in before.items():
            os.set_blocking(fd, blocking)


def _pipe(fd: int, mode: str) -> IO[bytes]:
    """A duplicate of a pipe for a transport; not closed by its file object.

    uvloop closes the descriptor and then the file object, which, if it did as well, could hit a descriptor that
    another thread has opened in between. asyncio's own loop leaves it open until the process ends.
    """
    return os.fdopen(os.dup(fd), mode, buffering=0, closefd=False)

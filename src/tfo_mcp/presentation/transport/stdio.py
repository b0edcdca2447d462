"""MCP over the process's standard streams: our own transport on asyncio's pipe transports (DESIGN decision 2).

While it serves, descriptor 0 is the null device and descriptor 1 is stderr, so that nothing but protocol
reaches the client, whatever a tool or a child prints, and nobody else eats its input.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import stat
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, cast

from tfo_mcp.presentation.connection import Connection
from tfo_mcp.presentation.transport.framing import LineFramer

_LOOK_AGAIN = 0.1
"""Seconds between two looks at a source that is not being read."""

_WRITE_SHARE = 0.5
"""Of the time that is left when all answers are written: what a client gets to read them in; the rest is to flush."""

_PIPE = 65536
"""Bytes that a pipe holds on Linux, unless told otherwise."""


class UnusableStream(Exception):  # the command line shows its sentence
    """A standard stream is of a kind that this transport does not serve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StdioLimits:
    """Bytes of a line; bytes of unread output at which no more input is taken; seconds from the end to the exit."""

    max_message_size: int
    write_buffer: int
    shutdown_timeout: float


async def serve_stdio(connection: Connection, limits: StdioLimits) -> float:
    """Serve one client on stdin and stdout until it, a signal or `shutdown` ends it.

    Returns:
        The loop's time at which the process should be gone.

    Raises:
        UnusableStream: stdin or stdout is neither pipe nor socket.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, connection.ended.set)
    with _claimed(0, os.devnull) as source, _claimed(1, None) as sink:
        streams = _Streams(connection, limits)
        await streams.open(source, sink)
        await connection.ended.wait()
        exit_at = (connection.ends_since or loop.time()) + limits.shutdown_timeout
        await connection.close()
        await streams.close(_WRITE_SHARE * max(0.0, exit_at - loop.time()))
    return exit_at


class _Streams(asyncio.Protocol):
    """Both directions. Reading stops while the client does not read or too much is in flight."""

    def __init__(self, connection: Connection, limits: StdioLimits) -> None:
        self._connection = connection
        self._limits = limits
        self._framer = LineFramer(limits.max_message_size)
        self._lines: deque[bytes | bytearray | None] = deque()
        self._reader: asyncio.ReadTransport | None = None
        self._writer: asyncio.WriteTransport | None = None
        self._output = _Output(self)
        self._unwritten: list[bytes] = []
        self._unwritten_bytes = 0
        self._duplex = False
        self._source = -1
        self._hung_up = False
        self._input_ended = False
        self._reading_paused = False
        connection.attach(self)

    async def open(self, source: int, sink: int) -> None:
        loop = asyncio.get_running_loop()
        self._source = source
        self._duplex = _is_socket(source) and os.path.samestat(os.fstat(source), os.fstat(sink))
        if not self._duplex:
            self._output.is_socket = _is_socket(sink)
            self._writer = await _connect_writer(loop, self._output, sink)
            self._writer.set_write_buffer_limits(high=self._limits.write_buffer)
        await _connect_reader(loop, self, source)

    # --- incoming ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._reader = cast("asyncio.ReadTransport", transport)
        if self._duplex:
            self._writer = cast("asyncio.WriteTransport", transport)
            self._writer.set_write_buffer_limits(high=self._limits.write_buffer)

    def data_received(self, data: bytes) -> None:
        self._lines.extend(self._framer.feed(data))
        self.resume()

    def eof_received(self) -> bool:
        self._lines.extend(self._framer.end())
        self._input_ended = True
        self.resume()
        return self._duplex  # True: the other direction stays open

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._input_ended:
            self.eof_received()
        if self._duplex:
            self._output.connection_lost(exc)

    def resume(self) -> None:
        """Give the connection what it can take, and stop reading while it cannot take more."""
        blocked = False
        while self._lines:
            ending = self._input_ended or self._hung_up
            blocked = not ending and (self._connection.full or not self._output.ready.is_set())
            if blocked:
                break
            line = self._lines.popleft()
            if line is None:
                self._connection.reject_oversized(self._limits.max_message_size)
            else:
                self._connection.receive(line)
        self._pause_reading(paused=blocked)
        if self._input_ended and not self._lines:
            self._connection.ended.set()

    def _pause_reading(self, *, paused: bool) -> None:
        if self._reader is None or paused == self._reading_paused or self._input_ended:
            return
        self._reading_paused = paused
        if paused:
            self._reader.pause_reading()
            self._watch_for_the_end()
        else:
            self._reader.resume_reading()

    def _watch_for_the_end(self) -> None:
        """A paused transport does not tell that the client has closed its end. What it left behind is a pipe's fill."""
        if not self._reading_paused:
            return
        if self._hung_up or _is_hung_up(self._source):
            self._hung_up = True
            self.resume()
        else:
            asyncio.get_running_loop().call_later(_LOOK_AGAIN, self._watch_for_the_end)

    # --- one socket for both: what it says of the other direction ---

    def pause_writing(self) -> None:
        self._output.pause_writing()

    def resume_writing(self) -> None:
        self._output.resume_writing()

    # --- outgoing: the port `Wire` ---

    def write(self, line: bytes) -> None:
        """Write soon: what is answered in one turn of the loop goes out in one system call, or in pipefuls."""
        if not self._unwritten:
            asyncio.get_running_loop().call_soon(self._write_out)
        self._unwritten.append(line)
        self._unwritten_bytes += len(line)
        if self._unwritten_bytes >= _PIPE:
            self._write_out()

    def _write_out(self) -> None:
        lines, self._unwritten, self._unwritten_bytes = self._unwritten, [], 0
        if lines and self._writer is not None and not self._output.lost:
            self._writer.writelines(lines)

    async def writable(self) -> None:
        await self._output.ready.wait()

    def output_lost(self) -> None:
        """The client reads no more and never will: there is nobody to serve."""
        self._lines.clear()
        self._input_ended = True
        self._connection.ended.set()

    async def close(self, timeout: float) -> None:  # noqa: ASYNC109  # a budget, not a deadline: it never raises
        """Let the client read what was written, for at most `timeout` seconds."""
        if self._reader is not None:
            self._reader.close()
        if self._writer is None:
            return
        self._write_out()
        self._writer.close()
        _, pending = await asyncio.wait([asyncio.ensure_future(self._output.closed.wait())], timeout=timeout)
        for waiter in pending:
            waiter.cancel()
            self._writer.abort()


class _Output(asyncio.Protocol):
    """What the writing transport says: whether the client keeps up, and when it is gone."""

    def __init__(self, streams: _Streams) -> None:
        self._streams = streams
        self.ready = asyncio.Event()
        self.ready.set()
        self.closed = asyncio.Event()
        self.lost = False
        self.is_socket = False

    def eof_received(self) -> bool:
        return self.is_socket  # True: goes on, for of a socket a client may close the direction that it does not use

    def pause_writing(self) -> None:
        self.ready.clear()

    def resume_writing(self) -> None:
        self.ready.set()
        self._streams.resume()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # either way nobody reads
        self.lost = True
        self.ready.set()
        self.closed.set()
        self._streams.output_lost()


def _is_hung_up(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, getattr(select, "POLLRDHUP", 0))  # POLLHUP comes unasked, but on a socket for both sides only
    return any(events & ~select.POLLIN for _, events in poll.poll(0))


async def _connect_reader(loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol, fd: int) -> None:
    if _is_socket(fd):
        await loop.connect_accepted_socket(lambda: protocol, socket.socket(fileno=os.dup(fd)))
    else:
        await loop.connect_read_pipe(lambda: protocol, _pipe(fd, "rb"))


async def _connect_writer(loop: asyncio.AbstractEventLoop, protocol: _Output, fd: int) -> asyncio.WriteTransport:
    if _is_socket(fd):
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, socket.socket(fileno=os.dup(fd)))
        transport.pause_reading()
        return transport
    write, _ = await loop.connect_write_pipe(lambda: protocol, _pipe(fd, "wb"))
    return write


def _pipe(fd: int, mode: str) -> IO[bytes]:
    """A duplicate of a pipe for a transport; not closed by its file object.

    uvloop closes the descriptor and then the file object, which, if it did as well, could hit a descriptor that
    another thread has opened in between. asyncio's own loop leaves it open until the process ends.
    """
    return os.fdopen(os.dup(fd), mode, buffering=0, closefd=False)


def _is_socket(fd: int) -> bool:
    return stat.S_ISSOCK(os.fstat(fd).st_mode)


@contextmanager
def _claimed(fd: int, replacement: str | None) -> Generator[int]:
    """A private duplicate of a standard stream, which itself leads to `replacement` or else to stderr from now on."""
    try:
        kind = os.fstat(fd).st_mode
    except OSError:  # closed
        kind = 0
    if not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)):
        name = "stdin" if fd == 0 else "stdout"
        msg = f"{name} is neither a pipe nor a socket: 'tfo-mcp serve' is started by an MCP client, not by hand"
        raise UnusableStream(msg)
    private = os.dup(fd)
    blocking = os.get_blocking(private)
    other = os.open(os.devnull, os.O_RDWR) if replacement else os.dup(2)
    os.dup2(other, fd)
    os.close(other)
    try:
        yield private
    finally:
        os.set_blocking(private, blocking)  # O_NONBLOCK belongs to the open file, which others may share
        os.close(private)

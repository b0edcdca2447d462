"""Transports for what no event loop waits for: files, terminals, other devices; on Windows also pipes.

Each has one thread, which does nothing but read or write, and keeps asyncio's contract, so that its user cannot tell
it from a pipe's. The open file's flags and a terminal's settings are never touched: they belong to everyone who
shares it, the shell that started us for example, and would stay as we left them.

The threads are daemons: one that hangs in a call keeps nobody. Each owns its descriptor and closes it itself,
because a number that another thread closed could lead to another file by the time of the next call.

On Windows this has never been run.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue

_CHUNK = 65536
"""Bytes of one read, and about those of one write."""


class ThreadReader(asyncio.ReadTransport):
    """Reads `fd`, one chunk at a time: the next one not before the loop has taken this one and wants more.

    Args:
        fd: becomes this transport's own.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol, fd: int) -> None:
        super().__init__()
        self._protocol = protocol
        self._loop = loop
        self._fd = _binary(fd)
        self._turns: SimpleQueue[int] = SimpleQueue()
        """How many bytes to read next, at most; 0 ends the thread."""
        self._under_way = False
        self._paused = False
        self._closing = False
        threading.Thread(target=self._read_all, name="tfo-mcp-stdin", daemon=True).start()
        protocol.connection_made(self)
        self._read_next()

    def pause_reading(self) -> None:
        """Ask for no more. A read that has begun may still give its chunk."""
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self._read_next()

    def close(self) -> None:
        """Deliver nothing more; a read that has begun goes on until it ends or the process does."""
        self._closing = True
        self._turns.put(0)

    def _read_next(self) -> None:
        if not (self._under_way or self._paused or self._closing):
            self._under_way = True
            self._turns.put(_CHUNK)

    def _take(self, data: bytes) -> None:
        if self._closing:
            return
        if data:
            self._under_way = False
            self._protocol.data_received(data)
            self._read_next()
        else:  # `_under_way` stays: nothing is read beyond the end
            self._protocol.eof_received()

    def _fail(self, error: OSError) -> None:
        if not self._closing:
            self.close()
            self._protocol.connection_lost(error)

    def _read_all(self) -> None:
        is_terminal = os.isatty(self._fd)
        try:
            while size := self._turns.get():
                _tell(self._loop, self._take, _read(self._fd, size))
        except OSError as error:
            if _hung_up(error, is_terminal=is_terminal):
                _tell(self._loop, self._take, b"")
            else:
                _tell(self._loop, self._fail, error)
        finally:
            os.close(self._fd)


class ThreadWriter(asyncio.WriteTransport):
    """Writes to `fd`, whole and in order.

    Args:
        fd: becomes this transport's own.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol, fd: int) -> None:
        super().__init__()
        self._loop = loop
        self._protocol = protocol
        self._fd = _binary(fd)
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        """None ends the thread."""
        self._size = 0
        self._high = self._low = 0
        self._paused = False
        self._closing = False
        self._lost = False
        self.set_write_buffer_limits(high=_CHUNK)
        threading.Thread(target=self._write_all, name="tfo-mcp-stdout", daemon=True).start()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = _CHUNK if high is None else high
        self._low = self._high // 4 if low is None else low
        self._pause_or_resume()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._closing:
            self._size += len(data)
            self._queue.put(bytes(data))
            self._pause_or_resume()

    def close(self) -> None:
        """Write what waits, then tell `connection_lost`."""
        if not self._closing:
            self._closing = True
            self._queue.put(None)

    def abort(self) -> None:
        """Tell `connection_lost` now; the thread writes on for as long as the process lives."""
        self.close()
        self._loop.call_soon(self._lose, None)

    def _pause_or_resume(self) -> None:
        if not self._paused and self._size > self._high:
            self._paused = True
            self._protocol.pause_writing()
        elif self._paused and self._size <= self._low:
            self._paused = False
            self._protocol.resume_writing()

    def _written(self, size: int) -> None:
        self._size -= size
        self._pause_or_resume()

    def _lose(self, error: OSError | None) -> None:
        self._closing = True
        if not self._lost:
            self._lost = True
            self._protocol.connection_lost(error)

    def _write_all(self) -> None:
        is_terminal = os.isatty(self._fd)
        failure: OSError | None = None
        try:
            for block in self._blocks():
                rest = memoryview(block)
                while rest:
                    size = _write(self._fd, rest[:_CHUNK])
                    rest = rest[size:]
                    _tell(self._loop, self._written, size)
        except OSError as error:
            failure = None if _hung_up(error, is_terminal=is_terminal) else error
        finally:
            os.close(self._fd)
        _tell(self._loop, self._lose, failure)

    def _blocks(self) -> Iterator[bytes]:
        """What waits, small messages joined: a call of the system for each would take longer than to make it."""
        item = self._queue.get()
        while item is not None:
            waiting, size = [item], len(item)
            try:
                while size < _CHUNK and (item := self._queue.get_nowait()) is not None:
                    waiting.append(item)
                    size += len(item)
            except Empty:
                pass
            yield b"".join(waiting)
            if item is not None:
                item = self._queue.get()


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[..., None], argument: object) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
        loop.call_soon_threadsafe(call, argument)


def _read(fd: int, size: int) -> bytes:
    while True:
        try:
            return os.read(fd, size)
        except BlockingIOError:  # somebody who shares it has made it non-blocking
            select.select((fd,), (), ())


def _write(fd: int, data: memoryview) -> int:
    while True:
        try:
            return os.write(fd, data)
        except BlockingIOError:
            select.select((), (fd,), ())


def _hung_up(error: OSError, *, is_terminal: bool) -> bool:
    """Whether a terminal is gone, which is an end and no failure."""
    return is_terminal and error.errno == errno.EIO


def _binary(fd: int) -> int:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.setmode(fd, os.O_BINARY)
    return fd

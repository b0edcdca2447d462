"""Both directions of one client's standard streams: lines in, lines out, and when to stop reading."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from dataclasses import dataclass
from typing import cast

from tfo_mcp.presentation.connection import Connection
from tfo_mcp.presentation.transport import pipes
from tfo_mcp.presentation.transport.framing import LineFramer
from tfo_mcp.presentation.transport.threads import ThreadReader, ThreadWriter

_logger = logging.getLogger(__name__)

_LOOK_AGAIN = 0.1
"""Seconds between two looks at a source that is not being read."""

_PIPE = 65536
"""Bytes that a pipe holds on Linux, unless told otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StdioLimits:
    """Bytes of a line; bytes of unread output at which no more input is taken; seconds from the end to the exit."""

    max_message_size: int
    write_buffer: int
    shutdown_timeout: float


class Streams(asyncio.Protocol):
    """Both directions. Reading stops while the client does not read or too much is in flight.

    The end of a file is read as all of it is: it counts once the client has taken what was answered so far. The end
    of a pipe counts at once, for there it is the client that leaves.

    Attributes:
        failed: whether input or output broke off for another reason than that the client has gone.
    """

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
        self._end_waits = False
        self._end_is_near = False
        self._input_ended = False
        self._reading_paused = False
        self._closing = False
        self.failed = False
        connection.attach(self)

    async def open(self, source: int, sink: int) -> None:
        """Serve duplicates of these descriptors, which are left open."""
        loop = asyncio.get_running_loop()
        self._source = source
        self._duplex = pipes.is_socket(source) and os.path.samestat(os.fstat(source), os.fstat(sink))
        if not self._duplex:
            self._output.is_socket = pipes.is_socket(sink)
            if pipes.loop_serves(sink):
                self._writer = await pipes.connect_writer(loop, self._output, sink)
            else:
                self._writer = ThreadWriter(loop, self._output, os.dup(sink))
            self._writer.set_write_buffer_limits(high=self._limits.write_buffer)
        if pipes.loop_serves(source):
            await pipes.connect_reader(loop, self, source)
        else:
            self._end_waits = True
            ThreadReader(loop, self, os.dup(source))

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
        if self._end_waits:
            self._end_is_near = True
        else:
            self._input_ended = True
        self.resume()
        return self._duplex  # True: the other direction stays open

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closing:
            self._note_failure("stdin cannot be read any more", exc)
        self._end_waits = False
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
        if self._end_is_near and not self._lines and not self._input_ended:
            self._input_ended = self._all_is_written()
        if self._input_ended and not self._lines:
            self._connection.ended.set()

    def _all_is_written(self) -> bool:
        """If not, `resume` is called once it is."""
        self._write_out()
        if self._writer is not None and not self._output.lost:
            self._writer.set_write_buffer_limits(high=0)
        return self._output.ready.is_set()

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
        if self._hung_up or pipes.is_hung_up(self._source):
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
        if self._closing:
            return
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

    @property
    def is_read(self) -> bool:
        return self._output.ready.is_set()

    async def writable(self) -> None:
        await self._output.ready.wait()

    def output_lost(self, exc: Exception | None) -> None:
        """The client reads no more and never will: there is nobody to serve."""
        if not self._note_failure("stdout cannot be written any more", exc) and not self._closing:
            _logger.info("nobody reads stdout any more")
        self._lines.clear()
        self._input_ended = True
        self._connection.ended.set()

    def _note_failure(self, what: str, exc: Exception | None) -> bool:
        if not isinstance(exc, OSError) or isinstance(exc, ConnectionError):  # those are a client that has gone
            return False
        self.failed = True
        _logger.error("%s: %s", what, os.strerror(exc.errno or 0))
        return True

    async def close(self, timeout: float) -> None:  # noqa: ASYNC109  # a budget, not a deadline: it never raises
        """Let the client read what was written, for at most `timeout` seconds."""
        self._closing = True
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

    def __init__(self, streams: Streams) -> None:
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

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.ready.set()
        self.closed.set()
        self._streams.output_lost(exc)

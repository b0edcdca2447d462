"""Programs while they run: started without a shell, read within bounds, and ended with all that they started.

A program is started by the thread of the event loop: bubblewrap ends with the thread that it was started by.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final
from uuid import uuid4

from tfo_mcp.domain.errors import ToolFailure

MARK: Final = "TFO_MCP_COMMAND"
"""The variable by which all that a program starts is known again, whatever group or session it moves to."""

_GRACE: Final = 0.5
"""Seconds that a program gets to end by itself once it was told to."""
_REST: Final = 0.5
"""Seconds to read what an ended program has written, where something of it keeps the pipe open."""

_CHUNK: Final = 65_536
_ROUNDS: Final = 20
"""Looks for what is left of a program, which may go on starting others meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What is to be run.

    Attributes:
        executable: the file.
        words: what it is told, its own name first.
        folder: where it starts.
        environment: all of it.
        mark: what `MARK` is in the environment of the program that is meant, and of all that it starts.
    """

    executable: Path
    words: Sequence[str]
    folder: str
    environment: Mapping[str, str]
    mark: str


class Output:
    """Of one stream the beginning and the end, `limit` bytes in all, and how much there was."""

    def __init__(self, limit: int) -> None:
        self._most_head = (limit + 1) // 2
        self._most_tail = limit - self._most_head
        self._head = bytearray()
        self._tail = bytearray()
        self.total = 0

    def add(self, data: bytes) -> None:
        self.total += len(data)
        room = self._most_head - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        if len(self._tail) > max(4 * _CHUNK, 2 * self._most_tail):
            self._shorten()

    def _shorten(self) -> None:
        del self._tail[: max(0, len(self._tail) - self._most_tail)]

    @property
    def cut(self) -> int:
        """Bytes that are missing in the middle."""
        return max(0, self.total - self._most_head - self._most_tail)

    def text(self) -> str:
        """What there is; bytes that are not UTF-8 are marked, and what is missing is said."""
        self._shorten()
        if not self.cut:
            return (self._head + self._tail).decode(errors="replace")
        note = f"\n[{self.cut} bytes are cut out here]\n"
        return self._head.decode(errors="replace") + note + self._tail.decode(errors="replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a program ended.

    Attributes:
        exit_code: 128 and the signal's number where a signal ended it, as shells say it; None where it was
            stopped because its time was over.
        duration: seconds.
    """

    exit_code: int | None
    stdout: Output
    stderr: Output
    duration: float


def new_mark() -> str:
    return uuid4().hex


class Processes:
    """All programs that run.

    Args:
        most: how many may run at once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._running: set[_Running] = set()
        self._ending: set[asyncio.Task[None]] = set()

    async def run(self, launch: Launch, *, timeout: float, max_output: int) -> Ended:  # noqa: ASYNC109  # not raised: what there was is the result
        """Run a program to its end, or for `timeout` seconds; nothing that it started is left then.

        Raises:
            ToolFailure: it cannot be started, or too many run.
        """
        if len(self._running) >= self._most:
            raise ToolFailure(f"{self._most} commands are running, which is the most; try again when one has ended")
        started = time.perf_counter()
        running = _Running(launch, max_output)
        self._running.add(running)
        timed_out = False
        try:
            async with asyncio.timeout(timeout):
                await running.exited.wait()
        except TimeoutError:
            timed_out = True
        finally:
            await self._end(running)
        return Ended(
            exit_code=None if timed_out else running.exit_code,
            stdout=running.stdout,
            stderr=running.stderr,
            duration=time.perf_counter() - started,
        )

    async def _end(self, running: _Running) -> None:
        """End it; goes on to its own end also where whoever waits for it is cancelled."""
        ending = asyncio.create_task(running.end())
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        ending.add_done_callback(lambda _: self._running.discard(running))
        await asyncio.shield(ending)

    def kill(self) -> None:
        """Kill all that runs, at once: the server is about to be gone."""
        for running in self._running:
            running.kill()


class _Running:
    """One program and what it has started."""

    def __init__(self, launch: Launch, max_output: int) -> None:
        self._mark = f"{MARK}={launch.mark}".encode()
        self._process = _start(launch)
        self._loop = asyncio.get_running_loop()
        self.exited = asyncio.Event()
        self.exit_code: int | None = None
        self.stdout, self.stderr = Output(max_output), Output(max_output)
        self._open: dict[int, tuple[IO[bytes], Output]] = {}
        self._closed = asyncio.Event()
        for stream, output in ((self._process.stdout, self.stdout), (self._process.stderr, self.stderr)):
            assert stream is not None  # noqa: S101  # both are pipes
            os.set_blocking(stream.fileno(), False)
            self._open[stream.fileno()] = stream, output
            self._loop.add_reader(stream.fileno(), self._read, stream.fileno())
        threading.Thread(target=self._await_exit, name="await a program", daemon=True).start()

    def _read(self, descriptor: int) -> None:
        stream, output = self._open[descriptor]
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return
        if data:
            output.add(data)
        else:
            self._close(descriptor, stream)

    def _close(self, descriptor: int, stream: IO[bytes]) -> None:
        self._loop.remove_reader(descriptor)
        del self._open[descriptor]
        stream.close()
        if not self._open:
            self._closed.set()

    def _await_exit(self) -> None:
        # It is left a zombie, so that its number is nobody else's while its group is killed.
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self.exited.set)

    async def end(self) -> None:
        """Tell it to end where it runs, kill what is left, and take what it has written."""
        if not self.exited.is_set():
            await asyncio.to_thread(self._signal, signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.exited.wait(), _GRACE)
        for _ in range(_ROUNDS):
            if not await asyncio.to_thread(self._signal, signal.SIGKILL):
                break
        await self.exited.wait()
        code = self._process.wait()
        self.exit_code = 128 - code if code < 0 else code
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), _REST)
        for descriptor, (stream, _) in list(self._open.items()):
            self._close(descriptor, stream)

    def kill(self) -> None:
        """Kill what there is of it now."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> int:
        """Signal its group and all that carries its mark; how many of the latter there were."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)
        marked = list(_marked(self._mark))
        for pid in marked:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        return len(marked)


def _start(launch: Launch) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # noqa: S603  # the program is the operator's, its words are never read by a shell
            list(launch.words),
            executable=launch.executable,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=launch.folder,
            env=dict(launch.environment),
            start_new_session=True,
            bufsize=0,
        )
    except OSError as error:
        raise ToolFailure(f"the program cannot be started: {error.strerror}") from error


def _marked(mark: bytes) -> Iterator[int]:
    """The processes that have `mark` in their environment; where there is no /proc, none is found."""
    with suppress(FileNotFoundError):
        for entry in os.scandir("/proc"):
            if entry.name.isdecimal():
                with suppress(OSError):  # gone, or somebody else's
                    if mark in Path(entry.path, "environ").read_bytes().split(b"\0"):
                        yield int(entry.name)

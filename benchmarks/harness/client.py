"""A client that costs as little as Python can: lines made beforehand, pipes read and written directly.

It believes nothing: every answer is looked at once the clock has stopped.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from harness.accounting import cpu_seconds
from harness.errors import WrongAnswer
from harness.peer import Peer
from harness.surroundings import Surroundings

DEADLINE = 60.0
"""Seconds that any answer may take."""

REVISION = "2025-06-18"
"""Of the protocol: the newest that all peers know what to do with."""

HELLO = {
    "jsonrpc": "2.0",
    "id": "hello",
    "method": "initialize",
    "params": {
        "protocolVersion": REVISION,
        "capabilities": {},
        "clientInfo": {"name": "tfo-mcp-benchmark", "version": "1"},
    },
}
READY = {"jsonrpc": "2.0", "method": "notifications/initialized"}

_NONE: Mapping[str, str] = {}


def line(message: Mapping[str, Any]) -> bytes:
    """One message as it goes over the wire."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def echo_call(number: int) -> bytes:
    """The call of `echo` whose id is `number`, with a message of its own."""
    params = {"name": "echo", "arguments": {"message": _message(number)}}
    return line({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})


def check_echo(answer: Mapping[str, Any], prefix: str) -> None:
    """Whether this is the answer to `echo_call` with its id.

    Raises:
        WrongAnswer: it is not.
    """
    result = answer.get("result")
    number = answer.get("id")
    if isinstance(result, dict) and isinstance(number, int):
        told = cast("dict[str, Any]", result)
        content = told.get("content")
        text = {"type": "text", "text": prefix + _message(number)}
        if content in ([text], [{**text, "annotations": None}]) and not told.get("isError", False):
            return
    raise WrongAnswer(f"no answer to an echo: {json.dumps(answer)[:300]}")


def _message(number: int) -> str:
    return f"the quick brown fox jumps over the lazy dog {number}"


@dataclass(frozen=True, slots=True)
class Load:
    """What a run of calls took.

    Attributes:
        seconds: from the first byte sent to the last answer read.
        latencies: seconds from a call's writing to its answer's reading, one a call.
    """

    seconds: float
    latencies: Sequence[float]


class Client:
    """One running server."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        if process.stdin is None or process.stdout is None:
            raise ValueError("a server is spoken to over pipes")
        self.pid = process.pid
        self._process = process
        self._log = log
        self._stdin = process.stdin
        self._input = process.stdin.fileno()
        self._output = process.stdout.fileno()
        self._poll = select.poll()
        self._poll.register(self._output, select.POLLIN)

    def cpu(self) -> float:
        """Seconds of CPU so far."""
        return cpu_seconds(self.pid)

    def send(self, data: bytes) -> None:
        """Write; the server is expected to read.

        Raises:
            WrongAnswer: it reads no more.
        """
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._input, view) :]
        except BrokenPipeError:
            raise WrongAnswer(f"the server has gone; {self._last_words()}") from None

    def read(self) -> bytes:
        """What has come, as soon as there is anything.

        Raises:
            WrongAnswer: nothing comes, or nothing will any more.
        """
        if not self._poll.poll(DEADLINE * 1000):
            raise WrongAnswer(f"no answer in {DEADLINE} s; {self._last_words()}")
        data = os.read(self._output, 1 << 20)
        if not data:
            raise WrongAnswer(f"the server has gone; {self._last_words()}")
        return data

    def ask(self, request: bytes) -> dict[str, Any]:
        """Send one request and wait for its answer, the only message that may come."""
        self.send(request)
        data = self.read()
        while not data.endswith(b"\n"):
            data += self.read()
        return json.loads(data)

    def initialize(self) -> None:
        """The handshake."""
        answer = self.ask(line(HELLO))
        if "protocolVersion" not in answer.get("result", {}):
            raise WrongAnswer(f"no answer to initialize: {json.dumps(answer)[:300]}")
        self.send(line(READY))

    def echo(self, numbers: range, *, in_flight: int, prefix: str) -> Load:
        """Call `echo` once for each number, with so many calls waiting at any time; check every answer.

        Raises:
            WrongAnswer: one is missing, double or not what was asked for.
        """
        lines = [echo_call(number) for number in numbers]
        sent_at = [0.0] * len(lines)
        chunks: list[bytes] = []
        read_at: list[tuple[float, int]] = []
        sent = answered = 0
        wanted = min(in_flight, len(lines))
        began = time.perf_counter()
        while answered < len(lines):
            if wanted > sent:
                sent_at[sent:wanted] = [time.perf_counter()] * (wanted - sent)
                self.send(b"".join(lines[sent:wanted]))
                sent = wanted
            chunks.append(self.read())
            if ended := chunks[-1].count(b"\n"):
                answered += ended
                read_at.append((time.perf_counter(), ended))
                wanted = min(answered + in_flight, len(lines))
        seconds = time.perf_counter() - began
        return Load(seconds, _latencies(numbers, sent_at, chunks, read_at, prefix))

    def pace(self, numbers: range, *, per_second: float, prefix: str) -> Load:
        """Call `echo` once for each number, at a steady rate whatever waits; check every answer.

        Raises:
            WrongAnswer: as `echo`.
        """
        lines = [echo_call(number) for number in numbers]
        sent_at: list[float] = []
        chunks: list[bytes] = []
        read_at: list[tuple[float, int]] = []
        answered = 0
        began = time.perf_counter()
        while answered < len(lines):
            patience = 0.0
            while len(sent_at) < len(lines):
                patience = began + len(sent_at) / per_second - time.perf_counter()
                if patience > 0:
                    break
                sent_at.append(time.perf_counter())
                self.send(lines[len(sent_at) - 1])
            # `poll` would wait for whole milliseconds.
            if len(sent_at) < len(lines) and not select.select([self._output], [], [], patience)[0]:
                continue
            chunks.append(self.read())
            if ended := chunks[-1].count(b"\n"):
                answered += ended
                read_at.append((time.perf_counter(), ended))
        return Load(time.perf_counter() - began, _latencies(numbers, sent_at, chunks, read_at, prefix))

    def flood(self, first: int, *, seconds: float, in_flight: int, prefix: str) -> int:
        """Call `echo` with so many calls waiting at any time, for so long; how many it were.

        The numbers begin with `first`. Every answer is checked as it comes: there are too many to keep them.

        Raises:
            WrongAnswer: as `echo`.
        """
        number, waiting = first, set[int]()
        rest = b""
        until = time.perf_counter() + seconds
        while waiting or time.perf_counter() < until:
            if missing := in_flight - len(waiting) if time.perf_counter() < until else 0:
                numbers = range(number, number + missing)
                self.send(b"".join(map(echo_call, numbers)))
                waiting.update(numbers)
                number += missing
            *answers, rest = (rest + self.read()).split(b"\n")
            for answer in map(json.loads, answers):
                check_echo(answer, prefix)
                if answer["id"] not in waiting:
                    raise WrongAnswer("a call was answered twice")
                waiting.remove(answer["id"])
        return number - first

    def leave(self) -> None:
        """Close the server's input and wait until it has ended.

        Raises:
            WrongAnswer: it does not end.
        """
        self._stdin.close()
        try:
            self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            raise WrongAnswer("the server does not end with its input") from None

    def _last_words(self) -> str:
        return f"its log ends: {self._log.read_text('utf-8', errors='replace')[-1000:]}"


def _latencies(
    numbers: range,
    sent_at: Sequence[float],
    chunks: Sequence[bytes],
    read_at: Sequence[tuple[float, int]],
    prefix: str,
) -> Sequence[float]:
    """Seconds from each call's writing to its answer's reading; `read_at` has a moment and how many ended then.

    Raises:
        WrongAnswer: an answer is missing, double or not what was asked for.
    """
    arrivals = [at for at, count in read_at for _ in range(count)]
    answers: list[dict[str, Any]] = [json.loads(answer) for answer in b"".join(chunks).splitlines()]
    _check_all(answers, numbers, prefix)
    places = [numbers.index(answer["id"]) for answer in answers]
    return [at - sent_at[place] for at, place in zip(arrivals, places, strict=True)]


def _check_all(answers: Sequence[Mapping[str, Any]], numbers: range, prefix: str) -> None:
    for answer in answers:
        check_echo(answer, prefix)
    if sorted(answer["id"] for answer in answers) != list(numbers):
        raise WrongAnswer("calls were answered twice or not at all")


@contextmanager
def started(peer: Peer, surroundings: Surroundings, environment: Mapping[str, str] = _NONE) -> Generator[Client]:
    """The peer as a process of its own, with `environment` beside its own; killed at the end if it still runs."""
    home = surroundings.home_of(peer)
    log = home / "stderr.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            peer.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**_environment(peer, home, surroundings), **environment},
            cwd=home,
            bufsize=0,
        )
    try:
        yield Client(process, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(DEADLINE)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def _environment(peer: Peer, home: Path, surroundings: Surroundings) -> dict[str, str]:
    """Nothing of the user's own, so that the same is measured everywhere; bytecode is cached as it is for users."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    told = {peer.collector_variable: surroundings.collector.endpoint} if peer.collector_variable else {}
    return {**kept, "HOME": str(home), **peer.environment, **told}

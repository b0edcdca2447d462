"""The real server as a child process, spoken to in raw lines."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

DEADLINE = 20.0
"""Seconds that anything may take which should happen at once; machines that run tests are slow and shared."""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has started the tests in the background; the servers would inherit that, and ignore it until they are up.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # so does `nohup`
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

HANDSHAKE = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}

ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}
"""`_meta` of a stateless request."""

STATELESS = "2026-07-28"
REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", STATELESS)
"""Of the protocol, all that are served; those before the last begin with a handshake."""

Answer = dict[str, Any]


class Server:
    """One running `tfo-mcp serve`. Lines go in by `send`, answers come out by `receive`."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin = process.stdin.fileno()
        self._stdout = process.stdout.fileno()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stdout, selectors.EVENT_READ)
        self._buffer = b""
        self.revision = ""
        """What `begin` was told."""
        self.received: list[Answer] = []
        """Every message so far, in order."""

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> str:
        """What the server wrote to stderr."""
        return self._log.read_text("utf-8", errors="replace")

    # --- sending ---

    def send_raw(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._stdin, view[:65536]) :]

    def send(self, *messages: Mapping[str, Any]) -> None:
        self.send_raw(b"".join(json.dumps(message).encode() + b"\n" for message in messages))

    def request(self, request_id: str | int, method: str, params: Mapping[str, Any] | None = None) -> None:
        if self.revision == STATELESS:
            params = {"_meta": ENVELOPE, **(params or {})}
        message: Answer = {"jsonrpc": "2.0", "id": request_id, "method": method}
        self.send(message if params is None else {**message, "params": params})

    def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        message: Answer = {"jsonrpc": "2.0", "method": method}
        self.send(message if params is None else {**message, "params": params})

    # --- receiving ---

    def receive(self, deadline: float = DEADLINE) -> Answer:
        """The next message; an AssertionError when none comes or stdout ends."""
        message = self.receive_or_end(deadline)
        assert message is not None, f"stdout ended; stderr: {self.log()[-2000:]}"
        return message

    def receive_or_end(self, deadline: float = DEADLINE) -> Answer | None:
        """The next message, or None at the end of stdout."""
        until = time.monotonic() + deadline
        while b"\n" not in self._buffer:
            left = until - time.monotonic()
            ready = self._selector.select(max(0.0, left))
            assert ready, f"no answer in {deadline} s; stderr: {self.log()[-2000:]}"
            data = os.read(self._stdout, 1 << 20)
            if not data:
                assert not self._buffer, f"an incomplete line at the end: {self._buffer[:200]!r}"
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        message = cast("Answer", json.loads(line))
        assert message["jsonrpc"] == "2.0"
        self.received.append(message)
        return message

    def answer_to(self, request_id: str | int | None, deadline: float = DEADLINE) -> Answer:
        """The answer with this id, whatever comes before it."""
        return self.wait_for(lambda m: "method" not in m and m.get("id") == request_id, deadline)

    def wait_for(self, wanted: Callable[[Answer], bool], deadline: float = DEADLINE) -> Answer:
        until = time.monotonic() + deadline
        while True:
            message = self.receive(max(0.01, until - time.monotonic()))
            if wanted(message):
                return message

    def call(self, request_id: str | int, method: str, params: Mapping[str, Any] | None = None) -> Answer:
        """Send a request and wait for its answer."""
        self.request(request_id, method, params)
        return self.answer_to(request_id)

    def call_tool(self, request_id: str | int, name: str, arguments: Mapping[str, Any] | None = None) -> Answer:
        """`tools/call`; the result, an AssertionError where there is none."""
        answer = self.call(request_id, "tools/call", {"name": name, "arguments": arguments or {}})
        assert "result" in answer, answer
        return cast("Answer", answer["result"])

    def initialize(self, revision: str = "2025-11-25") -> Answer:
        """The handshake."""
        answer = self.call("init", "initialize", {**HANDSHAKE, "protocolVersion": revision})
        self.notify("notifications/initialized")
        return cast("Answer", answer["result"])

    def begin(self, revision: str) -> None:
        """Speak this revision from now on."""
        if revision != STATELESS:
            self.initialize(revision)
        self.revision = revision

    def ask_whether_alive(self, request_id: str | int = "alive") -> None:
        """A request that any server answers which runs."""
        self.request(request_id, "server/discover" if self.revision == STATELESS else "ping")

    # --- ending ---

    def close_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def rest(self, deadline: float = DEADLINE) -> list[Answer]:
        """What still comes until stdout ends."""
        messages: list[Answer] = []
        while (message := self.receive_or_end(deadline)) is not None:
            messages.append(message)
        return messages

    def wait(self, deadline: float = DEADLINE) -> int:
        """The exit code."""
        return self.process.wait(deadline)

    def peak_memory(self) -> int:
        """Bytes of resident memory at the highest (Linux)."""
        status = Path(f"/proc/{self.pid}/status").read_text("ascii")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def claude_at(base_url: str) -> dict[str, str]:
    """The variables of a server that is to ask this Messages API."""
    return {"ANTHROPIC_BASE_URL": base_url, "ANTHROPIC_API_KEY": "simulated"}


def eventually(happened: Callable[[], bool], deadline: float = DEADLINE) -> None:
    """Wait for what nobody tells; an AssertionError when it does not come."""
    until = time.monotonic() + deadline
    while not happened():
        assert time.monotonic() < until, f"it did not happen in {deadline} s"
        time.sleep(0.01)


def environment(state: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment for a child that nothing outside the test reaches into."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR", "PYTHONPATH") if name in os.environ}
    home = state / "home"
    home.mkdir(parents=True, exist_ok=True)
    return {
        **kept,
        "HOME": str(home),
        "TELEMETRYFLOW_MCP_STORAGE_FOLDER": str(state / "state"),
        **(extra or {}),
    }


@contextmanager
def serving(
    folder: Path,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    command: Sequence[str] = (sys.executable, "-m", "tfo_mcp", "serve"),
) -> Generator[Server]:
    """`tfo-mcp serve` with its state below `folder`; killed at the end if it still runs."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "stderr.log"
    work = cwd or folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stderr:
        process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment(folder, env),
            cwd=work,
            bufsize=0,
        )
    server = Server(process, log)
    try:
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait(DEADLINE)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()

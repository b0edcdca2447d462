"""`tfo-mcp fake-claude` in a thread of the test's own process, to be asked by the real SDK."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.request
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from tfo_mcp.infrastructure.fake_claude import load_script, serve

DEADLINE = 20.0
"""Seconds that the stand-in may take to start or to stop."""

_MOST_ENDING = 8
_ending: deque[threading.Thread] = deque()
"""Those that were told to stop; uvicorn takes 0.2 s for it, which no test need wait for."""


class FakeClaude:
    """A running stand-in. `base_url` is what `claude.base_url` is to be set to."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url

    def requests(self, path: str = "/v1/messages") -> list[dict[str, Any]]:
        """What was sent to `path`, oldest first: `headers`, `body`, `status`, `disconnected`."""
        with urllib.request.urlopen(f"{self.base_url}/__requests", timeout=DEADLINE) as response:  # noqa: S310  # loopback
            return [request for request in json.load(response) if request["path"] == path]

    def advance(self, seconds: float) -> None:
        """Put its clock forward, by which its prompt cache goes."""
        self._send("POST", "/__clock", {"advance": seconds})

    def empty_cache(self) -> None:
        """Let its prompt cache forget everything."""
        self._send("DELETE", "/__cache")

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.base_url}{path}", data, method=method)  # noqa: S310  # loopback
        with urllib.request.urlopen(request, timeout=DEADLINE):  # noqa: S310  # loopback
            return


@contextmanager
def fake_claude(script: str = "", host: str = "127.0.0.1") -> Generator[FakeClaude]:
    """Serve `script` (YAML; empty: the default behaviour) on a free port until the block ends."""
    started: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[None], str]] = []
    ready = threading.Event()

    async def run() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def on_ready(base_url: str) -> None:
            started.append((loop, task, base_url))
            ready.set()

        try:
            await serve(host, 0, load_script(script), on_ready)
        except asyncio.CancelledError:
            return

    thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
    thread.start()
    assert ready.wait(DEADLINE), "fake-claude did not start"
    loop, task, base_url = started[0]
    try:
        yield FakeClaude(base_url)
    finally:
        loop.call_soon_threadsafe(task.cancel)
        _ending.append(thread)
        while len(_ending) > _MOST_ENDING:
            _ending[0].join(DEADLINE)
            assert not _ending.popleft().is_alive(), "fake-claude did not stop"

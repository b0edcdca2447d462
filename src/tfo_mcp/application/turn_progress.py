"""What a client learns of a turn while it waits for it (SEP: `notifications/progress`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from tfo_mcp.application.bus import RequestInfo

_HEARTBEAT: Final = 5.0
"""Seconds within which something is sent whatever happens; clients give up after some ten times as many."""

_PACE: Final = 0.2
"""Seconds between two notifications at least, so that text goes in pieces that are worth one."""

_MOST_TEXT: Final = 2000
"""Characters of the text in one notification; a client that reads slowly gets the newest."""


class TurnProgress:
    """Phase, tool and tokens of one turn, told to its client as long as it reads; nothing here ever waits for it."""

    def __init__(self, info: RequestInfo) -> None:
        self._info = info
        self._phase = "waiting for its turn"
        self._tokens = 0
        self._text = ""
        self._news = asyncio.Event()

    @asynccontextmanager
    async def told(self) -> AsyncGenerator[None]:
        """Tell it to a client that asked for it, as long as this lasts."""
        if self._info.progress_token is None:
            yield
            return
        telling = asyncio.create_task(self._tell(self._info.progress_token))
        try:
            yield
        finally:
            telling.cancel()

    def phase(self, phase: str) -> None:
        """What is being done from now on."""
        if phase != self._phase:
            self._phase = phase
            self._news.set()

    def wrote(self, text: str) -> None:
        """A piece of Claude's text."""
        self.phase("Claude is writing")
        self._text = (self._text + text)[-_MOST_TEXT:]
        self._news.set()

    def counted(self, tokens: int) -> None:
        """How many tokens the turn has taken so far."""
        self._tokens = tokens

    async def _tell(self, token: str | int) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        while True:
            seconds = clock() - began
            text, self._text = self._text, ""
            self._news.clear()
            message = f"{self._phase} ({self._tokens} tokens so far)" + (f": {text}" if text else "")
            await self._info.client.progress(token, round(seconds, 3), None, message)
            await asyncio.sleep(_PACE)
            try:
                async with asyncio.timeout(_HEARTBEAT - _PACE):
                    await self._news.wait()
            except TimeoutError:
                continue

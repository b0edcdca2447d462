"""The real Claude SDK against a `fake-claude`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anthropic

from support.claude import fake_claude

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Talk = Callable[[anthropic.AsyncAnthropic], Awaitable[None]]


def with_sdk(script: str, talk: Talk, *, retries: int = 0, host: str = "127.0.0.1", key: str = "very secret") -> None:
    """Let `talk` use the real SDK against the real server, over real sockets."""

    async def run(url: str) -> None:
        async with anthropic.AsyncAnthropic(base_url=url, api_key=key, max_retries=retries) as claude:
            await asyncio.wait_for(talk(claude), 30)

    with fake_claude(script, host) as stand_in:
        asyncio.run(run(stand_in.base_url))

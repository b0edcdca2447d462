"""The real Claude SDK against a `fake-claude` in the test's own loop."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anthropic

from tfo_mcp.infrastructure.fake_claude import Script, load_script, serve

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    Talk = Callable[[anthropic.AsyncAnthropic], Awaitable[None]]


@asynccontextmanager
async def served(script: Script, host: str = "127.0.0.1") -> AsyncGenerator[str]:
    """Serve `script` on a free port; gives the base URL."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(host, 0, script, ready.set_result))
    try:
        await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        yield await ready
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


def with_sdk(script: str, talk: Talk, *, retries: int = 0, host: str = "127.0.0.1", key: str = "very secret") -> None:
    """Let `talk` use the real SDK against the real server, over real sockets."""

    async def run() -> None:
        async with (
            served(load_script(script), host) as url,
            anthropic.AsyncAnthropic(base_url=url, api_key=key, max_retries=retries) as claude,
        ):
            await asyncio.wait_for(talk(claude), 30)

    asyncio.run(run())

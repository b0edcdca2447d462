"""4.1 Claude Client: the Messages API through Anthropic's SDK.

Imports `anthropic`, but never at its own import: that takes most of a second, so it
happens in a thread. Requests are always streamed, because a long answer outlives any sensible timeout of a
silent connection; what is given back is the complete message. The SDK's retries are the only ones.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tfo_mcp.application.ports import AnswerListener, ClaudeRequest, ClaudeResponse
from tfo_mcp.domain.errors import ClaudeFailure, ClaudeNotConfigured
from tfo_mcp.domain.health import ComponentHealth, HealthStatus, moment
from tfo_mcp.infrastructure.claude.arrival import Arrival
from tfo_mcp.infrastructure.claude.attempts import Attempts, attempts_of, watch_attempts
from tfo_mcp.infrastructure.claude.failures import failure_of, unfinished
from tfo_mcp.infrastructure.claude.shapes import parameters_of, response_of

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from opentelemetry.trace import TracerProvider

_CONNECT_TIMEOUT = 5.0
"""Seconds to open a connection at most; the SDK's own default."""


class AnthropicClaude:
    """`ClaudeService` on Anthropic's SDK.

    Args:
        api_key: None or blank: not configured, whatever `base_url` says.
        base_url: another address of the API; None: the SDK's.
        timeout: seconds that the API may be silent.
        max_retries: attempts after the first.
        tracer_provider: gives what the SDK's own CLIENT span `anthropic.messages.create` goes to, or None
            where nothing is recorded. Asked once a request, so that it may become ready later.
    """

    def __init__(
        self,
        *,
        api_key: str | None,
        base_url: str | None,
        timeout: float,
        max_retries: int,
        tracer_provider: Callable[[], TracerProvider | None],
    ) -> None:
        self._key = (api_key or "").strip()
        self._base_url = base_url
        self._timeout = timeout
        self._max_retries = max_retries
        self._tracer_provider = tracer_provider
        self._loading: asyncio.Task[AsyncAnthropic] | None = None
        self._last_success: float | None = None
        self._last_failure: tuple[float, int | None] | None = None

    def check_configured(self) -> None:
        """Guard of every send.

        Raises:
            ClaudeNotConfigured: there is no key.
            ClaudeFailure: there is one that cannot even be sent.
        """
        if not self._key:
            raise ClaudeNotConfigured
        if not (self._key.isascii() and self._key.isprintable()):
            raise ClaudeFailure(
                "the configured Anthropic API key has characters that no key has: check ANTHROPIC_API_KEY"
            )

    async def warm_up(self) -> None:
        """Import the SDK in a thread, so that the first message does not wait for it."""
        await self._loaded()

    async def create_message(self, request: ClaudeRequest, listener: AnswerListener | None = None) -> ClaudeResponse:
        """Send one request, streaming inside, retried by the SDK alone. Cancelling it closes the connection.

        Raises:
            ClaudeNotConfigured: there is no key.
            ClaudeFailure: the API refused it or could not be reached, after the last retry, or its answer broke
                off; `listener` has had what arrived.
        """
        self.check_configured()
        client = (await self._loaded()).with_options(open_telemetry=self._tracing())
        attempts, arrival = Attempts(listener), Arrival(listener)
        around = attempts_of.set(attempts)
        try:
            async with client.messages.stream(**parameters_of(request)) as stream:
                arrival.request_id = stream.request_id
                async for event in stream:
                    arrival.take(event, stream)
                if arrival.complete:
                    response = response_of(stream.current_message_snapshot, arrival.request_id)
                    self._last_success = time.time()
                    return response
                failure = unfinished(stream.response, arrival.request_id)
        except Exception as error:  # noqa: BLE001  # the SDK trusts what it receives: a bad answer fails anyhow
            failure = failure_of(error, request.model, arrival.request_id, secret=self._key)
        finally:
            attempts_of.reset(around)
        self._last_failure = time.time(), failure.status
        failure.may_have_cost = failure.may_have_cost or arrival.begun or attempts.sent
        # Not raised inside `except`: the SDK's error holds the request, and with its headers the key.
        raise failure

    async def health(self) -> ComponentHealth:
        """Whether there is a key, and how the last requests went; asks the API nothing."""
        failed_at, failed_with = self._last_failure or (None, None)
        details = {
            "key_present": bool(self._key),
            "last_success_at": moment(self._last_success),
            "last_failure_at": moment(failed_at),
            "last_failure_status": failed_with,
        }
        try:
            self.check_configured()
        except ClaudeNotConfigured:
            return ComponentHealth(HealthStatus.DISABLED, details)
        except ClaudeFailure:
            return ComponentHealth(HealthStatus.DEGRADED, details)
        failing = failed_at is not None and failed_at > (self._last_success or 0.0)
        return ComponentHealth(HealthStatus.DEGRADED if failing else HealthStatus.HEALTHY, details)

    async def close(self) -> None:
        """Close the connections; requests under way fail. An SDK that is still being imported has none."""
        if self._loading is not None and self._loading.done():
            await self._loading.result().close()

    def _tracing(self) -> Any:  # noqa: ANN401  # the SDK has no public name for the type of this option
        provider = self._tracer_provider()
        return False if provider is None else {"tracer_provider": provider, "propagation": False}

    async def _loaded(self) -> AsyncAnthropic:
        if self._loading is None:
            self._loading = asyncio.create_task(asyncio.to_thread(self._load))
        # One import for all who wait for it; who is cancelled leaves it to the others.
        return await asyncio.shield(self._loading)

    def _load(self) -> AsyncAnthropic:
        from anthropic import AsyncAnthropic, Timeout

        client = AsyncAnthropic(
            api_key=self._key,
            base_url=self._base_url,
            timeout=Timeout(self._timeout, connect=min(self._timeout, _CONNECT_TIMEOUT)),
            max_retries=self._max_retries,
            open_telemetry=False,
            middleware=[watch_attempts],
        )
        _ = client.messages  # imported by the SDK at first use, which is not to be on the event loop
        return client

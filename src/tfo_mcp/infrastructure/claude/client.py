"""4.1 Claude Client: the Messages API through Anthropic's SDK.

Imports `anthropic`, but never at its own import: that takes most of a second, so it
happens in a thread. Requests are always streamed, because a long answer outlives any sensible timeout of a
silent connection; what is given back is the complete message. The SDK's retries are the only ones.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tfo_mcp.application.ports import AnswerListener, ClaudeRequest, ClaudeResponse, ModelInfo
from tfo_mcp.domain.errors import ClaudeFailure, ClaudeNotConfigured
from tfo_mcp.domain.health import ComponentHealth, HealthStatus, moment
from tfo_mcp.infrastructure.claude.arrival import Arrival
from tfo_mcp.infrastructure.claude.attempts import Attempts, attempts_of, request_id_of, watch_attempts
from tfo_mcp.infrastructure.claude.clouds import Cloud
from tfo_mcp.infrastructure.claude.directory import ModelDirectory, warning_of
from tfo_mcp.infrastructure.claude.failures import failure_of, unfinished
from tfo_mcp.infrastructure.claude.shapes import parameters_of, prompt_of, response_of

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from opentelemetry.trace import TracerProvider

_logger = logging.getLogger(__name__)

_COUNT_TIMEOUT = 5.0
"""Seconds that counting may take: it stands in front of a message."""

_CONNECT_TIMEOUT = 5.0
"""Seconds to open a connection at most; the SDK's own default."""


class AnthropicClaude:
    """`ClaudeService` on Anthropic's SDK.

    Args:
        api_key: None or blank: not configured, whatever `base_url` says, unless there is a `cloud`.
        base_url: another address of the API; None: the SDK's.
        cloud: who is asked in place of Anthropic; its credentials are its own, and the key is not sent to it.
        timeout: seconds that the API may be silent.
        max_retries: attempts after the first.
        default_model: the one that is warned of when its end is near, and that `health` tells of.
        model_refresh: seconds after which the API is asked anew what a model is and can.
        tracer_provider: gives what the SDK's own CLIENT span `anthropic.messages.create` goes to, or None
            where nothing is recorded. Asked once a request, so that it may become ready later.
    """

    def __init__(
        self,
        *,
        api_key: str | None,
        base_url: str | None,
        cloud: Cloud | None = None,
        timeout: float,
        max_retries: int,
        default_model: str,
        model_refresh: float,
        tracer_provider: Callable[[], TracerProvider | None],
    ) -> None:
        self._cloud = cloud
        self._key = (api_key or "").strip() if cloud is None else ""
        self._base_url = base_url
        self._timeout = timeout
        self._max_retries = max_retries
        self._tracer_provider = tracer_provider
        self._default_model = default_model
        self._directory = ModelDirectory(self._loaded, refresh=model_refresh, found=self._check_lifecycle)
        self._warned: str | None = None
        self._loading: asyncio.Task[AsyncAnthropic] | None = None
        self._last_traced: tuple[TracerProvider | None, AsyncAnthropic] | None = None
        self._last_success: float | None = None
        self._last_failure: tuple[float, int | None] | None = None

    @property
    def provider(self) -> str:
        """Who is asked, as `gen_ai.provider.name` says it."""
        return "anthropic" if self._cloud is None else self._cloud.provider

    def check_configured(self) -> None:
        """Guard of every send.

        Raises:
            ClaudeNotConfigured: there is no key.
            ClaudeFailure: there is one that cannot even be sent, or what the cloud needs is not installed.
        """
        if self._cloud is not None:
            self._cloud.check_installed()
            return
        if not self._key:
            raise ClaudeNotConfigured
        if not (self._key.isascii() and self._key.isprintable()):
            raise ClaudeFailure(
                "the configured Anthropic API key has characters that no key has: check ANTHROPIC_API_KEY"
            )

    async def warm_up(self) -> None:
        """Import the SDK in a thread, so that the first message does not wait for it."""
        with suppress(ClaudeFailure):  # it is told to whoever needs it
            self.check_configured()
            await self._loaded()

    async def look_up_default_model(self) -> None:
        """Have what the API says of the default model for `health`, and the log warned when it is about to end."""
        await self.describe(self._default_model)

    async def describe(self, model: str) -> ModelInfo | None:
        """What the API says of `model`, from memory where it was asked before; None where it does not say, in 2 s."""
        if self._cloud is not None:
            return None
        try:
            self.check_configured()
        except ClaudeFailure:
            return None
        return await self._directory.describe(model)

    async def count_tokens(self, request: ClaudeRequest) -> int | None:
        """Tokens of the prompt that `request` makes; None where the API does not say, in 5 s."""
        parameters = prompt_of(request, self._directory.known(request.model), in_cloud=self._cloud is not None)
        try:
            self.check_configured()
            async with asyncio.timeout(_COUNT_TIMEOUT):
                client = (await self._loaded()).with_options(max_retries=0)
                messages: Any = client.beta.messages if "betas" in parameters else client.messages
                return int((await messages.count_tokens(**parameters)).input_tokens)
        except Exception:  # noqa: BLE001  # whatever it is: the request itself will tell
            return None

    async def create_message(self, request: ClaudeRequest, listener: AnswerListener | None = None) -> ClaudeResponse:
        """Send one request, streaming inside, retried by the SDK alone. Cancelling it closes the connection.

        Raises:
            ClaudeNotConfigured: there is no key.
            ClaudeFailure: the API refused it or could not be reached, after the last retry, or its answer broke
                off; `listener` has had what arrived. Or a cloud's region or credentials are missing.
        """
        self.check_configured()
        if request.effort is not None or request.thinking:
            await self.describe(request.model)  # a model that has neither refuses every request that names them
        parameters = parameters_of(request, self._directory.known(request.model), in_cloud=self._cloud is not None)
        attempts, arrival = Attempts(listener), Arrival(listener)
        around = attempts_of.set(attempts)
        try:
            client = self._traced(await self._loaded())
            messages: Any = client.beta.messages if "betas" in parameters else client.messages
            async with messages.stream(**parameters) as stream:
                arrival.request_id = request_id_of(stream.response)
                async for event in stream:
                    arrival.take(event, stream)
                if arrival.complete:
                    response = response_of(stream.current_message_snapshot, arrival.request_id)
                    self._last_success = time.time()
                    return response
                failure = unfinished(stream.response, arrival.request_id)
        except ClaudeFailure as missing:  # something that a cloud needs; others who wait have the same error
            failure = ClaudeFailure(str(missing))
        except Exception as error:  # noqa: BLE001  # the SDK trusts what it receives: a bad answer fails anyhow
            failure = failure_of(error, request.model, arrival.request_id, secret=self._key, cloud=self._cloud)
        finally:
            attempts_of.reset(around)
        self._last_failure = time.time(), failure.status
        failure.may_have_cost = failure.may_have_cost or arrival.begun or attempts.sent
        # Not raised inside `except`: the SDK's error holds the request, and with its headers the key.
        raise failure

    async def health(self) -> ComponentHealth:
        """Who is asked, whether there is a key, and how the last requests went; asks the API nothing."""
        failed_at, failed_with = self._last_failure or (None, None)
        model = self._directory.known(self._default_model)
        details = {
            **({"key_present": bool(self._key)} if self._cloud is None else {"provider": self._cloud.name}),
            "last_success_at": moment(self._last_success),
            "last_failure_at": moment(failed_at),
            "last_failure_status": failed_with,
            "model": self._default_model,
            "model_lifecycle": None if model is None else model.lifecycle,
            "model_retires_at": None if model is None else moment(model.retires_at),
        }
        try:
            self.check_configured()
        except ClaudeNotConfigured:
            return ComponentHealth(HealthStatus.DISABLED, details)
        except ClaudeFailure:
            return ComponentHealth(HealthStatus.DEGRADED, details)
        failing = failed_at is not None and failed_at > (self._last_success or 0.0)
        retired = model is not None and model.lifecycle == "retired"
        return ComponentHealth(HealthStatus.DEGRADED if failing or retired else HealthStatus.HEALTHY, details)

    async def close(self) -> None:
        """Close the connections; requests under way fail. An SDK that is still being imported has none."""
        self._directory.close()
        if self._loading is not None and self._loading.done() and not _failed(self._loading):
            await self._loading.result().close()

    def _check_lifecycle(self, model: str, info: ModelInfo) -> None:
        """Warn of the default model, once for each thing that there is to say."""
        warning = warning_of(model, info, time.time()) if model == self._default_model else None
        if warning not in {None, self._warned}:
            self._warned = warning
            _logger.warning("claude.default_model: %s; set another one", warning)

    def _traced(self, client: AsyncAnthropic) -> AsyncAnthropic:
        """The client whose spans go where they are to go now, made once as long as that does not change."""
        provider = self._tracer_provider()
        if self._last_traced is None or self._last_traced[0] is not provider:
            # The SDK has no public name for the type of this option.
            tracing: Any = False if provider is None else {"tracer_provider": provider, "propagation": False}
            self._last_traced = provider, client.with_options(open_telemetry=tracing)
        return self._last_traced[1]

    async def _loaded(self) -> AsyncAnthropic:
        if self._loading is None or _failed(self._loading):
            self._loading = asyncio.create_task(asyncio.to_thread(self._load))
        # One import for all who wait for it; who is cancelled leaves it to the others.
        return await asyncio.shield(self._loading)

    def _load(self) -> AsyncAnthropic:
        from anthropic import AsyncAnthropic, Timeout

        options: dict[str, Any] = {
            "base_url": self._base_url,
            "timeout": Timeout(self._timeout, connect=min(self._timeout, _CONNECT_TIMEOUT)),
            "max_retries": self._max_retries,
            "open_telemetry": False,
            "middleware": [watch_attempts],
        }
        # The clouds' clients have all that is used of this one; what they lack is asked of it alone.
        made: Any = (
            AsyncAnthropic(api_key=self._key, **options) if self._cloud is None else self._cloud.client(**options)
        )
        client: AsyncAnthropic = made
        _ = client.messages  # imported by the SDK at first use, which is not to be on the event loop
        return client


def _failed(loading: asyncio.Task[AsyncAnthropic]) -> bool:
    return loading.done() and (loading.cancelled() or loading.exception() is not None)

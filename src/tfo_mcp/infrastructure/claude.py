"""4.1 Claude Client: the Messages API through Anthropic's SDK.

The only module that imports `anthropic`, and never at its own import: that takes most of a second, so it
happens in a thread. Requests are always streamed, because a long answer outlives any sensible timeout of a
silent connection; what is given back is the complete message. The SDK's retries are the only ones.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from tfo_mcp.application.ports import AnswerListener, ClaudeRequest, ClaudeResponse
from tfo_mcp.domain.errors import ClaudeFailure, ClaudeNotConfigured
from tfo_mcp.domain.health import ComponentHealth, HealthStatus, moment
from tfo_mcp.domain.message import Message, Usage, block_from_json

if TYPE_CHECKING:
    from anthropic import APIRequest, APIStatusError, AsyncAnthropic, AsyncAPIResponse, AsyncCallNext
    from anthropic.types import Message as ApiMessage
    from httpx2 import Response
    from opentelemetry.trace import TracerProvider

_CONNECT_TIMEOUT = 5.0
"""Seconds to open a connection at most; the SDK's own default."""

_LONGEST_WAIT = 60.0
"""Seconds of `retry-after` that a client would wait for; a longer wait is told, not slept."""

_DAY = 86_400.0
"""Seconds; a wait that is longer is not told in seconds."""

_SHOWN = 500
"""Characters of the API's own words that an error repeats."""

_SPEND_LIMITS = frozenset(
    {"contract_spend_limit_reached", "enforced_spend_limit_reached", "linked_organization_spend_limit_reached"}
)
"""Codes of a 429 or 402 that lasts until somebody pays."""

_TRANSIENT = frozenset({408, 409, 429})
"""The statuses below 500 that the SDK retries: when they stay, the API is at fault and not the request."""

_EVENT_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""What the status would have been of an error that came when the answer had begun; others are a 500."""


_SENTENCES = {
    401: "Claude's API rejected the key: check ANTHROPIC_API_KEY",
    402: "Anthropic cannot bill this account: check its credit and its payment",
    403: "Claude's API does not let this key do that",
    404: "there is no Messages API at the configured address: check claude.base_url",
    413: "the conversation is too large for Claude's API: start a new one",
}

_SERVER_ERRORS = 500
"""The first status that is the server's fault."""


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

    async def create_message(self, request: ClaudeRequest, listener: AnswerListener | None = None) -> ClaudeResponse:  # noqa: ARG002
        """Send one request, streaming inside, retried by the SDK alone. Cancelling it closes the connection.

        Raises:
            ClaudeNotConfigured: there is no key.
            ClaudeFailure: the API refused it, could not be reached, or broke off, after the last retry.
        """
        self.check_configured()
        client = (await self._loaded()).with_options(open_telemetry=self._tracing())
        request_id: str | None = None
        complete = False
        try:
            async with client.messages.stream(**_parameters(request)) as stream:
                request_id = stream.request_id
                async for event in stream:
                    complete = complete or event.type == "message_stop"
                if complete:
                    response = _response(stream.current_message_snapshot, request_id)
                    self._last_success = time.time()
                    return response
                failure = _unfinished(stream.response, request_id)
        except Exception as error:  # noqa: BLE001  # the SDK trusts what it receives: a bad answer fails anyhow
            failure = _failure(error, request.model, request_id, secret=self._key)
        self._last_failure = time.time(), failure.status
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
            middleware=[_refuse_vain_retries],
        )
        _ = client.messages  # imported by the SDK at first use, which is not to be on the event loop
        return client


async def _refuse_vain_retries(request: APIRequest, call_next: AsyncCallNext) -> AsyncAPIResponse[Any]:
    """SDK middleware, run once an attempt: no retry of a spend limit, nor after a wait that nobody waits."""
    answer = await call_next(request)
    response = answer.http_response
    if not response.is_success:
        await response.aread()
        if _seconds_to_wait(response) > _LONGEST_WAIT or _error_code(response) in _SPEND_LIMITS:
            response.headers["x-should-retry"] = "false"  # what the SDK takes for the API's own word
    return answer


def _seconds_to_wait(response: Response) -> float:
    """What the SDK would wait for: milliseconds before seconds, and seconds before a date."""
    asked = response.headers.get("retry-after", "")
    for header, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        with suppress(ValueError):
            return float(response.headers.get(header, "")) / unit
    with suppress(ValueError, OverflowError):
        return parsedate_to_datetime(asked).timestamp() - time.time()
    return 0.0


def _error_code(response: Response) -> object:
    try:
        return response.json()["error"]["details"]["error_code"]
    except (ValueError, LookupError, TypeError):
        return None


# --- requests and answers ----------------------------------------------------------------------------


def _parameters(request: ClaudeRequest) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "model": request.model,
        "max_tokens": request.max_tokens,
        "messages": list(request.messages),
        "cache_control": {"type": "ephemeral"},
    }
    if request.system and request.system.strip():
        parameters["system"] = request.system
    if request.tools:
        parameters["tools"] = [
            {"name": tool.name, "description": tool.description, "input_schema": tool.input_schema}
            for tool in request.tools
        ]
    return parameters


def _response(message: ApiMessage, request_id: str | None) -> ClaudeResponse:
    """Raises whatever it may where `message` is not what the SDK's types promise: it does not check them."""
    usage = Usage(
        input_tokens=int(message.usage.input_tokens),
        output_tokens=int(message.usage.output_tokens),
        cache_read_tokens=int(message.usage.cache_read_input_tokens or 0),
        cache_write_tokens=int(message.usage.cache_creation_input_tokens or 0),
    )
    if message.stop_reason is None:
        raise ValueError("a message without a stop reason")
    blocks = [block.model_dump(mode="json", exclude_none=True, warnings=False) for block in message.content]
    answer = Message(
        "assistant",
        tuple(block_from_json(block) for block in json.loads(_encodable(json.dumps(blocks, ensure_ascii=False)))),
        usage=usage,
        model=_encodable(str(message.model)),
        stop_reason=_encodable(str(message.stop_reason)),
    )
    return ClaudeResponse(message=answer, usage=usage, request_id=request_id)


def _encodable(text: str) -> str:
    """`text` as UTF-8 can carry it: two halves of a surrogate pair joined, a lone half replaced by U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


# --- errors ------------------------------------------------------------------------------------------


def _failure(error: Exception, model: str, request_id: str | None, *, secret: str) -> ClaudeFailure:
    import anthropic
    import httpx2

    match error:
        case anthropic.APIStatusError():
            return _refusal(error, model, secret)
        case anthropic.APITimeoutError() | httpx2.TimeoutException():
            return ClaudeFailure("Claude's API did not answer in time; try again", request_id=request_id, counts=True)
        case anthropic.APIConnectionError():
            return ClaudeFailure("Claude's API could not be reached; check the network and try again", counts=True)
        case httpx2.HTTPError():
            return _cut(request_id)
        case _:
            return ClaudeFailure("Claude's API gave an answer that cannot be understood", request_id=request_id)


def _unfinished(response: Response, request_id: str | None) -> ClaudeFailure:
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        return _cut(request_id)
    return ClaudeFailure(_SENTENCES[404], request_id=request_id)


def _cut(request_id: str | None) -> ClaudeFailure:
    return ClaudeFailure("Claude's answer broke off before its end; try again", request_id=request_id, counts=True)


def _refusal(error: APIStatusError, model: str, secret: str) -> ClaudeFailure:
    begun = error.response.is_success
    status = _EVENT_STATUS.get(error.type or "", 500) if begun else error.status_code
    limited = error.error_code in _SPEND_LIMITS
    return ClaudeFailure(
        _encodable(_sentence(error, status, model)).replace(secret, "***"),
        status=status,
        request_id=error.request_id,
        counts=not limited and (status in _TRANSIENT or status >= _SERVER_ERRORS),
    )


def _sentence(error: APIStatusError, status: int, model: str) -> str:
    if error.error_code in _SPEND_LIMITS:
        return "the spend limit of this Anthropic account is reached: raise it, or wait until it begins anew"
    if status == 404 and error.type is not None:  # noqa: PLR2004  # an answer in the API's own shape
        return f"Claude's API does not know the model {model[:200]!r}"
    if status == 429:  # noqa: PLR2004  # too many requests
        wait = _seconds_to_wait(error.response)
        when = f"in {math.ceil(wait)} s" if 0 < wait < _DAY else "later"
        return f"Claude's API limits the requests of this account; try again {when}"
    if status in _SENTENCES:
        return _SENTENCES[status]
    if status >= _SERVER_ERRORS:
        return f"Claude's API is overloaded or out of order (status {status}); try again later"
    said = " ".join((error.api_message or "it gave no reason").split())
    return f"Claude's API refused the request (status {status}): {said[:_SHOWN]}"

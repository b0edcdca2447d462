"""Each attempt of a request: told to whoever listens, and not followed by a vain one."""

from __future__ import annotations

import time
from asyncio import CancelledError
from contextlib import suppress
from contextvars import ContextVar
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from tfo_mcp.application.ports import AnswerListener, Attempt

if TYPE_CHECKING:
    from anthropic import APIRequest, AsyncAPIResponse, AsyncCallNext
    from httpx2 import Response

_LONGEST_WAIT = 60.0
"""Seconds of `retry-after` that a client would wait for; a longer wait is told, not slept."""

SPEND_LIMITS = frozenset(
    {"contract_spend_limit_reached", "enforced_spend_limit_reached", "linked_organization_spend_limit_reached"}
)
"""Codes of a 429 or 402 that lasts until somebody pays."""


class Attempts:
    """The attempts of one request to the API, as they are told to its listener.

    Attributes:
        sent: whether one may have reached the API without an answer's head to show for it.
    """

    def __init__(self, listener: AnswerListener | None) -> None:
        self._listener = listener
        self._count = 0
        self.sent = False

    def ended(
        self,
        began: float,
        *,
        status: int | None,
        error_type: str | None,
        request_id: str | None,
        may_have_cost: bool,
    ) -> None:
        """One has its answer's head, or will have none."""
        self._count += 1
        if self._listener is not None:
            duration = time.monotonic() - began
            self._listener.attempted(
                Attempt(
                    number=self._count,
                    status=status,
                    error_type=error_type,
                    request_id=request_id,
                    duration=duration,
                    may_have_cost=may_have_cost,
                )
            )


attempts_of: ContextVar[Attempts | None] = ContextVar("attempts_of", default=None)
"""The attempts of the request that this task makes: SDK middleware is the client's, and knows no request of ours."""


async def watch_attempts(request: APIRequest, call_next: AsyncCallNext) -> AsyncAPIResponse[Any]:
    """SDK middleware, run once an attempt: no retry of a spend limit, nor after a wait that nobody waits.

    Raises:
        APIStatusError: an error's body broke off; the SDK retries it by its status.
    """
    attempts, began = attempts_of.get(), time.monotonic()
    try:
        answer = await call_next(request)
    except BaseException as error:  # a cancelled attempt was one too
        if attempts is not None:
            sent = _may_have_been_sent(error)
            attempts.sent = attempts.sent or sent
            error_type = type(error).__name__
            attempts.ended(began, status=None, error_type=error_type, request_id=None, may_have_cost=sent)
        raise
    response = answer.http_response
    if attempts is not None:
        error_type = None if response.is_success else str(response.status_code)
        attempts.ended(
            began,
            status=response.status_code,
            error_type=error_type,
            request_id=request_id_of(response),
            may_have_cost=response.is_success,
        )
    if response.is_success:
        return answer
    is_whole = await _read(response)
    if seconds_to_wait(response) > _LONGEST_WAIT or (is_whole and _is_spend_limit(response)):
        response.headers["x-should-retry"] = "false"  # what the SDK takes for the API's own word
    if is_whole:
        return answer
    from anthropic import APIStatusError

    # The SDK reads the body itself, and what breaks there it neither retries nor calls by its status.
    raise APIStatusError("the error's body broke off", response=response, body=None)


async def _read(response: Response) -> bool:
    """Whether the body came to its end."""
    import httpx2

    try:
        await response.aread()
    except httpx2.HTTPError:
        return False
    return True


def _may_have_been_sent(error: BaseException) -> bool:
    """Whether it was cancelled, or the network failed, and not already at the connection."""
    import anthropic
    import httpx2

    never = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
    if isinstance(error, CancelledError):
        return True
    return isinstance(error, anthropic.APIConnectionError) and not isinstance(error.__cause__, never)


def request_id_of(response: Response) -> str | None:
    """The API's name of a request, or Amazon's, which takes requests in its stead."""
    return response.headers.get("request-id") or response.headers.get("x-amzn-requestid")


def seconds_to_wait(response: Response) -> float:
    """What the SDK would wait for: milliseconds before seconds, and seconds before a date."""
    asked = response.headers.get("retry-after", "")
    for header, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        with suppress(ValueError):
            return float(response.headers.get(header, "")) / unit
    with suppress(ValueError, OverflowError):
        return parsedate_to_datetime(asked).timestamp() - time.time()
    return 0.0


def _is_spend_limit(response: Response) -> bool:
    try:
        return response.json()["error"]["details"]["error_code"] in SPEND_LIMITS
    except (ValueError, LookupError, TypeError):
        return False

"""What goes wrong with the API, in one sentence each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tfo_mcp.domain.errors import ClaudeFailure
from tfo_mcp.infrastructure.claude.attempts import SPEND_LIMITS, request_id_of, seconds_to_wait
from tfo_mcp.infrastructure.claude.clouds import Cloud
from tfo_mcp.infrastructure.claude.shapes import encodable

if TYPE_CHECKING:
    from anthropic import APIStatusError
    from httpx2 import Response

_DAY = 86_400.0
"""Seconds; a wait that is longer is not told in seconds."""

_SHOWN = 500
"""Characters of the API's own words that an error repeats."""

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

_TOO_LONG = "prompt is too long"
"""What the API's words about a prompt begin with that the model's window is too small for."""

_SERVER_ERRORS = 500
"""The first status that is the server's fault."""


_STREAMS = ("text/event-stream", "application/vnd.amazon.eventstream")
"""The types of a streamed answer, Anthropic's and Bedrock's."""

_CREDENTIALS = frozenset({"boto3", "botocore", "google"})
"""Whose errors are of credentials that cannot be had."""


def failure_of(
    error: Exception, model: str, request_id: str | None, *, secret: str, cloud: Cloud | None = None
) -> ClaudeFailure:
    """What to tell of `error`, which came of a request to `model`, at a `cloud`; never with `secret` in it.

    Of `may_have_cost` it knows what the error itself says, not what came before it.
    """
    import anthropic
    import httpx2

    match error:
        case anthropic.APIStatusError():
            return _refusal(error, model, secret, cloud)
        case anthropic.APITimeoutError() | httpx2.TimeoutException():
            within = isinstance(error, httpx2.TimeoutException)  # the SDK's own is of an attempt, which is known
            said = "Claude's API did not answer in time; try again"
            return ClaudeFailure(said, request_id=request_id, counts=True, may_have_cost=within)
        case anthropic.APIConnectionError():
            return ClaudeFailure("Claude's API could not be reached; check the network and try again", counts=True)
        case httpx2.HTTPError():
            return _cut(request_id)
        case _ if cloud is not None and _is_of_credentials(error):
            return ClaudeFailure(f"{cloud.title} cannot be asked without credentials: {cloud.credentials}")
        case _:
            odd = "Claude's API gave an answer that cannot be understood"
            return ClaudeFailure(odd, request_id=request_id, may_have_cost=True)


def unfinished(response: Response, request_id: str | None) -> ClaudeFailure:
    """What to tell of an answer that ended well as HTTP has it, and is no whole message."""
    if response.headers.get("content-type", "").startswith(_STREAMS):
        return _cut(request_id)
    return ClaudeFailure(_SENTENCES[404], request_id=request_id)


def _cut(request_id: str | None) -> ClaudeFailure:
    said = "Claude's answer broke off before its end; try again"
    return ClaudeFailure(said, request_id=request_id, counts=True, may_have_cost=True)


def _is_of_credentials(error: Exception) -> bool:
    """Whether the SDK could not sign a request; where there is nothing to do it with, it has no type for that."""
    missing = type(error) is RuntimeError and str(error).startswith("Could not resolve")
    return missing or type(error).__module__.partition(".")[0] in _CREDENTIALS


def _refusal(error: APIStatusError, model: str, secret: str, cloud: Cloud | None) -> ClaudeFailure:
    begun = error.response.is_success
    status = _EVENT_STATUS.get(_text(error.type) or "", 500) if begun else error.status_code
    limited = error.error_code in SPEND_LIMITS
    sentence = encodable(_of_cloud(cloud, status, model) or _sentence(error, status, model))
    return ClaudeFailure(
        sentence.replace(secret, "***") if secret else sentence,
        status=status,
        request_id=request_id_of(error.response),
        counts=not limited and (status in _TRANSIENT or status >= _SERVER_ERRORS),
    )


def _of_cloud(cloud: Cloud | None, status: int, model: str) -> str | None:
    """What a status means there and not at Anthropic."""
    if cloud is None:
        return None
    if status in {401, 403}:
        return f"{cloud.title} refused these credentials: {cloud.credentials}"
    return f"{cloud.title} does not know the model {model[:200]!r}" if status == 404 else None  # noqa: PLR2004  # not found


def _sentence(error: APIStatusError, status: int, model: str) -> str:
    if error.error_code in SPEND_LIMITS:
        return "the spend limit of this Anthropic account is reached: raise it, or wait until it begins anew"
    if status == 404 and error.type is not None:  # noqa: PLR2004  # an answer in the API's own shape
        return f"Claude's API does not know the model {model[:200]!r}"
    if status == 429:  # noqa: PLR2004  # too many requests
        wait = seconds_to_wait(error.response)
        when = f"in {math.ceil(wait)} s" if 0 < wait < _DAY else "later"
        return f"Claude's API limits the requests of this account; try again {when}"
    if status in _SENTENCES:
        return _SENTENCES[status]
    if status >= _SERVER_ERRORS:
        return f"Claude's API is overloaded or out of order (status {status}); try again later"
    return _refused(error, status, model)


def _refused(error: APIStatusError, status: int, model: str) -> str:
    said = " ".join((_text(error.api_message) or _amazons_message(error.body) or "it gave no reason").split())
    if said.startswith(_TOO_LONG):
        return f"the conversation is longer than {model[:200]!r} can take: fork it further up, or start a new one"
    return f"Claude's API refused the request (status {status}): {said[:_SHOWN]}"


def _text(value: object) -> str | None:
    """What the SDK calls one of the API's words: it does not check that it is any."""
    return value if isinstance(value, str) else None


def _amazons_message(body: object) -> str | None:
    match body:
        case {"message": str(message)}:
            return message
        case _:
            return None

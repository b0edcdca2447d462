"""Claude, as the core asks him."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tfo_mcp.domain.message import Message, Usage
from tfo_mcp.domain.tool import Tool
from tfo_mcp.domain.transcript import Transcript


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaudeRequest:
    """One request to the Messages API.

    Attributes:
        transcript: the messages; it may go on only when the answer is there.
        effort: the API's `output_config.effort`; None: the model's own.
        thinking: whether Claude may think as far as it sees fit (`thinking: adaptive`).
        output_schema: JSON Schema of what Claude's text is to be (`output_config.format`).
        compact_at: tokens of the prompt from which on the API is to sum up what is oldest, or to empty old tool
            results where the model cannot; None: never.
    """

    model: str
    max_tokens: int
    system: str | None
    transcript: Transcript
    tools: Sequence[Tool]
    effort: str | None = None
    thinking: bool = False
    output_schema: Mapping[str, Any] | None = None
    compact_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaudeResponse:
    """Its answer. `message.stop_reason` and `message.usage` are set."""

    message: Message
    usage: Usage
    request_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One HTTP request of a request to the API: the first, or a retry by the client library.

    Attributes:
        number: counted from 1.
        status: the HTTP status; None where no answer came.
        error_type: what was wrong, from a bounded set; None where the answer began.
        duration: seconds until the answer's head was there, or until there would be none.
        may_have_cost: whether the API may count tokens for it: it began to answer, or may have been about to.
    """

    number: int
    status: int | None
    error_type: str | None
    request_id: str | None
    duration: float
    may_have_cost: bool


class AnswerListener(Protocol):
    """Whoever wants to know what arrives of an answer while it arrives. No call may block or raise."""

    def attempted(self, attempt: Attempt) -> None:
        """One attempt has its answer's head, or failed, or was cancelled."""
        ...

    def begun(self, model: str, usage: Usage, request_id: str | None) -> None:
        """The message began; `usage` is what the API says of the prompt, and of the answer so far."""
        ...

    def thought(self, text: str) -> None:
        """Claude thinks on; `text` may be empty."""
        ...

    def wrote(self, text: str) -> None:
        """A piece of the answer's text."""
        ...

    def calls(self, tool: str) -> None:
        """Claude begins to write a call of `tool`."""
        ...

    def counted(self, usage: Usage) -> None:
        """The API says anew what the whole request took so far."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A model as the API describes it.

    Attributes:
        id: its full name, where it was asked for by an alias.
        max_input_tokens: of a prompt; None: unknown.
        max_tokens: of an answer; None: unknown.
        retires_at: seconds since the epoch; None: no date is known.
        efforts: those that it knows; None: unknown.
        thinks: whether it may think as far as it sees fit; None: unknown.
        compacts: whether the API can sum up a conversation for it; None: unknown.
    """

    id: str
    max_input_tokens: int | None
    max_tokens: int | None
    lifecycle: Literal["active", "deprecated", "retired"]
    retires_at: float | None
    efforts: frozenset[str] | None = None
    thinks: bool | None = None
    compacts: bool | None = None


class ClaudeService(Protocol):
    """4.1 Claude Client."""

    @property
    def provider(self) -> str:
        """Who is asked, as `gen_ai.provider.name` says it."""
        ...

    def check_configured(self) -> None:
        """Guard of every send.

        Raises:
            ClaudeNotConfigured: there is no key.
        """
        ...

    async def create_message(self, request: ClaudeRequest, listener: AnswerListener | None = None) -> ClaudeResponse:
        """Send one request, streaming inside, retried by the client library alone.

        Raises:
            ClaudeNotConfigured: there is no key.
            ClaudeFailure: the API refused it, or could not be reached, after the last retry; or the answer broke
                off, and then `listener` had what arrived of it.
        """
        ...

    async def describe(self, model: str) -> ModelInfo | None:
        """What the API says of `model`, from memory where it was asked before; does not suspend then.

        None where it knows nothing, or does not say so within 2 s: no message waits for more.
        """
        ...

    async def count_tokens(self, request: ClaudeRequest) -> int | None:
        """Tokens of the prompt that `request` makes, what was compacted before left out.

        None where the API does not say so within 5 s.
        """
        ...

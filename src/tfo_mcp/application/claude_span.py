"""The `claude.request` span: one request to Claude, its attempts as events on it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from tfo_mcp.application import attributes
from tfo_mcp.application.ports import (
    Attempt,
    AttributeValue,
    ClaudeRequest,
    ClaudeResponse,
    Telemetry,
    TraceContext,
    current_operation,
)
from tfo_mcp.domain.errors import ClaudeFailure


class ClaudeSpan:
    """Measures one request."""

    def __init__(
        self, telemetry: Telemetry, request: ClaudeRequest, conversation_id: str, parent: TraceContext | None
    ) -> None:
        self._telemetry = telemetry
        self._request = request
        self._known: dict[str, AttributeValue] = {
            attributes.GEN_AI_OPERATION: "chat",
            attributes.PROVIDER: "anthropic",
            attributes.REQUEST_MODEL: request.model,
            attributes.CONVERSATION: conversation_id,
        }
        self._span = telemetry.span("claude", "claude.request", parent=parent, attributes=self._known)

    @contextmanager
    def around(self) -> Generator[None]:
        """Make it the current operation."""
        before = current_operation.set(self._span.context)
        try:
            with self._span.active():
                yield
        finally:
            current_operation.reset(before)

    def attempted(self, attempt: Attempt) -> None:
        """One attempt has its answer's head, or failed."""

    def first_text(self) -> None:
        """The first text arrived; later calls say nothing new."""

    def completed(self, answer: ClaudeResponse) -> None:
        """End it."""
        span = self._span
        span.set(attributes.RESPONSE_MODEL, answer.message.model or self._request.model)
        span.set(attributes.INPUT_TOKENS, answer.usage.prompt_tokens)  # the conventions want the cache's in it
        span.set(attributes.OUTPUT_TOKENS, answer.usage.output_tokens)
        span.set(attributes.CACHE_READ_TOKENS, answer.usage.cache_read_tokens)
        span.set(attributes.CACHE_WRITE_TOKENS, answer.usage.cache_write_tokens)
        span.end("completed")

    def failed(self, failure: ClaudeFailure) -> None:
        """End it, and leave an error record."""
        error_type = str(failure.status or failure.error_type)
        known = {attributes.EXCEPTION_TYPE: attributes.exception_type(failure), **self._known}
        if failure.request_id is not None:
            known[attributes.CLAUDE_REQUEST_ID] = failure.request_id
        with self.around():
            self._telemetry.record_error(error_type, known)
        self._span.end("failed", error_type)

    def cancelled(self) -> None:
        """End it: nobody wants the answer any more."""
        self._span.end("cancelled")

    def broke(self, error: BaseException) -> None:
        """End it: something of ours failed."""
        self._span.end("failed", type(error).__name__)

"""The `claude.request` span: one request to Claude, its attempts as events on it."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager

from tfo_mcp.application import attributes
from tfo_mcp.application.gen_ai_messages import answer_message, new_messages, text_part
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
        self,
        telemetry: Telemetry,
        request: ClaudeRequest,
        conversation_id: str,
        parent: TraceContext | None,
        *,
        provider: str,
    ) -> None:
        self._telemetry = telemetry
        self._request = request
        self._known: dict[str, AttributeValue] = {
            attributes.GEN_AI_OPERATION: "chat",
            attributes.PROVIDER: provider,
            attributes.REQUEST_MODEL: request.model,
            attributes.CONVERSATION: conversation_id,
        }
        self._span = telemetry.span("claude", "claude.request", parent=parent, attributes=self._known)
        if self._span.captures_content:
            if request.system and request.system.strip():
                self._span.set_content(attributes.SYSTEM_INSTRUCTIONS, [text_part(request.system)])
            self._span.set_content(attributes.INPUT_MESSAGES, new_messages(request.transcript))
        self._began = time.monotonic()
        self._has_chunk = False

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
        """One attempt has its answer's head, or failed: an event, which is counted in `tfo.claude.attempts` too."""
        known: dict[str, AttributeValue] = {attributes.ATTEMPT_DURATION: attempt.duration}
        if attempt.number > 1:
            known[attributes.RESEND_COUNT] = attempt.number - 1
        if attempt.status is not None:
            known[attributes.HTTP_STATUS] = attempt.status
        if attempt.error_type is not None:
            known[attributes.ERROR_TYPE] = attempt.error_type
        if attempt.request_id is not None:
            known[attributes.CLAUDE_REQUEST_ID] = attempt.request_id
        self._span.add_event(attributes.CLAUDE_ATTEMPT, known)

    def first_chunk(self) -> None:
        """Something of the answer's content arrived; later calls say nothing new."""
        if not self._has_chunk:
            self._has_chunk = True
            self._span.set(attributes.FIRST_CHUNK, time.monotonic() - self._began)

    def completed(self, answer: ClaudeResponse) -> None:
        """End it."""
        span = self._span
        span.set(attributes.RESPONSE_MODEL, answer.message.model or self._request.model)
        span.set(attributes.INPUT_TOKENS, answer.usage.prompt_tokens)  # the conventions want the cache's in it
        span.set(attributes.OUTPUT_TOKENS, answer.usage.output_tokens)
        span.set(attributes.CACHE_READ_TOKENS, answer.usage.cache_read_tokens)
        span.set(attributes.CACHE_WRITE_TOKENS, answer.usage.cache_write_tokens)
        if span.captures_content:
            span.set_content(attributes.OUTPUT_MESSAGES, [answer_message(answer.message)])
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

"""What arrives of an answer, event by event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfo_mcp.application.ports import AnswerListener
from tfo_mcp.infrastructure.claude.shapes import encodable, usage_of

if TYPE_CHECKING:
    from anthropic.lib.streaming import (
        AsyncMessageStream,
        BetaAsyncMessageStream,
        ParsedBetaMessageStreamEvent,
        ParsedMessageStreamEvent,
    )


class Arrival:
    """Follows one stream for its listener.

    Attributes:
        begun: whether the message began.
        complete: whether it came to its end.
    """

    def __init__(self, listener: AnswerListener | None) -> None:
        self._listener = listener
        self.request_id: str | None = None
        self.begun = False
        self.complete = False
        self._half = ""

    def take(
        self,
        event: ParsedMessageStreamEvent[None] | ParsedBetaMessageStreamEvent[None],
        stream: AsyncMessageStream[None] | BetaAsyncMessageStream[None],
    ) -> None:
        """One event has come."""
        self.begun = self.begun or event.type == "message_start"
        self.complete = self.complete or event.type == "message_stop"
        if self._listener is None:
            return
        if event.type == "message_start":
            model, usage = encodable(str(event.message.model)), usage_of(event.message.usage)
            self._listener.begun(model, usage, self.request_id)
        elif event.type == "text":
            self._wrote(event.text, self._listener)
        elif event.type == "thinking":
            self._listener.thought(encodable(event.thinking))
        elif event.type == "content_block_start" and event.content_block.type == "text":
            self._wrote(event.content_block.text, self._listener)
        elif event.type == "content_block_start" and event.content_block.type == "tool_use":
            self._listener.calls(encodable(str(event.content_block.name)))
        elif event.type == "content_block_stop":
            self._wrote("", self._listener, ends=True)
        elif event.type == "message_delta":
            self._listener.counted(usage_of(stream.current_message_snapshot.usage))

    def _wrote(self, text: str, listener: AnswerListener, *, ends: bool = False) -> None:
        """Pass on a piece; the first half of a surrogate pair waits for the second, as long as its block goes on."""
        text, self._half = self._half + text, ""
        if not ends and "\ud800" <= text[-1:] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        if text:
            listener.wrote(encodable(text))

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
            self._listener.wrote(encodable(event.text))
        elif event.type == "thinking":
            self._listener.thought(event.thinking)
        elif event.type == "content_block_start" and event.content_block.type == "tool_use":
            self._listener.calls(encodable(str(event.content_block.name)))
        elif event.type == "message_delta":
            self._listener.counted(usage_of(stream.current_message_snapshot.usage))

"""An answer of Claude's while it arrives."""

from __future__ import annotations

from tfo_mcp.application.claude_span import ClaudeSpan
from tfo_mcp.application.ports import AnswerListener, Attempt
from tfo_mcp.application.turn_progress import TurnProgress
from tfo_mcp.domain.message import Usage
from tfo_mcp.domain.turn import Arrived


class Arriving(AnswerListener):
    """Keeps what arrives of an answer, and passes on what the span and the client want to know.

    Attributes:
        may_have_cost: whether an attempt, be it one that was cancelled, may have cost.
    """

    def __init__(self, span: ClaudeSpan, progress: TurnProgress, before: Usage) -> None:
        self._span = span
        self._progress = progress
        self._before = before.all_tokens
        self.may_have_cost = False
        self._text: list[str] = []
        self._begun = False
        self._usage: Usage | None = None
        self._model: str | None = None
        self._request_id: str | None = None

    @property
    def arrived(self) -> Arrived:
        return Arrived(
            begun=self._begun,
            text="".join(self._text),
            usage=self._usage,
            model=self._model,
            request_id=self._request_id,
        )

    def attempted(self, attempt: Attempt) -> None:
        self.may_have_cost = self.may_have_cost or attempt.may_have_cost
        self._span.attempted(attempt)

    def begun(self, model: str, usage: Usage, request_id: str | None) -> None:
        self._begun = True
        self._model, self._request_id = model, request_id
        self.counted(usage)

    def thought(self, text: str) -> None:  # noqa: ARG002  # that he thinks is enough
        self._span.first_chunk()
        self._progress.phase("Claude is thinking")

    def wrote(self, text: str) -> None:
        self._text.append(text)
        self._span.first_chunk()
        self._progress.wrote(text)

    def calls(self, tool: str) -> None:
        self._span.first_chunk()
        self._progress.phase(f"Claude is calling {tool}")

    def counted(self, usage: Usage) -> None:
        self._usage = usage
        self._progress.counted(self._before + usage.all_tokens)

"""When a conversation is about to outgrow its model, so that the API has to keep its prompt short."""

from __future__ import annotations

from typing import Final

from tfo_mcp.application.ports import ClaudeRequest, ClaudeService

_SMALL: Final = 25_000
"""Tokens below which no model's window is near, however wrong the estimate."""

_LEAST_WINDOW: Final = 200_000
"""Tokens of a model of which nothing is known; no current one takes fewer."""

_SURELY: Final = 0.8
"""Share of the limit below which an estimate need not be looked into."""


class ContextWindow:
    """Decides from which length of the prompt on the API is to compact it.

    Args:
        share: of the model's longest prompt (`claude.compact_at`).
    """

    def __init__(self, claude: ClaudeService, share: float) -> None:
        self._claude = claude
        self._share = share

    async def has_room(self, model: str, tokens: int) -> bool:
        """Whether a prompt of about `tokens` fits `model`; what is too long for that, not even compaction helps.

        Where nobody knows how many the model takes, the API has to judge.
        """
        if tokens < _SURELY * _LEAST_WINDOW:
            return True
        known = await self._claude.describe(model)
        window = None if known is None else known.max_input_tokens
        return window is None or tokens <= window

    async def compact_at(self, request: ClaudeRequest, known_tokens: int) -> int | None:
        """`ClaudeRequest.compact_at` for `request`: None while it is short. Does not suspend for a small one.

        `known_tokens` are those of the request before and of its answer, and an estimate of what was added since;
        after a compaction they may be too many, because its own are among them.
        """
        compacted = request.transcript.is_compacted
        if not compacted and known_tokens + request.transcript.result_tokens < _SMALL:
            return None
        model = await self._claude.describe(request.model)
        window = None if model is None else model.max_input_tokens
        limit = int(self._share * (window or _LEAST_WINDOW))
        if compacted or (model is not None and model.compacts is False):
            # What was summed up or emptied stands in every request, and the API must know again that it is to be
            # short: how short the one before was says nothing of how long this one would be.
            return limit
        if known_tokens < _SURELY * limit:
            return None
        if known_tokens < limit:
            counted = await self._claude.count_tokens(request)
            if counted is not None and counted < limit:
                return None
        return limit

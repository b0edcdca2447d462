"""How many tokens may be used: `claude.budget`, looked at before each request and never after one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from tfo_mcp.application.ports import ConversationRepository
from tfo_mcp.domain.conversation import Conversation
from tfo_mcp.domain.errors import BudgetExceeded
from tfo_mcp.domain.message import Usage

_DAY: Final = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLimits:
    """Tokens, whatever their kind, of one turn, one conversation, one day in UTC; None: no limit."""

    turn: int | None = None
    conversation: int | None = None
    day: int | None = None


class Budget:
    """Says how long an answer may be so that no limit is passed."""

    def __init__(self, conversations: ConversationRepository, limits: BudgetLimits) -> None:
        self._conversations = conversations
        self._limits = limits

    async def allows(self, conversation: Conversation, turn: Usage, prompt: int, max_tokens: int) -> int:
        """At most `max_tokens` of an answer to a prompt of about `prompt` tokens, in a turn that took `turn` so far.

        Raises:
            BudgetExceeded: there is no room for even one.
            StorageUnavailable: what was used today cannot be read.
        """
        used: dict[str, tuple[int | None, int]] = {
            "turn": (self._limits.turn, turn.all_tokens),
            "conversation": (self._limits.conversation, conversation.usage.all_tokens),
        }
        if self._limits.day is not None:
            midnight = time.time() // _DAY * _DAY
            used["day"] = (self._limits.day, await self._conversations.tokens_since(conversation.principal, midnight))
        for period, (limit, tokens) in used.items():
            if limit is None:
                continue
            if limit - tokens - prompt < 1:
                raise BudgetExceeded(period, limit, tokens, prompt + 1)
            max_tokens = min(max_tokens, limit - tokens - prompt)
        return max_tokens

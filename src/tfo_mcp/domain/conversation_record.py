"""Where a conversation is, what moves it, and its row as storage keeps it.

The machine is the diagrams' "Conversation State Machine" with the edges that DESIGN §4 adds; Error → Error on a
further failure is no edge, only a count.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tfo_mcp.domain.identifiers import ConversationId
from tfo_mcp.domain.message import Usage


class ConversationState(Enum):
    """Where a conversation is."""

    CREATED = "created"
    ACTIVE = "active"
    WAITING = "waiting"
    ERROR = "error"
    CLOSED = "closed"


class ConversationTrigger(Enum):
    """What moves a conversation."""

    FIRST_MESSAGE = "first message"
    ADD_MESSAGE = "add message"
    REQUEST_SENT = "request sent"
    RESPONSE_RECEIVED = "response received"
    API_ERROR = "api error"
    CANCELLED = "cancelled"
    RECOVERED = "recovered"
    RETRY_SUCCESS = "retry success"
    MAX_RETRIES = "max retries"
    CLOSE = "close"


_NONE = Usage()

_S, _T = ConversationState, ConversationTrigger

CONVERSATION_TRANSITIONS = {
    (_S.CREATED, _T.FIRST_MESSAGE): _S.ACTIVE,
    (_S.CREATED, _T.CLOSE): _S.CLOSED,
    (_S.ACTIVE, _T.ADD_MESSAGE): _S.ACTIVE,
    (_S.ACTIVE, _T.REQUEST_SENT): _S.WAITING,
    (_S.ACTIVE, _T.CLOSE): _S.CLOSED,
    (_S.WAITING, _T.RESPONSE_RECEIVED): _S.ACTIVE,
    (_S.WAITING, _T.API_ERROR): _S.ERROR,
    (_S.WAITING, _T.CANCELLED): _S.ACTIVE,
    (_S.WAITING, _T.RECOVERED): _S.ACTIVE,
    (_S.ERROR, _T.RETRY_SUCCESS): _S.ACTIVE,
    (_S.ERROR, _T.MAX_RETRIES): _S.CLOSED,
    (_S.ERROR, _T.CLOSE): _S.CLOSED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationRecord:
    """A conversation's row as storage keeps it. Times in seconds since the epoch.

    Attributes:
        fence: rises with every commit (DESIGN decision 5).
        turns: how many there were.
        requests: how many were sent to Claude.
        open_request: the number of the one that has no outcome yet.
        usage: the sum of what the API said that the requests took.
        unknown_requests: of which nobody knows what they took, or took in the end.
        forked_from: the conversation whose messages up to position `forked_at` were taken over.
    """

    id: ConversationId
    principal: str
    model: str
    system_prompt: str | None
    state: ConversationState
    failures: int
    fence: int
    created_at: float
    updated_at: float
    turns: int = 0
    requests: int = 0
    open_request: int | None = None
    usage: Usage = _NONE
    unknown_requests: int = 0
    forked_from: str | None = None
    forked_at: int | None = None

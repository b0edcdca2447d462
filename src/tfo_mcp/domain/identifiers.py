"""Identifiers: typed strings that say what they name."""

from __future__ import annotations

import re
from typing import NewType
from uuid import uuid4

SessionId = NewType("SessionId", str)
ConversationId = NewType("ConversationId", str)

LOCAL_PRINCIPAL = "local"
"""Who acts on stdio: the person who started the process (DESIGN decision 8b)."""

CONVERSATION_URI = "conversation://"
"""What the URI of each conversation begins with; its identifier follows."""

_CONVERSATION_ID = re.compile(r"conv_[0-9a-f]{32}")


def new_session_id() -> SessionId:
    """A fresh identifier, `sess_` and 32 hexadecimal digits."""
    return SessionId(f"sess_{uuid4().hex}")


def new_conversation_id() -> ConversationId:
    """A fresh identifier, `conv_` and 32 hexadecimal digits."""
    return ConversationId(f"conv_{uuid4().hex}")


def parse_conversation_id(text: str) -> ConversationId | None:
    """`text` as a conversation's identifier, or None when it cannot be one."""
    return ConversationId(text) if _CONVERSATION_ID.fullmatch(text) else None

"""Sends as the handler makes them, for tests of what stands below it."""

from __future__ import annotations

from typing import Any

from tfo_mcp.domain.message import Text
from tfo_mcp.domain.turn import Send, TurnOptions


def a_send(text: str = "Hello", *, key: str | None = None, **options: Any) -> Send:  # noqa: ANN401  # its fields
    """One message; `options` are those of the turn."""
    given: dict[str, Any] = {"max_tokens": 100, **options}
    return Send(
        content=(Text(text),),
        options=TurnOptions(**given),
        fingerprint=text,
        idempotency_key=key,
    )

"""2.3 Event Publisher: hands events to their subscribers, in this process and at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict

from tfo_mcp.domain.events import (
    ClaudeRequestFailed,
    ConversationClosed,
    DomainEvent,
    SessionClosed,
    SessionCreated,
    SessionFailed,
)

_logger = logging.getLogger(__name__)


class InProcessPublisher:
    """Calls every subscriber of an event's type, in the order of the table.

    Args:
        subscribers: event type to those who want it. None of them may block.
    """

    def __init__(self, subscribers: Mapping[type[DomainEvent], Sequence[Callable[[DomainEvent], None]]]) -> None:
        self._subscribers = subscribers

    def publish(self, events: Iterable[DomainEvent]) -> None:
        """Hand events over, in order; a subscriber that fails is logged and harms no other."""
        for event in events:
            for subscriber in self._subscribers.get(type(event), ()):
                try:
                    subscriber(event)
                except Exception:
                    _logger.exception("a subscriber of %s failed", event.name)


_LEVELS: Mapping[type[DomainEvent], int] = {
    SessionCreated: logging.INFO,
    SessionFailed: logging.WARNING,
    SessionClosed: logging.INFO,
    ClaudeRequestFailed: logging.WARNING,
    ConversationClosed: logging.INFO,
}
"""Those that a person wants to see in the log; the others are logged at debug."""


def log_event(event: DomainEvent) -> None:
    """The subscriber that writes the log. Events hold no contents, so neither does the log."""
    level = _LEVELS.get(type(event), logging.DEBUG)
    if _logger.isEnabledFor(level):
        _logger.log(level, "%s", event.name, extra=asdict(event))

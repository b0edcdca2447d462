"""The row of an event, which both repositories write."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tfo_mcp.domain.events import DomainEvent


def event_row(event: DomainEvent) -> dict[str, Any]:
    """`event` as the events table has it: what its type adds to every event's fields is the payload."""
    payload = asdict(event)
    common = {name: payload.pop(name) for name in ("principal", "aggregate_id", "occurred_at")}
    return {**common, "name": event.name, "payload": payload}

"""What was recorded in JSON types, one shape for whoever shows it: tools, resources and the command line.

Times are ISO 8601 in UTC, durations milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from tfo_mcp.application.telemetry_queries import Failure, Summary
from tfo_mcp.domain.health import moment
from tfo_mcp.domain.recorded import OperationCount, RecordedEvent, RecordedSpan

View = dict[str, Any]

_MOST_ATTEMPTS: Final = 50
"""HTTP requests to Claude that are told of one call."""


def count_view(count: OperationCount) -> View:
    """One kind and name; tokens only where there are any."""
    view: View = {
        "kind": count.kind,
        "name": count.name,
        "calls": count.calls,
        "errors": count.errors,
        "cancelled": count.cancelled,
        **{f"p{percent}_ms": milliseconds(value) for percent, value in count.percentiles.items()},
        "longest_ms": milliseconds(count.longest),
        "errors_by_type": dict(sorted(count.errors_by_type.items(), key=lambda item: -item[1])),
    }
    if count.kind == "claude":
        view["tokens"] = {
            "input": count.input_tokens,
            "output": count.output_tokens,
            "cache_read": count.cache_read_tokens,
            "cache_write": count.cache_write_tokens,
        }
    return view


def summary_view(summary: Summary) -> View:
    """All counts of a window."""
    return {
        "since": moment(summary.since),
        "until": moment(summary.until),
        "operations": [count_view(count) for count in summary.counts],
    }


def call_view(span: RecordedSpan) -> View:
    """An operation as it stands in a list of calls."""
    return {
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "name": span.name,
        "tool": span.tool,
        "started_at": moment(span.started_at),
        "duration_ms": milliseconds(span.duration),
        "outcome": span.outcome,
        "error_type": span.error_type,
    }


def span_view(span: RecordedSpan) -> View:
    """An operation with all that is known of it; what is not known is left out."""
    known: Mapping[str, Any] = {
        "parent_id": span.parent_id,
        "kind": span.kind,
        "method": span.method,
        "session_id": span.session_id,
        "conversation_id": span.conversation_id,
        "model": span.model,
        "input_tokens": span.input_tokens,
        "output_tokens": span.output_tokens,
        "attributes": span.attributes,
        "events": [event_view(event) for event in span.events],
    }
    told = {**call_view(span), **known}
    return {name: value for name, value in told.items() if value not in (None, {}, [])}


def span_within(span: RecordedSpan, room: int) -> View:
    """`span_view`; where it is more than `room` bytes of JSON, without events and then attributes, as `left_out` says.

    A library may say as much as it likes in them.
    """
    view = span_view(span)
    for name in ("events", "attributes"):
        if len(json.dumps(view)) <= room:
            break
        if view.pop(name, None) is not None:
            view["left_out"] = [*view.get("left_out", []), name]
    return view


def event_view(event: RecordedEvent) -> View:
    """A point in time within an operation."""
    return {"at": moment(event.at), "name": event.name, "attributes": event.attributes}


def failure_view(failure: Failure, room: int) -> View:
    """Why a call failed; its operations as in `span_within`, and the last of its requests to Claude."""
    worked, attempts = failure.worked, failure.attempts[-_MOST_ATTEMPTS:]
    return {
        "call": span_within(failure.call, room),
        "stage": failure.stage,
        "cause": span_within(failure.cause, room),
        "meaning": failure.meaning,
        "claude_attempts": [event_view(event) for event in attempts],
        "claude_attempts_left_out": len(failure.attempts) - len(attempts),
        "last_worked_at": None if worked is None else moment(worked.started_at + worked.duration),
        "failed_since": failure.failed_since,
        "server_restarted_since": failure.restarted,
        "changed_since": [{"what": what, "from": was, "to": now} for what, was, now in failure.changes],
    }


def milliseconds(seconds: float) -> float:
    """With three digits behind the point."""
    return round(seconds * 1000, 3)

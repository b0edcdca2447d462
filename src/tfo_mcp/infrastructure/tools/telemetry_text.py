"""What the telemetry tools say to people and models, beside the structure for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfo_mcp.application import attributes as core
from tfo_mcp.domain.recorded import QueryAnswer, RecordedSpan


def summary_text(view: Mapping[str, Any]) -> str:
    """A line for each operation, failures below it."""
    lines = [f"From {view['since']} to {view['until']}:"]
    lines += [line for count in view["operations"] for line in _count_lines(count)] or ["  nothing was recorded"]
    return "\n".join([*lines, *_more(view)])


def _count_lines(count: Mapping[str, Any]) -> list[str]:
    told = [
        f"{count['calls']} calls",
        f"{count['errors']} errors",
        *([f"{count['cancelled']} cancelled"] if count["cancelled"] else []),
        *(f"{name} {count[f'{name}_ms']:g} ms" for name in ("p50", "p95", "p99")),
        f"longest {count['longest_ms']:g} ms",
    ]
    if "tokens" in count:
        told += [f"{many} {what.replace('_', ' ')} tokens" for what, many in count["tokens"].items()]
    lines = [f"  {count['kind']} {count['name']}: {', '.join(told)}"]
    if count["errors_by_type"]:
        lines.append(f"    errors: {', '.join(f'{name} {many}' for name, many in count['errors_by_type'].items())}")
    return lines


def slow_calls_text(view: Mapping[str, Any]) -> str:
    """A line for each call."""
    lines = [call_text(call) for call in view["calls"]] or ["No calls."]
    return "\n".join([*lines, *_more(view)])


def call_text(call: Mapping[str, Any]) -> str:
    """A call on one line."""
    failed = f" ({call['error_type']})" if call.get("error_type") else ""
    return (
        f"{call['duration_ms']:g} ms  {call['name']}  {call['outcome']}{failed}  "
        f"{call['started_at']}  trace_id {call['trace_id']}"
    )


def failure_text(view: Mapping[str, Any]) -> str:
    """Why a call failed, in sentences."""
    call, cause = view["call"], view["cause"]
    lines = [
        f"{call['name']} failed at {call['started_at']} after {call['duration_ms']:g} ms, trace_id {call['trace_id']}.",
        f"Stage: {view['stage']}.",
        f"Cause: {cause['name']} {cause['outcome']}, error type {cause.get('error_type')}.",
    ]
    if view["meaning"]:
        lines.append(f"That means: {view['meaning']}")
    attributes = {**call.get("attributes", {}), **cause.get("attributes", {})}
    if core.ERROR_ID in attributes:
        lines.append(f"The server's log has it as error {attributes[core.ERROR_ID]}.")
    if view["claude_attempts_left_out"]:
        lines.append(f"{view['claude_attempts_left_out']} earlier requests to Claude are left out.")
    lines += [_attempt_text(attempt) for attempt in view["claude_attempts"]]
    return "\n".join([*lines, *_since_it_worked(view)])


def _attempt_text(attempt: Mapping[str, Any]) -> str:
    known = attempt["attributes"]
    told = [f"HTTP {known[core.HTTP_STATUS]}"] if core.HTTP_STATUS in known else []
    told += [str(known[core.ERROR_TYPE])] if core.HTTP_STATUS not in known and core.ERROR_TYPE in known else []
    told += [f"request id {known[core.CLAUDE_REQUEST_ID]}"] if core.CLAUDE_REQUEST_ID in known else []
    return f"Request to Claude at {attempt['at']}: {', '.join(told) or 'no answer'}."


def _since_it_worked(view: Mapping[str, Any]) -> list[str]:
    many = f"{view['failed_since']} such call{'s have' if view['failed_since'] != 1 else ' has'} failed"
    if view["last_worked_at"] is None:
        return [f"No such call that worked is kept; {many}."]
    lines = [f"It last worked at {view['last_worked_at']}; {many} since then."]
    lines += [
        f"Changed since: {change['what']} from {change['from']!r} to {change['to']!r}."
        for change in view["changed_since"]
    ]
    if not view["changed_since"]:
        restarted = "the server was restarted" if view["server_restarted_since"] else "it is the same server process"
        lines.append(f"Neither version nor settings have changed since; {restarted}.")
    return lines


def trace_text(spans: Sequence[RecordedSpan], view: Mapping[str, Any]) -> str:
    """A trace as a tree."""
    return "\n".join([*tree_lines(spans), *_more(view)])


def tree_lines(spans: Sequence[RecordedSpan]) -> list[str]:
    """A line for each operation: when it began, how long it took, how it ended."""
    depths: dict[str, int] = {}
    lines: list[str] = []
    began = spans[0].started_at if spans else 0.0
    for span in spans:
        depth = depths[span.span_id] = depths.get(span.parent_id or "", -1) + 1
        failed = "" if span.error_type is None else f" ({span.error_type})"
        at, took = (span.started_at - began) * 1000, span.duration * 1000
        lines.append(f"{'  ' * depth}{span.name}  +{at:.1f} ms, {took:.3f} ms, {span.outcome}{failed}")
    return lines


def table_text(answer: QueryAnswer) -> str:
    """Columns and rows, separated by tabs."""
    rows = [answer.columns, *answer.rows]
    lines = ["\t".join("" if value is None else str(value).replace("\t", " ") for value in row) for row in rows]
    return "\n".join([*lines, *([] if answer.complete else ["There are more rows: use LIMIT and OFFSET."])])


def _more(view: Mapping[str, Any]) -> list[str]:
    return [] if view["next_start"] is None else [f"There is more: continue with start {view['next_start']}."]
